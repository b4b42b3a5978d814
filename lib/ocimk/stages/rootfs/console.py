"""process.terminal: a pseudoterminal of the container's own devpts, its end bound to /dev/console."""

from __future__ import annotations

import _stat as st
import fcntl
import posix
from _struct import pack

from ...errors import Error
from ...linux import mount as m
from ...linux.openat2 import O_PATH, Held, create, find, make_directories

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .work import Work

# <asm-generic/ioctls.h>
_TIOCSWINSZ = 0x5414
_TIOCSPTLCK = 0x40045431
_TIOCGPTPEER = 0x5441

_PTMX = posix.makedev(5, 2)
_PTMX_INODE = 2
_PTS_MAJORS = range(136, 144)

_MAKE = "process.terminal: make a pseudoterminal"
_OPEN = posix.O_RDWR | posix.O_NOCTTY | posix.O_CLOEXEC


def apply(work: Work) -> None:
    """Open the pair and bind it. Sets folder.fds "ptmx" (ours) and "console" (the container's). Raises
    Error."""
    ptmx, peer = open_pair(work.root, work.config["process"].get("consoleSize"))
    try:
        _bind(work, peer)
    except OSError as problem:
        raise Error(_MAKE, problem) from None
    work.folder.fds["ptmx"] = ptmx
    work.folder.fds["console"] = peer


def open_pair(root: int, size: dict[str, Any] | None) -> tuple[int, int]:
    """A terminal of the devpts below the descriptor *root*: our end (the master) and the container's. Raises
    Error."""
    ptmx = _open_ptmx(root)
    try:
        fcntl.ioctl(ptmx, _TIOCSPTLCK, pack("i", 0))
        peer = fcntl.ioctl(ptmx, _TIOCGPTPEER, _OPEN)
        _check_peer(peer)
        _resize(ptmx, size)
    except OSError as problem:
        raise Error(_MAKE, problem) from None
    return ptmx, peer


def _open_ptmx(root: int) -> int:
    """The container's /dev/pts/ptmx, proven to be one before it is opened: opening alone can do harm
    (CVE-2025-52565)."""
    doing = "process.terminal: open /dev/pts/ptmx"
    try:
        fd = find(root, b"/dev/pts/ptmx", O_PATH | posix.O_NOFOLLOW)
    except OSError as problem:
        raise Error(doing, problem, "mounts[] needs an entry of type devpts at /dev/pts") from None
    with Held(fd):
        status = posix.fstat(fd)
        genuine = m.magic(fd) == m.DEVPTS and status.st_ino == _PTMX_INODE
        if not genuine or not st.S_ISCHR(status.st_mode) or status.st_rdev != _PTMX:
            raise Error(doing, "it is not the ptmx of a devpts", "mounts[] needs an entry of type devpts at /dev/pts")
        try:
            return posix.open(m.of_descriptor(fd), _OPEN)
        except OSError as problem:
            raise Error(doing, problem, "its options need ptmxmode=0666") from None


def _check_peer(fd: int) -> None:
    status = posix.fstat(fd)
    if m.magic(fd) != m.DEVPTS or not st.S_ISCHR(status.st_mode) or posix.major(status.st_rdev) not in _PTS_MAJORS:
        raise Error("process.terminal", "the pseudoterminal is not on a devpts")


def _resize(fd: int, size: dict[str, Any] | None) -> None:
    if not size:
        return
    rows, columns = int(size.get("height") or 0), int(size.get("width") or 0)
    if not (0 <= rows < 1 << 16 and 0 <= columns < 1 << 16):
        raise Error("process.consoleSize", f"{columns}x{rows} is out of range")
    fcntl.ioctl(fd, _TIOCSWINSZ, pack("4H", rows, columns, 0, 0))


def _bind(work: Work, peer: int) -> None:
    """Mount the container's end on /dev/console, which is made when missing and never followed. Raises
    OSError, Error."""
    with Held(make_directories(work.root, b"/dev")) as dev:
        try:
            create(dev, b"console", 0o666)
        except FileExistsError:
            pass
        with Held(posix.open(b"console", O_PATH | posix.O_NOFOLLOW, dir_fd=dev)) as target:
            if st.S_IFMT(posix.fstat(target).st_mode) in (st.S_IFLNK, st.S_IFDIR):
                raise Error("process.terminal: mount /dev/console", "a link or directory is there")
            with Held(m.open_tree(peer, b"")) as copy:
                m.move_mount(copy, target)

"""Changing the root: the last act on the file system. Called by ``oci-mount --enter`` and by
oci-exec-fifo."""

from __future__ import annotations

import _stat as st
import errno
import posix

from ...errors import Error
from ...linux import mount as m
from ...linux.namespaces import leave_chroot
from ...linux.openat2 import O_PATH, Held, find
from . import plan
from .options import PROPAGATION
from .work import change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...container.folder import Folder

LATE = "readonly-"
"""How the names in folder.fds begin of mounts that are to be made read-only only now (hooks may write
until here)."""

_NULL = posix.makedev(1, 3)


def enter(folder: Folder, no_pivot: bool = False, propagation: str = "") -> None:
    """Make folder.fds["root"] the root and working directory of this process (and its mount namespace).
    Raises Error.

    no_pivot     move the mount and chroot(2), for hosts whose root is an initramfs; less safe
    propagation  linux.rootfsPropagation, which the new root gets
    """
    root = folder.fds.get("root", -1)
    if root < 0:
        raise Error("change the root", "the root filesystem is not mounted", "oci-mount apply comes first")
    if no_pivot and "private" in propagation:
        raise Error("linux.rootfsPropagation", f"{propagation} is not safe without pivot_root")
    streams = [fd for fd in (0, 1, 2) if _is_null(fd)]
    if streams and plan.needs_dev(plan.entries(folder.config, folder.bundle)):
        _own_null(root, streams)
    try:
        if plan.namespace(folder.config, "mount") is None:
            _chroot(root)
        else:
            # Or the host's root would stay in the container's namespace, and who joins that would begin there.
            leave_chroot()
            if no_pivot:
                from . import nopivot

                nopivot.move(root)
                _chroot(root)
            else:
                pivot(root)
    except OSError as problem:
        hint = "the host's root may be an initramfs: use --no-pivot" if problem.errno == errno.EINVAL else ""
        raise Error("change the root", problem, "" if no_pivot else hint) from None
    _finish(folder, root, propagation)


def pivot(root: int) -> None:
    """pivot_root(2) without a directory for the old root: it comes to lie on the new one and is taken off
    there."""
    with Held(posix.open("/", O_PATH | posix.O_DIRECTORY)) as old:
        posix.fchdir(root)
        m.pivot_root(b".", b".")
        posix.fchdir(old)
        # What is unmounted now must not vanish from the host too.
        m.mount(None, b".", None, m.MS_SLAVE | m.MS_REC)
        m.umount(b".", m.MNT_DETACH)
    posix.chdir("/")


def _chroot(root: int) -> None:
    posix.fchdir(root)
    posix.chroot(".")
    posix.chdir("/")


def _finish(folder: Folder, root: int, propagation: str) -> None:
    flag = PROPAGATION.get(propagation, 0)
    try:
        if flag and not flag & (m.MS_PRIVATE | m.MS_SLAVE):
            change(root, propagation=flag & ~m.MS_REC, recursive=bool(flag & m.MS_REC))
        for name in [name for name in folder.fds if name.startswith(LATE)]:
            with Held(folder.fds.pop(name)) as fd:
                make_readonly(fd)
    except OSError as problem:
        raise Error("finish the new root", problem) from None


def make_readonly(fd: int) -> None:
    """Make the mount read-only; while someone has a file open for writing (EBUSY) it is tried again.
    Raises OSError."""
    for left in range(4, -1, -1):
        try:
            change(fd, m.ATTR_RDONLY)
            return
        except OSError as problem:
            if problem.errno != errno.EBUSY or not left:
                raise
        import time

        time.sleep(0.1)


def _own_null(root: int, streams: list[int]) -> None:
    """Where our standard streams are the host's /dev/null let them be the container's: no file of the host
    stays open."""
    try:
        with Held(find(root, b"/dev/null", O_PATH | posix.O_NOFOLLOW)) as found:
            if not _is_null(found):
                raise Error("/dev/null of the container", "is not the null device")
            with Held(posix.open(m.of_descriptor(found), posix.O_RDWR | posix.O_CLOEXEC)) as null:
                for fd in streams:
                    posix.dup2(null, fd)
    except OSError as problem:
        raise Error("open /dev/null of the container", problem) from None


def _is_null(fd: int) -> bool:
    try:
        status = posix.fstat(fd)
    except OSError:
        return False
    return st.S_ISCHR(status.st_mode) and status.st_rdev == _NULL

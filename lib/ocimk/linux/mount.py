"""The mount system calls, by descriptor: open_tree(2), move_mount(2), fsopen(2), fsconfig(2), fsmount(2),
mount_setattr(2), and the classic mount(2), umount2(2), pivot_root(2). No policy; every failure is an
OSError."""

from __future__ import annotations

import posix
import sys
from _struct import Struct

from ..native import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    Parameter = tuple[bytes, bytes | int | None]

_call = _native.syscall
_NR = _native.NR

AT_FDCWD = -100
AT_SYMLINK_NOFOLLOW = 0x100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = posix.O_CLOEXEC

# <linux/mount.h>, flags of mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_SYNCHRONOUS = 16
MS_REMOUNT = 32
MS_MANDLOCK = 64
MS_DIRSYNC = 128
MS_NOSYMFOLLOW = 256
MS_NOATIME = 1024
MS_NODIRATIME = 2048
MS_BIND = 4096
MS_MOVE = 8192
MS_REC = 16384
MS_SILENT = 32768
MS_UNBINDABLE = 1 << 17
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MS_RELATIME = 1 << 21
MS_I_VERSION = 1 << 23
MS_STRICTATIME = 1 << 24
MS_LAZYTIME = 1 << 25

# attributes of fsmount(2) and mount_setattr(2)
ATTR_RDONLY = 0x1
ATTR_NOSUID = 0x2
ATTR_NODEV = 0x4
ATTR_NOEXEC = 0x8
ATTR_ATIME = 0x70
ATTR_RELATIME = 0x0
ATTR_NOATIME = 0x10
ATTR_STRICTATIME = 0x20
ATTR_NODIRATIME = 0x80
ATTR_IDMAP = 0x100000
ATTR_NOSYMFOLLOW = 0x200000

MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

_MOVE_F_EMPTY_PATH = 0x4
_MOVE_T_EMPTY_PATH = 0x40

_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6

STRING_LIMIT = 255
"""The longest value that fsconfig(2) takes; mount(2) takes a page of options in all."""

# <linux/magic.h>
PROC = 0x9FA0
SYSFS = 0x62656572
TMPFS = 0x01021994
DEVPTS = 0x1CD1
CGROUP = 0x27E0EB
CGROUP2 = 0x63677270

_STATX_ATTR_MOUNT_ROOT = 0x2000
_STATX_MNT_ID = 0x1000
_STATX_MNT_ID_UNIQUE = 0x4000
_MNT_ID_AT = 0x90

_mount_attr = Struct("=4Q").pack


def knows_pidns(namespace: int) -> bool:
    """Whether a procfs of another pid namespace than our own can be mounted (option pidns, Linux 6.17)."""
    try:
        context = _call(_NR["fsopen"], b"proc", 1)
    except OSError:
        return False
    try:
        _call(_NR["fsconfig"], context, _FSCONFIG_SET_FD, b"pidns", None, namespace)
    except OSError:
        return False
    finally:
        posix.close(context)
    return True


class FilesystemError(OSError):
    """A filesystem that could not be made; *detail* is what the kernel says beyond the errno, may be
    empty."""

    def __init__(self, number: int, detail: str) -> None:
        super().__init__(number, posix.strerror(number))
        self.detail = detail


def open_tree(dirfd: int, path: bytes, recursive: bool = False, clone: bool = True, nofollow: bool = False) -> int:
    """A descriptor (as of O_PATH) of a detached copy of the mount, or subtree of it, at *path*; of *dirfd*
    itself when *path* is empty. A link at its end is taken itself with *nofollow*. Raises OSError."""
    flags = OPEN_TREE_CLOEXEC | (OPEN_TREE_CLONE if clone else 0) | (AT_SYMLINK_NOFOLLOW if nofollow else 0)
    flags |= (AT_RECURSIVE if recursive else 0) | (0 if path else AT_EMPTY_PATH)
    return _call(_NR["open_tree"], dirfd, path, flags)


def move_mount(fd: int, target: int) -> None:
    """Attach the mount *fd* (or move it, when attached already) onto the file that *target* refers to."""
    _call(_NR["move_mount"], fd, b"", target, b"", _MOVE_F_EMPTY_PATH | _MOVE_T_EMPTY_PATH)


def mount_setattr(
    fd: int, add: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False, userns: int = 0
) -> None:
    """Change the mount *fd*: attributes ATTR_*, propagation MS_*, and with ATTR_IDMAP its idmapping.

    Raises OSError: ENOSYS before Linux 5.12, EPERM where a flag is locked.
    """
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    attr = _mount_attr(add, clear, propagation, userns)
    _call(_NR["mount_setattr"], fd, b"", flags, attr, len(attr))


def new_filesystem(kind: bytes, parameters: Sequence[Parameter], attributes: int) -> int:
    """A detached mount of a filesystem of this type.

    A parameter is a name and its value, None for a flag, a number for a descriptor. Raises FilesystemError with the
    kernel's words.
    """
    try:
        context = _call(_NR["fsopen"], kind, 1)
    except OSError as problem:
        raise FilesystemError(problem.errno or 0, "") from None
    at = b""
    try:
        for name, value in parameters:
            at = name
            if isinstance(value, int):
                _call(_NR["fsconfig"], context, _FSCONFIG_SET_FD, name, None, value)
                continue
            command = _FSCONFIG_SET_FLAG if value is None else _FSCONFIG_SET_STRING
            _call(_NR["fsconfig"], context, command, name, value, 0)
        at = b""
        _call(_NR["fsconfig"], context, _FSCONFIG_CMD_CREATE, None, None, 0)
        return _call(_NR["fsmount"], context, 1, attributes)
    except OSError as problem:
        detail = _messages(context) or (f"option {at.decode('utf-8', 'replace')}" if at else "")
        raise FilesystemError(problem.errno or 0, detail) from None
    finally:
        posix.close(context)


def _messages(context: int) -> str:
    """What the filesystem context has to say of its failure: lines "e TEXT" (errors), "w TEXT", "i TEXT"."""
    said: list[str] = []
    try:
        while len(said) < 8:
            line = posix.read(context, 1024).decode("utf-8", "replace").strip()
            if line.startswith("e "):
                said.append(line[2:])
    except OSError:
        pass
    return "; ".join(said)


def mount(source: bytes | None, target: bytes, kind: bytes | None, flags: int, data: bytes | None = None) -> None:
    """mount(2). Raises OSError."""
    _call(_NR["mount"], source, target, kind, flags, data)


def umount(target: bytes, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    _call(_NR["umount2"], target, flags)


def pivot_root(new: bytes, old: bytes) -> None:
    """pivot_root(2). Raises OSError."""
    _call(_NR["pivot_root"], new, old)


def magic(fd: int) -> int:
    """The type of the filesystem that *fd* is on: PROC, SYSFS, ... See statfs(2)."""
    buffer = bytearray(256)
    _call(_NR["fstatfs"], fd, buffer)
    first = int.from_bytes(buffer[:4], sys.byteorder)
    # A long: its low half comes first, or (big-endian, 64 bits) second.
    return first or int.from_bytes(buffer[4:8], sys.byteorder)


def mount_id(fd: int) -> int:
    """The identity of the mount that *fd* is on, never used twice where the kernel (6.8) can tell; 0 if it
    cannot."""
    buffer = bytearray(256)
    wanted = _STATX_MNT_ID | _STATX_MNT_ID_UNIQUE
    _call(_NR["statx"], fd, b"", AT_EMPTY_PATH, wanted, buffer)
    if not int.from_bytes(buffer[:4], sys.byteorder) & wanted:
        return 0
    return int.from_bytes(buffer[_MNT_ID_AT : _MNT_ID_AT + 8], sys.byteorder)


def is_mount_root(fd: int) -> bool:
    """Whether *fd* is the root of a mount, not a file further in. See statx(2)."""
    buffer = bytearray(256)
    _call(_NR["statx"], fd, b"", AT_EMPTY_PATH, 0, buffer)
    return bool(int.from_bytes(buffer[8:16], sys.byteorder) & _STATX_ATTR_MOUNT_ROOT)


def of_descriptor(fd: int) -> bytes:
    """The path of an open file for calls that know only paths. It is a magic link: nothing is resolved by
    name."""
    return b"/proc/self/fd/%d" % fd

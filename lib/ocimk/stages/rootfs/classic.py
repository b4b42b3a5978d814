"""mount(2) on /proc/self/fd/N, for what the new calls cannot do: kernels before 5.12 (no mount_setattr), a
missing fsopen, flags and option strings that fsconfig(2) has no words for, and remounting a filesystem."""

from __future__ import annotations

import errno
import posix

from ...errors import Error
from ...linux import mount as m
from ...linux.openat2 import find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Entry
    from .work import Work

# Attribute of a mount, the flag of mount(2), and the flag that statvfs(3) shows it by (<linux/statfs.h>).
_FLAGS = (
    (m.ATTR_RDONLY, m.MS_RDONLY, 1),
    (m.ATTR_NOSUID, m.MS_NOSUID, 2),
    (m.ATTR_NODEV, m.MS_NODEV, 4),
    (m.ATTR_NOEXEC, m.MS_NOEXEC, 8),
    (m.ATTR_NOATIME, m.MS_NOATIME, 1024),
    (m.ATTR_NODIRATIME, m.MS_NODIRATIME, 2048),
    (m.ATTR_NOSYMFOLLOW, m.MS_NOSYMFOLLOW, 0x2000),
)
_ST_RELATIME = 4096


def missing(problem: OSError) -> bool:
    """Whether the kernel has not got the call."""
    return problem.errno == errno.ENOSYS


def change(fd: int, add: int, clear: int, propagation: int, recursive: bool) -> None:
    """What mount_setattr(2) does, on an attached mount. Raises OSError; ENOSYS for attributes of a whole
    tree."""
    path = m.of_descriptor(fd)
    if add or clear:
        if recursive:
            raise OSError(errno.ENOSYS, "mount_setattr, Linux 5.12, is needed for options on a whole tree")
        m.mount(None, path, None, m.MS_REMOUNT | m.MS_BIND | _flags(fd, add, clear))
    if propagation:
        m.mount(None, path, None, propagation | (m.MS_REC if recursive else 0))


def _flags(fd: int, add: int, clear: int) -> int:
    """The mount's flags, as they are and then changed: mount(2) wants all of them at once."""
    have = posix.fstatvfs(fd).f_flag
    flags = 0
    for attribute, flag, shown in _FLAGS:
        if add & attribute or (have & shown and not clear & attribute):
            flags |= flag
    # The access time is a choice of three; relatime and strictatime are no bits among the attributes.
    if clear & m.ATTR_ATIME:
        relative = not add & (m.ATTR_NOATIME | m.ATTR_STRICTATIME)
        strict = bool(add & m.ATTR_STRICTATIME)
    else:
        relative = bool(have & _ST_RELATIME)
        strict = not flags & m.MS_NOATIME and not relative
    return flags | (m.MS_RELATIME if relative else 0) | (m.MS_STRICTATIME if strict else 0)


def mount_filesystem(work: Work, entry: Entry, target: int, data: list[bytes], flags: int) -> int:
    """Mount a new filesystem onto *target*; returns a descriptor of the mount. Raises OSError, Error."""
    source = entry.source.encode("utf-8", "surrogateescape") or None
    kind = entry.kind.encode("utf-8", "surrogateescape")
    m.mount(source, m.of_descriptor(target), kind, flags, b",".join(data) or None)
    return reopen(work, target)


def reopen(work: Work, target: int) -> int:
    """The mount that now hides *target*, looked up again by its path inside the root."""
    path = work.path_of(target)
    fd = find(work.root, path)
    if m.mount_id(fd) == m.mount_id(target) or work.path_of(fd) != path:
        posix.close(fd)
        raise Error(path.decode("utf-8", "replace"), "it was moved while it was mounted on")
    return fd


def remount(entry: Entry, target: int, data: list[bytes]) -> None:
    """Change the options of the filesystem mounted at *target*. Raises OSError."""
    flags = entry.options.flags & ~(m.MS_BIND | m.MS_REC)
    kind = entry.kind.encode("utf-8", "surrogateescape") or None
    source = entry.source.encode("utf-8", "surrogateescape") or None
    m.mount(source, m.of_descriptor(target), kind, flags | m.MS_REMOUNT, b",".join(data) or None)

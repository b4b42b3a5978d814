"""tmpcopyup: what the image has where a tmpfs goes is copied into it first."""

from __future__ import annotations

import _stat as st
import errno
import posix

from ...linux import mount as m
from ...linux.openat2 import Held

_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW
_DIRECTORY = _READ | posix.O_DIRECTORY
_WRITE = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC
_CHUNK = 1 << 30


def copy(source: int, target: int, options: list[str]) -> None:
    """Copy the directory *source* into the root of the mount *target*, with owners, modes, times and
    attributes.

    Links stay links and nothing is followed; sockets are left out. The root keeps what the tmpfs's own
    options say. Raises OSError.
    """
    with (
        Held(posix.open(b".", _DIRECTORY, dir_fd=source)) as old,
        Held(posix.open(b".", _DIRECTORY, dir_fd=target)) as new,
    ):
        _contents(old, new)
        status = posix.fstat(old)
        if not any(word.startswith(("uid=", "gid=")) for word in options):
            posix.fchown(new, status.st_uid, status.st_gid)


def _contents(old: int, new: int) -> None:
    for text in posix.listdir(old):
        name = text.encode("utf-8", "surrogateescape")
        status = posix.stat(name, dir_fd=old, follow_symlinks=False)
        kind = st.S_IFMT(status.st_mode)
        if kind == st.S_IFSOCK:
            continue
        if kind == st.S_IFDIR:
            _directory(old, new, name)
        elif kind == st.S_IFREG:
            _file(old, new, name)
        elif kind == st.S_IFLNK:
            posix.symlink(posix.readlink(name, dir_fd=old), name, dir_fd=new)
        else:
            posix.mknod(name, status.st_mode, status.st_rdev, dir_fd=new)
        if kind in (st.S_IFLNK, st.S_IFCHR, st.S_IFBLK, st.S_IFIFO):
            posix.chown(name, status.st_uid, status.st_gid, dir_fd=new, follow_symlinks=False)
        posix.utime(name, ns=(status.st_atime_ns, status.st_mtime_ns), dir_fd=new, follow_symlinks=False)


def _directory(old: int, new: int, name: bytes) -> None:
    posix.mkdir(name, 0o700, dir_fd=new)
    with (
        Held(posix.open(name, _DIRECTORY, dir_fd=old)) as below,
        Held(posix.open(name, _DIRECTORY, dir_fd=new)) as made,
    ):
        _contents(below, made)
        _attributes(below, made)


def _file(old: int, new: int, name: bytes) -> None:
    with (
        Held(posix.open(name, _READ, dir_fd=old)) as data,
        Held(posix.open(name, _WRITE, 0o600, dir_fd=new)) as made,
    ):
        while posix.sendfile(made, data, None, _CHUNK):
            pass
        _attributes(data, made)


def _attributes(old: int, new: int) -> None:
    """Owner, mode and extended attributes; those that a tmpfs cannot hold are left out."""
    status = posix.fstat(old)
    posix.fchown(new, status.st_uid, status.st_gid)
    posix.fchmod(new, st.S_IMODE(status.st_mode))
    try:
        names = posix.listxattr(m.of_descriptor(old))
    except OSError:
        return
    for name in names:
        try:
            posix.setxattr(m.of_descriptor(new), name, posix.getxattr(m.of_descriptor(old), name))
        except OSError as problem:
            if problem.errno not in (errno.EOPNOTSUPP, errno.EPERM, errno.EINVAL):
                raise

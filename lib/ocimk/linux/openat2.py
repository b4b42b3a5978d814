"""Files below a root that may be hostile, found and made by descriptor with openat2(2).

Every path is taken as a process rooted there would take it: links and ``..`` never lead out, magic links
are refused. Paths are bytes; a descriptor returned is O_PATH and close-on-exec unless said otherwise;
failures are OSErrors.
"""

from __future__ import annotations

import errno
import posix
from _struct import Struct

from ..native import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Make = Callable[[int, bytes], None]

RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

O_PATH = posix.O_PATH | posix.O_CLOEXEC
DIRECTORY = O_PATH | posix.O_DIRECTORY

_CONFINED = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_RETRIES = 1000
_MAX_LINKS = 40

_how = Struct("=3Q").pack


class Held:
    """A descriptor that is closed at the end of a ``with`` block."""

    __slots__ = ("fd",)

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        posix.close(self.fd)


def openat2(dirfd: int, path: bytes, flags: int, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2). Raises OSError; EAGAIN (something was renamed while ``..`` was walked) is tried again."""
    how = _how(flags, mode, resolve)
    for _ in range(_RETRIES):
        try:
            return _native.syscall(_native.NR["openat2"], dirfd, path, how, len(how))
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, posix.strerror(errno.EAGAIN))


def find(root: int, path: bytes, flags: int = O_PATH, resolve: int = 0) -> int:
    """The file at *path* below *root*. *resolve* may add RESOLVE_NO_SYMLINKS and the like."""
    return openat2(root, path.lstrip(b"/") or b".", flags, 0, _CONFINED | resolve)


def make_directories(root: int, path: bytes, mode: int = 0o755) -> int:
    """The directory at *path*, made with those above it where missing (``mkdir -p``).

    A link that leads nowhere is followed and what it names is made, inside the root: images hold such links.
    """
    try:
        return find(root, path, DIRECTORY)
    except FileNotFoundError:
        return _walk(root, path, mode, _mkdir(mode), posix.O_DIRECTORY)


def make_file(root: int, path: bytes, mode: int = 0o644) -> int:
    """The file at *path*; made empty, with the directories above it, when nothing is there."""
    try:
        return find(root, path)
    except FileNotFoundError:
        return _walk(root, path, 0o755, lambda at, name: create(at, name, mode), 0)


def parent(root: int, path: bytes) -> tuple[int, bytes]:
    """The directory that *path* is in, made when missing, and the last name. Raises OSError EINVAL for the
    root."""
    above, _, name = path.rstrip(b"/").rpartition(b"/")
    if name in (b"", b".", b".."):
        raise OSError(errno.EINVAL, posix.strerror(errno.EINVAL))
    return make_directories(root, above), name


def create(directory: int, name: bytes, mode: int) -> None:
    """Make an empty file in the directory. Raises FileExistsError; a link is never followed."""
    flags = posix.O_CREAT | posix.O_EXCL | posix.O_NOFOLLOW | posix.O_CLOEXEC | posix.O_WRONLY
    posix.close(posix.open(name, flags, mode, dir_fd=directory))


def symlink(directory: int, name: bytes, target: bytes) -> None:
    """Make a link in the directory; whatever has that name already stays."""
    try:
        posix.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        pass


def _mkdir(mode: int) -> Make:
    return lambda at, name: posix.mkdir(name, mode, dir_fd=at)


def _walk(root: int, path: bytes, mode: int, make_last: Make, last_flags: int) -> int:
    """Go down *path* one name at a time and make what is missing, the last name with *make_last*."""
    todo = _names(path)
    done: list[bytes] = []
    here = find(root, b".", DIRECTORY)
    links = 0
    try:
        while todo:
            name = todo[0]
            last = len(todo) == 1
            where = b"/".join([*done, name])
            flags = O_PATH | (last_flags if last else posix.O_DIRECTORY)
            try:
                below = _step(root, where, flags, here, name, make_last if last else _mkdir(mode))
            except FileExistsError:
                links += 1
                if links > _MAX_LINKS:
                    raise OSError(errno.ELOOP, posix.strerror(errno.ELOOP)) from None
                todo, done, below = _follow(root, here, todo, done)
            else:
                todo = todo[1:]
                done.append(name)
            posix.close(here)
            here = below
    except BaseException:
        posix.close(here)
        raise
    return here


def _step(root: int, where: bytes, flags: int, here: int, name: bytes, make: Make) -> int:
    """Open what is at *where* (*name* in *here*), made when missing. FileExistsError: a link that leads
    nowhere."""
    try:
        return find(root, where, flags)
    except FileNotFoundError:
        make(here, name)
    return find(root, where, flags)


def _follow(root: int, here: int, todo: list[bytes], done: list[bytes]) -> tuple[list[bytes], list[bytes], int]:
    """Replace the first name, a link that leads nowhere, by what it says: (todo, done, directory to go on
    from)."""
    try:
        target = posix.readlink(todo[0], dir_fd=here)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        # No link any more: someone else made it meanwhile.
        return todo, done, posix.dup(here)
    if target.startswith(b"/"):
        return _names(target) + todo[1:], [], find(root, b".", DIRECTORY)
    return _names(target) + todo[1:], done, posix.dup(here)


def _names(path: bytes) -> list[bytes]:
    return [name for name in path.split(b"/") if name not in (b"", b".")]

"""The barrier between create and start: two FIFOs in the container's folder.

exec.fifo    the waiting image reads a byte from it; start writes the byte
exec.status  the image holds it open, closed on exec; start reads it: nothing but its end means that the program runs,
             anything else is what went wrong after the FIFO

Both are opened for reading and writing by the host's side before the first process is made: a FIFO opened so has never
"no other end", so nobody blocks and the image needs neither a path nor /proc. See fifo(7).
"""

from __future__ import annotations

import errno
import posix

from ..errors import Error
from . import names, sync
from .folder import Folder, read_all

_BOTH = posix.O_RDWR | posix.O_CLOEXEC | posix.O_NOFOLLOW


def make(folder: Folder) -> None:
    """Make the FIFOs and hand their descriptors along the chain as ``fds["exec.fifo"]`` and ``fds["exec.status"]``."""
    for name in (names.FIFO, names.VERDICT):
        path = f"{folder.path}/{name}"
        try:
            posix.mkfifo(path, 0o600)
        except FileExistsError:
            pass
        except OSError as problem:
            raise Error(f"make {path}", problem) from None
        folder.fds[name] = posix.open(path, _BOTH)


def close(folder: Folder) -> None:
    """Close our ends, which only the image is to hold."""
    for name in (names.FIFO, names.VERDICT):
        fd = folder.fds.pop(name, -1)
        if fd >= 0:
            posix.close(fd)


def release(folder: Folder) -> None:
    """Let the waiting image go on and wait until it has become the program.

    Raises Error with what the image reports, when it does not wait (any more), or when it ended without a word.
    """
    verdict = posix.open(f"{folder.path}/{names.VERDICT}", posix.O_RDONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    try:
        _write_byte(folder)
        posix.set_blocking(verdict, True)
        told = read_all(verdict).decode("utf-8", "surrogateescape")
    finally:
        posix.close(verdict)
    problem = sync.to_error(told)
    if problem is not None:
        raise problem


def _write_byte(folder: Folder) -> None:
    try:
        fd = posix.open(f"{folder.path}/{names.FIFO}", posix.O_WRONLY | posix.O_NONBLOCK | posix.O_CLOEXEC)
    except OSError as problem:
        if problem.errno in (errno.ENXIO, errno.ENOENT):
            cause = "nothing waits at its exec.fifo: it was started already or has ended"
            raise Error(f"container {folder.id}", cause) from None
        raise Error(f"open {folder.path}/{names.FIFO}", problem) from None
    try:
        posix.write(fd, b"\0")
    finally:
        posix.close(fd)


def drop(folder: Folder) -> None:
    """Remove the FIFOs: what has started cannot be started again."""
    folder.remove(names.FIFO)
    folder.remove(names.VERDICT)

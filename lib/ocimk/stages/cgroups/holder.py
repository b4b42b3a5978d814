"""A process that does nothing but be in a scope, for systemd makes no scope without one and ends it with its last: it
keeps the place until the container's first process is there.

It is made first, noted, and only then told to stay; not told, because its maker was killed, it ends. It holds no file
of its maker's. What ends it is :func:`dismiss`, or the unit's end.
"""

from __future__ import annotations

import _signal
import posix

from ...errors import Error
from ...linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ...container.folder import Folder

STAGE = "oci-cgroup"
KIND = "holder"
_END_MILLISECONDS = 5000


def make(folder: Folder) -> int:
    """Make and note one; its pid. Raises Error."""
    read, write = posix.pipe()
    pid = posix.fork()
    if pid == 0:
        _hold(read)
    try:
        folder.record(STAGE, KIND, f"{pid} {process.start_time(pid)}")
        posix.write(write, b"1")
    finally:
        posix.close(read)
        posix.close(write)
    return pid


def _hold(read: int) -> NoReturn:
    """What it does. Never returns."""
    try:
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
            _signal.signal(number, _signal.SIG_DFL)
        posix.setsid()
        posix.chdir("/")
        posix.dup2(read, 0)
        posix.closerange(1, posix.sysconf("SC_OPEN_MAX"))
        if posix.read(0, 1):
            posix.close(0)
            while True:
                _signal.pause()
    finally:
        posix._exit(0)


def noted(folder: Folder) -> list[str]:
    """Those in the ledger."""
    return [value for _, kind, value in folder.records(STAGE) if kind == KIND]


def dismiss(folder: Folder) -> None:
    """End those that are noted, and wait for their end. Raises Error."""
    for value in noted(folder):
        pid, started = map(int, value.split())
        if not process.end(pid, started, _END_MILLISECONDS):
            raise Error(f"end process {pid}, which holds the container's scope", "it does not end")
        folder.strike(STAGE, KIND, value)

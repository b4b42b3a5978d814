"""What a watcher knows of one container, and what it records of its end."""

from __future__ import annotations

import fcntl
import posix

from ..errors import Error
from . import names
from . import state as states
from .folder import Folder


class Container:
    """What the watcher knows of one container's folder."""

    __slots__ = (
        *("again", "broken", "freezer", "guess", "held", "name", "paused", "pid", "pidfd", "reached"),
        *("recorded", "retries", "role", "started", "wd"),
    )

    def __init__(self, name: str, wd: int) -> None:
        self.name = name
        self.wd = wd
        self.freezer = -1
        """The watch on its cgroup.events, -1 for none."""
        self.reached = -1
        """The last transition told, as an index of states.ORDER."""
        self.recorded = ""
        self.paused = False
        self.pid = 0
        self.started = 0
        self.role = ""
        """Which process is followed, by pid, start time and pidfd: the creator or the init."""
        self.pidfd = -1
        self.held: dict[str, int] | None = None
        """How the process ended, while somebody has the folder locked who may yet record what came before."""
        self.guess = False
        """Whether stopped was told because the creator has gone; should the creation go on, so do we."""
        self.retries = 0
        self.again = 0.0
        """When to look at the lock again (monotonic, seconds), so many more times."""
        self.broken = ""


def record_end(path: str, pid: int, started: int, how: dict[str, int]) -> bool:
    """Record in the folder's state how its first process (pid and start time) ended; whether that was done.

    Not when somebody has the folder locked (they know better), when another process is recorded by now, or
    when the folder is not ours to write to.
    """
    lock = _try_lock(path)
    if lock < 0:
        return False
    folder = Folder(path)
    try:
        live = folder.state.get("status") in ("created", "running")
        if not live or states.init(folder.state) != (pid, started):
            return False
        states.advance(folder, "stopped", {"exit": how})
    except (Error, OSError):
        return False
    finally:
        posix.close(lock)
    return True


def _try_lock(path: str) -> int:
    """The folder's lock if nobody has it, else -1. Never makes the file: the folder may be being removed."""
    try:
        fd = posix.open(f"{path}/{names.LOCK}", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    except OSError:
        return -1
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if posix.fstat(fd).st_nlink:
            return fd
    except OSError:
        pass
    posix.close(fd)
    return -1

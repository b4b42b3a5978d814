"""The processes of a cgroup and its sub-cgroups: listed, frozen, signalled, waited for; and the cgroup
removed.

Works on v1 and cgroup2 alike; which one a path is shows in its files. Waiting is by poll(2) on cgroup.events
where the kernel offers it (cgroup2), else by looking again after short, growing pauses.
"""

from __future__ import annotations

import errno
import posix
import select
import time

from . import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

SIGKILL = 9

_PAUSE_FIRST = 0.0005
_PAUSE_LAST = 0.05
_FREEZE_TRY = 0.5
_BATCH = 200
_ROUNDS = 1000
_GONE = (errno.ENOENT, errno.ENODEV)


def of_one(path: str) -> list[int]:
    """The processes of one cgroup, as our PID namespace numbers them. Raises OSError (ENOENT: no such
    cgroup).

    A threaded cgroup cannot tell its processes; its threads are taken then.
    """
    try:
        text = cgroup.read_file(f"{path}/cgroup.procs")
    except OSError as problem:
        if problem.errno != errno.EOPNOTSUPP:
            raise
        text = cgroup.read_file(f"{path}/cgroup.threads")
    return [int(word) for word in text.split()]


def of_tree(path: str) -> list[int]:
    """The processes of the cgroup and all below it. Raises OSError when the topmost cannot be read."""
    found = of_one(path)
    for child in cgroup.children(path):
        try:
            found += of_tree(child)
        except OSError as problem:
            if problem.errno not in _GONE:
                raise
    return found


def populated(path: str) -> bool:
    """Whether any process is in the cgroup or below it; False when the cgroup is gone. Raises OSError."""
    try:
        return bool(of_tree(path))
    except OSError as problem:
        if problem.errno in _GONE:
            return False
        raise


# ---- waiting -----------------------------------------------------------------------------------------------


def await_event(path: str, line: str, seconds: float) -> bool:
    """Wait until cgroup.events of a cgroup2 directory holds *line* ("populated 0"); False when time is up.

    True when the cgroup is gone. Raises OSError.
    """
    deadline = time.monotonic() + seconds
    try:
        fd = posix.open(f"{path}/cgroup.events", posix.O_RDONLY | posix.O_CLOEXEC)
    except FileNotFoundError:
        return True
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    try:
        while line not in posix.pread(fd, 4096, 0).decode().splitlines():
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            poll.poll(int(left * 1000) + 1)
    except OSError as problem:
        if problem.errno not in _GONE:
            raise
    finally:
        posix.close(fd)
    return True


def await_empty(path: str, seconds: float) -> bool:
    """Wait until no process is left in the cgroup and below; False when time is up. Raises OSError."""
    if cgroup.magic(path) == cgroup.MAGIC_V2:
        return await_event(path, "populated 0", seconds)
    return look_again(lambda: not populated(path), seconds)


def look_again(done: Callable[[], bool], seconds: float) -> bool:
    """Ask *done* again and again, after growing pauses, until it says yes or the time is up."""
    deadline = time.monotonic() + seconds
    pause = _PAUSE_FIRST
    while not done():
        if time.monotonic() >= deadline:
            return False
        time.sleep(pause)
        pause = min(pause * 1.5, _PAUSE_LAST)
    return True


# ---- freezing ----------------------------------------------------------------------------------------------


def freeze(path: str, seconds: float = 10.0) -> None:
    """Stop every process of the cgroup and below, and wait until all stand. Raises OSError (ETIMEDOUT)."""
    if cgroup.magic(path) != cgroup.MAGIC_V2:
        return freeze_v1(path, seconds)
    with cgroup.Group(path) as group:
        group.write("cgroup.freeze", "1")
    if not await_event(path, "frozen 1", seconds):
        thaw(path)
        raise OSError(errno.ETIMEDOUT, posix.strerror(errno.ETIMEDOUT))


def freeze_v1(path: str, seconds: float) -> None:
    """The same with the v1 freezer, which may stick half way while processes fork.

    It is told again at every look, which reaches the processes that came meanwhile, and thawed now and then
    for those that wait for one another. A cgroup left FREEZING would block its processes for ever, so failing
    ends with a thaw. Raises OSError (ETIMEDOUT).
    """

    def stands() -> bool:
        group.write("freezer.state", "FROZEN")
        return group.read("freezer.state") == "FROZEN\n"

    deadline = time.monotonic() + seconds
    with cgroup.Group(path) as group:
        try:
            while not look_again(stands, min(_FREEZE_TRY, seconds)):
                group.write("freezer.state", "THAWED")
                if time.monotonic() > deadline:
                    raise OSError(errno.ETIMEDOUT, posix.strerror(errno.ETIMEDOUT))
                time.sleep(_PAUSE_FIRST)
        except OSError:
            thaw_group(group)
            raise


def thaw(path: str) -> None:
    """Let every process of the cgroup run on. Raises OSError."""
    with cgroup.Group(path) as group:
        thaw_group(group)


def thaw_group(group: cgroup.Group) -> None:
    """The same for an opened cgroup of either version. Raises OSError."""
    try:
        group.write("cgroup.freeze", "0")
    except FileNotFoundError:
        group.write("freezer.state", "THAWED")


def frozen(path: str) -> bool:
    """Whether this very cgroup was told to freeze (an ancestor's freezing does not count); False where none
    can.

    Raises OSError.
    """
    try:
        with cgroup.Group(path) as group:
            if group.has("cgroup.freeze"):
                return group.read("cgroup.freeze") == "1\n"
            return group.read("freezer.self_freezing") == "1\n"
    except OSError as problem:
        if problem.errno in _GONE:
            return False
        raise


def standing(path: str) -> bool:
    """Whether processes put into this cgroup would stand still: it or an ancestor is frozen. Raises
    OSError."""
    with cgroup.Group(path) as group:
        for name, word in (("cgroup.events", "frozen 1"), ("freezer.state", "FROZEN")):
            try:
                return word in group.read(name).splitlines()
            except FileNotFoundError:
                continue
    return False


# ---- signalling --------------------------------------------------------------------------------------------


def kill(path: str) -> bool:
    """SIGKILL to all in the cgroup2 and below in one step, forks included (cgroup.kill, kernel 5.14).

    False when the kernel has no such file, or the cgroup is threaded, whose processes may reach beyond it. Raises
    OSError.
    """
    try:
        with cgroup.Group(path) as group:
            group.write("cgroup.kill", "1")
    except OSError as problem:
        if problem.errno not in (errno.ENOENT, errno.EOPNOTSUPP):
            raise
        return False
    return True


def signal(path: str, number: int) -> set[int]:
    """Send a signal to each process now in the cgroup and below; who got it. Raises OSError.

    A number read from cgroup.procs may have been given to a stranger when it is used. So all are pinned first
    by pidfd, and only those that are listed again after that, hence are the pinned ones, are signalled.
    """
    found = of_tree(path)
    sent: set[int] = set()
    for at in range(0, len(found), _BATCH):
        sent |= _signal_pinned(path, found[at : at + _BATCH], number)
    return sent


def _signal_pinned(path: str, pids: list[int], number: int) -> set[int]:
    from . import process

    pinned = {}
    try:
        for pid in pids:
            try:
                pinned[pid] = process.pidfd_open(pid)
            except OSError as problem:
                if problem.errno in (errno.EMFILE, errno.ENFILE):
                    raise
        there = set(of_tree(path)) & pinned.keys()
        for pid in there:
            try:
                process.pidfd_signal(pinned[pid], number)
            except ProcessLookupError:
                continue
        return there
    finally:
        for fd in pinned.values():
            posix.close(fd)


def kill_each(path: str) -> None:
    """SIGKILL to one process after the other, until a look finds nobody new: sure only while none can fork
    or where forks are slower than we are. Raises OSError."""
    known: set[int] = set()
    for _ in range(_ROUNDS):
        found = signal(path, SIGKILL)
        if found <= known:
            return
        known |= found


def kill_unforking(path: str, pids_path: str) -> None:
    """The same with the v1 pids controller (at *pids_path*) told meanwhile to allow no fork, so that none
    escapes. A process that forked just before is met by the second look. Raises OSError."""
    with cgroup.Group(pids_path) as group:
        limit = group.read("pids.max").strip()
        group.write("pids.max", "0")
        try:
            kill_each(path)
        finally:
            group.write("pids.max", limit)


# ---- removing ----------------------------------------------------------------------------------------------


def remove(path: str, seconds: float) -> list[int]:
    """Remove the cgroup and all below it, deepest first; the pids that are still there when the time is up
    ([]: removed).

    Processes that are just ending are waited for, others are left alone. A missing cgroup is fine. Raises
    OSError.
    """
    deadline = time.monotonic() + seconds
    pause = _PAUSE_FIRST
    while True:
        if _remove_now(path):
            return []
        left = deadline - time.monotonic()
        if left <= 0:
            if found := of_tree(path):
                return found
            raise OSError(errno.EBUSY, posix.strerror(errno.EBUSY))
        if cgroup.magic(path) == cgroup.MAGIC_V2 and not await_event(path, "populated 0", left):
            continue
        # Empty and yet busy: a sub-cgroup that was just made, or a v1 cgroup, which tells of nothing.
        time.sleep(pause)
        pause = min(pause * 1.5, _PAUSE_LAST)


def _remove_now(path: str) -> bool:
    """Try once; False when something in it is still busy."""
    try:
        posix.rmdir(path)
        return True
    except OSError as problem:
        # A read-only mount says EROFS before it looks whether there is anything to remove.
        if problem.errno == errno.ENOENT or (problem.errno == errno.EROFS and not cgroup.magic(path)):
            return True
        if problem.errno != errno.EBUSY:
            raise
    try:
        below = cgroup.children(path)
    except FileNotFoundError:
        return True
    gone = [_remove_now(child) for child in below]
    if not all(gone) or not below:
        return False
    return _remove_now(path)

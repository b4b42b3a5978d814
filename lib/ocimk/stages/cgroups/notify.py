"""What the kernel tells of a container's cgroups by itself: processes killed for lack of memory, and its end.

Everything is a descriptor to poll, with the function that says what has happened since. A file of a cgroup2 wakes
poll(2) by POLLPRI when it changes and when the cgroup is removed (cgroup-v2.rst, "Interface Files"); the v1 memory
controller counts in an eventfd, also when the cgroup is removed (cgroup-v1/memory.rst, "OOM Control").
"""

from __future__ import annotations

import errno
import posix
import select

from ...errors import Error
from ...linux import cgroup
from . import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    Source = Callable[[], int]

GONE = -1
"""What a source says when there is nothing to wait for any more."""

_NO_CGROUP = (errno.ENOENT, errno.ENODEV)


class Notices:
    """The sources of one container, by descriptor; close() gives them back.

    Each is asked for the number of OOM events since it was asked last; GONE: the container has no process, or no
    cgroup, any more.
    """

    def __init__(self, layout: Layout) -> None:
        """Begin to listen: all that happens from now on is told. Raises Error."""
        self.sources: dict[int, Source] = {}
        self.poll = select.poll()
        self._held: list[int] = []
        self._gone = False
        try:
            if path := layout.paths.get("memory", ""):
                self._memory_v1(path)
            elif layout.v2:
                self._memory_v2(layout.v2)
            if layout.v2:
                self._end_v2(layout.v2)
        except OSError as problem:
            self.close()
            if problem.errno in _NO_CGROUP:
                raise Error("listen to the container's cgroup", "container not running") from None
            raise Error("listen to the container's cgroup", problem) from None

    def close(self) -> None:
        """Give all descriptors back."""
        for fd in (*self.sources, *self._held):
            posix.close(fd)
        self.sources.clear()
        self._held.clear()

    def wait(self, milliseconds: int) -> int:
        """Wait for something to happen, at most so long: OOM events, or GONE after the last of them was told."""
        if self._gone:
            return GONE
        ready = [fd for fd, _ in self.poll.poll(milliseconds)]
        if not self.sources.keys() >= set(ready):
            raise BrokenPipeError(errno.EPIPE, posix.strerror(errno.EPIPE))
        told = [self.sources[fd]() for fd in ready]
        if GONE in told:
            # The end may be told before the kill that led to it.
            self._gone = True
            told += [source() for source in self.sources.values()]
        number = sum(max(one, 0) for one in told)
        return number or (GONE if GONE in told else 0)

    def beside(self, fd: int) -> None:
        """Let wait() raise BrokenPipeError when the reader of this descriptor goes away."""
        self.poll.register(fd, 0)

    # ---- sources -----------------------------------------------------------------------------------------------------

    def _memory_v1(self, path: str) -> None:
        with cgroup.Group(path) as group:
            control = group.open("memory.oom_control")
            self._held.append(control)
            counter = posix.eventfd(0, posix.EFD_CLOEXEC | posix.EFD_NONBLOCK)
            self._held.append(counter)
            group.write("cgroup.event_control", f"{counter} {control}")
        self._held.remove(counter)

        def told() -> int:
            try:
                number = posix.eventfd_read(counter)
            except BlockingIOError:
                number = 0
            try:
                posix.stat(f"{path}/cgroup.event_control")
            except FileNotFoundError:
                # The removal has counted one as well.
                return number - 1 if number > 1 else GONE
            return number

        self._add(counter, told, select.POLLIN)

    def _memory_v2(self, path: str) -> None:
        with cgroup.Group(path) as group:
            if not group.has("memory.events"):
                return
            fd = group.open("memory.events")
        known = [kills(fd)]

        def told() -> int:
            before = known[0]
            try:
                known[0] = kills(fd)
                whole = cgroup.read_file(f"{path}/memory.oom.group") == "1\n"
            except OSError:
                return GONE
            # A cgroup that is always killed as a whole dies once, however many processes that are.
            key = b"oom_group_kill" if whole and b"oom_group_kill" in before else b"oom_kill"
            return known[0].get(key, 0) - before.get(key, 0)

        self._add(fd, told, select.POLLPRI)

    def _end_v2(self, path: str) -> None:
        with cgroup.Group(path) as group:
            fd = group.open("cgroup.events")

        def told() -> int:
            try:
                return 0 if b"populated 1" in posix.pread(fd, 4096, 0) else GONE
            except OSError:
                return GONE

        self._add(fd, told, select.POLLPRI)

    def _add(self, fd: int, source: Source, events: int) -> None:
        self.sources[fd] = source
        self.poll.register(fd, events)


def kills(fd: int) -> dict[bytes, int]:
    """An opened memory.events: among others oom_kill (processes killed) and oom_group_kill (times that all were, from
    kernel 5.17 on). Raises OSError."""
    pairs = (line.split(b" ") for line in posix.pread(fd, 4096, 0).splitlines())
    return {key: int(value) for key, value in pairs}

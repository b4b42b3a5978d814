"""Starting a process in a running container and following it until it has become the program. See join_plan.py.

What it reports, one packet each, through a pipe whose other end is closed when the program is executed:

    via NUMBER     the process goes on as this child, which is in the cgroup
    in             that child lives
    pid NUMBER     it goes on as this child, which is in the container and ours
    born           that child lives
    ready          all is done but execve(2)
    errno, error   it failed (see container/sync.py)

Nothing is left of it when we are killed: before "ready" it ends of SIGPIPE, since nobody hears what it reports.
"""

from __future__ import annotations

import _signal
import posix
import time

from ..container import sync
from ..container.folder import Folder
from ..errors import Error
from ..linux import process
from ..native import image
from . import cgroups, environment, join_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from .child import Child
    from .join_plan import Target

_ENDING_SECONDS = 2.0
_PACKETS = posix.O_CLOEXEC | getattr(posix, "O_DIRECT", 0)
"""How a pipe is made that keeps apart what is written to it; see pipe(2)."""


class Wanted:
    """What is to be started where."""

    __slots__ = ("console", "kept", "listen", "process", "sub")

    def __init__(self, process: dict[str, Any], kept: int = 0, listen: int = 0) -> None:
        self.process = process
        self.kept = kept
        """How many descriptors after 2 are the program's."""
        self.listen = listen
        """How many of these are sockets that $LISTEN_FDS counts."""
        self.sub: dict[str, str] = {}
        """The sub-cgroup by controller, "*" for all, as cgroups.places() has it."""
        self.console = -1
        """The container's end of the terminal, which becomes the standard streams."""


class _Attempt:
    """One process on its way."""

    def __init__(self, folder: Folder, target: Target, wanted: Wanted, child: Child, born_there: bool) -> None:
        self.folder = folder
        self.target = target
        self.wanted = wanted
        self.child = child
        self.report = -1
        """Where we hear of it."""
        self.answer = -1
        """Where it hears of its id, when an agent is to be told of that."""
        self.helpers: list[int] = []
        self.said: set[str] = set()
        self.sub = sub = wanted.sub or cgroups.beside_init(folder, target.pid)
        self.apart = cgroups.apart(folder)
        self.cgroup = cgroups.clone_fd(folder, sub) if born_there and not self.apart else -1
        self.tasks = [] if self.apart else cgroups.join_files(folder, sub, cloned=self.cgroup >= 0)
        if (folder.config.get("linux") or {}).get("intelRdt") is not None:
            from . import resctrl

            self.tasks += cgroups.open_files(resctrl.files_to_join(folder))

    def spawn(self, words: list[str]) -> None:
        """Start the image. Raises Error."""
        self.report, report = posix.pipe2(_PACKETS)
        agent = self.folder.fds.get("seccomp", -1)
        told, self.answer = posix.pipe2(posix.O_CLOEXEC) if agent >= 0 else (-1, -1)
        passing = [report, told, self.cgroup, *[fd for _, fd in self.tasks]]
        try:
            entrance = join_plan.Entrance(self.folder, self.wanted.kept, self.wanted.process, self.target)
            entrance.report, entrance.told = report, told
            entrance.outside(self.tasks, self.cgroup)
            entrance.inside(words)
            code = image.seal(image.load(), entrance.plan.memory(report), "oci-exec")
            for fd in [*passing, agent, self.target.pidfd, self.target.root]:
                if fd >= 0:
                    posix.set_inheritable(fd, True)
            spawn = self.spawn_by_systemd if self.apart else _spawn
            self.helpers.append(spawn(code, self.folder.id, self.wanted.console))
            posix.close(code)
        finally:
            for fd in passing:
                if fd >= 0:
                    posix.close(fd)

    def spawn_by_systemd(self, code: int, name: str, console: int) -> int:
        """As _spawn, but it waits until systemd has moved it into the container's cgroup, as we may not."""
        from .cgroups import systemd

        sub = cgroups.places(cgroups.load(self.folder), self.sub)[""]
        read, write = posix.pipe()
        pid = posix.fork()
        if pid == 0:
            _become(code, name, console, read)
        posix.close(read)
        self.helpers.append(pid)
        try:
            systemd.attach(self.folder, pid, sub)
            posix.write(write, b"1")
        finally:
            posix.close(write)
        self.helpers.pop()
        return pid

    def follow(self, wait: Callable[[int], None] | None) -> Error | None:
        """Take in what it reports until it is the program; returns what it failed of."""
        while True:
            if wait is not None:
                wait(self.report)
            message = sync.receive(self.report)
            if not message:
                return None if self.child.ready else self._ended()
            problem = _problem(message)
            if problem is not None:
                return problem
            self._heard(message)

    def _heard(self, message: str) -> None:
        self.said.add(message)
        if message.startswith(join_plan.VIA):
            self.helpers.append(int(message[len(join_plan.VIA) :]))
        elif message.startswith(join_plan.PID):
            self.child.pid = int(message[len(join_plan.PID) :])
            self.child.pidfd = process.pidfd_open(self.child.pid)
            if self.answer >= 0:
                self._tell_id()
        elif message == join_plan.READY:
            self.child.ready = True

    def _tell_id(self) -> None:
        try:
            sync.send(self.answer, f"{self.child.pid:>10}")
        except BrokenPipeError:
            pass  # it has ended, as we shall hear

    def _ended(self) -> Error:
        """It ended without a word."""
        last = self.child.pid or self.helpers[-1]
        status = _collect(last)
        how = f"killed by signal {-status}" if status < 0 else f"exit status {status}"
        return Error("the process ended before it had become the program", how, _oom_hint(self.folder))

    def stillborn(self) -> bool:
        """Whether it died of being born in the cgroup: see cgroups.clone_fd."""
        return self.cgroup >= 0 and not self.child.pid and join_plan.IN not in self.said

    def collect(self) -> None:
        """Reap those that were only on the way."""
        self._close()
        for pid in self.helpers:
            _collect(pid)
        self.helpers.clear()

    def _close(self) -> None:
        for fd in (self.report, self.answer):
            if fd >= 0:
                posix.close(fd)
        self.report = self.answer = -1

    def give_up(self) -> None:
        """End all of it. One that a cgroup of v1 has frozen dies when it is thawed: we do not wait for that."""
        pids = [*self.helpers, self.child.pid] if self.child.pid else self.helpers
        for pid in pids:
            try:
                posix.kill(pid, _signal.SIGKILL)
            except ProcessLookupError:
                pass
        self._close()
        end = time.monotonic() + _ENDING_SECONDS
        while pids and time.monotonic() < end:
            pids = [pid for pid in pids if not _ended(pid)]
            if pids:
                time.sleep(0.001)


def start(
    folder: Folder, target: Target, wanted: Wanted, child: Child, wait: Callable[[int], None] | None = None
) -> None:
    """Start the process; when this returns it has become the program (or has already ended as such).

    wait  called with a descriptor, returns when there is something to read; it may raise Error to give up

    Sets child.pid, child.pidfd. Raises Error; then nothing is left of it.
    """
    process.collectable_children()
    if ((folder.config.get("linux") or {}).get("seccomp") or {}).get("listenerPath"):
        from . import seccomp_notify

        seccomp_notify.connect(folder)
    if wanted.console < 0 and posix.geteuid() == 0:
        process.own_streams(target.host_id("uid", int((wanted.process.get("user") or {}).get("uid") or 0)))
    words = environment.of(wanted.process, wanted.listen, target.root)
    for born_there in (True, False):
        attempt = _Attempt(folder, target, wanted, child, born_there)
        try:
            attempt.spawn(words)
            problem = attempt.follow(wait)
        except BaseException:
            attempt.give_up()
            raise
        if problem is None:
            attempt.collect()
            if "seccomp" in folder.fds:
                posix.close(folder.fds.pop("seccomp"))
            return
        again = attempt.stillborn()
        attempt.give_up()
        if not again:
            raise problem
    raise AssertionError("the second attempt is never stillborn")


def _spawn(code: int, name: str, console: int) -> int:
    """Execute the image, with the terminal as its standard streams if there is one. Raises Error."""
    streams = [(posix.POSIX_SPAWN_DUP2, console, fd) for fd in (0, 1, 2)] if console >= 0 else []
    defaults = _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}
    path = f"/proc/self/fd/{code}"
    try:
        return posix.posix_spawn(path, ["oci-exec", name], {}, file_actions=streams, setsigdef=defaults)
    except OSError as problem:
        raise Error("start the image", problem, "does /proc/sys/vm/memfd_noexec forbid it?") from None


def _become(code: int, name: str, console: int, read: int) -> NoReturn:
    """Execute the image in this process, once it is told to. Never returns."""
    try:
        if posix.read(read, 1):
            for fd in (0, 1, 2) if console >= 0 else ():
                posix.dup2(console, fd)
            for number in _signal.valid_signals() - {_signal.SIGKILL, _signal.SIGSTOP}:
                _signal.signal(number, _signal.SIG_DFL)
            posix.execve(code, ["oci-exec", name], {})
    finally:
        posix._exit(127)


def _problem(message: str) -> Error | None:
    """The failure that a message tells of, with what can be done about it."""
    problem = sync.to_error(message)
    if problem is None or not message.startswith("errno "):
        return problem
    number = int(message.split(" ", 2)[1])
    if problem.doing.startswith("enter the container") and number in (3, 12):  # ESRCH, ENOMEM
        problem.hint = "its first process has ended"
    elif problem.doing.startswith(("join ", "enter ")):
        problem.hint = problem.hint or cgroups.hint(number)
    return problem


def _oom_hint(folder: Folder) -> str:
    from .cgroups import live

    try:
        return live.oom_hint(folder)
    except Error:
        return ""


def _collect(pid: int) -> int:
    """Wait for the end of a child; returns its exit code, negative for a signal."""
    try:
        return posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    except ChildProcessError:
        return 0


def _ended(pid: int) -> bool:
    try:
        return posix.waitpid(pid, posix.WNOHANG)[0] != 0
    except ChildProcessError:
        return True

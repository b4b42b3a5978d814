"""oci exec: start another process in a container, and unless it is detached stay with it to its end."""

from __future__ import annotations

import _signal
import posix

from ..container import state as states
from ..container.folder import Folder
from ..errors import Error, internal
from ..linux import process as processes
from ..stages import child as children
from ..stages import join, join_plan, process_plan
from . import exec_process, plan
from .handover import check_console, write_pid_file
from .interrupt import ENDING, Interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket

    from ..cli.invocation import Invocation
    from .foreground import Foreground

FAILED = 255
"""The exit status of our own failures, which no program's is mistaken for."""

_SETTLING = 1000
"""Milliseconds that a process gets to become the program once a signal asks us to end."""


def main(invocation: Invocation) -> int:
    """The command; returns the program's exit status (128+n when signal n ended it). Raises Error, of status 255."""
    try:
        return _Execution(invocation).carry_out()
    except Exception as problem:
        failure = problem if isinstance(problem, Error) else internal(problem)
        failure.doing = f"exec failed: {failure.doing}"
        if failure.status <= 128:
            failure.status = FAILED
        raise failure from None


class _Execution:
    """One call of the command."""

    def __init__(self, invocation: Invocation) -> None:
        self.invocation = invocation
        self.detached = invocation.flag("detach")
        self.folder = plan.prepare(Folder.existing(invocation.root, invocation.args[0]), invocation)
        _check_state(states.status(self.folder), invocation.flag("ignore-paused"))
        process = exec_process.wanted(self.folder, invocation)
        check_console(bool(process.get("terminal")), invocation.text("console-socket"), self.detached)
        listen = plan.listen_fds()
        kept = process_plan.preserved(listen + invocation.number("preserve-fds"))
        self.wanted = join.Wanted(process, kept, listen)
        self.wanted.sub = exec_process.sub_cgroups(invocation.many("cgroup"))
        self.target = join_plan.Target(*states.init(self.folder.state))
        self.child = children.Child()
        self.pidfd_receiver = self._connect("pidfd-socket", "pidfd")

    def _connect(self, option: str, name: str) -> _socket.socket | None:
        path = self.invocation.text(option)
        return children.connect(path, name) if path else None

    def carry_out(self) -> int:
        """Start it, and stay with it or not."""
        if self.wanted.process.get("terminal"):
            self._open_terminal()
        if self.detached:
            with Interruptible():
                join.start(self.folder, self.target, self.wanted, self.child)
                self._tell()
            return 0
        from .foreground import Foreground

        with Foreground(self.child) as screen:
            join.start(self.folder, self.target, self.wanted, self.child, _Patience(screen).wait)
            if self.wanted.console >= 0:
                posix.close(self.wanted.console)  # else we would keep the terminal's end from being seen
            self._tell()
            return screen.stay()

    def _open_terminal(self) -> None:
        from ..stages.rootfs import console

        receiver = self._connect("console-socket", "/dev/ptmx")
        size = self.wanted.process.get("consoleSize")
        self.child.console, self.wanted.console = console.open_pair(self.target.root, size)
        if self.target.user_namespace and posix.geteuid() == 0:
            # The container's root gives it to the user; before that it must be his.
            posix.fchown(self.wanted.console, self.target.host_id("uid", 0), -1)
        if receiver is not None:
            children.send(receiver, self.child.console, "/dev/ptmx")
            posix.close(self.child.console)
            self.child.console = -1

    def _tell(self) -> None:
        """--pid-file and --pidfd-socket, now that the program runs. Raises Error after ending it."""
        try:
            if self.invocation.text("pid-file"):
                write_pid_file(self.invocation.text("pid-file"), self.child.pid)
            if self.pidfd_receiver is not None:
                children.send(self.pidfd_receiver, self.child.pidfd, "setns")
        except BaseException:
            processes.pidfd_signal(self.child.pidfd, _signal.SIGKILL)
            raise


class _Patience:
    """Waiting for the process to get there: as long as it takes, but not when we are asked to end."""

    def __init__(self, screen: Foreground) -> None:
        self.screen = screen
        self.asked = 0

    def wait(self, fd: int) -> None:
        """Return when the descriptor can be read. Raises Error once a signal has asked us to end and nothing more
        comes."""
        try:
            while came := self.screen.wait_readable(fd, _SETTLING if self.asked else -1):
                self.asked = self.asked or next((number for number in came if number in ENDING), 0)
        except TimeoutError:
            raise Error(f"interrupted by signal {self.asked}", status=128 + self.asked) from None


def _check_state(now: str, ignore_paused: bool) -> None:
    if now == "stopped":
        raise Error("cannot exec in a stopped container")
    if now == "paused" and not ignore_paused:
        raise Error("cannot exec in a paused container (use --ignore-paused to override)")
    if now == "creating":
        raise Error("cannot exec in a container that is being created")

"""Staying with a container's first process: signals passed on, a terminal carried over, its end awaited.

Signals arrive as bytes on a pipe (signal.set_wakeup_fd), so one poll(2) waits for them, for the end of the process
(a pidfd) and for the terminal; nothing is polled by time and no signal is lost between two looks.
"""

from __future__ import annotations

import _signal
import posix
import select

from ..errors import Error
from ..linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    from ..stages.child import Child
    from .notify import Notify
    from .terminal import Terminal

_OURS = {_signal.SIGKILL, _signal.SIGSTOP, _signal.SIGCHLD, _signal.SIGURG, _signal.SIGWINCH}
"""Not passed on: what cannot be caught, what is about ourselves, and the window, which becomes a resize."""

_FAULTS = {_signal.SIGSEGV, _signal.SIGBUS, _signal.SIGFPE, _signal.SIGILL}


class Foreground:
    """``with Foreground(child) as screen: ...; status = screen.stay()``.

    The child need not be there yet: signals that come before stay() is called are kept for it.
    """

    def __init__(self, child: Child) -> None:
        self.child = child
        self.pidfd = _pidfd(child)
        self.terminal: Terminal | None = None
        self.notify: Notify | None = None
        """Passes on that the container is ready; who waits for that then watches us, the main process."""
        self.statuses: dict[int, int] = {}
        self._kept = b""

    def __enter__(self) -> Foreground:
        self._wake, tell = posix.pipe2(posix.O_CLOEXEC | posix.O_NONBLOCK)
        self._tell = tell
        left = _FAULTS | {_signal.SIGKILL, _signal.SIGSTOP}
        if self.child.console >= 0:
            # In the background we stop at the terminal like every program, and go on when we are in front again.
            # SIGPIPE tells of our own writing then.
            left |= {_signal.SIGTTIN, _signal.SIGTTOU, _signal.SIGPIPE}
        for number in _signal.valid_signals() - left:
            _signal.signal(number, _wake_only)
        _signal.set_wakeup_fd(tell, warn_on_full_buffer=False)
        if self.child.console >= 0:
            from .terminal import Terminal

            self.terminal = Terminal(self.child.console)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, tb: TracebackType | None
    ) -> None:
        if self.terminal is not None:
            self.terminal.close()
        _signal.set_wakeup_fd(-1)

    def wait_readable(self, fd: int, milliseconds: int = -1) -> bytes:
        """Wait until the descriptor can be read (b"" then) or a signal has come (their numbers); what is to be passed
        on is kept for stay(). Raises TimeoutError."""
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        ready = dict(poll.poll(milliseconds))
        if not ready:
            raise TimeoutError
        if self._wake not in ready:
            return b""
        numbers = posix.read(self._wake, 4096)
        self._kept += numbers
        return numbers

    def stay(self) -> int:
        """Wait for the end; returns the exit status, 128+n when signal n ended it. Raises Error."""
        self.pidfd = self.pidfd if self.pidfd >= 0 else _pidfd(self.child)
        if self._kept:
            self._signals(self._kept)
            self._reap()
        poll = select.poll()
        poll.register(self._wake, select.POLLIN)
        if self.pidfd >= 0:
            poll.register(self.pidfd, select.POLLIN)
        if self.terminal is not None:
            self.terminal.register(poll)
        if self.notify is not None:
            self.notify.register(poll)
        while self.child.pid not in self.statuses:
            events = dict(poll.poll())
            if self._wake in events:
                self._signals(posix.read(self._wake, 4096))
            if self.terminal is not None:
                self.terminal.carry(events, poll)
            if self.notify is not None:
                self.notify.carry(events, posix.getpid())
            if self.pidfd in events or self._wake in events:
                self._reap()
            if self.pidfd in events and self.child.pid not in self.statuses:
                raise Error("wait for the container's first process", "it is not our child", "drop --no-subreaper")
        if self.terminal is not None:
            self.terminal.drain()
        return self.statuses[self.child.pid]

    def _signals(self, numbers: bytes) -> None:
        for number in numbers:
            if number == _signal.SIGWINCH and self.terminal is not None:
                self.terminal.resize()
            if number == _signal.SIGCONT and self.terminal is not None:
                self.terminal.resume()
            if number not in _OURS:
                self._pass_on(number)

    def _pass_on(self, number: int) -> None:
        try:
            process.pidfd_signal(self.pidfd, number)
        except ProcessLookupError:
            pass

    def _reap(self) -> None:
        """Collect every child that has ended; as subreaper we have inherited some."""
        while True:
            try:
                pid, status = posix.waitpid(-1, posix.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            code = posix.waitstatus_to_exitcode(status)
            self.statuses[pid] = code if code >= 0 else 128 - code


def _pidfd(child: Child) -> int:
    return child.pidfd if child.pidfd >= 0 else process.pidfd_of(child.pid, child.started)


def _wake_only(number: int, frame: object) -> None:
    """The byte on the pipe says it all."""

"""Carrying a terminal over: what is typed here reaches the container's terminal, what it prints is shown here."""

from __future__ import annotations

import errno
import fcntl
import posix
import select
import termios

from ..container.folder import write_all
from ..errors import Error, strerror

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 65536


class Terminal:
    """The host's terminal in raw mode on one side, the master of the container's on the other.

    Ours is wholly raw and the container's is left as it is, as ssh(1) does it: newlines are mapped once, in the
    container, where its programs can see and change it.
    """

    def __init__(self, master: int) -> None:
        self.master = master
        self.host = _host_terminal()
        self.before: list[Any] = termios.tcgetattr(self.host)
        self._shown = True
        """Whether there may be more to show."""
        self._typing = True
        """Whether more may be typed: our input has not ended."""
        self._typed = b""
        """What the container has not taken yet. While there is some, no more is read: were we to wait until it is
        taken, a program that waits for us to show what it prints would wait for ever."""
        posix.set_blocking(master, False)
        self.resume()

    def resume(self) -> None:
        """Take our terminal, at first and when we go on after having been stopped."""
        _raw(self.host, self.before)
        self.resize()

    def close(self) -> None:
        """Give the host's terminal back as it was, if it is still there."""
        try:
            _set(self.host, termios.TCSADRAIN, self.before)
        except Error:
            pass

    def resize(self) -> None:
        """Make the container's window as large as ours."""
        size = fcntl.ioctl(self.host, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def register(self, poll: select.poll) -> None:
        """Have the loop wait for what there is to do."""
        _watch(poll, self.master, (self._shown and select.POLLIN) | (bool(self._typed) and select.POLLOUT))
        _watch(poll, 0, select.POLLIN if self._typing and not self._typed else 0)

    def carry(self, events: dict[int, int], poll: select.poll) -> None:
        """Move what has come."""
        if events.get(self.master, 0) & ~select.POLLOUT:
            self._shown = self._show()
        if 0 in events:
            self._typed = posix.read(0, _CHUNK)
            self._typing = bool(self._typed)
        if self._typed:
            self._type()
        self.register(poll)

    def drain(self) -> None:
        """Show what is left after the end."""
        while self._shown:
            self._shown = self._show(last=True)

    def _show(self, last: bool = False) -> bool:
        """Show a part of what has come; whether there may be more."""
        try:
            data = posix.read(self.master, _CHUNK)
        except BlockingIOError:
            return not last
        except OSError:
            return False  # EIO: nobody has the other end open any more
        write_all(1, data)
        return bool(data)

    def _type(self) -> None:
        try:
            self._typed = self._typed[posix.write(self.master, self._typed) :]
        except BlockingIOError:
            pass
        except OSError:
            self._typing, self._typed = False, b""


def _watch(poll: select.poll, fd: int, events: int) -> None:
    """Wait for these events of the descriptor; for nothing, not even its end, when there are none."""
    if events:
        poll.register(fd, events)
        return
    try:
        poll.unregister(fd)
    except KeyError:
        pass


def _host_terminal() -> int:
    """Our terminal: a standard stream, else the controlling one. Raises Error."""
    for fd in (2, 1, 0):
        if posix.isatty(fd):
            return fd
    try:
        return posix.open("/dev/tty", posix.O_RDWR | posix.O_CLOEXEC)
    except OSError:
        hint = "set process.terminal to false, or use --detach with --console-socket"
        raise Error("process.terminal", "we have no terminal to connect it to", hint) from None


def _raw(fd: int, attributes: list[Any]) -> None:
    """cfmakeraw(3)."""
    iflag, oflag, cflag, lflag, ispeed, ospeed, cc = attributes
    off = termios.IGNBRK | termios.BRKINT | termios.PARMRK | termios.ISTRIP
    iflag &= ~(off | termios.INLCR | termios.IGNCR | termios.ICRNL | termios.IXON)
    oflag &= ~termios.OPOST
    lflag &= ~(termios.ECHO | termios.ECHONL | termios.ICANON | termios.ISIG | termios.IEXTEN)
    cflag = cflag & ~(termios.CSIZE | termios.PARENB) | termios.CS8
    cc = list(cc)
    cc[termios.VMIN], cc[termios.VTIME] = 1, 0
    _set(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])


def _set(fd: int, when: int, attributes: list[Any]) -> None:
    """tcsetattr(3). In the background it stops us until we are in front, which interrupts the call. Raises Error."""
    while True:
        try:
            termios.tcsetattr(fd, when, attributes)
            return
        except termios.error as problem:
            if problem.args[0] != errno.EINTR:
                raise Error("set the terminal's attributes", strerror(problem.args[0])) from None

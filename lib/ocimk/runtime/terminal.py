"""Carrying a terminal over: what is typed here reaches the container's terminal, what it prints is shown here."""

from __future__ import annotations

import fcntl
import posix
import select
import termios

from ..container.folder import write_all
from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 65536


class Terminal:
    """The host's terminal in raw mode on one side, the master of the container's on the other."""

    def __init__(self, master: int) -> None:
        self.master = master
        self.host = _host_terminal()
        self.before: list[Any] = termios.tcgetattr(self.host)
        self._open = True
        self._input = True
        _raw(self.host, self.before)
        _no_newline_mapping(master)
        self.resize()

    def close(self) -> None:
        """Give the host's terminal back as it was."""
        termios.tcsetattr(self.host, termios.TCSADRAIN, self.before)

    def resize(self) -> None:
        """Make the container's window as large as ours."""
        size = fcntl.ioctl(self.host, termios.TIOCGWINSZ, b"\0" * 8)
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, size)

    def register(self, poll: select.poll) -> None:
        """Have the loop wait for both sides."""
        poll.register(self.master, select.POLLIN)
        poll.register(0, select.POLLIN)

    def carry(self, events: dict[int, int], poll: select.poll) -> None:
        """Move what has come."""
        if self.master in events and not self._show():
            poll.unregister(self.master)
        if self._input and 0 in events:
            self._type(poll)

    def drain(self) -> None:
        """Show what is left after the end."""
        posix.set_blocking(self.master, False)
        while self._open and self._show():
            pass

    def _show(self) -> bool:
        try:
            data = posix.read(self.master, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:
            data = b""  # EIO: nobody has the other end open any more
        if not data:
            self._open = False
            return False
        write_all(1, data)
        return True

    def _type(self, poll: select.poll) -> None:
        data = posix.read(0, _CHUNK)
        if not data:
            self._input = False
            poll.unregister(0)
            return
        try:
            write_all(self.master, data)
        except OSError:
            self._input = False
            poll.unregister(0)


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
    termios.tcsetattr(fd, termios.TCSANOW, [iflag, oflag, cflag, lflag, ispeed, ospeed, cc])


def _no_newline_mapping(master: int) -> None:
    """Off with ONLCR: our own terminal maps newlines already, or is raw. As runc does in the foreground."""
    attributes = termios.tcgetattr(master)
    attributes[1] &= ~termios.ONLCR
    termios.tcsetattr(master, termios.TCSANOW, attributes)

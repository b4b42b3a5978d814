"""A terminal at both ends: us at the keyboard of one, the receiver of another's master."""

from __future__ import annotations

import array
import fcntl
import os
import pty
import select
import socket
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager

from kit import CLEAN, Runtime


class Screen:
    """A program on a terminal of its own, and us at the keyboard."""

    def __init__(self, argv: list[str], rows: int = 40, columns: int = 132) -> None:
        self.master, self.slave = pty.openpty()
        self.resize(rows, columns)
        self.before = termios.tcgetattr(self.slave)
        self.process = subprocess.Popen(
            argv, stdin=self.slave, stdout=self.slave, stderr=self.slave, env=CLEAN, preexec_fn=self._take
        )
        self.seen = b""

    def _take(self) -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: bytes) -> None:
        os.write(self.master, text)

    def expect(self, text: bytes, seconds: float = 10) -> bytes:
        """Read until the text has come; returns what came before it and drops it."""
        end = time.monotonic() + seconds
        poll = select.poll()
        poll.register(self.master, select.POLLIN)
        while text not in self.seen:
            assert poll.poll(max(0, end - time.monotonic()) * 1000), (text, self.seen[-500:])
            self.seen += os.read(self.master, 65536)
        before, _, self.seen = self.seen.partition(text)
        return before

    def end(self, seconds: float = 10) -> int:
        """Wait for the end of the program, reading what it says."""
        end = time.monotonic() + seconds
        os.set_blocking(self.master, False)
        while self.process.poll() is None:
            assert time.monotonic() < end, self.seen[-500:]
            try:
                self.seen += os.read(self.master, 65536)
            except BlockingIOError:
                time.sleep(0.002)
        try:
            self.seen += os.read(self.master, 65536)
        except (BlockingIOError, OSError):
            pass
        return self.process.returncode

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.master)
        os.close(self.slave)


@contextmanager
def receiver(runtime: Runtime) -> Iterator[tuple[str, socket.socket]]:
    """A socket that awaits a terminal's master."""
    place = str(runtime.place / "console")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(place)
        server.listen(1)
        server.settimeout(10)
        yield place, server
    os.unlink(place)


def master_of(server: socket.socket) -> tuple[bytes, int]:
    """The message as callers decode it: the name as payload, exactly one descriptor."""
    connection, _ = server.accept()
    with connection:
        name, ancillary, flags, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4 * 8))
        assert connection.recv(1) == b""
    assert not flags & socket.MSG_CTRUNC
    assert len(ancillary) == 1
    fds = array.array("i", ancillary[0][2])
    assert len(fds) == 1
    return name, fds[0]


def read_until(fd: int, text: bytes, seconds: float = 10) -> bytes:
    """What is shown up to the text and with it."""
    seen = b""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    while text not in seen:
        assert poll.poll(seconds * 1000), seen
        seen += os.read(fd, 65536)
    return seen

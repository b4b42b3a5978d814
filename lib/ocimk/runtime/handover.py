"""What a caller is given of a process that was made for him, and the rules about it."""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux import path as paths


def check_console(terminal: bool, socket: str, detached: bool) -> None:
    """runc's rules for --console-socket. Raises Error."""
    if detached and terminal and not socket:
        hint = "pass --console-socket, or set process.terminal to false"
        raise Error("cannot allocate tty if oci will detach without setting console socket", "", hint)
    if socket and not (detached and terminal):
        hint = "process.terminal is false" if not terminal else "the terminal is ours in the foreground"
        raise Error("cannot use console socket if oci will not detach or allocate tty", "", hint)


def write_pid_file(path: str, pid: int) -> None:
    """The pid in decimal without a newline, in one step: callers wait for the file to appear. Raises Error."""
    path = paths.absolute(path)
    temporary = f"{paths.dirname(path)}/.{paths.basename(path)}"
    try:
        flags = posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_SYNC | posix.O_CLOEXEC
        fd = posix.open(temporary, flags, 0o666)
        posix.write(fd, str(pid).encode())
        posix.close(fd)
        posix.rename(temporary, path)
    except OSError as problem:
        raise Error(f"write pid file {path}", problem) from None

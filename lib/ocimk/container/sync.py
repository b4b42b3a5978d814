"""What the host side and the container side say to each other while a container is made.

One socket pair of SOCK_SEQPACKET, one message a packet, text:

    from the container's side   mounted                        the root filesystem stands, hooks of the host may run
                                ready                          the waiting image waits
                                error STATUS<TAB>TEXT          it failed, and why
                                errno NUMBER STATUS<TAB>TEXT   a system call of the image failed
                                warning TEXT                   for the log, which is the host side's to write
                                console                        with the terminal's master as SCM_RIGHTS
                                pid NUMBER                     the first process, as the host numbers it
                                born                           the process that entered a joined pid namespace lives
    from the host's side        go                             go on; to that process its id in there instead
"""

from __future__ import annotations

import posix
from _struct import pack

from ..errors import Error, strerror, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

LIMIT = 32 * 1024

PID_DIGITS = 10
"""How many bytes hold the id of a process that is not known yet; spaces before it are none of JSON's business."""
LATER = 9999999999
"""What stands for it until then."""


def send(fd: int, text: str) -> None:
    """Send one message. Raises OSError (EPIPE: the other side is gone)."""
    posix.write(fd, text.encode("utf-8", "surrogateescape")[:LIMIT])


def send_descriptor(fd: int, text: str, passed: int) -> None:
    """Send one message with a descriptor. Raises OSError."""
    import _socket

    sock = _socket.socket(fileno=posix.dup(fd))
    try:
        sock.sendmsg([text.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", passed))])
    finally:
        sock.close()


def receive(fd: int) -> str:
    """Wait for one message; "" when the other side is gone. Raises OSError."""
    try:
        return posix.read(fd, LIMIT).decode("utf-8", "surrogateescape")
    except ConnectionResetError:
        return ""


def relay(fd: int) -> Callable[[str], None]:
    """What tells a warning to the other side, or to nobody when that is gone."""

    def tell(text: str) -> None:
        try:
            send(fd, f"warning {text}")
        except OSError:
            pass

    return tell


def receive_answer(fd: int) -> str:
    """As receive(), but warnings on the way are passed on to the log."""
    while is_warning(told := receive(fd)):
        pass
    return told


def is_warning(message: str) -> bool:
    """Whether the message is a warning; then it is passed on."""
    if not message.startswith("warning "):
        return False
    warn(message[8:])
    return True


def send_error(fd: int, problem: Error) -> None:
    """Tell the other side of a failure; nothing more can be done when it is gone."""
    try:
        send(fd, f"error {problem.status}\t{problem}")
    except OSError:
        pass


def to_error(message: str) -> Error | None:
    """The failure that a message tells of, or None when it tells of something else."""
    head, _, text = message.partition("\t")
    words = head.split()
    if not words or words[0] not in ("error", "errno"):
        return None
    if words[0] == "error":
        return _from_stage(text, int(words[1]))
    return Error(text, strerror(int(words[1])), _hint(text, int(words[1])), int(words[2]) if len(words) > 2 else 1)


_EXEC_HINTS = {
    2: "the file is there, but not the interpreter that its first line or ELF header names",
    8: "neither a script with a #! line nor a program for this machine",
}
"""What is behind an execve(2) that fails though the program was found. See execve(2), ERRORS."""


def _hint(text: str, number: int) -> str:
    """What to do about a system call of the image that failed: it has no words of its own."""
    if text.startswith("exec "):
        return _EXEC_HINTS.get(number, "")
    if text.startswith("process.scheduler"):
        from ..linux import sched

        return sched.scheduler_hint(number)
    return ""


def _from_stage(text: str, status: int) -> Error:
    """The failure with the name of the stage that tells of it, so that those who hand it on do not add theirs."""
    stage, _, rest = text.partition(": ")
    if not (stage.startswith("oci-") and rest):
        return Error(text, status=status)
    problem = Error(rest, status=status)
    problem.stage = stage
    return problem


def expect_go(fd: int) -> None:
    """Wait for the host's side to say ``go``. Raises Error when it has gone."""
    if receive(fd) != "go":
        raise Error("wait for the host's side", "it has ended")

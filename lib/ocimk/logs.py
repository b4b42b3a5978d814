"""Logs that are not files: the journal by its native protocol, the system's log by syslog(3)'s socket.

Each line is one datagram on a connected socket, so that a stage that is executed writes on with the descriptor alone.
"""

from __future__ import annotations

import _socket
import posix
from _struct import pack

from .errors import Error

_JOURNAL = "/run/systemd/journal/socket"
_SYSLOG = "/dev/log"
_PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3}
_USER = 1 << 3
_PATIENCE = 1
"""Seconds that a line waits for a logger that does not read; then it is lost, for the container comes first."""


def connect(destination: str) -> int:
    """The socket of the logger in ``journald:ID`` or ``syslog:ID``. Raises Error when there is none."""
    kind = destination.partition(":")[0]
    path = _JOURNAL if kind == "journald" else _SYSLOG
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    try:
        sock.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, pack("@ll", _PATIENCE, 0))
        sock.connect(path)
    except OSError as problem:
        sock.close()
        hint = f"does {'systemd-journald' if kind == 'journald' else 'a system logger'} run here?"
        raise Error(f"--log {destination}: connect to {path}", problem, hint) from None
    return sock.detach()


def datagram(destination: str, level: str, text: str, place: tuple[str, str]) -> str:
    """One line for the logger; *text* has no control characters. See systemd's "Native Journal Protocol", syslog(3).

    The journal gets the fields MESSAGE, PRIORITY, ID and SYSLOG_IDENTIFIER, with ``--debug`` CODE_FUNC, CODE_FILE and
    CODE_LINE.
    """
    kind, _, name = destination.partition(":")
    priority = _PRIORITIES[level]
    if kind == "syslog":
        return f"<{_USER | priority}>{name or 'oci'}[{posix.getpid()}]: {text}"
    fields = {"PRIORITY": str(priority), "MESSAGE": text, "SYSLOG_IDENTIFIER": "oci", "ID": name}
    if place[1]:
        file, _, line = place[1].rpartition(":")
        fields |= {"CODE_FUNC": place[0], "CODE_FILE": file, "CODE_LINE": line}
    return "".join(f"{key}={value}\n" for key, value in fields.items())

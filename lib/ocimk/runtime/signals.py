"""Names of signals and their numbers on this machine, without the cost of Python's signal. See signal(7)."""

from __future__ import annotations

import _signal

from ..errors import Error, quote

MAX = _signal.SIGRTMAX
"""The greatest number (64 on most machines); 0 is a signal too: it asks whether the process is there."""

_RTMIN = _signal.SIGRTMIN
_ALIASES = ("SIGIOT", "SIGCLD", "SIGPOLL")
"""Second names, never given as an answer."""

NUMBERS: dict[str, int] = {
    name: value for name, value in vars(_signal).items() if name[:3] == "SIG" and name[:4] != "SIG_"
}
"""SIGKILL: 9 and so on, of the machine we run on: the numbers differ between architectures."""


def number(text: str) -> int:
    """The signal that a person or a caller means: 9, KILL, sigkill, RTMIN+3, SIGRTMAX-1.

    Raises Error ``unknown signal "FOO"``, the words that callers know from runc.
    """
    if text.isascii() and text.isdigit():
        found = int(text)
    else:
        name = text.upper()
        found = _by_name(name if name.startswith("SIG") else f"SIG{name}")
    if not 0 <= found <= MAX:
        raise Error(f"unknown signal {quote(text)}")
    return found


def name(wanted: int) -> str:
    """The signal's name: SIGKILL, SIGRTMIN+3; the bare number when it has none."""
    for known, value in NUMBERS.items():
        if value == wanted and known not in _ALIASES:
            return known
    if _RTMIN < wanted < MAX:
        return f"SIGRTMIN+{wanted - _RTMIN}"
    return str(wanted)


def _by_name(name: str) -> int:
    """The number behind a full name, -1 for none. Real-time signals are counted from either end."""
    if name in NUMBERS:
        return NUMBERS[name]
    for base, sign in (("SIGRTMIN", "+"), ("SIGRTMAX", "-")):
        offset = name.removeprefix(base + sign)
        if offset != name and offset.isascii() and offset.isdigit():
            found = NUMBERS[base] + int(sign + offset)
            return found if _RTMIN <= found <= MAX else -1
    return -1

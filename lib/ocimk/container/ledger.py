"""The ledger: one line per thing about to be made, ``STAGE KIND VALUE``, appended before it is made.

Undoing reads it backwards. A line is written in one write(2) to a file opened for appending, so a killed stage leaves
whole lines only; a last line without its newline (a machine that lost power) was never acted upon and is dropped.
"""

from __future__ import annotations

import errno
import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Entry = tuple[str, str, str]


def append(path: str, entry: Entry) -> None:
    """Add one line, whole or not at all. Raises OSError (ENOSPC also when only a part of it fits)."""
    line = encode([entry])
    fd = posix.open(path, posix.O_WRONLY | posix.O_APPEND | posix.O_CREAT | posix.O_CLOEXEC, 0o600)
    try:
        before = posix.fstat(fd).st_size
        if posix.write(fd, line) < len(line):
            posix.ftruncate(fd, before)
            raise OSError(errno.ENOSPC, "no space left on device")
    finally:
        posix.close(fd)


def encode(entries: Iterable[Entry]) -> bytes:
    """The lines of the entries; a newline or backslash in a value is escaped."""
    lines = [f"{stage} {kind} {_escape(value)}\n" for stage, kind, value in entries]
    return "".join(lines).encode("utf-8", "surrogateescape")


def parse(data: bytes) -> list[Entry]:
    """The entries of the lines, oldest first."""
    entries = []
    for line in data.decode("utf-8", "surrogateescape").split("\n")[:-1]:
        stage, _, rest = line.partition(" ")
        kind, _, value = rest.partition(" ")
        entries.append((stage, kind, _unescape(value)))
    return entries


def matches(entry: Entry, stage: str, kind: str, value: str) -> bool:
    """Whether the entry is of that stage and, where given, of that kind and value."""
    return entry[0] == stage and (not kind or entry[1] == kind) and (not value or entry[2] == value)


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(value: str) -> str:
    return "\\".join(part.replace("\\n", "\n") for part in value.split("\\\\"))

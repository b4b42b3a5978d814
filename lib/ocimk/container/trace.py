"""The record that ``oci --trace FILE`` asks for: one JSON line per stage, with its start, duration and result.

The file is handed along the chain as the descriptor ``trace``; times are nanoseconds of CLOCK_MONOTONIC, so that lines
of all the processes of one container compare.
"""

from __future__ import annotations

import posix
import time

from .. import jsonio
from .folder import Folder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType


class Span:
    """``with Span(folder, argv):`` writes one line at the end; nothing when no trace is asked for."""

    __slots__ = ("argv", "folder", "start")

    def __init__(self, folder: Folder, argv: list[str]) -> None:
        self.folder = folder
        self.argv = argv
        self.start = 0

    def __enter__(self) -> None:
        if "trace" in self.folder.fds:
            self.start = time.monotonic_ns()

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, tb: TracebackType | None
    ) -> None:
        note(self.folder, self.argv, self.start, str(problem) if problem else "done")


def note(folder: Folder, argv: list[str], start: int, result: str) -> None:
    """Write one line: what began at *start* ends now. Nothing when no trace is asked for."""
    fd = folder.fds.get("trace", -1)
    if fd < 0:
        return
    ended = time.monotonic_ns()
    stage, verb = argv[0], argv[1] if len(argv) > 1 else ""
    operands = argv[3:]
    if "--" in operands:
        operands = operands[: operands.index("--")]
    line: dict[str, object] = {"stage": stage, "verb": verb, "operands": operands, "container": folder.id}
    line |= {"pid": posix.getpid(), "start": start, "duration": ended - start}
    line["result"] = result
    posix.write(fd, (jsonio.dumps(line) + "\n").encode("utf-8", "surrogateescape"))

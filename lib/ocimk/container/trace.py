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
        fd = self.folder.fds.get("trace", -1)
        if fd < 0:
            return
        ended = time.monotonic_ns()
        stage, verb = self.argv[0], self.argv[1] if len(self.argv) > 1 else ""
        operands = self.argv[3:]
        if "--" in operands:
            operands = operands[: operands.index("--")]
        line: dict[str, object] = {"stage": stage, "verb": verb, "operands": operands, "container": self.folder.id}
        line |= {"pid": posix.getpid(), "start": self.start, "duration": ended - self.start}
        line["result"] = str(problem) if problem else "done"
        posix.write(fd, (jsonio.dumps(line) + "\n").encode("utf-8", "surrogateescape"))

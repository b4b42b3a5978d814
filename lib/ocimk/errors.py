"""What a person is told when something fails, and where it is written.

One failure is one line: what was being done, to what, why it failed, what to do. It goes to standard error and, when
the caller named a log, into that as well (JSON as runc's callers decode it: ``{"level":...,"msg":...,"time":...}``).
"""

from __future__ import annotations

import posix
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import NoReturn

LEVELS = {"debug": 0, "info": 1, "warning": 2, "error": 3}

# The causes that callers and people know from runc are spelled as Go spells them, in lower case.
_KEEP_CASE = ("RPC", "NFS")


class Error(Exception):
    """A failure told in one line: ``doing: cause (hint)``.

    doing   what was being done and to what ("mounts[3] /dev/shm: mount tmpfs")
    cause   an OSError or a sentence; may be empty
    hint    what the reader can do about it
    status  the exit status of a stage: 1 the step failed, 2 wrong usage, 126 and 127 as in a shell
    """

    def __init__(self, doing: str, cause: object = "", hint: str = "", status: int = 1) -> None:
        super().__init__(doing)
        self.doing = doing
        self.cause = reason(cause) if isinstance(cause, BaseException) else str(cause)
        self.hint = hint
        self.status = status
        self.stage = ""

    def __str__(self) -> str:
        text = ": ".join(part for part in (self.stage, self.doing, self.cause) if part)
        return f"{text} ({self.hint})" if self.hint else text


class Usage(Error):
    """A command line that cannot be understood; exit status 2 for a stage."""

    def __init__(self, doing: str, cause: object = "", hint: str = "") -> None:
        super().__init__(doing, cause, hint, status=2)


def strerror(number: int) -> str:
    """The kernel's error as Go prints it: ``permission denied``, not ``Permission denied``."""
    text = posix.strerror(number)
    return text if text.startswith(_KEEP_CASE) else text[:1].lower() + text[1:]


def reason(problem: BaseException) -> str:
    """Why, in a few words: the errno text of an OSError, else the exception's own words."""
    if isinstance(problem, OSError) and problem.errno:
        return strerror(problem.errno)
    return str(problem) or type(problem).__name__


class Log:
    """Where lines go: standard error, and what ``--log`` names: a file, the journal or the system's log.

    Standard error gets what is at least a warning (everything with ``--debug``); an error is always printed there, also
    when a log is named, since callers show it to their users.

    Callers decode a log of JSON as one object for a failure (Podman reads the whole file at once). So in such a file
    warnings wait for the end: an error takes them along, as its member ``warnings``; without one they are written.
    """

    __slots__ = ("destination", "fd", "held", "json", "level", "path", "program", "relay")

    def __init__(self) -> None:
        self.fd = -1
        self.path = ""
        self.destination = ""
        """"" for a file, else ``journald:ID`` or ``syslog:ID``: how datagrams on the descriptor are written."""
        self.json = False
        self.level = "warning"
        """The least level that is written."""
        self.program = "oci"
        self.held: list[str] = []
        self.relay: Callable[[str], None] | None = None
        """Takes warnings instead: the host's side, on the container's."""

    @property
    def debug(self) -> bool:
        """Whether everything is wanted."""
        return self.level == "debug"

    def write(self, level: str, text: str, where: TracebackType | None = None) -> None:
        """Write one line of the given level; never raises, for a log that is full must not stop a container.

        where  the traceback of the failure that is told of, which ``--debug`` adds the place from
        """
        text = printable(text)
        if LEVELS[level] < LEVELS[self.level]:
            return
        if level == "warning" and self._kept(text):
            return
        place = _place(where) if self.debug else ("", "")
        if self.fd >= 0:
            _put(self.fd, self._record(level, text, place))
        elif self.json:
            _put(2, self._record(level, text, place))
        if level == "error":
            self.held.clear()
        if self.fd < 0 and not self.json or self.fd >= 0 and level == "error":
            prefix = "" if level == "error" else f"{level}: "
            _put(2, f"{self.program}: {prefix}{text}\n")

    def release(self) -> None:
        """Write the warnings that wait: no error has come."""
        held, self.held = self.held, []
        for text in held:
            _put(self.fd, self._record("warning", text, ("", "")))

    def _kept(self, text: str) -> bool:
        """Whether the warning need not be written now: it is told to another, or waits."""
        if self.relay is not None:
            self.relay(text)
            return True
        wait = self.json and self.fd >= 0 and not self.destination and not self.debug
        if wait:
            self.held.append(text)
        return wait

    def _record(self, level: str, text: str, place: tuple[str, str]) -> str:
        if self.destination:
            from . import logs

            return logs.datagram(self.destination, level, text, place)
        stamp = rfc3339(time.time_ns() // 10**9 * 10**9)
        function, file = place
        if not self.json:
            source = f" func={quote(function)} file={quote(file)}" if file else ""
            return f'time="{stamp}" level={level} msg={quote(text)}{source}\n'
        more = f',"func":{quote(function)},"file":{quote(file)}' if file else ""
        if level == "error" and self.held:
            more += f',"warnings":[{",".join(map(quote, self.held))}]'
        return f'{{"level":"{level}","msg":{quote(text)},"time":"{stamp}"{more}}}\n'


log = Log()


def setup(target: str = "", log_format: str = "text", level: str = "warning") -> None:
    """Send lines to *target* too, as ``text`` or ``json``: a file (``PATH`` or ``file:PATH``, made 0644, appended to),
    ``journald:ID`` or ``syslog:ID``.

    Raises Error when it cannot be opened or the format is unknown.
    """
    if log_format not in ("text", "json"):
        raise Error("invalid log-format", log_format, "text or json")
    log.json = log_format == "json"
    log.level = level
    if not target:
        return
    if target.startswith(("journald:", "syslog:")):
        from . import logs

        log.fd = logs.connect(target)
        log.destination = target
        return
    path = target.removeprefix("file:")
    flags = posix.O_CREAT | posix.O_WRONLY | posix.O_APPEND | posix.O_CLOEXEC
    try:
        log.fd = posix.open(path, flags, 0o644)
    except OSError as problem:
        raise Error(f"open log file {path}", problem) from None
    log.path = path
    log.destination = ""


def _place(where: TracebackType | None) -> tuple[str, str]:
    """The function and ``FILE:LINE`` that a line of the log comes from: the end of the traceback, else our caller."""
    if where is not None:
        while where.tb_next is not None:
            where = where.tb_next
        frame, line = where.tb_frame, where.tb_lineno
    else:
        frame = sys._getframe(2)
        while frame.f_back is not None and frame.f_globals is globals():
            frame = frame.f_back
        line = frame.f_lineno
    file = frame.f_code.co_filename.rpartition("/ocimk/")[2]
    return f"{frame.f_globals.get('__name__', '')}.{frame.f_code.co_name}", f"{file}:{line}"


def warn(text: str) -> None:
    """Tell of something that does not stop the work."""
    log.write("warning", text)


def debug(text: str) -> None:
    """Tell what only ``--debug`` wants to know."""
    if log.debug:
        log.write("debug", text)


def printable(text: str) -> str:
    """The text without control characters: a container must not write on the caller's terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c in "\n\t" else "?" for c in text.rstrip("\n"))


def quote(text: str) -> str:
    """The text as a JSON (and Go) string literal."""
    out = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{out}"'


def rfc3339(nanoseconds: int) -> str:
    """A moment (nanoseconds since the epoch) as RFC 3339 in UTC, with as many digits as it needs, as Go prints it."""
    seconds, rest = divmod(nanoseconds, 10**9)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
    fraction = f".{rest:09d}".rstrip("0") if rest else ""
    return f"{stamp}{fraction}Z"


def _put(fd: int, line: str) -> None:
    try:
        posix.write(fd, line.encode("utf-8", "backslashreplace"))
    except OSError:
        pass


def internal(problem: BaseException) -> Error:
    """A fault of our own as one line; the traceback goes to the log when ``--debug`` asks for it."""
    where = problem.__traceback__
    while where is not None and where.tb_next is not None:
        where = where.tb_next
    place = f"{where.tb_frame.f_code.co_filename.rsplit('/', 1)[-1]}:{where.tb_lineno}" if where else "?"
    if log.debug:
        import traceback

        for line in traceback.format_exception(problem):
            log.write("debug", line)
    hint = "this is a bug in ocimk; --debug logs where"
    return Error(f"internal error at {place}", f"{type(problem).__name__}: {reason(problem)}", hint)


def report(problem: BaseException) -> int:
    """Write the failure as one line and return the exit status it stands for."""
    if isinstance(problem, KeyboardInterrupt):
        problem = Error("interrupted", status=130)
    where = problem.__traceback__
    if not isinstance(problem, Error):
        problem = internal(problem)
    log.write("error", str(problem), where)
    return problem.status


def fail(doing: str, cause: object = "", hint: str = "") -> NoReturn:
    """Raise Error; reads better than ``raise Error(...) from None`` where the cause is the whole story."""
    raise Error(doing, cause, hint) from None


def flush() -> None:
    """Push what was printed; a broken pipe is the reader's own choice."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError, AttributeError):
            pass

"""The contract of a stage (ocimk-stage(7)): four verbs, files in, files out, then become the next program.

oci-STAGE apply   DIR [-- NEXT ...]
oci-STAGE undo    DIR
oci-STAGE explain DIR|BUNDLE
oci-STAGE check   DIR|BUNDLE
"""

from __future__ import annotations

import posix
import sys

from .. import errors, execpath
from ..container import names
from ..container.folder import Folder, fds_from_environment
from ..container.trace import Span
from ..errors import Error, Usage
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, NoReturn, Protocol

    Options = dict[str, str]

    class Stage(Protocol):
        """What a stage's module offers."""

        NAME: str
        SUMMARY: str
        VALUES: str
        OPTIONS: tuple[tuple[str, str, str], ...]
        CHAINS: bool

        def apply(self, folder: Folder, options: Options, operands: list[str]) -> None: ...
        def undo(self, folder: Folder) -> None: ...
        def explain(self, folder: Folder, options: Options, operands: list[str]) -> list[str]: ...
        def check(self, folder: Folder) -> list[str]: ...


_PATH = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

VERBS = ("apply", "undo", "explain", "check")

STOCK = {
    "oci-validate": "validate",
    "oci-state": "state",
    "oci-seccomp": "seccomp",
    "oci-cgroup": "cgroup",
    "oci-unshare": "unshare",
    "oci-resctrl": "resctrl",
    "oci-netdev": "netdev",
    "oci-mount": "mount",
    "oci-hooks": "hooks",
    "oci-sysctl": "sysctl",
    "oci-exec-fifo": "exec_fifo",
    "oci-break": "breakpoint",
}
"""The stages that come with ocimk and their modules below ocimk.stages."""


def load(name: str) -> Any:
    """The module of a stock stage."""
    return __import__(f"ocimk.stages.{STOCK[name]}", fromlist=["NAME"])


class Call:
    """A stage's command line, taken apart."""

    __slots__ = ("next", "operands", "options", "place", "verb")

    def __init__(self, verb: str, place: str, options: Options, operands: list[str], following: list[str]) -> None:
        self.verb = verb
        self.place = place
        self.options = options
        self.operands = operands
        self.next = following


def parse(stage: Stage, argv: list[str]) -> Call:
    """Take ``VERB DIR [OPTION|OPERAND]... [-- NEXT...]`` apart. Raises Usage."""
    following: list[str] = []
    if "--" in argv:
        at = argv.index("--")
        argv, following = argv[:at], argv[at + 1 :]
        if not following:
            raise Usage("nothing follows --")
    metavars = {name: metavar for name, metavar, _ in stage.OPTIONS}
    options: Options = {}
    words: list[str] = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-") or word == "-":
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        if name not in metavars:
            raise Usage(f"unknown option {name}", hint=f"see {stage.NAME} --help")
        if metavars[name] and not equals:
            value = next(rest, "")
            if not value:
                raise Usage(f"option {name} needs {metavars[name]}")
        options[name] = value if metavars[name] else "1"
    if len(words) < 2 or words[0] not in VERBS:
        raise Usage("a verb (apply, undo, explain, check) and a container folder are needed", hint=usage(stage))
    if following and (words[0] != "apply" or not stage.CHAINS):
        raise Usage(f"{words[0]} cannot be followed by another program")
    return Call(words[0], words[1], options, words[2:], following)


def usage(stage: Stage) -> str:
    """One line of synopsis."""
    tail = " [-- NEXT...]" if stage.CHAINS else ""
    values = f" {stage.VALUES}" if stage.VALUES else ""
    return f"{stage.NAME} apply|undo|explain|check DIR [OPTION...]{values}{tail}"


def help_text(stage: Stage) -> str:
    """What --help prints: synopsis, the verbs, the options, an example."""
    rows = [
        ("apply", f"do it, record it{', then become NEXT' if stage.CHAINS else ''}"),
        ("undo", "remove exactly what apply recorded"),
    ]
    rows += [("explain", "print what apply would do as commands"), ("check", "say whether this host can do it")]
    lines = [f"Usage: {usage(stage)}", "", stage.SUMMARY, "", "Verbs:"]
    lines += [f"  {name:<10} {text}" for name, text in rows]
    if stage.OPTIONS:
        lines += ["", "Options:"]
        lines += [f"  {(name + ' ' + metavar).strip():<28} {text}" for name, metavar, text in stage.OPTIONS]
    forms = getattr(stage, "FORMS", ())
    if forms:
        lines += ["", "Also:"]
        lines += [f"  {stage.NAME} {form}\n      {text}" for form, text in forms]
    page = stage.NAME
    return "\n".join([*lines, "", f"DIR is a container's folder (ocimk-folder(5)); see {page}(1) and ocimk-stage(7)."])


def main(stage: Stage, argv: list[str]) -> int:
    """Run one stage as a program; returns its exit status unless it becomes another program."""
    errors.log.program = stage.NAME
    folder: Folder | None = None
    take_up_log()
    try:
        if argv and argv[0] in ("--help", "-h", "help"):
            sys.stdout.write(help_text(stage) + "\n")
            return 0
        if argv and argv[0] in ("--version", "-V"):
            from .. import __version__

            sys.stdout.write(f"{stage.NAME} (ocimk) {__version__}\n")
            return 0
        own = getattr(stage, "command", None)
        status = own(argv) if own else None
        if status is not None:
            return int(status)
        call = parse(stage, argv)
        folder = enter(stage, call)
        return perform(stage, folder, call)
    except BaseException as problem:
        return lament(folder, stage, problem)


def enter(stage: Stage, call: Call) -> Folder:
    """The folder that the call names; for the stage that makes folders, one that need not be there yet."""
    if getattr(stage, "MAKES", False) and (call.verb == "apply" or not paths.exists(call.place)):
        return Folder.handed_on(call.place)
    try:
        folder = Folder.open(call.place)
    except Error:
        if call.verb != "undo" or not paths.exists(f"{call.place}/{names.LEDGER}"):
            raise
        return Folder.handed_on(call.place)  # to undo, the ledger is enough: the state may be broken or missing
    if not folder.path and call.verb in ("apply", "undo"):
        hint = "oci-validate apply makes one"
        raise Error(f"{call.place} is a bundle", f"{call.verb} works on a container's folder", hint)
    return folder


def take_up_log() -> None:
    """Write to the log of the dispatcher that executed us, in its way (OCI_LOG)."""
    fds = fds_from_environment()
    form, _, rest = posix.environ.get(b"OCI_LOG", b"").decode("utf-8", "surrogateescape").partition(" ")
    level, _, destination = rest.partition(" ")
    if form:
        errors.log.json = form == "json"
        errors.log.level = level if level in errors.LEVELS else "warning"
        errors.log.fd, errors.log.destination = fds.get("log", -1), destination
    if fds.get("sync", -1) >= 0:
        from ..container import sync

        errors.log.relay = sync.relay(fds["sync"])


def perform(stage: Stage, folder: Folder, call: Call) -> int:
    """Call the verb; after apply become the rest of the command line."""
    if call.verb == "undo":
        stage.undo(folder)
    elif call.verb == "explain":
        sys.stdout.write("".join(f"{line}\n" for line in stage.explain(folder, call.options, call.operands)))
    elif call.verb == "check":
        problems = stage.check(folder)
        sys.stdout.write("".join(f"{line}\n" for line in problems))
        return 1 if problems else 0
    else:
        return carry_out(stage, folder, call)
    return 0


def carry_out(stage: Stage, folder: Folder, call: Call) -> int:
    """apply, then NEXT. A stage that starts another process there (oci-unshare) takes NEXT itself (``apply_next``)."""
    chain = getattr(stage, "apply_next", None)
    if chain is not None:
        return int(chain(folder, call.options, call.next))
    if folder.inprocess:
        stage.apply(folder, call.options, call.operands)  # runner.run writes the trace
    else:
        with Span(folder, [stage.NAME, "apply", call.place, *call.operands]):
            stage.apply(folder, call.options, call.operands)
    if call.next:
        become(folder, call.next)
    return 0


def lament(folder: Folder | None, stage: Stage, problem: BaseException) -> int:
    """Tell of a failure: to the process that waits for us at the other end of the socket, else on standard error."""
    if isinstance(problem, SystemExit):
        return int(problem.code or 0)
    fd = (folder.fds if folder is not None else fds_from_environment()).get("sync", -1)
    if fd < 0:
        return errors.report(problem)
    if not isinstance(problem, Error):
        problem = errors.internal(problem)
    problem.stage = problem.stage or stage.NAME
    from ..container import sync

    sync.send_error(fd, problem)
    return problem.status


def become(folder: Folder, argv: list[str]) -> NoReturn:
    """Go on as the next program of the chain. Raises Error (status 127 not found, 126 not executable).

    A stock stage is called in this interpreter when the folder says so (the dispatcher's way); anything else, and a
    stage that is overridden on the search path, is executed.
    """
    if folder.inprocess and argv[0] in STOCK and not override(folder, argv[0]):
        stage = load(argv[0])
        try:
            call = parse(stage, argv[1:])
            with Span(folder, argv):
                stage.apply(folder, call.options, call.operands)
        except Exception as problem:
            failure = problem if isinstance(problem, Error) else errors.internal(problem)
            failure.stage = failure.stage or stage.NAME
            raise failure from None
        if call.next:
            become(folder, call.next)
        raise SystemExit(0)
    execute(folder, argv)


def override(folder: Folder, name: str) -> str:
    """The executable that replaces the stage *name* on the search path, or ""."""
    for place in folder.search:
        candidate = f"{place}/{name}"
        if execpath.runnable(candidate):
            return candidate
    return ""


def locate(name: str, search: list[str]) -> str:
    """The program's path: as it is when it holds a slash, else a stage on the search path, else from PATH."""
    if "/" in name:
        return name
    places = [*search, execpath.stock()] if name.startswith("oci-") else []
    places += posix.environ.get(b"PATH", _PATH).decode("utf-8", "surrogateescape").split(":")
    for place in places:
        if place and execpath.runnable(f"{place}/{name}"):
            return f"{place}/{name}"
    raise Error(f"become {name}", "no such program", "neither a stage on the exec path nor in PATH", status=127)


def environment(folder: Folder) -> dict[bytes, bytes]:
    """The environment of an executed stage: ours, with the descriptors and the search path named."""
    from ..linux import process

    env = process.environment()
    handed = {name: fd for name, fd in folder.fds.items() if fd >= 0}
    log = errors.log
    told = f"{'json' if log.json else 'text'} {log.level} {log.destination}"
    env[b"OCI_LOG"] = told.encode("utf-8", "surrogateescape")
    env[b"OCI_FDS"] = " ".join(f"{name}={fd}" for name, fd in handed.items()).encode()
    # A program of the chain that is not ours finds the next stage by its bare name.
    env[b"PATH"] = env.get(b"PATH", _PATH) + b":" + execpath.stock().encode("utf-8", "surrogateescape")
    if folder.search:
        env[b"OCI_EXEC_PATH"] = ":".join(folder.search).encode("utf-8", "surrogateescape")
    return env


def execute(folder: Folder, argv: list[str]) -> NoReturn:
    """Execute the program with the chain's descriptors left open. Raises Error (126, 127)."""
    import _signal

    program = locate(argv[0], folder.search)
    for fd in folder.fds.values():
        if fd >= 0:
            posix.set_inheritable(fd, True)
    errors.flush()
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    try:
        posix.execve(program, argv, environment(folder))
    except OSError as problem:
        status = 127 if isinstance(problem, FileNotFoundError) else 126
        raise Error(f"become {argv[0]}", problem, status=status) from None

"""The way every call of ``oci`` takes: parse against the table, set up the log, import one handler, call it.

Flags are understood as runc's callers write them: ``--name value``, ``--name=value``, with one dash or two, before or
after the arguments; options of oci itself may also stand after the command. All that is rare (help, the version, wrong
usage, programs of others) is imported when it happens.
"""

from __future__ import annotations

import posix
import sys

from .. import errors
from ..errors import Error
from ..linux import path as paths
from . import table
from .invocation import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .invocation import Value, Values
    from .table import Option

    Known = Mapping[str, tuple[Option, Values]]

DEFAULT_ROOT = "/run/oci"

TRUE = ("1", "t", "T", "true", "TRUE", "True")
FALSE = ("0", "f", "F", "false", "FALSE", "False")


class WrongUsage(Error):
    """A command line that the table does not allow: told together with the help of the command."""

    command = ""


class Asked(Exception):
    """Not a failure: ``--help`` or ``--version`` was found, and nothing else is looked at."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what


# ---- words into options and arguments --------------------------------------------------------------------------------


def known(rows: tuple[Option, ...], target: Values, into: dict[str, tuple[Option, Values]]) -> Known:
    """Add the rows, by both their names, with the place where their values go; names already there win."""
    for row in rows:
        for name in row[:2]:
            if name and name not in into:
                into[name] = (row, target)
    return into


def parse(words: list[str], options: Known, stop: int) -> list[str]:
    """Put the values of the options among the words where they belong and return the arguments.

    After ``--``, or *stop* arguments (0: never), or a word like ``-9``, all that follows is arguments; a ``--`` right
    there is dropped, but for the command's name (*stop* < 0), whose words are its own.
    Raises WrongUsage; Asked for help and version.
    """
    args: list[str] = []
    at = 0
    while at < len(words):
        word = words[at]
        if stop < 0 and args:
            return args + words[at:]
        if word == "--":
            return args + words[at + 1 :]
        if 0 < stop == len(args):
            return args + words[at:]
        at += 1
        if len(word) < 2 or word[0] != "-":
            args.append(word)
            continue
        if word[1] != "-" and not word[1].isalpha():
            return args + words[at - 1 :]
        name, equals, value = word[2 if word[1] == "-" else 1 :].partition("=")
        row, target = lookup(name, options)
        if row[2] == table.FLAG:
            target[row[0]] = boolean(name, value)
            continue
        if not equals:
            if at == len(words):
                raise WrongUsage(f"flag needs an argument: {word}")
            value = words[at]
            at += 1
        store(row, name, value, target)
    return args


def lookup(name: str, options: Known) -> tuple[Option, Values]:
    """The row of an option and where its value goes. Raises WrongUsage when there is none of that name."""
    found = options.get(name)
    if found is None:
        if name in ("help", "h", "version", "v", "V"):
            raise Asked("help" if name[0] == "h" else "version")
        raise WrongUsage(f"flag provided but not defined: -{name}")
    return found


def boolean(name: str, value: str) -> bool:
    """A flag's value as Go reads it; none means true."""
    if not value or value in TRUE:
        return True
    if value not in FALSE:
        raise WrongUsage(f'invalid value "{value}" for flag -{name}', hint="true or false")
    return False


def store(row: Option, name: str, value: str, target: Values) -> None:
    """Check a value and keep it."""
    long, kind, metavar = row[0], row[2], row[3]
    if kind == table.LIST:
        values = target.setdefault(long, [])
        assert isinstance(values, list)
        values.append(value)
        return
    if kind == table.CHOICE and value not in metavar.split("|"):
        raise WrongUsage(f'invalid value "{value}" for flag -{name}', hint=metavar.replace("|", ", "))
    if kind == table.INT:
        try:
            int(value, 0)
        except ValueError:
            raise WrongUsage(f'invalid value "{value}" for flag -{name}', hint="a whole number") from None
    target[long] = value


def count(command: str, found: int) -> None:
    """Raise WrongUsage, in runc's words, unless the command takes that many arguments."""
    low, high = table.COMMANDS[command][2:4]
    if low == high and found != low:
        raise WrongUsage(f'"{command}" requires exactly {low} argument(s)')
    if found < low:
        raise WrongUsage(f'"{command}" requires a minimum of {low} argument(s)')
    if 0 <= high < found:
        raise WrongUsage(f'"{command}" requires a maximum of {high} argument(s)')


# ---- one call --------------------------------------------------------------------------------------------------------


def understand(words: list[str]) -> Invocation:
    """The whole command line as an Invocation; its command may be one that the table does not know.

    The log is set up on the way, so that what is wrong further right reaches it. Raises Error, WrongUsage, Asked.
    """
    settings: Values = {}
    overall = known(table.GLOBALS, settings, {})
    rest = parse(words, overall, -1)
    set_up_log(settings)
    if not rest:
        raise Asked("help")
    name = rest[0]
    if name in ("help", "h"):
        raise Asked(f"help {rest[1]}" if len(rest) > 1 else "help")
    if name not in table.COMMANDS:
        return Invocation(name, {}, rest[1:], root_folder(settings), settings)
    options: Values = {}
    before = dict(settings)
    try:
        rows = known(table.rows(name), options, {})
        args = parse(rest[1:], known(table.GLOBALS, settings, dict(rows)), table.COMMANDS[name][4])
        if settings != before:
            set_up_log(settings)
        count(name, len(args))
    except WrongUsage as problem:
        problem.command = name
        raise
    except Asked as asked:
        raise Asked(f"{asked.what} {name}") from None
    return Invocation(name, options, args, root_folder(settings), settings)


def set_up_log(settings: Values) -> None:
    """Open the log as the options of oci say. Raises Error."""
    if settings:
        log_format = str(settings.get("log-format", "")) or "text"
        level = "debug" if settings.get("debug") is True else str(settings.get("log-level", "")) or "warning"
        errors.setup(str(settings.get("log", "")), log_format, level)


def root_folder(settings: Values) -> str:
    """Where the containers' folders are: absolute and clean. Raises Error for ``/``, where only a mistake leads."""
    given: Value | None = settings.get("root")
    if given is not None:
        root = paths.absolute(str(given))
        if root == "/":
            raise Error("Option --root argument should not be set to /")
        return root
    if posix.geteuid() == 0 and b"XDG_RUNTIME_DIR" not in posix.environ:
        return DEFAULT_ROOT
    from . import rootless

    return rootless.default_root() or DEFAULT_ROOT


def search_path(settings: Values) -> list[str]:
    """The folders of --exec-path and $OCI_EXEC_PATH, absolute. Raises Error for one in which others can write."""
    given = str(settings.get("exec-path", ""))
    inherited = posix.environ.get(b"OCI_EXEC_PATH", b"")
    if not given and not inherited:
        return []
    places = f"{given}:{inherited.decode('utf-8', 'surrogateescape')}".split(":")
    found = [paths.absolute(place) for place in places if place]
    from .. import execpath

    for place in found:
        execpath.must_be_trusted(place)
    return found


def call(invocation: Invocation) -> int:
    """Import the one module that the command needs and run it; a name not in the table becomes another program."""
    row = table.COMMANDS.get(invocation.command)
    if row is None:
        from . import external

        return external.become(invocation)
    from . import door

    door.preload(invocation.command)
    if invocation.command == "run":
        invocation.meanwhile = lambda: door.preload("afterwards")
    module, _, function = row[0].partition(":")
    handler: Callable[[Invocation], int] = getattr(__import__(module, fromlist=[function]), function)
    return handler(invocation)


def main(words: list[str]) -> int:
    """Run one command line (without the program's name) and return the exit status; says itself what went wrong."""
    try:
        return attempt(words)
    except BaseException as problem:
        return lament(problem)


def attempt(words: list[str]) -> int:
    """Understand and call; help and what is said to wrong usage are part of it."""
    try:
        invocation = understand(words)
    except Asked as asked:
        from . import usage

        return usage.answer(asked.what)
    except WrongUsage as problem:
        from . import usage

        return usage.refuse(problem)
    invocation.search = search_path(invocation.globals)
    return call(invocation)


def lament(problem: BaseException) -> int:
    """Report a failure in one line. The exit status is 1, runc's only one, unless the command chose its own."""
    if isinstance(problem, SystemExit):
        return problem.code if isinstance(problem.code, int) else int(problem.code is not None)
    if isinstance(problem, BrokenPipeError) and reader_left():
        return 141
    status = errors.report(problem)
    return 1 if status in (0, 2, 126, 127) else status


def reader_left() -> bool:
    """Whether whoever read our standard output went away (``oci list | head -1``): no failure worth a line."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        return True
    except (OSError, ValueError, AttributeError):
        pass
    return False

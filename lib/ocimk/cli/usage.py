"""Help, and what is said to a command line that the table does not allow."""

from __future__ import annotations

import sys

from .. import errors, vendor
from . import table
from .fast import WrongUsage
from .invocation import Invocation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .table import Option


def answer(what: str) -> int:
    """Print what was asked for: ``help``, ``help COMMAND`` or ``version``. Returns 0."""
    topic, _, command = what.partition(" ")
    if topic == "version":
        from . import version

        sys.stdout.write(version.text())
        return 0
    if command and command not in table.COMMANDS:
        from . import external

        return external.become(Invocation(command, {}, ["--help"], "", {}))
    try:
        show(command)
    except BrokenPipeError:
        return 141
    except OSError as problem:
        raise errors.Error("write standard output", problem) from None
    return 0


def refuse(problem: WrongUsage) -> int:
    """Tell that the command line is wrong as runc does: help on standard output, the reason to the log. Returns 1."""
    try:
        sys.stdout.write("Incorrect Usage.\n\n")
        show(problem.command)
    except (OSError, SystemExit):
        pass  # nobody reads the help; the reason is told in any case
    errors.flush()
    problem.hint = problem.hint or nearest(problem)
    errors.report(problem)
    return 1


def nearest(problem: WrongUsage) -> str:
    """A hint at the option that may have been meant."""
    import difflib

    word = table.dashed(problem.doing.rpartition(": ")[2].lstrip("-"))
    if not problem.doing.startswith("flag provided"):
        return ""
    rows = (*table.GLOBALS, *(table.rows(problem.command) if problem.command else ()))
    near = difflib.get_close_matches(word, [table.dashed(row[0]) for row in rows if row[4]], 1)
    return f"did you mean {near[0]}?" if near else ""


def show(command: str) -> None:
    """Print the help of a command ("": of oci), with typer where it is installed, else plainly."""
    vendor.enable()
    try:
        import typer  # noqa: F401
    except ImportError:
        sys.stdout.write(plain(command))
        return
    from . import face

    face.show_help(command)


def plain(command: str) -> str:
    """The help as text, from the table alone."""
    if not command:
        commands = [(name, row[6]) for name, row in table.COMMANDS.items()]
        blocks = [("Commands:", commands), ("Options:", described((*table.GLOBALS, table.HELP, table.VERSION)))]
        head = "Usage: oci [OPTION...] COMMAND [ARGUMENT...]\n\nAn OCI container runtime.\n"
    else:
        row = table.COMMANDS[command]
        blocks = [("Options:", described((*row[5], table.HELP)))]
        head = f"Usage: oci {command} [OPTION...] {row[1]}".rstrip() + f"\n\n{table.sentence(row[6])}\n"
    return head + "".join(_block(title, lines) for title, lines in blocks)


def _block(title: str, lines: list[tuple[str, str]]) -> str:
    width = max(len(left) for left, _ in lines)
    return f"\n{title}\n" + "".join(f"  {left:<{width}}  {right}\n" for left, right in lines)


def described(rows: tuple[Option, ...]) -> list[tuple[str, str]]:
    """Each shown option as it is typed, and its help."""
    shown = [row for row in rows if row[4]]
    return [(f"{f'-{row[1]}, ' if row[1] else ''}--{row[0]} {row[3]}".rstrip(), row[4]) for row in shown]

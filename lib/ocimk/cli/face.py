"""The face for people: a typer application made from the table. It is imported for help, never on the way of a command.

Its commands work, too: they give the same Invocation to the same handlers as the fast parser, so that what the help
shows and what is understood cannot drift apart (a test compares them).
"""

from __future__ import annotations

import inspect
import keyword
import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import fast, table, version
from .invocation import Invocation

if TYPE_CHECKING:
    from collections.abc import Callable

    from .table import Command, Option

ABOUT = """An OCI container runtime made of small programs wired by files.

A container is a folder; every step of its life is a program, oci-NAME, that reads the folder, does one thing, records
what it made and can undo it. COMMAND runs those programs in the right order; see oci(1) and ocimk-stage(7).
"""

TYPES: dict[str, Any] = {table.FLAG: bool, table.INT: int, table.LIST: list[str]}
"""What the kinds of option are to typer; the others are text."""

CONTEXT: dict[str, Any] = {"help_option_names": ["-h", "--help"]}


def show_help(command: str) -> None:
    """Print the help of a command ("": of oci) on standard output."""
    words = [command, "--help"] if command else ["--help"]
    typer.main.get_command(application()).main(words, prog_name="oci", standalone_mode=False)


def application(call: Callable[[Invocation], int] = fast.call) -> typer.Typer:
    """The whole command line as a typer application that gives each Invocation to *call*."""
    # Frames and colours are for a terminal; a file or a pager gets text.
    markup: Any = "rich" if sys.stdout.isatty() else None
    app = typer.Typer(name="oci", help=ABOUT, add_completion=False, context_settings=CONTEXT, rich_markup_mode=markup)
    settings: dict[str, Any] = {}

    def overall(**values: Any) -> None:
        if values["version"]:
            sys.stdout.write(version.text())
            raise typer.Exit
        settings.update(given(table.GLOBALS, values))

    app.callback(no_args_is_help=True)(signed(overall, (*table.GLOBALS, table.VERSION), ()))
    for name, row in table.COMMANDS.items():
        handler = signed(runner(name, row, settings, call), row[5], arguments(row))
        context = {**CONTEXT, "allow_interspersed_args": not row[4]}
        app.command(name, help=table.sentence(row[6]), context_settings=context)(handler)
    return app


def runner(name: str, row: Command, settings: dict[str, Any], call: Callable[[Invocation], int]) -> Callable[..., None]:
    """The function that typer calls for one command."""

    def run(**values: Any) -> None:
        args: list[str] = []
        for argument, _ in arguments(row):
            value = values[identifier(argument)]
            args += value if isinstance(value, list) else [] if value is None else [value]
        raise typer.Exit(call(Invocation(name, given(row[5], values), args, fast.root_folder(settings), settings)))

    return run


def given(rows: tuple[Option, ...], values: dict[str, Any]) -> dict[str, Any]:
    """The values that were on the command line, by the names and in the types that an Invocation has."""
    found = {row[0]: values[identifier(row[0])] for row in rows}
    kept = {name: value for name, value in found.items() if value not in (None, False, [])}
    return {name: str(value) if type(value) is int else value for name, value in kept.items()}


def arguments(row: Command) -> list[tuple[str, bool]]:
    """The arguments of a command by name, and whether each must be there; a name with dots after it stands for many."""
    return [(word.strip("[]"), not word.startswith("[")) for word in row[1].split()]


def identifier(name: str) -> str:
    """The name of an option or argument as a parameter of a Python function."""
    plain = name.removesuffix("...").lower().replace("-", "_")
    return f"{plain}_" if keyword.iskeyword(plain) else plain


def signed(function: Callable[..., None], rows: tuple[Option, ...], words: list[tuple[str, bool]] | tuple[()]) -> Any:
    """The function with the signature that typer makes options and arguments of."""
    parameters = [argument(name, needed) for name, needed in words] + [option(row) for row in rows]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function


def option(row: Option) -> inspect.Parameter:
    """One row of the table as typer wants it."""
    long, short, kind, metavar, text = row
    names = [f"--{long}", *([f"-{short}"] if short else [])]
    info = typer.Option(*names, help=text, hidden=not text, metavar=metavar or None, show_default=False)
    base = TYPES.get(kind, str)
    default: Any = False if kind == table.FLAG else None
    annotation = base if kind == table.FLAG else base | None
    return inspect.Parameter(
        identifier(long), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[annotation, info]
    )


def argument(name: str, needed: bool) -> inspect.Parameter:
    """One argument as typer wants it."""
    info = typer.Argument(metavar=name.removesuffix("..."), show_default=False)
    default: Any = inspect.Parameter.empty if needed else None
    base: Any = list[str] if name.endswith("...") else str
    annotation: Any = Annotated[base if needed else base | None, info]
    return inspect.Parameter(identifier(name), inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)

"""Command lines as they stand in the manual and in README.md: would our programs understand them?"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from ocimk.cli import fast, table
from ocimk.stages import contract, state_command

SHELL = {"|", ">", ">>", "<", "&", "&&", "||", ";"}
_PROMPT = re.compile(r"^[#$] (?=[A-Za-z./])")


def commands(lines: list[str]) -> Iterator[str]:
    """What is typed in an example: the lines behind a prompt, continued ones joined."""
    rest = iter(lines)
    for line in rest:
        if _PROMPT.match(line):
            while line.endswith("\\"):
                line = f"{line[:-1]} {next(rest).strip()}"
            yield line[2:]


def programs(command: str) -> Iterator[list[str]]:
    """The programs of one command line with their words, without what the shell does around them."""
    words: list[str] = []
    skip = False
    for word in [*shlex.split(command), ";"]:
        if skip:
            skip = False
        elif word in ("<", ">", ">>"):
            skip = True
        elif word in SHELL:
            if words:
                yield words
            words = []
        else:
            words.append(word)


def understood(words: list[str]) -> None:
    """Raise what our program would raise for this command line; programs of others are not ours to judge."""
    name = words[0].rpartition("/")[2]
    if name == "oci":
        _dispatcher(words[1:])
    elif name in contract.STOCK:
        _stage(name, words[1:])
    else:
        assert not re.match(r"oci(mk)?-", name), f"{name} is no program of ours"


def _dispatcher(words: list[str]) -> None:
    settings: dict[str, Any] = {}
    overall = fast.known(table.GLOBALS, settings, {})
    name, *rest = fast.parse(words, overall, -1)
    options = fast.known(table.GLOBALS, settings, dict(fast.known(table.rows(name), {}, {})))
    fast.count(name, len(fast.parse(rest, options, table.COMMANDS[name][4])))


def _stage(name: str, words: list[str]) -> None:
    if name == "oci-state" and words[0] in ("get", "watch", "wait"):
        state_command.parse(words[0], words[1:])
    elif words:
        call = contract.parse(contract.load(name), words)
        if call.next:
            understood(call.next)

"""README.md and CHANGELOG.md say what is there: commands, options, targets, files, what is supported and what not."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import typed

import ocimk
from ocimk.cli import table
from ocimk.spec import supported, tables
from ocimk.stages import contract

TOP = Path(__file__).resolve().parents[2]
README = (TOP / "README.md").read_text()
CHANGELOG = (TOP / "CHANGELOG.md").read_text()
MAKEFILE = (TOP / "Makefile").read_text()
DOCUMENTS = {path.name: path.read_text() for path in [*TOP.glob("*.md"), *(TOP / "man").iterdir()]}

FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^\1```$", re.M | re.S)


def blocks(language: str) -> list[list[str]]:
    """The lines of the fenced blocks in README.md."""
    return [
        [line.removeprefix(indent) for line in body.splitlines()]
        for indent, found, body in FENCE.findall(README)
        if found == language
    ]


def words() -> list[str]:
    """What stands in backquotes in the text."""
    return re.findall(r"`([^`\n]+)`", FENCE.sub("", README))


def section(title: str) -> str:
    body = README.partition(f"\n## {title}\n")[2]
    assert body, f"no section {title}"
    return body.partition("\n## ")[0]


def typed_commands() -> list[str]:
    return [command for block in blocks("console") for command in typed.commands(block)]


def listed(prefix: str, text: str) -> list[str]:
    """The words in backquotes of the list entry that begins with *prefix*."""
    (entry,) = re.findall(rf"^- {prefix}((?:.|\n  )*)", text, re.M)
    return re.findall(r"`([^`]+)`", entry)


# ---- commands --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", typed_commands())
def test_command_lines_are_understood(command: str) -> None:
    for program in typed.programs(command):
        typed.understood(program)


def test_there_are_command_lines_to_look_at() -> None:
    assert len(typed_commands()) > 15


def test_targets_of_make_exist() -> None:
    named = {match for text in [*words(), *typed_commands()] for match in re.findall(r"\bmake ([a-z][a-z-]*)", text)}

    assert {"demo", "test", "bench", "install"} <= named
    assert named <= set(re.findall(r"^([a-z][a-z-]*):", MAKEFILE, re.M))


def test_options_in_the_text_exist() -> None:
    known = {row[0] for name in ("", *table.COMMANDS) for row in table.rows(name)}
    known |= {option[0][2:] for name in contract.STOCK for option in contract.load(name).OPTIONS}
    known |= {"runtime"}  # podman's and docker's

    for text in words():
        for option in re.findall(r"--([a-z][a-z-]*)", text):
            assert option in known, text


def test_the_stages_are_all_there() -> None:
    rows = re.findall(r"^\| \[(oci-[a-z-]+)\]", README, re.M)

    assert sorted(rows) == sorted(contract.STOCK)


# ---- what is supported -----------------------------------------------------------------------------------------------


def test_supported_commands_are_those_of_the_table() -> None:
    have = section("What is supported").partition("Not yet:")[0]

    assert listed("Commands:", have) == list(table.COMMANDS)


def test_properties_that_are_refused_are_named() -> None:
    lack = section("What is supported").partition("Not yet:")[2]

    found = {word for word in re.findall(r"`([^`]+)`", lack) if word == "vm" or word.startswith("linux.")}
    assert found == set(supported.MISSING)


def test_versions_are_those_of_the_code() -> None:
    project = tomllib.loads((TOP / "pyproject.toml").read_text())["project"]

    assert f"Python {project['requires-python'].removeprefix('>=')} or newer" in README
    assert f"specification {tables.SPEC_VERSION}" in README
    assert "Linux 5.10 or newer" in README


def test_the_changelog_has_this_version() -> None:
    assert re.search(rf"\b{re.escape(ocimk.__version__)}\b", CHANGELOG)
    assert "## [Unreleased]" in CHANGELOG


# ---- words and links -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_links_resolve(name: str) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", DOCUMENTS[name])

    assert targets
    for target in targets:
        if not target.startswith("https://"):
            assert (TOP / target).exists(), target


@pytest.mark.parametrize("name", DOCUMENTS)
def test_there_is_nothing_left_to_write_and_no_place_of_one_machine(name: str) -> None:
    unfinished = re.findall(r"\b(?:TODO|FIXME|XXX|TBD)\b", DOCUMENTS[name])
    places = re.findall(r"/(?:home|work|root)/\S*|/tmp/(?!trace\b|bundle\b)\S+", DOCUMENTS[name])

    assert not unfinished + places


@pytest.mark.parametrize("name", ["README.md", "CHANGELOG.md"])
def test_lines_fit(name: str) -> None:
    long = [line for line in DOCUMENTS[name].splitlines() if len(line) > 120 and line[0] != "|"]

    assert not long

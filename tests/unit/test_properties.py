"""ocimk-properties(7) names every property that the specification has for Linux, stages that exist and tests that do."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ocimk.spec import rare, seccomp, shape, supported, walk
from ocimk.stages import contract

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "man/ocimk-properties.7").read_text().replace("\\-", "-").replace("\\:", "")


def properties(found: Any, at: str = "") -> Iterator[str]:
    """The paths of all properties in a shape: [] for an element, {} for a member with a free name."""
    kind = found[0]
    if kind is walk.record:
        for name, inner in found[2].items():
            yield (path := f"{at}.{name}" if at else name)
            yield from properties(inner, path)
    elif kind is walk.array:
        yield from properties(found[2], f"{at}[]")
    elif kind is walk.mapping:
        yield from properties(found[2], f"{at}{{}}")
    elif kind is shape._rare:
        yield from properties(getattr(rare, found[2]), at)
    elif kind is shape._seccomp:
        yield from properties(seccomp.SECCOMP, at)


class Row:
    """Properties that one stage applies and the same tests prove."""

    def __init__(self, text: str) -> None:
        heads, dot, rest = text.partition("\n.BR ")
        self.properties = re.findall(r"^\.I (\S+)$", heads, re.M)
        rest = dot + rest
        self.stages = re.findall(r"^\.BR (oci-[a-z-]+) \(1\)", rest, re.M)
        self.tests = re.findall(r"^\.I ((?:unit|stages|runtime)/test_\w+\.py)::(\w+)$", rest, re.M)


def rows() -> list[Row]:
    body = PAGE.partition(".SH DESCRIPTION")[2].partition(".SH EXAMPLES")[0]
    return [Row(text.partition("\n.SS ")[0]) for text in body.split("\n.TP\n")[1:]]


ROWS = rows()
ALL = [*properties(shape.CONFIG), *(name for name in supported.MISSING if "." not in name)]


@cache
def functions_of(path: str) -> set[str]:
    tree = ast.parse((TOP / "tests" / path).read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def meant(name: str) -> re.Pattern[str]:
    return re.compile("[A-Za-z]+".join(map(re.escape, name.split("*"))))


def test_there_are_rows() -> None:
    assert len(ALL) > 200
    assert len(ROWS) > 50


@pytest.mark.parametrize("name", ALL)
def test_every_property_has_one_row(name: str) -> None:
    found = [row for row in ROWS if any(meant(head).fullmatch(name) for head in row.properties)]
    assert len(found) == 1, name


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.properties[0])
def test_a_row_names_what_there_is(row: Row) -> None:
    for head in row.properties:
        assert any(meant(head).fullmatch(name) for name in ALL), head
    assert row.stages
    assert set(row.stages) <= set(contract.STOCK)
    assert row.tests, "no test proves it"
    for path, name in row.tests:
        assert name in functions_of(path), f"{path}::{name}"

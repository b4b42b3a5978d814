"""The walker that holds a value against a table (a *shape*) and tells every difference.

A shape is a tuple ``(check, wanted, ...)``: *check* is one of the functions below, *wanted* says in words
what is allowed there, the rest is that check's own:

    (text, wanted)                              a string without NUL
    (text_like, wanted, test)                   a string for which test(value) holds
    (number, wanted, low, high)                 a whole number
    (flag, wanted)                              true or false
    (choice, "", names)                         one of these strings
    (array, wanted, item shape, least length)
    (words, wanted)                             an array of strings without NUL
    (mapping, wanted, value shape, key test, what a key has to be)
    (record, wanted, {name: shape}, required names, rules)

As in Go, null is as good as absent; other properties than those named are ignored (config.md, Extensibility).
A rule ``rule(value, path, out)`` checks what one object's properties have to do with each other; it is called
only when each of them is well by itself.
"""

from __future__ import annotations

from ..jsonio import dumps

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Shape = tuple[Any, ...]
    Rule = Callable[[Any, str, list["Finding"]], None]

ERROR = "error"
WARNING = "warning"

_LONGEST = 60


class Finding:
    """One thing wrong with a configuration: where, what, how bad ("error" or "warning")."""

    __slots__ = ("message", "path", "severity")

    def __init__(self, path: str, message: str, severity: str = ERROR) -> None:
        self.path = path
        self.message = message
        self.severity = severity

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message

    def __repr__(self) -> str:
        return f"Finding({self.path!r}, {self.message!r}, {self.severity!r})"


def show(value: object) -> str:
    """The value as one short piece of JSON; "nothing" for null."""
    if value is None:
        return "nothing"
    try:
        out = dumps(value)
    except RecursionError:
        return "a deeply nested value"
    return out if len(out) <= _LONGEST else f"{out[: _LONGEST - 3]}..."


def wrong(out: list[Finding], path: str, value: object, wanted: str, severity: str = ERROR) -> None:
    """Add ``PATH: found VALUE, WANTED is required``."""
    out.append(Finding(path, f"found {show(value)}, {wanted} is required", severity))


def wanted(shape: Shape) -> str:
    """What the shape allows, in words."""
    return str(shape[1]) or "one of " + ", ".join(name for name in shape[2] if name)


def member(path: str, name: str) -> str:
    """A member's path; a name that would be misread stands in brackets: ``sysctl["net.core.x"]``."""
    if name.replace("-", "_").replace(":", "_").isidentifier():
        return f"{path}.{name}" if path else name
    return f"{path}[{dumps(name)}]"


def text(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """A string that can be handed to the kernel: without NUL."""
    if type(value) is not str:
        wrong(out, path, value, "a string")
    elif "\0" in value:
        wrong(out, path, value, "a string without NUL characters")


def text_like(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """A string that passes the shape's test."""
    if type(value) is not str:
        wrong(out, path, value, "a string")
    elif "\0" in value or not shape[2](value):
        wrong(out, path, value, shape[1])


def number(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """A whole number within bounds; true and false are none, and neither is 1.0 (as in Go)."""
    if type(value) is not int or not shape[2] <= value <= shape[3]:
        wrong(out, path, value, shape[1])


def flag(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """true or false."""
    if type(value) is not bool:
        wrong(out, path, value, shape[1])


def choice(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """One of the names; "" among them stands for absent."""
    if type(value) is not str:
        wrong(out, path, value, "a string")
    elif value not in shape[2]:
        wrong(out, path, value, wanted(shape))


def array(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """An array, each item of which is held against the shape's shape."""
    if type(value) is not list:
        wrong(out, path, value, shape[1])
        return
    item_shape = shape[2]
    check = item_shape[0]
    for at, item in enumerate(value):
        check(item, item_shape, f"{path}[{at}]", out)
    if len(value) < shape[3]:
        wrong(out, path, value, shape[1])


def words(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """An array of strings: long ones are common (syscall names), so paths are made only for what is wrong."""
    if type(value) is not list:
        wrong(out, path, value, shape[1])
        return
    for at, item in enumerate(value):
        if type(item) is not str or "\0" in item:
            text(item, shape, f"{path}[{at}]", out)


def mapping(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """An object whose names are free, within the shape's test."""
    if type(value) is not dict:
        wrong(out, path, value, shape[1])
        return
    value_shape, test = shape[2], shape[3]
    for name, item in value.items():
        where = member(path, name)
        if not test(name):
            wrong(out, where, name, f"as name {shape[4]}")
        value_shape[0](item, value_shape, where, out)


def record(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """An object with known properties."""
    if type(value) is not dict:
        wrong(out, path, value, shape[1])
        return
    before = len(out)
    _, _, fields, required, rules = shape
    prefix = f"{path}." if path else ""
    for name, item in value.items():
        field = fields.get(name)
        if field is not None and item is not None:
            field[0](item, field, prefix + name, out)
    for name in required:
        if value.get(name) is None:
            wrong(out, prefix + name, None, wanted(fields[name]))
    if rules and not any(finding.severity == ERROR for finding in out[before:]):
        for rule in rules:
            rule(value, path, out)

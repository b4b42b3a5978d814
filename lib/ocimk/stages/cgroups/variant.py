"""Values in the text format of GVariant, as ``org.systemd.property.*`` annotations have them: read into a D-Bus
signature and a value.

The grammar is GLib's ("GVariant Text Format"): ``true``, ``'text'``, ``42``, ``uint64 5``, ``['a', 'b']``,
``('/dev/null', 'rw')``, ``{'k': 1}``, ``<v>``, ``@as []``. A number is an int32 unless something says otherwise.
"""

from __future__ import annotations

import re

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Typed = tuple[str, Any]

KEYWORDS = {
    "boolean": "b", "byte": "y", "int16": "n", "uint16": "q", "int32": "i", "uint32": "u", "int64": "x",
    "uint64": "t", "handle": "h", "double": "d", "string": "s", "objectpath": "o", "signature": "g",
}  # fmt: skip
RANGES = {
    "y": (0, 2**8 - 1), "n": (-(2**15), 2**15 - 1), "q": (0, 2**16 - 1), "i": (-(2**31), 2**31 - 1),
    "u": (0, 2**32 - 1), "x": (-(2**63), 2**63 - 1), "t": (0, 2**64 - 1), "h": (-(2**31), 2**31 - 1),
}  # fmt: skip

_TOKEN = re.compile(
    r"""\s*(?:
    (?P<text>b?(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*"))
  | (?P<type>@[a-z(){}]+)
  | (?P<word>[A-Za-z][A-Za-z0-9]*)
  | (?P<number>[-+]?(?:0[xX][0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|inf\b|nan\b))
  | (?P<mark>[][(){}<>,:])
    )""",
    re.VERBOSE | re.DOTALL,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|U[0-9a-fA-F]{8}|.)", re.DOTALL)
_SHORT = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", "\n": ""}
_DEEPEST = 64


def parse(text: str) -> Typed:
    """The signature and the value. Raises ValueError."""
    reader = _Reader(text)
    found = reader.value("", 0)
    if reader.peek() != ("", ""):
        raise ValueError(f"{reader.peek()[1]!r} after its end")
    return found


class _Reader:
    """The text cut into tokens, read by descent; a value that is still to come may be given its type."""

    def __init__(self, text: str) -> None:
        self.tokens: list[tuple[str, str]] = []
        self.at = 0
        at, text = 0, text.rstrip()
        while at < len(text):
            match = _TOKEN.match(text, at)
            if match is None:
                raise ValueError(f"{text[at : at + 10]!r} is not understood")
            kind = match.lastgroup or ""
            self.tokens.append((kind, match[kind]))
            at = match.end()

    def peek(self) -> tuple[str, str]:
        return self.tokens[self.at] if self.at < len(self.tokens) else ("", "")

    def take(self, mark: str = "") -> tuple[str, str]:
        found = self.peek()
        if not found[0] or (mark and found[1] != mark):
            raise ValueError(f"{mark or 'a value'} expected before {found[1] or 'its end'!r}")
        self.at += 1
        return found

    def value(self, wanted: str, depth: int) -> Typed:
        """One value, of the signature *wanted* where that is known."""
        if depth > _DEEPEST:
            raise ValueError("nested too deeply")
        kind, text = self.take()
        if kind == "type":
            return self.value(text[1:], depth + 1)
        if kind == "text":
            return string(text, wanted)
        if kind == "number" or text in ("inf", "nan"):
            return number(text, wanted)
        if kind == "word":
            return self.word(text, wanted, depth)
        if text == "[":
            return self.array(wanted, depth)
        if text == "(":
            return self.struct(wanted, depth)
        if text == "{":
            return self.dictionary(wanted, depth)
        if text == "<":
            inner = self.value("", depth + 1)
            self.take(">")
            return fits("v", wanted), inner
        raise ValueError(f"{text!r} where a value should be")

    def word(self, text: str, wanted: str, depth: int) -> Typed:
        if text in ("true", "false"):
            return fits("b", wanted), text == "true"
        if text not in KEYWORDS:
            raise ValueError(f"{text!r} is no value and no type")
        return self.value(fits(KEYWORDS[text], wanted), depth + 1)

    def items(self, end: str, item: Any) -> list[Any]:
        """What *item* reads, again and again, between commas."""
        found: list[Any] = []
        while self.peek()[1] != end:
            found.append(item())
            if self.peek()[1] != end:
                self.take(",")
        self.take(end)
        return found

    def array(self, wanted: str, depth: int) -> Typed:
        if wanted and wanted[0] != "a":
            raise ValueError(f"an array where {wanted} should be")
        inner = wanted[1:]

        def item() -> Any:
            nonlocal inner
            inner, value = self.value(inner, depth + 1)
            return value

        found = self.items("]", item)
        if not inner:
            raise ValueError("an empty array of no type: write @as [], for one of strings")
        return "a" + inner, found

    def struct(self, wanted: str, depth: int) -> Typed:
        inner = split(wanted[1:-1]) if wanted else []
        if wanted and wanted[0] != "(":
            raise ValueError(f"a tuple where {wanted} should be")
        found = self.items(")", lambda: self.value(inner.pop(0) if inner else "", depth + 1))
        signature = f"({''.join(kind for kind, _ in found)})"
        return fits(signature, wanted), tuple(value for _, value in found)

    def dictionary(self, wanted: str, depth: int) -> Typed:
        if wanted and not wanted.startswith("a{"):
            raise ValueError(f"a dictionary where {wanted} should be")
        inner = split(wanted[2:-1]) if wanted else ["", ""]

        def item() -> Any:
            inner[0], key = self.value(inner[0], depth + 1)
            self.take(":")
            inner[1], value = self.value(inner[1], depth + 1)
            return key, value

        found = self.items("}", item)
        if not all(inner):
            raise ValueError("an empty dictionary of no type: write @a{ss} {}, for one of strings")
        return f"a{{{''.join(inner)}}}", dict(found)


def fits(signature: str, wanted: str) -> str:
    """The signature, where it is the wanted one. Raises ValueError."""
    if wanted not in ("", signature):
        raise ValueError(f"a value of type {signature} where {wanted} should be")
    return signature


def string(text: str, wanted: str) -> Typed:
    """A quoted text; with b before it an array of bytes that ends in a NUL."""
    if text[0] == "b":
        return fits("ay", wanted), [*unescape(text[2:-1]).encode(), 0]
    if wanted not in ("s", "o", "g"):
        fits("s", wanted)
    return wanted or "s", unescape(text[1:-1])


def unescape(text: str) -> str:
    """The text without its backslashes."""

    def replace(match: re.Match[str]) -> str:
        word = match[1]
        return chr(int(word[1:], 16)) if len(word) > 1 else _SHORT.get(word, word)

    return _ESCAPE.sub(replace, text)


def number(text: str, wanted: str) -> Typed:
    """A number; one with a fraction is a double. Raises ValueError when it does not fit its type."""
    whole = text.lstrip("+-").lower()
    fraction = not whole.startswith("0x") and any(letter in whole for letter in ".ein")
    if wanted == "d" or (fraction and not wanted):
        return "d", float(text)
    kind = wanted or "i"
    if kind not in RANGES or fraction:
        raise ValueError(f"{text} where {wanted} should be")
    octal = whole[0] == "0" and whole.isdigit() and len(whole) > 1
    value = int(text, 8) if octal else int(text, 0)
    least, most = RANGES[kind]
    if not least <= value <= most:
        raise ValueError(f"{text} does not fit into {least} to {most}")
    return kind, value


def split(signature: str) -> list[str]:
    """The complete types of which a signature is made up."""
    found: list[str] = []
    begin = depth = 0
    for at, letter in enumerate(signature):
        depth += (letter in "({") - (letter in ")}")
        if depth == 0 and letter != "a":
            found.append(signature[begin : at + 1])
            begin = at + 1
    return found

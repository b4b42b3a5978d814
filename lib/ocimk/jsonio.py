"""JSON in and out without importing ``json``, which costs more than most of our commands' whole work.

The interpreter's own C scanner and encoder (``_json``) are driven directly; ``json`` itself (and with it ``re``) is
imported only to phrase a syntax error.
"""

from __future__ import annotations

import _json

from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SPACE = " \t\n\r"


def _constant(name: str) -> float:
    raise ValueError(f"{name} is not JSON")


class _Context:
    """What the C scanner asks its caller: how to make numbers and objects."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = float
    parse_int = int
    parse_constant = staticmethod(_constant)
    memo: dict[str, str] = {}


_scan = _json.make_scanner(_Context)  # type: ignore[arg-type]  # any object with these attributes does


def loads(data: bytes | str, name: str = "") -> Any:
    """Parse one JSON document.

    Raises Error ``NAME: line 3, column 7: why`` when it is not JSON (RFC 8259) or not UTF-8.
    """
    text = data if isinstance(data, str) else _decode(data, name)
    start = _skip(text, 0)
    try:
        value, end = _scan(text, start)
    except StopIteration as stop:
        raise _error(text, stop.value, "a value was expected", name) from None
    except RecursionError:
        raise Error(name or "JSON", "nested too deeply") from None
    except (ValueError, SystemError):
        raise _explain(text, start, name) from None
    end = _skip(text, end)
    if end != len(text):
        raise _error(text, end, "extra data after the document", name)
    if "\\ud" in text or "\\uD" in text:
        _refuse_lone_surrogates(value, name)
    return value


def _explain(text: str, start: int, name: str) -> Error:
    """Scan again with the json package at hand: the C scanner needs it to say where and why."""
    import json.decoder

    try:
        _scan(text, start)
    except json.decoder.JSONDecodeError as problem:
        return _error(text, problem.pos, problem.msg, name)
    except ValueError as problem:
        return _error(text, start, str(problem), name)
    raise AssertionError("scanned the second time only")


def _decode(data: bytes, name: str) -> str:
    try:
        return str(data, "utf-8")
    except UnicodeDecodeError as problem:
        before = data[: problem.start]
        line = before.count(b"\n") + 1
        column = problem.start - (before.rfind(b"\n") + 1) + 1
        raise Error(f"{name}: line {line}, column {column}" if name else "JSON", "not UTF-8") from None


def _skip(text: str, at: int) -> int:
    end = len(text)
    while at < end and text[at] in _SPACE:
        at += 1
    return at


def _error(text: str, at: int, why: str, name: str) -> Error:
    line = text.count("\n", 0, at) + 1
    column = at - text.rfind("\n", 0, at)
    why = why if why.startswith("NaN") else why[:1].lower() + why[1:]
    place = f"line {line}, column {column}"
    return Error(f"{name}: {place}" if name else place, why)


def _refuse_lone_surrogates(value: Any, name: str) -> None:
    """Half a surrogate pair is valid JSON but no text: it could not be handed to the kernel."""
    try:
        dumps(value).encode("utf-8")
    except UnicodeEncodeError:
        raise Error(name or "JSON", "a string holds half of a surrogate pair") from None


def _unknown(value: object) -> Any:
    raise TypeError(f"{type(value).__name__} is not JSON")


_encode = _json.make_encoder(None, _unknown, _json.encode_basestring, None, ":", ",", False, False, False)


def dumps(value: Any) -> str:
    """The value on one line, without spaces."""
    return "".join(_encode(value, 0))


def dumps_indent(value: Any, indent: str = "  ") -> str:
    """The value over many lines, as Go's MarshalIndent lays it out; no newline at the end."""
    return _lay_out(value, indent, "\n")


_GO = (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026"), ("\u2028", "\\u2028"), ("\u2029", "\\u2029"))


def as_go(text: str) -> str:
    """JSON with the characters escaped that Go escapes, for callers who compare what runc prints byte by byte."""
    for character, escaped in _GO:
        text = text.replace(character, escaped)
    return text


def _lay_out(value: Any, indent: str, newline: str) -> str:
    deeper = newline + indent
    if isinstance(value, dict) and value:
        rows = [f"{_json.encode_basestring(str(k))}: {_lay_out(v, indent, deeper)}" for k, v in value.items()]
        return "{" + deeper + ("," + deeper).join(rows) + newline + "}"
    if isinstance(value, (list, tuple)) and value:
        return "[" + deeper + ("," + deeper).join(_lay_out(v, indent, deeper) for v in value) + newline + "]"
    return dumps(value)

"""Command lines for people: what ``explain`` prints can be read, and pasted into a shell."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")


def quote(word: str) -> str:
    """The word as a shell reads it back."""
    if word and _PLAIN.issuperset(word):
        return word
    return "'" + word.replace("'", "'\"'\"'") + "'"


def shell(words: Iterable[str]) -> str:
    """The words as one command line."""
    return " ".join(quote(word) for word in words)

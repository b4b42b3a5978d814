"""Versions of the specification, which are SemVer 2.0.0, and their order."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Version = tuple[int, int, int, bool, tuple[tuple[bool, int, str], ...]]


def parse_version(text: str) -> Version | None:
    """The version as a tuple that compares as SemVer says, or None when the text is no SemVer version.

    (major, minor, patch, is it a release, the identifiers after "-"): a pre-release comes before its release,
    numeric identifiers before others and by their number (semver.org, 11).
    """
    rest, plus, build = text.partition("+")
    core, dash, before = rest.partition("-")
    numbers = core.split(".")
    if len(numbers) != 3 or not all(_number(part) for part in numbers):
        return None
    marks = before.split(".") if dash else []
    if plus and not all(_identifier(part) for part in build.split(".")):
        return None
    if not all(_identifier(part) and (_number(part) or not part.isdigit()) for part in marks):
        return None
    major, minor, patch = (int(part) for part in numbers)
    ranks = tuple((False, int(part), "") if part.isdigit() else (True, 0, part) for part in marks)
    return major, minor, patch, not dash, ranks


def version_at_least(version: str, minimum: str) -> bool:
    """Whether *version* is *minimum* or later (1.3.0-rc.1 is not yet 1.3.0). False when it is no version."""
    left: Any = parse_version(version)
    right: Any = parse_version(minimum)
    return left is not None and right is not None and bool(left >= right)


def _number(part: str) -> bool:
    return part.isascii() and part.isdigit() and (part == "0" or part[0] != "0") and len(part) < 20


def _identifier(part: str) -> bool:
    return part.isascii() and part.replace("-", "0").isalnum()

"""What a set of resources means in files: a list of writes, made without touching anything, then carried out
by one writer.

A write is a plain tuple ``(property, file, value, when)``: the JSON property it comes from, the file's name,
the text, and what its failure means:

    ""          an error
    "later"     EINVAL is no error yet: tried again after the others of its list. The kernel checks each value
                against the others it has, so no single order suits both raising and lowering (quota against
                period, memory against memory and swap).
    "optional"  a missing file is no error: old kernels lack it and nothing is lost

A planner gets the section of linux.resources and tells its writes for one version; ``has(file)`` tells it
which files the kernel offers where it must choose between them.
"""

from __future__ import annotations

import errno

from ...errors import Error
from ...linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Write = tuple[str, str, str, str]
    Section = dict[str, Any]
    Has = Callable[[str], bool]

MUST = ""
LATER = "later"
OPTIONAL = "optional"

PREFIX = "linux.resources"

_UNLIMITED = -1


def number(section: Section, name: str) -> int:
    """A number of the section, 0 when it is absent: nearly everywhere 0 means "not set" to runtimes and
    their callers."""
    return int(section.get(name) or 0)


def limit(value: int) -> str:
    """A limit as cgroup2 files want it: negative is ``max``."""
    return "max" if value < 0 else str(value)


def refuse(name: str, why: str, hint: str = "") -> Error:
    """The error of a property whose value cannot be used."""
    return Error(f"{PREFIX}.{name}", why, hint)


# ---- the writer --------------------------------------------------------------------------------------------


def carry_out(path: str, writes: list[Write]) -> None:
    """Write all. Raises Error naming the property, the file, the kernel's reason and what to do."""
    if not writes:
        return
    try:
        group = cgroup.Group(path)
    except OSError as problem:
        raise failure(writes[0], path, problem) from None
    with group:
        again = [write for write in writes if _postponed(group, write)]
        for name, file, value, _ in again:
            _postponed(group, (name, file, value, MUST))


def _postponed(group: cgroup.Group, write: Write) -> bool:
    """Carry out one write; True when it is to be tried again later. Raises Error."""
    _, file, value, when = write
    try:
        # The kernel takes one line per write(2); a value of several lines is several settings.
        for line in value.splitlines() or [""]:
            group.write(file, line)
    except OSError as problem:
        if when == LATER and problem.errno == errno.EINVAL:
            return True
        if when == OPTIONAL and problem.errno == errno.ENOENT:
            return False
        raise failure(write, group.path, problem) from None
    return False


def failure(write: Write, path: str, problem: OSError) -> Error:
    """Why a write failed, told in full: property, file, reason, remedy."""
    from . import why

    return why.explain(write, path, problem)


def commands(path: str, writes: list[Write]) -> list[str]:
    """The writes as shell commands, for ``explain``."""
    return [
        f"echo '{line}' > {path}/{file}"
        for _, file, value, _ in writes
        for line in value.splitlines() or [""]
    ]

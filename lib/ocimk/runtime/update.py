"""oci update: give a living container other limits."""

from __future__ import annotations

import posix

from .. import jsonio
from ..container import state as states
from ..container.folder import Folder, read_all
from ..errors import Error, quote, warn
from ..spec import validate
from ..stages.cgroups import live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..cli.invocation import Invocation

    Resources = dict[str, Any]

_RDT = ("l3-cache-schema", "mem-bw-schema")


def main(invocation: Invocation) -> int:
    """``update ID``. Raises Error; then the container has its old limits."""
    folder = Folder.existing(invocation.root, invocation.args[0])
    given = read(invocation) if invocation.text("resources") else chosen(invocation)
    check(given)
    folder.lock()
    if states.status(folder) == "stopped":
        raise Error(f"update container {folder.id}", "container not running")
    with_schemata(folder, given, [invocation.text(name) for name in _RDT])
    return 0


def with_schemata(folder: Folder, given: Resources, lines: list[str]) -> None:
    """Change the shares of caches and memory bandwidth (resctrl) too; all or nothing. Raises Error."""
    if not any(lines):
        return live.update(folder, given)
    from ..stages import resctrl

    before = resctrl.change(folder, *lines)
    try:
        live.update(folder, given)
    except Error:
        resctrl.put_back(folder, before)
        raise


def check(given: Resources) -> None:
    """Raise Error for the first thing that the specification does not allow in the resources."""
    for finding in validate.resources_findings(given):
        if finding.severity == validate.ERROR:
            raise Error(finding.path, finding.message)
        warn(str(finding))


# ---- from a file -----------------------------------------------------------------------------------------------------


def read(invocation: Invocation) -> Resources:
    """linux.resources as JSON from the file of --resources, ``-`` for standard input. Raises Error."""
    for name in OPTIONS:
        if invocation.given(name):
            warn(f"option --{name} is ignored, for --resources is given")
    path = invocation.text("resources")
    try:
        fd = 0 if path == "-" else posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        data = read_all(fd)
    except OSError as problem:
        raise Error(f"read resources from {path}", problem) from None
    found = jsonio.loads(data, "standard input" if path == "-" else path)
    if found is None:
        return {}  # what Go writes for no resources at all
    if not isinstance(found, dict):
        raise Error(f"resources in {path}", f"found {jsonio.dumps(found)[:40]}, an object is required")
    resources: Resources = validate.drop_nulls(found)
    return resources


# ---- from options ----------------------------------------------------------------------------------------------------


def signed(text: str) -> int:
    """A whole number of 64 bits. Raises ValueError."""
    if not text.lstrip("+-").isdecimal() or not text.isascii():
        raise ValueError(text)
    value = int(text)
    if not -(2**63) <= value < 2**63:
        raise ValueError(text)
    return value


def unsigned(text: str) -> int:
    """A whole number of 64 bits, without a sign. Raises ValueError."""
    if not text.isdecimal() or not text.isascii() or int(text) >= 2**64:
        raise ValueError(text)
    return int(text)


def size(text: str) -> int:
    """Bytes: ``64m``, ``1.5GiB``, ``100 kb``, -1. Raises ValueError.

    The units are powers of 1024, as Docker counts memory; a fraction of a byte is dropped.
    """
    if text == "-1":
        return -1
    digits = text.rstrip("bBiIkKmMgGtTpP")
    unit = text[len(digits) :].lower()
    digits = digits.removesuffix(" ") if unit else digits
    known = ("", "b", *(f"{letter}{more}" for letter in "kmgtp" for more in ("", "b", "ib")))
    if unit not in known or not digits.replace(".", "", 1).isdecimal() or not text.isascii():
        raise ValueError(text)
    value = int(float(digits) * 1024 ** (" kmgtp".index(unit[0]) if unit not in ("", "b") else 0))
    if value >= 2**63:
        raise ValueError(text)
    return value


def any_number(text: str) -> int:
    """What the parser has found to be a number already."""
    return int(text, 0)


OPTIONS: dict[str, tuple[str, str, Callable[[str], int | str]]] = {
    "blkio-weight": ("blockIO", "weight", any_number),
    "cpu-period": ("cpu", "period", unsigned),
    "cpu-quota": ("cpu", "quota", signed),
    "cpu-burst": ("cpu", "burst", unsigned),
    "cpu-share": ("cpu", "shares", unsigned),
    "cpu-rt-period": ("cpu", "realtimePeriod", unsigned),
    "cpu-rt-runtime": ("cpu", "realtimeRuntime", signed),
    "cpuset-cpus": ("cpu", "cpus", str),
    "cpuset-mems": ("cpu", "mems", str),
    "cpu-idle": ("cpu", "idle", signed),
    "memory": ("memory", "limit", size),
    "memory-reservation": ("memory", "reservation", size),
    "memory-swap": ("memory", "swap", size),
    "kernel-memory": ("memory", "kernel", size),
    "kernel-memory-tcp": ("memory", "kernelTCP", size),
    "pids-limit": ("pids", "limit", any_number),
}
"""The options that are limits: the section and property of linux.resources, and how their value is read."""


def chosen(invocation: Invocation) -> Resources:
    """linux.resources made of the options; an empty value is none. Raises Error."""
    found: Resources = {}
    for name, (section, prop, reader) in OPTIONS.items():
        text = invocation.text(name)
        if not text or (name == "blkio-weight" and not any_number(text)):
            continue
        try:
            found.setdefault(section, {})[prop] = reader(text)
        except ValueError:
            hint = "as in 512m, 1.5g, or -1 for no limit" if reader is size else "a whole number"
            raise Error(f"invalid value for {name}", quote(text), hint) from None
    return found

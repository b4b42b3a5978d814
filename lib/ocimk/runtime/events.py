"""oci events: what a container uses, now and then, and when it runs out of memory, as ``runc events`` prints it."""

from __future__ import annotations

import time

from .. import jsonio
from ..container import state as states
from ..container.folder import Folder
from ..container.folder import tell as put
from ..errors import Error, quote, warn
from ..stages import cgroups
from ..stages.cgroups import live
from ..stages.cgroups.notify import GONE, Notices

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli.invocation import Invocation

_INTERVAL = "5s"

_UNITS = {"ns": 1, "us": 10**3, "µs": 10**3, "μs": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}


def main(invocation: Invocation) -> int:
    """``events ID``: a line of JSON for each; ends when no process of the container is left, or when nobody reads any
    more (141, as by SIGPIPE). Raises Error."""
    text = invocation.text("interval", _INTERVAL)
    try:
        interval = duration(text)
    except ValueError:
        hint = "as Go writes a duration: 5s, 500ms, 1m30s"
        raise Error(f"invalid value {quote(text)} for flag --interval", hint=hint) from None
    if interval <= 0:
        raise Error("duration interval must be greater than 0")
    folder = Folder.existing(invocation.root, invocation.args[0])
    if states.status(folder) == "stopped":
        raise Error(f"container with id {folder.id} is not running")
    if invocation.flag("stats"):
        tell(folder, "stats", measured(folder))
        return 0
    try:
        follow(folder, interval)
    except BrokenPipeError:
        return 141
    return 0


def follow(folder: Folder, interval: float) -> None:
    """Tell until the end. Raises Error; BrokenPipeError when nobody reads any more."""
    layout = cgroups.load(folder)
    if layout.mode == "none":
        measured(folder)  # says that there is nothing to measure
    notices = Notices(layout)
    notices.beside(1)
    due = time.monotonic() + interval
    try:
        while True:
            told = notices.wait(max(0, int((due - time.monotonic()) * 1000) + 1))
            if told == GONE:
                return
            for _ in range(told):
                tell(folder, "oom")
            if time.monotonic() < due:
                continue
            due = max(due + interval, time.monotonic())
            if not sample(folder):
                return
    finally:
        notices.close()


def sample(folder: Folder) -> bool:
    """Tell what is used; a failure is only a warning, False when it is that the cgroups are gone."""
    try:
        found = measured(folder)
    except Error as problem:
        if problem.cause == "container not running":
            return False
        warn(str(problem))
    else:
        tell(folder, "stats", found)
    return True


def measured(folder: Folder) -> dict[str, Any]:
    """The statistics with the members of its maps in the order in which Go prints them. Raises Error."""
    found = live.stats(folder)
    found["hugetlb"] = dict(sorted(found["hugetlb"].items()))
    if "raw" in found["memory"]:
        found["memory"]["raw"] = dict(sorted(found["memory"]["raw"].items()))
    if (folder.config.get("linux") or {}).get("intelRdt") is not None:
        from ..stages import resctrl_stats

        found["intel_rdt"] = resctrl_stats.stats(folder)
    return found


def tell(folder: Folder, kind: str, data: dict[str, Any] | None = None) -> None:
    """One event as a line of JSON."""
    event = {"type": kind, "id": folder.id, **({"data": data} if data is not None else {})}
    put(f"{jsonio.dumps(event)}\n")


def duration(text: str) -> float:
    """Seconds of a duration as Go writes it: ``1h15m30.5s``, ``-1.5h``, ``100ms``, ``0``. Raises ValueError."""
    sign, rest = (-1, text[1:]) if text[:1] == "-" else (1, text.removeprefix("+"))
    if rest == "0":
        return 0.0
    total = 0.0
    while rest:
        number = rest[: len(rest) - len(rest.lstrip("0123456789."))]
        rest = rest[len(number) :]
        unit = rest[: len(rest) - len(rest.lstrip("nuµμmsh"))]
        rest = rest[len(unit) :]
        total += float(number) * _UNITS.get(unit, 0) / 10**9
        if unit not in _UNITS:
            raise ValueError(text)
    if not text.strip("+-"):
        raise ValueError(text)
    return sign * total

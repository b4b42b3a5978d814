"""The parts that few configurations have; ocimk.spec.shape imports this when it meets one."""

from __future__ import annotations

from . import tables
from .shape import (
    FLAG,
    INT32,
    INT64,
    NUMBERS,
    TEXT,
    UINT64,
    among,
    is_interface,
    listing,
    names_of,
    thing,
    whole,
)
from .walk import WARNING, Finding, show, text_like, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_REALTIME = ("SCHED_FIFO", "SCHED_RR")
_NICE = ("SCHED_OTHER", "SCHED_BATCH")


def _nice(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """As runc: the nice value counts, and is bounded, for the time-sharing policies only."""
    nice = value.get("nice") or 0
    if value["policy"] in _NICE and not -20 <= nice <= 19:
        wrong(out, f"{path}.nice", nice, f"a whole number from -20 to 19, with {value['policy']},")


def _priority(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """As runc, and sched(7): real-time policies have priorities 1 to 99, the others none."""
    policy, priority = value["policy"], value.get("priority") or 0
    if policy in _REALTIME and not 1 <= priority <= 99:
        wrong(out, f"{path}.priority", value.get("priority"), f"a whole number from 1 to 99, with {policy},")
    elif policy not in _REALTIME and priority:
        wrong(out, f"{path}.priority", priority, f"0, with {policy},")


def _deadline(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """As runc, and sched_setattr(2): 1024 <= runtime <= deadline <= period (0: as long as the deadline)."""
    policy = value["policy"]
    runtime, deadline, period = (value.get(name) or 0 for name in ("runtime", "deadline", "period"))
    if policy != "SCHED_DEADLINE":
        for name in ("runtime", "deadline", "period"):
            if value.get(name):
                wrong(out, f"{path}.{name}", value[name], f"0, with {policy},")
    elif runtime < 1024:
        wrong(out, f"{path}.runtime", runtime, "at least 1024 nanoseconds, with SCHED_DEADLINE,")
    elif not runtime <= deadline <= (period or deadline):
        wrong(
            out,
            f"{path}.deadline",
            deadline,
            f"at least the runtime ({runtime}) and at most the period ({period})",
        )


SCHEDULER = thing(
    {
        "policy": among(tables.SCHEDULER_POLICIES),
        "nice": INT32,
        "priority": INT32,
        "flags": listing(among(tables.SCHEDULER_FLAGS)),
        "runtime": UINT64,
        "deadline": UINT64,
        "period": UINT64,
    },
    ("policy",),
    _nice,
    _priority,
    _deadline,
)


def _io_priority(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """config.md requires the priority, the schema and every runtime do without it."""
    if value.get("priority") is None:
        out.append(Finding(f"{path}.priority", "found nothing, 0 is taken", WARNING))


IO_PRIORITY = thing({"class": among(tables.IO_CLASSES), "priority": whole(0, 7)}, ("class",), _io_priority)

TIME_OFFSETS = names_of(
    thing({"secs": INT64, "nanosecs": whole(0, 999999999)}),
    tables.CLOCKS.__contains__,
    "a clock, monotonic or boottime,",
)

NET_DEVICES = names_of(
    thing({"name": (text_like, "the name of a network device", lambda name: not name or is_interface(name))}),
    is_interface,
    "the name of a network device",
)


def _is_one_line(value: str) -> bool:
    return "\n" not in value


def _is_bandwidth(value: str) -> bool:
    return not value or (value.startswith("MB:") and "\n" not in value)


def _is_class(value: str) -> bool:
    return value == "/" or (value not in (".", "..") and "/" not in value)


def _cache(value: object, shape: Any, path: str, out: list[Finding]) -> None:
    """It SHOULD start with L3: and be one line (config-linux.md, IntelRdt)."""
    text_like(value, TEXT_LINE, path, out)
    if type(value) is str and value and not value.startswith("L3:"):
        out.append(Finding(path, f"found {show(value)}, which should start with L3:", WARNING))


TEXT_LINE = (text_like, "a single line", _is_one_line)

INTEL_RDT = thing(
    {
        "closID": (text_like, "the name of a class of service, without slashes, or /", _is_class),
        "schemata": listing(TEXT_LINE),
        "l3CacheSchema": (_cache, "a string"),
        "memBwSchema": (text_like, "a single line that starts with MB:", _is_bandwidth),
        "enableMonitoring": FLAG,
    }
)

_NODELESS = ("MPOL_DEFAULT", "MPOL_LOCAL")
_MAYBE_NODES = ("MPOL_PREFERRED",)


def _nodes(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """As runc, and set_mempolicy(2): which modes take nodes."""
    mode, nodes = value["mode"], value.get("nodes") or ""
    if mode in _NODELESS and nodes:
        wrong(out, f"{path}.nodes", nodes, f"no node, with {mode},")
    elif mode not in _NODELESS and mode not in _MAYBE_NODES and not nodes:
        wrong(out, f"{path}.nodes", value.get("nodes"), f"at least one node, with {mode},")


def _node_flags(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """set_mempolicy(2), EINVAL: static and relative nodes exclude each other."""
    flags = value.get("flags") or []
    if "MPOL_F_STATIC_NODES" in flags and "MPOL_F_RELATIVE_NODES" in flags:
        wrong(out, f"{path}.flags", flags, "either MPOL_F_STATIC_NODES or MPOL_F_RELATIVE_NODES")


MEMORY_POLICY = thing(
    {
        "mode": among(tables.MEMORY_POLICY_MODES),
        "nodes": NUMBERS,
        "flags": listing(among(tables.MEMORY_POLICY_FLAGS)),
    },
    ("mode",),
    _nodes,
    _node_flags,
)


def _no_flags(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """config-linux.md, Personality: no flag values are supported, and what is not supported is an error."""
    if value.get("flags"):
        wrong(out, f"{path}.flags", value["flags"], "an empty array (no flags are defined)")


PERSONALITY = thing({"domain": among(tables.PERSONALITIES), "flags": listing(TEXT)}, ("domain",), _no_flags)

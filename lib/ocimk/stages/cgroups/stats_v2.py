"""Statistics of a cgroup2, put into v1's terms as runc does. See cgroup-v2.rst."""

from __future__ import annotations

from ...linux import cgroup
from . import stats
from .stats import UNLIMITED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stats import Tree

_IO = {
    "rbytes": ("ioServiceBytesRecursive", "Read"),
    "wbytes": ("ioServiceBytesRecursive", "Write"),
    "rios": ("ioServicedRecursive", "Read"),
    "wios": ("ioServicedRecursive", "Write"),
}


def fill(found: Tree, group: cgroup.Group, *, alone: bool) -> None:
    """Add what the cgroup2 tells; beside v1 (not *alone*) only of the controllers that it has. Raises
    OSError."""
    if alone or "cpu" in cgroup.controllers(group.path):
        add_cpu(found, group)
    if group.has("memory.stat"):
        add_memory(found, group)
    if alone or group.has("pids.current"):
        found["pids"] = pids(group)
    add_io(found, group)
    add_hugetlb(found, group)
    for member in ("cpu", "memory", "io") if alone else ():
        told = stats.pressure(group, f"{member}.pressure")
        if told is not None:
            found["blkio" if member == "io" else member]["psi"] = told


def add_cpu(found: Tree, group: cgroup.Group) -> None:
    """cpu; cpu.stat is there without the controller too."""
    told = {
        name: value * 1000 if name.endswith("_usec") else value
        for name, value in group.keyed("cpu.stat").items()
    }
    total, kernel, user = (told.get(name, 0) for name in ("usage_usec", "system_usec", "user_usec"))
    if usage := stats.usage(total, kernel, user, [], [], []):
        found["cpu"]["usage"] = usage
    names = ("nr_periods", "nr_throttled", "throttled_usec")
    periods, throttled, time = (told.get(name, 0) for name in names)
    if throttling := stats.some(periods=periods, throttledPeriods=throttled, throttledTime=time):
        found["cpu"]["throttling"] = throttling


def add_memory(found: Tree, group: cgroup.Group) -> None:
    """memory; swap is told together with memory, as v1 counts it."""
    raw = {name: max(value, 0) for name, value in group.keyed("memory.stat").items()}
    now, limit, peak = numbers(group, "memory")
    memory = stats.some(cache=raw.get("file", 0), usage=stats.entry(limit, now, peak, 0))
    swap_now, swap_limit, _ = numbers(group, "memory.swap")
    both = swap_limit if swap_limit == UNLIMITED else min(swap_limit + limit, UNLIMITED)
    memory |= stats.some(swap=stats.entry(both, swap_now + now, 0, 0))
    found["memory"] = {**memory, **stats.some(raw=raw)}


def numbers(group: cgroup.Group, prefix: str) -> tuple[int, int, int]:
    """What is used, the limit, and the peak (kernel 5.19; of swap 6.5); zeroes where there is no such
    accounting."""
    now, limit, peak = (group.number(f"{prefix}.{name}", 0) for name in ("current", "max", "peak"))
    return now, limit, peak


def pids(group: cgroup.Group) -> Tree:
    """pids, counted by us where the controller is off."""
    if group.has("pids.current"):
        return stats.pids(group)
    from ...linux import cgroup_procs

    return stats.some(current=len(cgroup_procs.of_one(group.path)))


def add_io(found: Tree, group: cgroup.Group) -> None:
    """blkio, from lines as ``8:0 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6``."""
    if not group.has("io.stat"):
        return
    tables: dict[str, list[Tree]] = {}
    for line in group.read("io.stat").splitlines():
        device, *pairs = line.split()
        major, _, minor = device.partition(":")
        for pair in pairs:
            key, _, value = pair.partition("=")
            if key in _IO and value.isdigit():
                member, op = _IO[key]
                tables.setdefault(member, []).append(stats.device_entry(major, minor, op, value))
    found["blkio"] |= tables


def add_hugetlb(found: Tree, group: cgroup.Group) -> None:
    """hugetlb, by reservation where the kernel counts those."""
    for size in stats.page_sizes():
        prefix = f"hugetlb.{size}.rsvd" if group.has(f"hugetlb.{size}.rsvd.current") else f"hugetlb.{size}"
        if group.has(f"{prefix}.current"):
            failures = group.keyed(f"hugetlb.{size}.events").get("max", 0)
            found["hugetlb"][size] = {
                **stats.some(usage=group.number(f"{prefix}.current")),
                "failcnt": failures,
            }

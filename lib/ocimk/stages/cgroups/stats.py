"""What a container uses, in the very shape that ``runc events`` prints (its types/events.go).

A number, list or object that is zero or empty is left out where runc leaves it out; ``hugetlb``,
``intel_rdt`` and ``network_interfaces`` are always there. Units: bytes, nanoseconds.
"""

from __future__ import annotations

import errno

from ...errors import Error
from ...linux import cgroup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from . import Layout

    Tree = dict[str, Any]

UNLIMITED = 2**64 - 1

CPUSET = (
    "mem_hardwall",
    "mem_exclusive",
    "memory_migrate",
    "memory_spread_page",
    "memory_spread_slab",
    "memory_pressure",
    "sched_load_balance",
    "sched_relax_domain_level",
)
"""The numbers that are printed whether zero or not."""


def stats(layout: Layout) -> Tree:
    """The whole. Raises Error when the cgroups are gone or there are none."""
    if layout.mode == "none":
        raise Error("container has no cgroup", "nothing of it is measured")
    found: Tree = empty()
    try:
        if layout.mode != "v2":
            from . import stats_v1

            stats_v1.fill(found, layout.paths)
        if layout.v2:
            from . import stats_v2

            with cgroup.Group(layout.v2) as group:
                stats_v2.fill(found, group, alone=layout.mode == "v2")
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENODEV):
            raise Error("read statistics of the container's cgroup", "container not running") from None
        raise Error("read statistics of the container's cgroup", problem) from None
    return found


def empty() -> Tree:
    """What is printed of a container that uses nothing."""
    cpu: Tree = {}
    cpuset: Tree = {"cpu_exclusive": 0} | {name: 0 for name in CPUSET}
    return {
        "cpu": cpu,
        "cpuset": cpuset,
        "memory": {},
        "pids": {},
        "blkio": {},
        "hugetlb": {},
        "intel_rdt": {},
        "network_interfaces": None,
    }


def some(**members: Any) -> Tree:
    """An object without its zero and empty members, as Go's omitempty makes it."""
    return {name: value for name, value in members.items() if value}


def usage(
    total: int, kernel: int, user: int, percpu: list[int], kernels: list[int], users: list[int]
) -> Tree:
    """cpu.usage; nothing when all is zero."""
    found = some(total=total, percpu=percpu, percpu_kernel=kernels, percpu_user=users)
    return {**found, "kernel": kernel, "user": user} if found or kernel or user else {}


def entry(limit: int, now: int, peak: int, failures: int) -> Tree:
    """A member of memory; nothing when all is zero."""
    if not (limit or now or peak or failures):
        return {}
    return {"limit": limit, **some(usage=now, max=peak), "failcnt": failures}


def pids(group: cgroup.Group) -> Tree:
    """pids.current and pids.max, the same on v1 and v2; no limit counts as 0."""
    limit = group.number("pids.max", 0)
    return some(current=group.number("pids.current", 0), limit=0 if limit == UNLIMITED else limit)


def page_sizes() -> list[str]:
    """The sizes of huge pages as the files are named: 64KB, 2MB, 1GB."""
    import posix

    try:
        names = posix.listdir("/sys/kernel/mm/hugepages")
    except OSError:
        return []
    return sorted(
        page_size(int(n.removeprefix("hugepages-").removesuffix("kB"))) for n in names if n.endswith("kB")
    )


def page_size(kilobytes: int) -> str:
    """A size of huge pages in the kernel's spelling (mem_fmt in hugetlb_cgroup.c)."""
    for unit, letter in ((1 << 20, "GB"), (1 << 10, "MB")):
        if kilobytes >= unit:
            return f"{kilobytes // unit}{letter}"
    return f"{kilobytes}KB"


def device_entry(major: str, minor: str, op: str, value: str) -> Tree:
    """One line of blkio's statistics."""
    return some(major=int(major), minor=int(minor), op=op, value=int(value))


def pressure(group: cgroup.Group, file: str) -> Tree | None:
    """Pressure stall information (accounting/psi.rst); None where the kernel has none or it is switched
    off."""
    try:
        text = group.read(file)
    except FileNotFoundError:
        return None
    except OSError as problem:
        if problem.errno == errno.EOPNOTSUPP:
            return None
        raise
    found = {}
    for line in text.splitlines():
        kind, *pairs = line.split()
        members = dict(pair.split("=", 1) for pair in pairs)
        values = {name: number(members.get(name, "0")) for name in ("avg10", "avg60", "avg300", "total")}
        if kind in ("some", "full") and any(values.values()):
            found[kind] = values
    return found


def number(text: str) -> float | int:
    """A number as Go prints it: without a fraction of nothing."""
    value = float(text)
    return int(text.partition(".")[0]) if value.is_integer() else value


def cpu_list(text: str) -> list[int]:
    """A list as ``0-3,7`` in single numbers."""
    found: list[int] = []
    for part in text.strip().split(",") if text.strip() else ():
        first, _, last = part.partition("-")
        found += range(int(first), int(last or first) + 1)
    return found

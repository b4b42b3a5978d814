"""Statistics of v1 hierarchies. See cgroup-v1/{cpuacct,memory,blkio-controller,hugetlb}.rst."""

from __future__ import annotations

import errno

from ...linux import cgroup
from . import stats

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .stats import Tree

_TICK = 10**9 // 100
"""Nanoseconds of a clock tick: USER_HZ is 100 on every architecture that we run on."""

_BLKIO = (
    # The first set whose first file is there and not empty is taken, as runc does: BFQ's own, CFQ's, then
    # what all have.
    (
        ("ioServicedRecursive", "blkio.bfq.io_serviced_recursive"),
        ("ioServiceBytesRecursive", "blkio.bfq.io_service_bytes_recursive"),
    ),
    (
        ("sectorsRecursive", "blkio.sectors_recursive"),
        ("ioServiceTimeRecursive", "blkio.io_service_time_recursive"),
        ("ioWaitTimeRecursive", "blkio.io_wait_time_recursive"),
        ("ioMergedRecursive", "blkio.io_merged_recursive"),
        ("ioQueueRecursive", "blkio.io_queued_recursive"),
        ("ioTimeRecursive", "blkio.time_recursive"),
        ("ioServicedRecursive", "blkio.io_serviced_recursive"),
        ("ioServiceBytesRecursive", "blkio.io_service_bytes_recursive"),
    ),
    (
        ("ioServicedRecursive", "blkio.throttle.io_serviced_recursive"),
        ("ioServiceBytesRecursive", "blkio.throttle.io_service_bytes_recursive"),
    ),
    (
        ("ioServicedRecursive", "blkio.throttle.io_serviced"),
        ("ioServiceBytesRecursive", "blkio.throttle.io_service_bytes"),
    ),
)
_BFQ_DEBUG = (
    ("sectorsRecursive", "blkio.bfq.sectors_recursive"),
    ("ioServiceTimeRecursive", "blkio.bfq.io_service_time_recursive"),
    ("ioWaitTimeRecursive", "blkio.bfq.io_wait_time_recursive"),
    ("ioMergedRecursive", "blkio.bfq.io_merged_recursive"),
    ("ioQueueRecursive", "blkio.bfq.io_queued_recursive"),
    ("ioTimeRecursive", "blkio.bfq.time_recursive"),
    *_BLKIO[0],
)


def fill(found: Tree, paths: dict[str, str]) -> None:
    """Add what each hierarchy tells. Raises OSError; a hierarchy whose cgroup is gone tells nothing."""
    told = 0
    for name, add in _CONTROLLERS:
        if name not in paths:
            continue
        try:
            with cgroup.Group(paths[name]) as group:
                add(found, group)
                told += 1
        except OSError as problem:
            if problem.errno not in (errno.ENOENT, errno.ENODEV):
                raise
    if not told and "" not in paths:
        raise FileNotFoundError(errno.ENOENT, "no cgroup is left")


def add_cpuacct(found: Tree, group: cgroup.Group) -> None:
    """cpu.usage."""
    times = group.keyed("cpuacct.stat")
    percpu = [int(word) for word in group.read("cpuacct.usage_percpu").split()]
    kernels, users = per_mode(group)
    total = group.number("cpuacct.usage")
    kernel, user = times.get("system", 0) * _TICK, times.get("user", 0) * _TICK
    if usage := stats.usage(total, kernel, user, percpu, kernels, users):
        found["cpu"]["usage"] = usage


def per_mode(group: cgroup.Group) -> tuple[list[int], list[int]]:
    """Times per CPU in the kernel and outside, from the table cpuacct.usage_all (kernel 4.7)."""
    if not group.has("cpuacct.usage_all"):
        return [], []
    rows = [line.split() for line in group.read("cpuacct.usage_all").splitlines()[1:]]
    return [int(row[2]) for row in rows], [int(row[1]) for row in rows]


def add_cpu(found: Tree, group: cgroup.Group) -> None:
    """cpu.throttling."""
    told = group.keyed("cpu.stat")
    names = ("nr_periods", "nr_throttled", "throttled_time")
    periods, throttled, time = (told.get(name, 0) for name in names)
    if throttling := stats.some(periods=periods, throttledPeriods=throttled, throttledTime=time):
        found["cpu"]["throttling"] = throttling


def add_cpuset(found: Tree, group: cgroup.Group) -> None:
    """cpuset."""
    prefix = "" if group.has("cpus") else "cpuset."

    def one(name: str) -> int | list[int]:
        file = f"{prefix}{name}"
        return stats.cpu_list(group.read(file)) if name in ("cpus", "mems") else group.number(file, 0)

    told = {name: one(name) for name in ("cpus", "cpu_exclusive", "mems", *stats.CPUSET)}
    found["cpuset"] = {name: value for name, value in told.items() if value != []}


def add_memory(found: Tree, group: cgroup.Group) -> None:
    """memory."""
    raw = {name: max(value, 0) for name, value in group.keyed("memory.stat").items()}
    memory = stats.some(cache=raw.get("cache", 0))
    for member, prefix in (
        ("usage", ""),
        ("swap", "memsw."),
        ("kernel", "kmem."),
        ("kernelTCP", "kmem.tcp."),
    ):
        if entry := memory_entry(group, prefix):
            memory[member] = entry
    found["memory"] = {**memory, **stats.some(raw=raw)}


def memory_entry(group: cgroup.Group, prefix: str) -> Tree:
    """One kind of memory; kernels may lack all but the first."""
    names = ("limit_in_bytes", "usage_in_bytes", "max_usage_in_bytes", "failcnt")
    if prefix and not group.has(f"memory.{prefix}usage_in_bytes"):
        return {}
    limit, now, peak, failures = (group.number(f"memory.{prefix}{name}", 0) for name in names)
    return stats.entry(limit, now, peak, failures)


def add_pids(found: Tree, group: cgroup.Group) -> None:
    """pids."""
    found["pids"] = stats.pids(group)


def add_blkio(found: Tree, group: cgroup.Group) -> None:
    """blkio."""
    for files in (_BFQ_DEBUG, *_BLKIO):
        if not (first := blkio_table(group, files[0][1])):
            continue
        tables = {files[0][0]: first} | {name: blkio_table(group, file) for name, file in files[1:]}
        found["blkio"] = stats.some(**tables)
        return


def blkio_table(group: cgroup.Group, file: str) -> list[Tree]:
    """The lines ``MAJOR:MINOR [OP] VALUE`` of a file; the last, a total, is passed over."""
    try:
        lines = group.read(file).splitlines()
    except FileNotFoundError:
        return []
    rows = [line.replace(":", " ").split() for line in lines]
    found = []
    for row in rows:
        if len(row) == 4:
            found.append(stats.device_entry(row[0], row[1], row[2], row[3]))
        elif len(row) == 3:
            found.append(stats.device_entry(row[0], row[1], "", row[2]))
    return found


def add_hugetlb(found: Tree, group: cgroup.Group) -> None:
    """hugetlb, by reservation where the kernel counts those."""
    for size in stats.page_sizes():
        prefix = (
            f"hugetlb.{size}.rsvd" if group.has(f"hugetlb.{size}.rsvd.usage_in_bytes") else f"hugetlb.{size}"
        )
        now, peak = (group.number(f"{prefix}.{name}", 0) for name in ("usage_in_bytes", "max_usage_in_bytes"))
        found["hugetlb"][size] = {
            **stats.some(usage=now, max=peak),
            "failcnt": group.number(f"{prefix}.failcnt", 0),
        }


_CONTROLLERS: tuple[tuple[str, Callable[[Tree, cgroup.Group], None]], ...] = (
    ("cpuset", add_cpuset),
    ("memory", add_memory),
    ("cpu", add_cpu),
    ("cpuacct", add_cpuacct),
    ("pids", add_pids),
    ("blkio", add_blkio),
    ("hugetlb", add_hugetlb),
)

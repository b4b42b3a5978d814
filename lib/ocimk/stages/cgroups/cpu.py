"""linux.resources.cpu as files: bandwidth and weight (controller cpu), CPUs and memory nodes (controller
cpuset).

See scheduler/sched-bwc.rst, sched-rt-group.rst, cgroup-v1/cpusets.rst and cgroup-v2.rst, "CPU".
"""

from __future__ import annotations

from .plan import LATER, MUST, OPTIONAL, number, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Section, Write

SHARES_LEAST, SHARES_MOST = 2, 262144
_PERIOD = 100000
"""The kernel's own period in microseconds, which cpu.max must be told again with a quota."""


def sets(section: Section) -> list[Write]:
    """The writes to cpuset, the same on v1 and v2."""
    return [(f"cpu.{n}", f"cpuset.{n}", str(section[n]), MUST) for n in ("cpus", "mems") if section.get(n)]


def realtime(section: Section) -> list[Write]:
    """The realtime bandwidth of v1. To be set before a realtime process joins."""
    period, runtime = number(section, "realtimePeriod"), number(section, "realtimeRuntime")
    writes: list[Write] = []
    if period:
        writes.append(("cpu.realtimePeriod", "cpu.rt_period_us", str(period), LATER if runtime else MUST))
    if runtime:
        writes.append(("cpu.realtimeRuntime", "cpu.rt_runtime_us", str(runtime), LATER if period else MUST))
    return writes


def v1(section: Section) -> list[Write]:
    """The writes of cgroup v1 but the realtime ones. Raises Error."""
    check(section)
    shares, period, quota, burst = numbers(section)
    writes: list[Write] = []
    if shares:
        # The kernel would cut it to its range without a word.
        if shares < SHARES_LEAST:
            raise refuse("cpu.shares", f"the minimum allowed cpu-shares is {SHARES_LEAST}")
        if shares > SHARES_MOST:
            raise refuse("cpu.shares", f"the maximum allowed cpu-shares is {SHARES_MOST}")
        writes.append(("cpu.shares", "cpu.shares", str(shares), MUST))
    if period:
        writes.append(("cpu.period", "cpu.cfs_period_us", str(period), LATER if quota else MUST))
    if burst is not None:
        writes.append(("cpu.burst", "cpu.cfs_burst_us", str(burst), burst_when(burst, quota)))
    if quota:
        writes.append(("cpu.quota", "cpu.cfs_quota_us", str(quota), LATER if burst is not None else MUST))
    if section.get("idle") is not None:
        writes.append(("cpu.idle", "cpu.idle", str(int(section["idle"])), MUST))
    return writes


def v2(section: Section) -> list[Write]:
    """The writes of cgroup2. Raises Error."""
    check(section)
    shares, period, quota, burst = numbers(section)
    writes: list[Write] = []
    if section.get("idle") is not None:
        writes.append(("cpu.idle", "cpu.idle", str(int(section["idle"])), MUST))
    if shares:
        writes.append(("cpu.shares", "cpu.weight", str(weight(shares)), MUST))
    if burst is not None:
        writes.append(("cpu.burst", "cpu.max.burst", str(burst), burst_when(burst, quota)))
    if quota or period:
        name = "cpu.quota" if quota else "cpu.period"
        most = str(quota) if quota > 0 else "max"
        writes.append((name, "cpu.max", f"{most} {period or _PERIOD}", LATER if burst is not None else MUST))
    return writes


def numbers(section: Section) -> tuple[int, int, int, int | None]:
    """Shares, period, quota and burst; the last may be unset or 0, which differ."""
    burst = section.get("burst")
    shares, period, quota = (number(section, name) for name in ("shares", "period", "quota"))
    return shares, period, quota, None if burst is None else int(burst)


def burst_when(burst: int, quota: int) -> str:
    """A burst of nothing needs no kernel that knows bursts (5.15); another is checked against the quota."""
    if not burst:
        return OPTIONAL
    return LATER if quota else MUST


def check(section: Section) -> None:
    """Raise Error for a burst above the quota (config-linux.md, "CPU")."""
    burst, quota = number(section, "burst"), number(section, "quota")
    if 0 < quota < burst:
        raise refuse("cpu.burst", f"{burst} is larger than cpu.quota {quota}")


def weight(shares: int) -> int:
    """cpu.weight (1 to 10000, default 100) for v1's cpu.shares (2 to 262144, default 1024).

    The formula of runc 1.4 and crun 1.24: a parabola in log2 that meets least, default and most of both.
    """
    import math

    if shares <= SHARES_LEAST:
        return 1
    if shares >= SHARES_MOST:
        return 10000
    power = math.log2(shares)
    return math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34))

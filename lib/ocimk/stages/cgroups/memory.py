"""linux.resources.memory as files. See cgroup-v1/memory.rst and cgroup-v2.rst, "Memory"."""

from __future__ import annotations

from ...errors import warn
from .plan import LATER, MUST, OPTIONAL, limit, number, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Has, Section, Write

_UNSET_SWAPPINESS = (-1, 2**64 - 1)


def v1(section: Section, has: Has) -> list[Write]:
    """The writes of cgroup v1. Raises Error."""
    ignored(section)
    memory, swap, reservation = (number(section, name) for name in ("limit", "swap", "reservation"))
    if memory == -1 and not swap and has("memory.memsw.limit_in_bytes"):
        # Unlimited memory under a limit of memory and swap would be no more than that.
        swap = -1
    writes: list[Write] = []
    if section.get("useHierarchy") is not None:
        writes.append(
            ("memory.useHierarchy", "memory.use_hierarchy", str(int(section["useHierarchy"])), MUST)
        )
    if memory:
        writes.append(("memory.limit", "memory.limit_in_bytes", str(memory), LATER))
    if swap:
        writes.append(("memory.swap", "memory.memsw.limit_in_bytes", str(swap), LATER))
    if reservation:
        writes.append(("memory.reservation", "memory.soft_limit_in_bytes", str(reservation), MUST))
    if section.get("disableOOMKiller"):
        writes.append(("memory.disableOOMKiller", "memory.oom_control", "1", MUST))
    if (swappiness := wanted_swappiness(section)) >= 0:
        writes.append(("memory.swappiness", "memory.swappiness", str(swappiness), MUST))
    return writes


def v2(section: Section, has: Has) -> list[Write]:
    """The writes of cgroup2. Raises Error for what it cannot do."""
    ignored(section)
    if section.get("useHierarchy") is False:
        raise refuse(
            "memory.useHierarchy",
            "cgroup v2 always accounts hierarchically",
            "leave it out or set it to true",
        )
    if section.get("disableOOMKiller"):
        raise refuse("memory.disableOOMKiller", "cgroup v2 cannot disable the OOM killer", "leave it out")
    if wanted_swappiness(section) >= 0:
        raise refuse(
            "memory.swappiness",
            "cgroup v2 has no swappiness per cgroup",
            "leave it out, or use vm.swappiness",
        )
    writes: list[Write] = []
    if (swap := v2_swap(number(section, "limit"), number(section, "swap"))) is not None:
        # Without swap in the kernel there is no such file; then "none" and "all of it" are true anyway.
        when = OPTIONAL if swap <= 0 else MUST
        writes.append(("memory.swap", "memory.swap.max", limit(swap), when))
    for name, file in (("limit", "memory.max"), ("reservation", "memory.low")):
        if value := number(section, name):
            writes.append((f"memory.{name}", file, limit(value), MUST))
    return writes


def v2_swap(memory: int, swap: int) -> int | None:
    """memory.swap.max for OCI's limit of memory *and* swap; -1: unlimited, None: leave as it is. Raises
    Error."""
    if memory == -1 and swap == 0:
        return -1
    if swap == 0:
        return None
    if swap < 0 or memory == -1:
        return swap
    if memory <= 0:
        raise refuse(
            "memory.swap",
            "cgroup v2 limits swap alone, so the limit of memory must be known",
            "set memory.limit too",
        )
    if swap < memory:
        raise refuse(
            "memory.swap", f"{swap} is memory and swap together and cannot be below memory.limit {memory}"
        )
    return swap - memory


def wanted_swappiness(section: Section) -> int:
    """0 to 100, or -1 when it is not set. Raises Error."""
    value = section.get("swappiness")
    if value is None or value in _UNSET_SWAPPINESS:
        return -1
    if not 0 <= value <= 100:
        raise refuse("memory.swappiness", f"{value} is not within 0 and 100")
    return int(value)


def ignored(section: Section) -> None:
    """Warn of the limits of kernel memory, which the specification does not recommend and kernels have
    dropped."""
    for name in ("kernel", "kernelTCP"):
        if section.get(name):
            warn(f"linux.resources.memory.{name} is ignored: kernels no longer limit kernel memory by itself")

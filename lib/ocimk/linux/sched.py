"""Where and when a process runs, as calls: scheduler, I/O priority, CPU affinity, memory policy, personality.

Sources: sched_setattr(2), linux/sched/types.h, ioprio_set(2), sched_setaffinity(2), set_mempolicy(2),
personality(2)."""

from __future__ import annotations

import _struct

from ..errors import Error
from ..native._native import NR

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .prctl import Call

POLICIES = {
    "SCHED_OTHER": 0,
    "SCHED_FIFO": 1,
    "SCHED_RR": 2,
    "SCHED_BATCH": 3,
    "SCHED_ISO": 4,
    "SCHED_IDLE": 5,
    "SCHED_DEADLINE": 6,
}
"""SCHED_ISO is reserved in the kernel's headers but exists in no kernel: it says EINVAL."""

FLAGS = {
    "SCHED_FLAG_RESET_ON_FORK": 0x01,
    "SCHED_FLAG_RECLAIM": 0x02,
    "SCHED_FLAG_DL_OVERRUN": 0x04,
    "SCHED_FLAG_KEEP_POLICY": 0x08,
    "SCHED_FLAG_KEEP_PARAMS": 0x10,
    "SCHED_FLAG_UTIL_CLAMP_MIN": 0x20,
    "SCHED_FLAG_UTIL_CLAMP_MAX": 0x40,
}

IO_CLASSES = {"IOPRIO_CLASS_RT": 1, "IOPRIO_CLASS_BE": 2, "IOPRIO_CLASS_IDLE": 3}

_WHO_PROCESS = 1

DOMAINS = {"LINUX": 0x0000, "LINUX32": 0x0008}

MEMORY_MODES = {
    "MPOL_DEFAULT": 0,
    "MPOL_PREFERRED": 1,
    "MPOL_BIND": 2,
    "MPOL_INTERLEAVE": 3,
    "MPOL_LOCAL": 4,
    "MPOL_PREFERRED_MANY": 5,
    "MPOL_WEIGHTED_INTERLEAVE": 6,
}

MEMORY_FLAGS = {
    "MPOL_F_NUMA_BALANCING": 1 << 13,
    "MPOL_F_RELATIVE_NODES": 1 << 14,
    "MPOL_F_STATIC_NODES": 1 << 15,
}

# Whether a mode takes nodes: never, or only with some.
_NODELESS = ("MPOL_DEFAULT", "MPOL_LOCAL")
_NODES_NEEDED = ("MPOL_BIND", "MPOL_INTERLEAVE", "MPOL_PREFERRED_MANY", "MPOL_WEIGHTED_INTERLEAVE")

_MOST = 1 << 16  # numbers in a list; far above any kernel's NR_CPUS or MAX_NUMNODES


# ---- scheduler ---------------------------------------------------------------------------------------------


def scheduler(
    policy: str,
    nice: int = 0,
    priority: int = 0,
    flags: Sequence[str] = (),
    times: tuple[int, int, int] = (0, 0, 0),
    where: str = "scheduler",
) -> list[Call]:
    """sched_setattr(2) for the caller. *times* are runtime, deadline and period of SCHED_DEADLINE, in
    nanoseconds.

    Raises Error, naming the property, for what cannot be: a value that belongs to another policy, or out of
    range."""
    _one_of(policy, POLICIES, f"{where}.policy")
    if not -20 <= nice <= 19:
        raise Error(f"{where}.nice", f"{nice} is not between -20 and 19")
    if priority and policy not in ("SCHED_FIFO", "SCHED_RR"):
        raise Error(f"{where}.priority", f"only for SCHED_FIFO and SCHED_RR, not for {policy}")
    if not 0 <= priority <= 99:
        raise Error(f"{where}.priority", f"{priority} is not between 0 and 99")
    for key, value in zip(("runtime", "deadline", "period"), times, strict=True):
        if value and policy != "SCHED_DEADLINE":
            raise Error(f"{where}.{key}", f"only for SCHED_DEADLINE, not for {policy}")
        if not 0 <= value < 2**64:
            raise Error(f"{where}.{key}", f"{value} is not between 0 and 2^64-1")
    number = _sum_of(flags, FLAGS, f"{where}.flags")
    data = pack_attributes(POLICIES[policy], number, nice, priority, times)
    return [(f"{where} {policy}", NR["sched_setattr"], (0, data, 0))]


def pack_attributes(policy: int, flags: int, nice: int, priority: int, times: tuple[int, int, int]) -> bytes:
    """struct sched_attr with the utilisation clamps (56 bytes, Linux 5.3); the clamps, which have no
    property, are 0."""
    return _struct.pack("=IIQiIQQQII", 56, policy, flags, nice, priority, *times, 0, 0)


def scheduler_hint(number: int) -> str:
    """What to do about the errno of a scheduler that could not be set."""
    import errno

    hints = {
        errno.EPERM: "needs CAP_SYS_NICE; real time in a v1 cgroup, linux.resources.cpu.realtimeRuntime; "
        "SCHED_DEADLINE all CPUs",
        errno.EBUSY: "the deadlines of all processes together ask for more time than there is",
        errno.EINVAL: "the kernel knows no such policy or combination of values",
    }
    return hints.get(number, "")


# ---- input and output --------------------------------------------------------------------------------------


def io_priority(kind: str, priority: int, where: str = "ioPriority") -> list[Call]:
    """ioprio_set(2) for the caller; its children inherit it. Raises Error for an unknown class or level."""
    _one_of(kind, IO_CLASSES, f"{where}.class")
    if not 0 <= priority <= 7:
        raise Error(f"{where}.priority", f"{priority} is not between 0 and 7")
    value = IO_CLASSES[kind] << 13 | priority
    return [(f"{where} {kind} {priority}", NR["ioprio_set"], (_WHO_PROCESS, 0, value))]


# ---- processors --------------------------------------------------------------------------------------------


def parse_list(text: str, where: str) -> set[int]:
    """``0-3,7`` as numbers, as the kernel reads it (cpuset(7), "List format"). Raises Error naming
    *where*."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        low, high = first.strip(), last.strip() if dash else first.strip()
        if not (low.isascii() and low.isdigit() and high.isascii() and high.isdigit()):
            raise Error(where, f"{text!r} is not a list like 0-3,7")
        if int(low) > int(high) or int(high) >= _MOST:
            raise Error(where, f"{part.strip()} in {text!r} is not a range")
        found.update(range(int(low), int(high) + 1))
    return found


def mask(numbers: Iterable[int]) -> bytes:
    """The numbers as bits of an array of unsigned long, no longer than needed."""
    value = 0
    for number in numbers:
        value |= 1 << number
    words = value.bit_length() // 64 + 1
    return _struct.pack(f"={words}Q", *(value >> 64 * i & 0xFFFFFFFFFFFFFFFF for i in range(words)))


def affinity(cpus: str, where: str, pid: int = 0) -> list[Call]:
    """sched_setaffinity(2) to a list of CPUs; [] for an empty list, which means "leave it". Raises Error."""
    if not cpus.strip():
        return []
    data = mask(parse_list(cpus, where))
    return [(f"{where} {cpus}", NR["sched_setaffinity"], (pid, len(data), data))]


# ---- memory and personality --------------------------------------------------------------------------------


def memory_policy(mode: str, nodes: str, flags: Sequence[str] = (), where: str = "memoryPolicy") -> list[Call]:
    """set_mempolicy(2) for the caller. Raises Error, naming the property, for what cannot be."""
    _one_of(mode, MEMORY_MODES, f"{where}.mode")
    number = MEMORY_MODES[mode] | _sum_of(flags, MEMORY_FLAGS, f"{where}.flags")
    chosen = parse_list(nodes, f"{where}.nodes") if nodes.strip() else set()
    if chosen and mode in _NODELESS:
        raise Error(f"{where}.nodes", f"{mode} takes no nodes")
    if not chosen and mode in _NODES_NEEDED:
        raise Error(f"{where}.nodes", f"{mode} needs at least one node")
    data = mask(chosen) if chosen else b""
    # The kernel reads one bit less than it is told of (set_mempolicy(2), "maxnode").
    most = len(data) * 8 + 1 if chosen else 0
    return [(f"{where} {mode} {nodes}".rstrip(), NR["set_mempolicy"], (number, data or 0, most))]


def personality(domain: str, where: str = "personality") -> list[Call]:
    """personality(2): LINUX32 makes uname(2) name the 32-bit machine. Raises Error for an unknown domain."""
    _one_of(domain, DOMAINS, f"{where}.domain")
    return [(f"{where} {domain}", NR["personality"], (DOMAINS[domain],))]


def _one_of(word: str, known: dict[str, int], where: str) -> None:
    if word not in known:
        raise Error(where, f"{word!r} is not known", " ".join(known))


def _sum_of(words: Sequence[str], known: dict[str, int], where: str) -> int:
    total = 0
    for i, word in enumerate(words):
        _one_of(word, known, f"{where}[{i}]")
        total |= known[word]
    return total

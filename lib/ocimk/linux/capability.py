"""capabilities(7): names, the sets of a process, and the calls that give a process its sets.

The five sets are put on in two halves, for the change of user lies between: the bounding set is cut while
CAP_SETPCAP is still held, and the others are set when the user is already the container's, which needs
PR_SET_KEEPCAPS before."""

from __future__ import annotations

import _struct
import errno

from ..native._native import NR, syscall
from . import prctl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from .prctl import Call

# linux/capability.h, in the order of their numbers.
NAMES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER",
    "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip

NUMBERS = {name: number for number, name in enumerate(NAMES)}

SETS = ("bounding", "effective", "inheritable", "permitted", "ambient")
"""The five sets by the names that process.capabilities gives them."""

SETPCAP = NUMBERS["CAP_SETPCAP"]

_VERSION_3 = 0x20080522


class Own:
    """The sets of the calling process, as bits."""

    __slots__ = ("bounding", "effective", "inheritable", "last", "permitted")

    def __init__(self, effective: int, permitted: int, inheritable: int, bounding: int, last: int) -> None:
        self.effective = effective
        self.permitted = permitted
        self.inheritable = inheritable
        self.bounding = bounding
        self.last = last


class Plan:
    """What a process gets: numbers by set, all of which the kernel will grant."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "last", "permitted")

    def __init__(self, sets: Mapping[str, set[int]], last: int) -> None:
        self.bounding = sets["bounding"]
        self.effective = sets["effective"]
        self.inheritable = sets["inheritable"]
        self.permitted = sets["permitted"]
        self.ambient = sets["ambient"]
        self.last = last

    def before_user(self) -> list[Call]:
        """The calls before the change of user: cut the bounding set, keep the permitted one over the
        change."""
        return [*bounding_drops(self.bounding, self.last), prctl.keep_capabilities(True)]

    def after_user(self) -> list[Call]:
        """The calls after the change of user: the remaining sets."""
        sets = capset(self.effective, self.permitted, self.inheritable)
        return [*sets, prctl.keep_capabilities(False), *ambient(self.ambient)]


def bits(numbers: Iterable[int]) -> int:
    """The numbers as bits of a mask."""
    mask = 0
    for number in numbers:
        mask |= 1 << number
    return mask


def members(mask: int) -> set[int]:
    """The numbers whose bits are set."""
    return {number for number in range(mask.bit_length()) if mask >> number & 1}


def name(number: int) -> str:
    """CAP_CHOWN for 0; the number for one that is newer than we are."""
    return NAMES[number] if number < len(NAMES) else f"capability {number}"


def last_capability() -> int:
    """The highest capability that this kernel knows (as /proc/sys/kernel/cap_last_cap says)."""
    last = len(NAMES) - 1
    while last < 63 and _bounded(last + 1) is not None:
        last += 1
    while last > 0 and _bounded(last) is None:
        last -= 1
    return last


def _bounded(number: int) -> int | None:
    """1 or 0: whether the capability is in our bounding set; None when the kernel does not know it."""
    try:
        return prctl.prctl(prctl.CAPBSET_READ, number)
    except OSError as problem:
        if problem.errno == errno.EINVAL:
            return None
        raise


def own_sets() -> Own:
    """The sets of the calling process. Raises OSError."""
    data = bytearray(24)
    syscall(NR["capget"], _struct.pack("=Ii", _VERSION_3, 0), data)
    low_e, low_p, low_i, high_e, high_p, high_i = _struct.unpack("=6I", data)
    last = last_capability()
    bounding = bits(number for number in range(last + 1) if _bounded(number))
    return Own(low_e | high_e << 32, low_p | high_p << 32, low_i | high_i << 32, bounding, last)


def plan(wanted: Mapping[str, Iterable[str]], warn: Callable[[str], None], own: Own | None = None) -> Plan:
    """From names by set (a set that is absent is empty) to what can be granted to the calling process or its
    child.

    What this kernel does not know or what cannot be granted is left out and told to *warn*, once for each
    name, with the first reason: the specification forbids to fail here, and callers ask for capabilities of newer
    kernels."""
    own = own or own_sets()
    lost: dict[str, list[str]] = {}
    sets = {key: _numbers(wanted.get(key) or (), own.last, lost) for key in SETS}
    for key, allowed, why in _limits(own):
        _keep(sets, key, allowed, f"not grantable ({why})", lost)
    _keep(sets, "effective", bits(sets["permitted"]), "not grantable as effective (not permitted)", lost)
    both = bits(sets["permitted"] & sets["inheritable"])
    _keep(sets, "ambient", both, "not grantable as ambient (not both permitted and inheritable)", lost)
    told: set[str] = set()
    for why, names in lost.items():
        fresh = sorted(set(names) - told)
        told.update(fresh)
        if fresh:
            warn(f"process.capabilities: ignoring {', '.join(fresh)}: {why}")
    return Plan(sets, own.last)


def _limits(own: Own) -> tuple[tuple[str, int, str], ...]:
    """What the kernel allows in each set: see "Programmatically adjusting capability sets" in
    capabilities(7)."""
    inheritable = own.inheritable | own.bounding
    if not own.effective >> SETPCAP & 1:
        inheritable &= own.inheritable | own.permitted
    return (
        ("bounding", own.bounding, "not in our bounding set"),
        ("permitted", own.permitted, "not in our permitted set"),
        ("inheritable", inheritable, "not in our bounding set"),
    )


def _numbers(names: Iterable[str], last: int, lost: dict[str, list[str]]) -> set[int]:
    found = set()
    for text in names:
        number = NUMBERS.get(text)
        if number is None or number > last:
            lost.setdefault("unknown to this kernel" if number else "unknown", []).append(text)
        else:
            found.add(number)
    return found


def _keep(sets: dict[str, set[int]], key: str, allowed: int, why: str, lost: dict[str, list[str]]) -> None:
    surplus = {number for number in sets[key] if not allowed >> number & 1}
    if surplus:
        lost.setdefault(why, []).extend(name(number) for number in surplus)
        sets[key] = sets[key] - surplus


# ---- calls as data -----------------------------------------------------------------------------------------


def bounding_drops(keep: Iterable[int], last: int) -> list[Call]:
    """Drop from the bounding set all but *keep*; needs CAP_SETPCAP. Dropping what is not there is no
    error."""
    kept = set(keep)
    return [
        prctl.call(f"drop {name(number)} from the bounding set", prctl.CAPBSET_DROP, number)
        for number in range(last + 1)
        if number not in kept
    ]


def capset(effective: Iterable[int], permitted: Iterable[int], inheritable: Iterable[int]) -> list[Call]:
    """Set the three classic sets in one call, for both halves of the 64 bits."""
    header, data = capset_data(effective, permitted, inheritable)
    return [("set capabilities", NR["capset"], (header, data))]


def capset_data(effective: Iterable[int], permitted: Iterable[int], inheritable: Iterable[int]) -> tuple[bytes, bytes]:
    """struct __user_cap_header_struct (version 3, the caller) and two struct __user_cap_data_struct."""
    masks = (bits(effective), bits(permitted), bits(inheritable))
    words = [mask & 0xFFFFFFFF for mask in masks] + [mask >> 32 for mask in masks]
    return _struct.pack("=Ii", _VERSION_3, 0), _struct.pack("=6I", *words)


def ambient(numbers: Iterable[int]) -> list[Call]:
    """Empty the ambient set and raise these; each must be permitted and inheritable by then."""
    calls = [prctl.call("clear the ambient set", prctl.CAP_AMBIENT, prctl.AMBIENT_CLEAR_ALL)]
    for number in sorted(numbers):
        calls.append(prctl.call(f"raise ambient {name(number)}", prctl.CAP_AMBIENT, prctl.AMBIENT_RAISE, number))
    return calls


def keep_over_exec() -> None:
    """Make all our permitted capabilities ambient: in a user namespace whose root we are not yet, executing a program
    would take them away otherwise. Raises OSError."""
    own = own_sets()
    every = members(own.permitted)
    for _, number, args in [*capset(every, every, every), *ambient(every)]:
        syscall(number, *args)

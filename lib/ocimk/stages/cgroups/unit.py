"""The transient unit that stands for a container: its name, its place among the slices, its properties.

The rules are runc's (docs/systemd.md there), so that both find the same cgroups. What a property means is told by
systemd.resource-control(5) and org.freedesktop.systemd1(5); those of limits are made from the very writes that are
planned for the kernel's files, so that systemd, which writes the files again whenever it likes, writes the same.
"""

from __future__ import annotations

from ...errors import Error
from . import devices as rules
from . import paths, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .bus import Properties
    from .resources import Resources, Work

PREFIX = "oci"
ANNOTATION = "org.systemd.property."
INFINITY = 2**64 - 1

_FORM = "slice:prefix:name"
_SLICE, _SCOPE = ".slice", ".scope"
_PERIOD = 100000
_PERCENT = 10000
"""One percent of a CPU, in microseconds per second: the finest that systemd keeps of a quota over a reload."""

# The kernel's file, the property. All are 64-bit numbers.
NUMBERS = {
    "memory.max": "MemoryMax", "memory.high": "MemoryHigh", "memory.low": "MemoryLow", "memory.min": "MemoryMin",
    "memory.swap.max": "MemorySwapMax", "pids.max": "TasksMax", "cpu.weight": "CPUWeight", "io.weight": "IOWeight",
    "memory.limit_in_bytes": "MemoryLimit", "cpu.shares": "CPUShares", "blkio.weight": "BlockIOWeight",
}  # fmt: skip
SETS = {"cpuset.cpus": "AllowedCPUs", "cpuset.mems": "AllowedMemoryNodes"}
_SUFFIXES = {"k": 10, "m": 20, "g": 30, "t": 40}


# ---- names -------------------------------------------------------------------------------------------------


def named(config: dict[str, Any], name: str, user: bool) -> tuple[str, str]:
    """The slice and the unit for a container of that ID. Raises Error."""
    default = "user.slice" if user else "system.slice"
    text = paths.wanted(config)
    if not text:
        return default, f"{PREFIX}-{name}{_SCOPE}"
    parts = text.split(":")
    if len(parts) != 3:
        doing = f'expected cgroupsPath to be of format "{_FORM}" for systemd cgroups, got "{text}" instead'
        raise Error(f"{paths.PROPERTY}: {doing}", hint="system.slice:oci:web, say, or --cgroup-manager cgroupfs")
    where, prefix, unit = parts
    if unit.endswith(_SLICE):
        raise Error(f"{paths.PROPERTY} {text}", "a slice holds no processes", "choose a name for a scope")
    if not unit or "/" in prefix + unit:
        raise Error(f"{paths.PROPERTY} {text}", f"{prefix}-{unit}{_SCOPE} is no unit's name")
    expand(where or default)
    return where or default, f"{prefix}-{unit}{_SCOPE}"


def expand(name: str) -> str:
    """The path of a slice below the manager's cgroup: that of a-b.slice is /a.slice/a-b.slice. Raises Error."""
    stem = name.removesuffix(_SLICE)
    if stem == "-" and name != stem:
        return ""
    words = stem.split("-")
    if not name.endswith(_SLICE) or "/" in name or not all(words):
        raise Error(f"{paths.PROPERTY}: invalid slice name: {name}", hint="as in system.slice or a-b.slice")
    return "".join(f"/{'-'.join(words[: at + 1])}{_SLICE}" for at in range(len(words)))


# ---- what it is started with -------------------------------------------------------------------------------


def started(config: dict[str, Any], where: str, description: str, mode: str) -> Properties:
    """What the unit is told at its start but the processes and the devices. Raises Error."""
    io = "IOAccounting" if mode == "v2" else "BlockIOAccounting"
    found: Properties = [("Description", ("s", description)), ("Slice", ("s", where)), ("Delegate", ("b", True))]
    found += [(f"{name}", ("b", True)) for name in ("MemoryAccounting", "CPUAccounting", io, "TasksAccounting")]
    return [*found, ("DefaultDependencies", ("b", False)), *annotated(config)]


def annotated(config: dict[str, Any]) -> Properties:
    """The properties that org.systemd.property.* annotations ask for. Raises Error.

    One that would execute something is refused: whoever may annotate a container could run programs on the host
    with it (CVE-2024-3154).
    """
    from . import variant

    found: Properties = []
    for key, text in (config.get("annotations") or {}).items():
        if not key.startswith(ANNOTATION):
            continue
        name = key.removeprefix(ANNOTATION)
        if len(name) < 3 or not (name.isascii() and name.isalpha()):
            raise Error(f"annotation {key}", "name incorrect", "a property's name, of letters only")
        if name.startswith("Exec"):
            raise Error(f"annotation {key}", "a container may not have systemd execute programs", "leave it out")
        try:
            signature, value = variant.parse(str(text))
            if name.endswith("Sec") and name[-4:-3].islower():
                name, signature, value = f"{name[:-3]}USec", "t", microseconds(signature, value)
        except ValueError as problem:
            hint = "GVariant's text format: 'text', true, uint64 5, ['a', 'b']"
            raise Error(f"annotation {key}={text} value parse error", problem, hint) from None
        found.append((name, (signature, value)))
    return found


def microseconds(signature: str, value: Any) -> int:
    """A number of seconds as a 64-bit number of microseconds. Raises ValueError."""
    if signature not in tuple("ynqiuxtd"):
        raise ValueError("not a number")
    if not 0 <= value <= INFINITY // 10**6:
        raise ValueError(f"{value} s cannot be had")
    return int(value * 10**6)


def devices(config: dict[str, Any], mode: str) -> Properties:
    """The rules for devices. Raises Error.

    systemd knows lists of what is allowed only. Rules that are no such list are on cgroup2 left to our own
    program, which decides besides systemd's; on v1 there is one list, which systemd may write again, so there it
    gets as much as it can have.
    """
    try:
        state = rules.fold(rules.rules(config))
    except Error:
        if mode != "v2":
            raise
        state = rules.Exceptions(True)
    odd = [key for key in state.found if key[1] == rules.ANY and key[2] != rules.ANY]
    if state.default and not state.found or mode == "v2" and (state.default or odd):
        return [("DeviceAllow", ("a(ss)", [])), ("DevicePolicy", ("s", "auto"))]
    allowed = {} if state.default else {k: access for k, access in state.found.items() if k not in odd}
    entries = [(device(key), rules.text(key, access).rpartition(" ")[2]) for key, access in sorted(allowed.items())]
    return [("DevicePolicy", ("s", "strict")), ("DeviceAllow", ("a(ss)", entries))]


def device(key: rules.Key) -> str:
    """How DeviceAllow= names devices; see systemd.resource-control(5)."""
    word = "char" if key[0] == "c" else "block"
    if key[1] == rules.ANY:
        return f"{word}-*"
    return f"{word}-{key[1]}" if key[2] == rules.ANY else f"/dev/{word}/{key[1]}:{key[2]}"


def oom_policy(resources: Resources) -> Properties:
    """memory.oom.group as OOMPolicy=, which a scope takes at its start only (systemd 253)."""
    value = str((resources.get("unified") or {}).get("memory.oom.group", "")).strip()
    words = {"0": "continue", "1": "kill"}
    return [("OOMPolicy", ("s", words[value]))] if value in words else []


# ---- limits ------------------------------------------------------------------------------------------------


def rounded(resources: Resources) -> Resources:
    """The resources with a quota of whole percents, rounded up: systemd keeps no more of it."""
    cpu = resources.get("cpu") or {}
    quota, period = plan.number(cpu, "quota"), plan.number(cpu, "period") or _PERIOD
    if quota <= 0:
        return resources
    return {**resources, "cpu": {**cpu, "quota": per_second(quota, period) * period // 10**6}}


def per_second(quota: int, period: int) -> int:
    """Microseconds of CPU time per second, in whole percents, rounded up."""
    return -(-(quota * 10**6 // period) // _PERCENT) * _PERCENT


def limits(work: list[Work]) -> Properties:
    """The properties that say what the writes say; a file that systemd knows nothing of has none. Raises Error."""
    files = {file: (name, value.strip()) for _, writes in work for name, file, value, _ in writes}
    idle = files.get("cpu.idle", ("", ""))[1] == "1"
    found: Properties = []
    for file, (name, value) in files.items():
        if file in NUMBERS and not (file == "cpu.weight" and idle) and " " not in value:
            # A scope cannot be told of none at all.
            least = 1 if file == "pids.max" else 0
            found.append((NUMBERS[file], ("t", max(number(name, value), least))))
        elif file in SETS and value:
            found.append((SETS[file], ("ay", bits(name, value))))
    if idle:
        found.append(("CPUWeight", ("t", 0)))
    return found + quota(files)


def quota(files: dict[str, tuple[str, str]]) -> Properties:
    """CPUQuota= of cpu.max, or of v1's two files."""
    if "cpu.max" in files:
        name, value = files["cpu.max"]
        words = [*value.split(), str(_PERIOD)]
    elif "cpu.cfs_quota_us" in files or "cpu.cfs_period_us" in files:
        name, value = files.get("cpu.cfs_quota_us", ("", "-1"))
        words = [value, files.get("cpu.cfs_period_us", ("", str(_PERIOD)))[1]]
    else:
        return []
    period = number(name, words[1])
    limited = words[0] not in ("max", "-1")
    share = per_second(number(name, words[0]), max(period, 1)) if limited else INFINITY
    return [("CPUQuotaPeriodUSec", ("t", period)), ("CPUQuotaPerSecUSec", ("t", share))]


def number(name: str, value: str) -> int:
    """What a cgroup file would take the text for: with the kernel's suffixes, and "max". Raises Error."""
    if value in ("max", "-1"):
        return INFINITY
    shift = _SUFFIXES.get(value[-1:].lower(), 0)
    digits = value[:-1] if shift else value
    if not digits.isdecimal() or int(digits) << shift > INFINITY:
        raise plan.refuse(name, f"{value!r} is no number for systemd", "digits, or max")
    return int(digits) << shift


def bits(name: str, text: str) -> list[int]:
    """A list of CPUs or nodes ("0-2,7") as bytes, the least first. Raises Error."""
    found = 0
    for part in text.replace(" ", "").split(","):
        first, _, last = part.partition("-")
        last = last or first
        if not part:
            continue
        if not (first.isdecimal() and last.isdecimal() and int(first) <= int(last) < 2**16):
            raise plan.refuse(name, f"{part!r} is no range", "as in 0-2,7")
        found |= (1 << int(last) + 1) - (1 << int(first))
    if not found:
        raise plan.refuse(name, f"{text!r} names none")
    return list(found.to_bytes((found.bit_length() + 7) // 8, "little"))

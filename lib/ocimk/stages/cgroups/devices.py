"""linux.resources.devices: which devices the container may open and make.

A rule is a plain tuple ``(allow, type, major, minor, access)``: type "c" or "b", -1 for any number, access a
set of bits. The rules of the configuration come in their order, then the ones every container gets (runc's
list: without them even /dev/null could not be opened). Nothing is allowed to begin with.

v1 keeps a default and a set of exceptions to it (cgroup-v1/devices.rst), so the ordered rules are folded into
that form first (:class:`Exceptions`). On cgroup2 a BPF program decides, which can follow any order itself.
"""

from __future__ import annotations

from ...errors import Error
from ...linux import cgroup
from .plan import PREFIX, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Rule = tuple[bool, str, int, int, int]
    Key = tuple[str, int, int]

READ, WRITE, MKNOD = 1, 2, 4
ALL = READ | WRITE | MKNOD
_BITS = {"r": READ, "w": WRITE, "m": MKNOD}
ANY = -1

DEFAULTS: tuple[tuple[str, Rule], ...] = (
    ("", (True, "c", ANY, ANY, MKNOD)),
    ("", (True, "b", ANY, ANY, MKNOD)),
    ("/dev/null", (True, "c", 1, 3, ALL)),
    ("/dev/random", (True, "c", 1, 8, ALL)),
    ("/dev/full", (True, "c", 1, 7, ALL)),
    ("/dev/tty", (True, "c", 5, 0, ALL)),
    ("/dev/zero", (True, "c", 1, 5, ALL)),
    ("/dev/urandom", (True, "c", 1, 9, ALL)),
    ("", (True, "c", 136, ANY, ALL)),  # /dev/pts/*, and the console, which is one of them
    ("", (True, "c", 5, 2, ALL)),  # /dev/ptmx
    ("", (True, "c", 10, 200, ALL)),  # /dev/net/tun: callers cannot always ask for it and rely on it
)
"""What every container may use, each with the path of the device node that linux.devices may replace."""


def rules(config: dict[str, Any]) -> list[Rule]:
    """All rules of a configuration in order, the common ones last. Raises Error.

    A device node of linux.devices at the path of a common one replaces it, and its rule with it.
    """
    linux = config.get("linux") or {}
    found: list[Rule] = []
    for at, entry in enumerate((linux.get("resources") or {}).get("devices") or ()):
        found += parse(entry, f"devices[{at}]")
    replaced = {entry.get("path") for entry in linux.get("devices") or ()}
    return found + [rule for path, rule in DEFAULTS if not path or path not in replaced]


def parse(entry: dict[str, Any], name: str) -> list[Rule]:
    """One entry as rules: one, or with type ``a`` one for either type. Raises Error."""
    kind = entry.get("type") or "a"
    text = str(entry.get("access") or "")
    if kind not in ("a", "b", "c"):
        raise refuse(f"{name}.type", f"{kind!r} is not a type", "a, b or c")
    if not text or set(text) - set(_BITS):
        raise refuse(f"{name}.access", f"{text!r} is not an access", "one or more of r, w, m")
    access = 0
    for letter in text:
        access |= _BITS[letter]
    major, minor = (
        ANY if entry.get(n) is None or int(entry[n]) < 0 else int(entry[n]) for n in ("major", "minor")
    )
    if max(major, minor) > 2**32 - 1:
        raise refuse(name, "a device number has 32 bits at most")
    allow = bool(entry.get("allow"))
    return [(allow, k, major, minor, access) for k in (("c", "b") if kind == "a" else (kind,))]


class Exceptions:
    """A default and the exceptions from it: all that v1's devices controller can hold."""

    __slots__ = ("default", "found")

    def __init__(self, default: bool = False) -> None:
        self.default = default
        self.found: dict[Key, int] = {}

    def add(self, rule: Rule) -> None:
        """Take one more rule into account. Raises Error for a hole in a wildcard, which v1 would silently
        not make."""
        allow, kind, major, minor, access = rule
        key = (kind, major, minor)
        if allow != self.default:
            self.found[key] = self.found.get(key, 0) | access
            return
        for wider in ((kind, ANY, minor), (kind, major, ANY), (kind, ANY, ANY)):
            if wider != key and self.found.get(wider, 0) & access:
                raise Error(
                    f"{PREFIX}.devices: rule {text(key, access)}",
                    f"cgroup v1 cannot except it from {text(wider, self.found[wider])}",
                    "list the devices one by one, or use cgroup v2",
                )
        for narrower in [k for k in self.found if covers(key, k)]:
            self.found[narrower] &= ~access
            if not self.found[narrower]:
                del self.found[narrower]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Exceptions) and (self.default, self.found) == (other.default, other.found)

    __hash__ = None  # type: ignore[assignment]  # changes while it is built


def covers(wide: Key, narrow: Key) -> bool:
    """Whether every device of *narrow* is one of *wide*."""
    return wide[0] == narrow[0] and wide[1] in (ANY, narrow[1]) and wide[2] in (ANY, narrow[2])


def fold(found: list[Rule]) -> Exceptions:
    """The ordered rules as a default and exceptions. Raises Error.

    A rule on all of both types starts over, as ``a`` does in the kernel.
    """
    start, default = start_over(found)
    state = Exceptions(default)
    for rule in found[start:]:
        state.add(rule)
    return state


def start_over(found: list[Rule]) -> tuple[int, bool]:
    """Where the rules that still matter begin, and what holds before them: after the last pair of rules
    that says the same of every device and access."""
    for at in range(len(found) - 1, 0, -1):
        allow, kind, major, minor, access = found[at]
        if (kind, major, minor, access) == ("b", ANY, ANY, ALL) and found[at - 1] == (
            allow,
            "c",
            ANY,
            ANY,
            ALL,
        ):
            return at + 1, allow
    return 0, False


# ---- v1 ----------------------------------------------------------------------------------------------------


def text(key: Key, access: int) -> str:
    """A rule as devices.allow and devices.list spell it."""
    kind, major, minor = key
    numbers = ":".join("*" if number == ANY else str(number) for number in (major, minor))
    return f"{kind} {numbers} {''.join(letter for letter, bit in _BITS.items() if access & bit)}"


def from_list(listing: str) -> Exceptions:
    """What devices.list says. A cgroup that allows by default does not tell its exceptions."""
    state = Exceptions()
    for line in listing.splitlines():
        kind, numbers, access = line.split(" ")
        if kind == "a":
            return Exceptions(True)
        major, minor = (ANY if word == "*" else int(word) for word in numbers.split(":"))
        state.found[(kind, major, minor)] = sum(_BITS[letter] for letter in access)
    return state


def transition(now: Exceptions, then: Exceptions) -> list[tuple[str, str]]:
    """The fewest writes ``(file, value)`` from one state to another. Where the exceptions of the present
    one are unknown or its default is another, all start over, which for a moment denies (or allows)
    everything."""
    files = ("devices.deny", "devices.allow")
    writes, old = [], now.found
    if now.default or now.default != then.default:
        writes.append((files[then.default], "a"))
        old = {}
    for key in sorted(old):
        if lost := old[key] & ~then.found.get(key, 0):
            writes.append((files[then.default], text(key, lost)))
    for key in sorted(then.found):
        if gained := then.found[key] & ~old.get(key, 0):
            writes.append((files[not then.default], text(key, gained)))
    return writes


def apply_v1(path: str, found: list[Rule]) -> None:
    """Bring a cgroup of v1's devices hierarchy to the rules, and make sure that it is there. Raises Error."""
    then = fold(found)
    try:
        with cgroup.Group(path) as group:
            group.write_all(transition(from_list(group.read("devices.list")), then))
            after = from_list(group.read("devices.list"))
    except OSError as problem:
        from .why import explain

        file, value = problem.filename or "devices.list", problem.filename2 or ""
        raise explain(("devices", str(file), str(value), ""), path, problem) from None
    if after.default != then.default or (not then.default and after.found != then.found):
        raise Error(
            f"{PREFIX}.devices: {path}",
            "the kernel holds other rules than asked for",
            "a parent may deny them",
        )


# ---- cgroup2 -----------------------------------------------------------------------------------------------


def apply_v2(path: str, found: list[Rule], fresh: bool) -> None:
    """Attach a BPF program that decides by the rules, in place of the one that is there. Raises Error.

    fresh: the cgroup was just made, so that none can be there.
    """
    from ...linux import bpf

    start, default = start_over(found)
    try:
        with bpf.loaded(bpf.device_program(found[start:], default)) as program:
            bpf.replace(path, program, fresh)
    except OSError as problem:
        log = getattr(problem, "log", "")
        hint = (
            f"verifier: {log}"
            if log
            else "needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN, and CONFIG_CGROUP_BPF"
        )
        from .create import refuse as refused

        raise refused(f"{PREFIX}.devices: attach BPF program to {path}", problem, hint) from None


def describe(found: list[Rule]) -> list[str]:
    """The rules in words, for ``explain``."""
    start, default = start_over(found)
    lines = [f"all other devices: {'allow' if default else 'deny'}"]
    return lines + [f"{'allow' if r[0] else 'deny'} {text((r[1], r[2], r[3]), r[4])}" for r in found[start:]]

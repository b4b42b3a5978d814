"""The plan that the image (image.c) carries out, and the sealed memfd that holds both.

A plan is a list of system calls laid out in memory at a fixed address, pointers and all, so that the image needs no
parser: `Plan.call` adds a call, `Plan.words` makes an argv, `Plan.memory` lays everything out. `Plan.describe` prints
it the way strace would, which is what ``oci-exec-fifo explain`` shows.
"""

from __future__ import annotations

import fcntl
import posix
from _struct import pack, pack_into, unpack_from

from . import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    Argument = int | bytes

PLAN = 0x20000000
MAGIC = 0x314B4D49434F

CALL, READY, AWAIT, LOOKUP, EXEC, CWD, HOOK = range(1, 8)
DIVIDE = 9
MAY_FAIL, CANCELS = 1, 2
_MORE_SHIFT = 8

_HEADER = 16
_STEP = 64
_ARGS = 16  # where in a step its arguments begin

_SEALS = 0x0F  # F_SEAL_SEAL | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE
_ADD_SEALS = 1033
_MFD = 0x0001 | 0x0002  # MFD_CLOEXEC | MFD_ALLOW_SEALING
_MFD_EXEC = 0x0010


class Address(int):
    """An offset in the plan's data that becomes an address when the plan is laid out."""

    __slots__ = ()


class Step:
    """One step: a system call, or one of the few kinds that are more."""

    __slots__ = ("args", "flags", "kind", "label", "nr", "store")

    def __init__(self, kind: int, label: str, nr: int, args: tuple[int, ...], flags: int) -> None:
        self.kind = kind
        self.label = label
        self.nr = nr
        self.args = args
        self.flags = flags
        self.store: Callable[[], int] | None = None


class Plan:
    """What the image does, in order, and the bytes that its calls point to."""

    def __init__(self) -> None:
        self.steps: list[Step] = []
        self._data = bytearray()
        self._known: dict[bytes, Address] = {}
        self._arrays: list[tuple[int, list[Address]]] = []

    # ---- data ---------------------------------------------------------------------------------------------------

    def blob(self, value: bytes) -> Address:
        """Where the bytes will be; equal ones are kept once."""
        known = self._known.get(value)
        if known is None:
            known = self._known[value] = self.room(value)
        return known

    def text(self, value: str) -> Address:
        """A C string."""
        return self.blob(value.encode("utf-8", "surrogateescape") + b"\0")

    def room(self, value: bytes) -> Address:
        """Bytes of their own, aligned, that a call may change."""
        self._data += b"\0" * (-len(self._data) % 8)
        at = Address(len(self._data))
        self._data += value
        return at

    def words(self, values: Sequence[str]) -> Address:
        """A NULL-terminated list of C strings: argv, envp."""
        targets = [self.text(value) for value in values]
        at = self.room(b"\0" * 8 * (len(targets) + 1))
        self._arrays.append((at, targets))
        return at

    def points(self, at: int, target: Address) -> None:
        """Put the address of *target* at the offset *at* of the data (a pointer in a structure)."""
        self._arrays.append((at, [target]))

    # ---- steps --------------------------------------------------------------------------------------------------

    def call(self, label: str, name: str, *args: Argument, may_fail: bool = False) -> Step:
        """Add the system call *name*; bytes become pointers. *label* says what failed when it fails."""
        placed = tuple(self.blob(a) if isinstance(a, bytes) else a for a in args)
        return self.add(CALL, label, _native.NR[name], placed, MAY_FAIL if may_fail else 0)

    def add(self, kind: int, label: str = "", nr: int = 0, args: tuple[int, ...] = (), flags: int = 0) -> Step:
        """Add a step of any kind."""
        step = Step(kind, label, nr, args, flags)
        self.steps.append(step)
        return step

    def keep_result(self, step: Step, at: Address) -> None:
        """Store the call's result (32 bits) in the plan's data, for a later call to use."""
        step.store = lambda: self._place(at)

    def feeds(self, step: Step, other: Step) -> None:
        """The call's result (a descriptor) is the first argument of a later call."""
        other.args = (0, *other.args[1:])
        step.store = lambda: PLAN + _HEADER + _STEP * self.steps.index(other) + _ARGS

    def cancels(self, step: Step, other: Step, more: int = 0) -> None:
        """When *step* succeeds, *other* is left out, and *more* steps that follow it."""
        step.flags |= CANCELS | MAY_FAIL | more << _MORE_SHIFT
        step.store = lambda: PLAN + _HEADER + _STEP * self.steps.index(other)

    def divide(self, label: str, flags: int, cgroup: int, parent: str, child: str) -> None:
        """Go on as a child; the parent reports *parent* with the child's id and ends, the child reports *child*."""
        self.add(DIVIDE, label, args=(flags, cgroup, self.text(parent), self.text(child)))

    def ready(self, verdict: int) -> None:
        """Say "ready" and report to the descriptor *verdict* from now on."""
        self.add(READY, args=(verdict,))

    # ---- layout -------------------------------------------------------------------------------------------------

    def _place(self, offset: int) -> int:
        return PLAN + _HEADER + _STEP * (len(self.steps) + 1) + offset

    def memory(self, report: int) -> bytes:
        """The plan as the image finds it in memory; *report* is the descriptor that failures are told to."""
        labels = [self.text(f"1\t{step.label}") for step in self.steps]
        for at, targets in self._arrays:
            pack_into(f"={len(targets)}Q", self._data, at, *[self._place(target) for target in targets])
        head = pack("=QII", MAGIC, report & 0xFFFFFFFF, 0)
        steps = b"".join(self._pack(step, self._place(label)) for step, label in zip(self.steps, labels, strict=True))
        return head + steps + b"\0" * _STEP + bytes(self._data)

    def _pack(self, step: Step, label: int) -> bytes:
        args = [self._place(a) if isinstance(a, Address) else a & 0xFFFFFFFFFFFFFFFF for a in step.args]
        args += [0] * (6 - len(args))
        store = step.store() if step.store else 0
        return pack("=HHIII6Q", step.kind, step.flags, step.nr, label, store, *args)

    # ---- for people ---------------------------------------------------------------------------------------------

    def describe(self) -> list[str]:
        """The steps as strace would print them."""
        names = {nr: name for name, nr in _native.NR.items()}
        return [self._line(step, names) for step in self.steps]

    def _line(self, step: Step, names: dict[int, str]) -> str:
        if step.kind != CALL:
            return _KINDS[step.kind].format(label=step.label, args=step.args)
        args = ", ".join(self._show(a) for a in step.args)
        return f"{names[step.nr]}({args})  # {step.label}"

    def _show(self, arg: int) -> str:
        if not isinstance(arg, Address):
            return str(arg)
        for value, at in self._known.items():
            if at == arg:
                return (
                    '"' + value.rstrip(b"\0").decode("utf-8", "replace") + '"'
                    if _printable(value)
                    else f"<{len(value)} bytes>"
                )
        return "<list>"


_KINDS = {
    READY: "say that the container is created",
    AWAIT: "read one byte from the FIFO (descriptor {args[0]}): what oci start writes",
    LOOKUP: "look for the program: {label}",
    EXEC: "execve: {label}",
    CWD: "getcwd must start with /",
    HOOK: "run the hook: {label}",
    DIVIDE: "clone: go on as the child; {label}",
}


def _printable(value: bytes) -> bool:
    text = value[:-1]
    return value.endswith(b"\0") and all(31 < byte < 127 for byte in text)


def number(name: str) -> int:
    """The system call's number."""
    return _native.NR[name]


def seal(image: bytes, memory: bytes, name: str = "oci-exec-fifo") -> int:
    """A sealed memfd (close-on-exec) with the image and the plan in its last segment. Raises OSError."""
    header = bytearray(image[:4096])
    offset = _fit_plan(header, len(memory))
    fd = _memfd(name)
    posix.pwrite(fd, bytes(header) + image[4096:offset], 0)
    posix.pwrite(fd, memory, offset)
    fcntl.fcntl(fd, _ADD_SEALS, _SEALS)
    return fd


def _memfd(name: str) -> int:
    label = name.encode() + b"\0"
    try:
        return _native.syscall(_native.NR["memfd_create"], label, _MFD | _MFD_EXEC)
    except OSError:
        # Before Linux 6.3 there is no MFD_EXEC and every memfd can be executed.
        return _native.syscall(_native.NR["memfd_create"], label, _MFD)


def _fit_plan(header: bytearray, size: int) -> int:
    """Set the size of the segment at PLAN in the ELF header; returns where in the file it starts."""
    phoff = unpack_from("=Q", header, 32)[0]
    phentsize, phnum = unpack_from("=HH", header, 54)
    pack_into("=Q", header, 40, 0)  # e_shoff: the section headers are cut off
    pack_into("=HH", header, 60, 0, 0)
    for at in range(phoff, phoff + phentsize * phnum, phentsize):
        kind, _, offset, vaddr = unpack_from("=IIQQ", header, at)
        if kind == 1 and vaddr == PLAN:
            pack_into("=QQ", header, at + 32, size, size)
            return int(offset)
    raise ValueError("the waiting image has no segment for its plan")


def load() -> bytes:
    """The image's bytes as built. Raises OSError."""
    fd = posix.open(__file__.rpartition("/")[0] + "/image", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 1 << 20)
    finally:
        posix.close(fd)

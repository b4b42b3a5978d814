"""BPF programs that decide about devices of a cgroup2 (BPF_PROG_TYPE_CGROUP_DEVICE): assembled, loaded,
attached.

An instruction is eight bytes (struct bpf_insn); a program gets a pointer to struct bpf_cgroup_dev_ctx in R1
and answers in R0: 1 allowed, 0 denied. See bpf(2), linux/bpf.h,
Documentation/bpf/standardization/instruction-set.rst.
"""

from __future__ import annotations

import errno
import posix
from _struct import Struct

from ..native import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    Rule = tuple[bool, str, int, int, int]

PROG_LOAD, PROG_ATTACH, PROG_DETACH = 5, 8, 9
PROG_GET_FD_BY_ID, PROG_QUERY = 13, 16

PROG_TYPE_CGROUP_DEVICE = 15
CGROUP_DEVICE = 6
F_ALLOW_MULTI, F_REPLACE = 2, 4
LICENSE = b"Apache-2.0\0"

TYPES = {"b": 1, "c": 2}
"""BPF_DEVCG_DEV_BLOCK and _CHAR."""
ANY = -1
# Of the caller's rules 1 is read, 2 write, 4 mknod; BPF_DEVCG_ACC_* counts mknod 1, read 2, write 4.
_ACCESS = (0, 2, 4, 6, 1, 3, 5, 7)
_EVERY_ACCESS = 7

MOV, MOV_REG, AND, RSH, JEQ, JNE, JSET, EXIT, LOAD = 0xB4, 0xBC, 0x54, 0x74, 0x16, 0x56, 0x46, 0x95, 0x61
"""Opcodes: 32-bit arithmetic and jumps on a constant (class ALU 4, JMP32 6), exit, and loading a 32-bit
word."""

_insn = Struct("=BBhi").pack
_RETRIES = 30
_LOG_SIZES = (1 << 16, 1 << 20, (1 << 24) - 1)
_MOST_PROGRAMS = 64
_RLIMIT_MEMLOCK = 8
_INFINITY = (1 << 64) - 1


class Rejected(OSError):
    """The kernel did not take a program; ``log`` is what its verifier said."""

    log = ""


# ---- the assembler -----------------------------------------------------------------------------------------


def insn(code: int, dst: int = 0, src: int = 0, offset: int = 0, constant: int = 0) -> bytes:
    """One instruction; constants above 2**31 wrap, as the kernel reads them."""
    return _insn(code, dst | src << 4, offset, constant - (1 << 32) if constant >= 1 << 31 else constant)


def device_program(rules: list[Rule], default: bool) -> bytes:
    """The program for ordered rules: for every kind of access that is asked at once (open for reading and
    writing asks two) the last rule that speaks of it decides, and *default* where none does.

    So it goes through the rules backwards and keeps in R3 what is still to be allowed: an allowing rule takes
    its accesses out of R3 and is done when nothing is left, a denying rule that meets any of R3 ends it.
    """
    # struct bpf_cgroup_dev_ctx: u32 access_type (type in the lower half, access in the upper), u32 major, u32
    # minor.
    code = [
        insn(LOAD, 2, 1, 0),
        insn(MOV_REG, 3, 2),
        insn(AND, 2, constant=0xFFFF),
        insn(RSH, 3, constant=16),
        insn(LOAD, 4, 1, 4),
        insn(LOAD, 5, 1, 8),
    ]
    for rule in reversed(rules):
        code += rule_block(rule)
    return b"".join([*code, *answer(default)])


def rule_block(rule: Rule) -> list[bytes]:
    """The instructions of one rule; every condition that fails jumps behind them."""
    allow, kind, major, minor, access = rule
    bits = _ACCESS[access]
    if allow:
        body = [insn(AND, 3, constant=_EVERY_ACCESS & ~bits), insn(JNE, 3, offset=2), *answer(True)]
    else:
        # JSET jumps when bits are common: over the jump that leads out.
        body = [insn(JSET, 3, offset=1, constant=bits), insn(0x05, offset=2), *answer(False)]
    tests = [(2, TYPES[kind])] + [(reg, value) for reg, value in ((4, major), (5, minor)) if value != ANY]
    block = []
    for at, (register, value) in enumerate(tests):
        behind = len(tests) - at - 1 + len(body)
        block.append(insn(JNE, register, offset=behind, constant=value))
    return block + body


def answer(allow: bool) -> list[bytes]:
    """Return 1 or 0."""
    return [insn(MOV, 0, constant=int(allow)), insn(EXIT)]


# ---- the system call ---------------------------------------------------------------------------------------


def bpf(command: int, attributes: bytes | bytearray) -> int:
    """bpf(2). Raises OSError; EAGAIN (a signal interrupted the verifier) is tried again."""
    for _ in range(_RETRIES):
        try:
            return _native.syscall(_native.NR["bpf"], command, attributes, len(attributes))
        except BlockingIOError:
            continue
    raise OSError(errno.EAGAIN, posix.strerror(errno.EAGAIN))


class loaded:
    """A loaded program's descriptor for a ``with`` block; attached programs outlive it."""

    __slots__ = ("fd",)

    def __init__(self, program: bytes) -> None:
        """Load it. Raises Rejected."""
        self.fd = load(program)

    def __enter__(self) -> int:
        return self.fd

    def __exit__(self, *_: object) -> None:
        posix.close(self.fd)


def load(program: bytes) -> int:
    """Load a device program and return its descriptor. Raises Rejected with the verifier's log.

    Kernels before 5.11 count BPF memory against RLIMIT_MEMLOCK and say EPERM: then it is lifted for the
    moment of the call, so that no process made later inherits it.
    """
    try:
        return _load(program)
    except OSError as problem:
        if problem.errno == errno.EPERM:
            try:
                return _load_unlimited(program)
            except OSError as again:
                problem = again
        raise _rejected(program, problem) from None


def _load(program: bytes, log: object = None) -> int:
    """BPF_PROG_LOAD; *log* an array that takes the verifier's words. Raises OSError."""
    # Inside bpf_attr the buffers are addresses; an array tells its own, and lives until the call has
    # returned.
    import array

    code, licence = array.array("B", program), array.array("B", LICENSE)
    words = log if isinstance(log, array.array) else array.array("B")
    size = len(words)
    attributes = Struct("=IIQQIIQ").pack(
        PROG_TYPE_CGROUP_DEVICE, len(code) // 8, code.buffer_info()[0], licence.buffer_info()[0],
        1 if size else 0, size, words.buffer_info()[0] if size else 0,
    )  # fmt: skip
    return bpf(PROG_LOAD, attributes)


def _load_unlimited(program: bytes) -> int:
    pack = Struct("=QQ").pack
    old = bytearray(16)
    call, number = _native.syscall, _native.NR["prlimit64"]
    call(number, 0, _RLIMIT_MEMLOCK, pack(_INFINITY, _INFINITY), old)
    try:
        return _load(program)
    finally:
        call(number, 0, _RLIMIT_MEMLOCK, bytes(old), None)


def _rejected(program: bytes, problem: OSError) -> Rejected:
    """The failure with the verifier's log, for which the program is offered once more."""
    import array

    told = Rejected(problem.errno, problem.strerror)
    for size in _LOG_SIZES:
        log = array.array("B", bytes(size))
        try:
            posix.close(_load(program, log))
            break
        except OSError as again:
            if again.errno == errno.ENOSPC:
                continue
            told.log = log.tobytes().partition(b"\0")[0].decode(errors="replace").strip()
            break
    return told


# ---- attaching ---------------------------------------------------------------------------------------------


def replace(path: str, program: int, fresh: bool) -> None:
    """Let *program* decide about the cgroup's devices instead of those that do now; at no moment does none
    decide.

    One old program is replaced in one step (BPF_F_REPLACE, kernel 5.6); several are taken off after the new
    one is on. fresh: there is none. Raises OSError.
    """
    target = posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    old: list[int] = []
    try:
        old = [] if fresh else list(opened(attached(target)))
        one = old[0] if len(old) == 1 else -1
        attach(target, program, one)
        for fd in old if one < 0 else ():
            bpf(PROG_DETACH, Struct("=IIIII").pack(target, fd, CGROUP_DEVICE, 0, 0))
    finally:
        for fd in (target, *old):
            posix.close(fd)


def attach(target: int, program: int, old: int = -1) -> None:
    """Attach a program to an open cgroup directory, in place of *old* if given. Raises OSError."""
    flags = F_ALLOW_MULTI | (F_REPLACE if old >= 0 else 0)
    bpf(PROG_ATTACH, Struct("=IIIII").pack(target, program, CGROUP_DEVICE, flags, max(old, 0)))


def attached(target: int) -> list[int]:
    """The numbers of the device programs attached to an open cgroup directory. Raises OSError."""
    import array

    numbers = array.array("I", [0] * _MOST_PROGRAMS)
    # As long as the kernel's own: since 6.17 it writes the last member, revision, whatever length it is told.
    attributes = bytearray(72)
    Struct("=IIIIQI").pack_into(
        attributes, 0, target, CGROUP_DEVICE, 0, 0, numbers.buffer_info()[0], _MOST_PROGRAMS
    )
    bpf(PROG_QUERY, attributes)
    count: int = Struct("=I").unpack_from(attributes, 24)[0]
    return list(numbers[:count])


def opened(numbers: Iterable[int]) -> Iterable[int]:
    """The programs by descriptor. One that a security module hides from us is passed over: it can only
    deny more."""
    for number in numbers:
        try:
            yield bpf(PROG_GET_FD_BY_ID, Struct("=III").pack(number, 0, 0))
        except PermissionError:
            continue
        except FileNotFoundError:
            continue

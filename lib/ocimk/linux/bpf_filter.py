"""Classic BPF as seccomp uses it: instructions, the -ENOSYS stub, and a machine to run a filter without the
kernel.

Source: linux/filter.h, linux/bpf_common.h, Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import _struct

from .seccomp import RET_DATA, X32_BIT

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    Instruction = tuple[int, int, int, int]  # code, jump if true, jump if false, constant

MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS

LD = 0x20  # A = the 32-bit word at offset k
JA = 0x05
JEQ = 0x15
JGT = 0x25
JGE = 0x35
JSET = 0x45
AND = 0x54
RET = 0x06

OFFSET_NR = 0
OFFSET_ARCH = 4

ENOSYS = 38
ERRNO_ENOSYS = 0x00050000 | ENOSYS

AUDIT_X86_64 = 0xC000003E
AUDIT_S390 = (0x16, 0x80000016)


def pack(program: Iterable[Instruction]) -> bytes:
    """The instructions as the kernel reads them."""
    return b"".join(_struct.pack("=HBBI", *instruction) for instruction in program)


def unpack(data: bytes) -> list[Instruction]:
    """The instructions in *data*. Raises ValueError when it is not a whole number of them."""
    if len(data) % 8:
        raise ValueError("a filter is a multiple of 8 bytes")
    return list(_struct.iter_unpack("=HBBI", data))


def enosys_stub(newest: Sequence[tuple[int, Mapping[str, int]]]) -> list[Instruction]:
    """Instructions that answer ENOSYS to syscalls newer than any the profile names, and else fall through.

    A profile that denies what it does not name says EPERM to syscalls its author had never heard of, and C
    libraries then do not fall back to the older call. runc therefore gives such calls the answer of an old
    kernel; programs have come to depend on it. *newest* holds, for each audit architecture, the highest
    number that the profile names: ``{"": 467}``, on x86_64 also ``{"x32": 0x40000000 + 547}``. What is meant
    for the filter proper jumps behind the end."""
    sections = [(audit, _section(audit, highest)) for audit, highest in newest if highest]
    body: list[Instruction] = []
    left = sum(len(section) + 2 for _, section in sections)
    for audit, section in sections:
        # One section: is it this architecture? Otherwise over it. At its end over all the others.
        left -= len(section) + 2
        body.append((JEQ, 0, len(section) + 1, audit))
        body += section
        body.append((JA, 0, 0, left))
    return [(LD, 0, 0, OFFSET_ARCH), *body] if body else []


def _section(audit: int, highest: Mapping[str, int]) -> list[Instruction]:
    """For one architecture: `ret ENOSYS` as the last instruction, behind its end for what the filter shall
    judge."""
    load: Instruction = (LD, 0, 0, OFFSET_NR)
    refuse: Instruction = (RET, 0, 0, ERRNO_ENOSYS)
    if audit == AUDIT_X86_64:
        return [load, *_section_x86_64(highest), refuse]
    plain: Instruction = (JGT, 0, 1, highest[""])
    if audit in AUDIT_S390:
        # A number that does not fit the instruction arrives as 0, setup(2), which nothing has used for
        # decades.
        return [load, (JEQ, 1, 0, 0), plain, refuse]
    return [load, plain, refuse]


def _section_x86_64(highest: Mapping[str, int]) -> list[Instruction]:
    if len(highest) == 2:
        return [(JSET, 1, 0, X32_BIT), (JGT, 1, 2, highest[""]), (JGT, 0, 1, highest["x32"])]
    if "x32" in highest:
        return [(JSET, 0, 2, X32_BIT), (JGT, 0, 1, highest["x32"])]
    return [(JSET, 2, 0, X32_BIT), (JGT, 0, 1, highest[""])]


def run(program: Sequence[Instruction], arch: int, nr: int, args: Sequence[int] = ()) -> int:
    """What the filter returns for this system call: the action and its data.

    Knows the instructions that libseccomp emits. Raises ValueError on another one or a jump out of the
    program."""
    values = [*args, 0, 0, 0, 0, 0, 0][:6]
    data = _struct.pack("=IIQ6Q", nr & 0xFFFFFFFF, arch, 0, *(value & 0xFFFFFFFFFFFFFFFF for value in values))
    accumulator = at = 0
    while at < len(program):
        code, true, false, k = program[at]
        at += 1
        if code == LD:
            accumulator = _struct.unpack_from("=I", data, k)[0]
        elif code == AND:
            accumulator &= k
        elif code == JA:
            at += k
        elif code == RET:
            return k
        else:
            at += true if _holds(code, accumulator, k) else false
    raise ValueError("the filter jumps behind its end")


def _holds(code: int, accumulator: int, k: int) -> bool:
    if code == JEQ:
        return accumulator == k
    if code == JGT:
        return accumulator > k
    if code == JGE:
        return accumulator >= k
    if code == JSET:
        return bool(accumulator & k)
    raise ValueError(f"instruction {code:#x} is not used in seccomp filters of ours")


def split(result: int) -> tuple[int, int]:
    """A filter's answer as (action, data)."""
    return result & ~RET_DATA, result & RET_DATA

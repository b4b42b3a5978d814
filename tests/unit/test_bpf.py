"""The device program, run by a little interpreter of BPF and compared with the rules read aloud."""

from __future__ import annotations

import random
import struct

import pytest

from ocimk.linux import bpf

ANY = -1


def run(program: bytes, kind: str, access: int, major: int, minor: int) -> bool:
    """Interpret a program on one request; access in the kernel's bits (mknod 1, read 2, write 4)."""
    registers = [0] * 11
    context = {0: bpf.TYPES[kind] | access << 16, 4: major, 8: minor}
    code = [struct.unpack_from("<BBhi", program, at) for at in range(0, len(program), 8)]
    at, steps = 0, 0
    while True:
        opcode, regs, offset, constant = code[at]
        dst, src, value = regs & 15, regs >> 4, constant & 0xFFFFFFFF
        at, steps = at + 1, steps + 1
        assert steps < 4096
        if opcode == 0x61:
            assert src == 1
            registers[dst] = context[offset]
        elif opcode == 0xB4:
            registers[dst] = value
        elif opcode == 0xBC:
            registers[dst] = registers[src]
        elif opcode == 0x54:
            registers[dst] &= value
        elif opcode == 0x74:
            registers[dst] >>= value
        elif opcode == 0x05 or (opcode == 0x56 and registers[dst] != value):
            at += offset
        elif opcode == 0x46 and registers[dst] & value:
            at += offset
        elif opcode == 0x95:
            return bool(registers[0])
        else:
            assert opcode in (0x56, 0x46), hex(opcode)


def aloud(rules, default, kind, access, major, minor) -> bool:
    """Each access by itself: the last rule that speaks of it decides."""
    for bit in (1, 2, 4):
        if access & bit:
            verdict = default
            for allow, k, ma, mi, bits in rules:
                if k == kind and ma in (ANY, major) and mi in (ANY, minor) and bits & bit:
                    verdict = allow
            if not verdict:
                return False
    return True


KERNEL_BIT = {1: 2, 2: 4, 4: 1}


def kernel(access: int) -> int:
    return sum(there for here, there in KERNEL_BIT.items() if access & here)


def test_random_rules_mean_what_they_say():
    chance = random.Random(20)
    for _ in range(300):
        rules = [
            (
                chance.random() < 0.5,
                chance.choice("cb"),
                chance.choice((ANY, 1, 2)),
                chance.choice((ANY, 0, 1)),
                chance.randrange(1, 8),
            )
            for _ in range(chance.randrange(7))
        ]
        default = chance.random() < 0.3
        program = bpf.device_program(rules, default)
        for kind in "cb":
            for access in range(1, 8):
                for major in (1, 2, 3):
                    for minor in (0, 1, 2):
                        got = run(program, kind, kernel(access), major, minor)
                        assert got == aloud(rules, default, kind, access, major, minor), (rules, kind, access)


def test_large_numbers_survive():
    program = bpf.device_program([(True, "c", 2**32 - 1, 2**31, 7)], False)

    assert run(program, "c", 7, 2**32 - 1, 2**31)
    assert not run(program, "c", 7, 2**32 - 2, 2**31)


@pytest.mark.parametrize("default", [True, False])
def test_without_rules_the_default_decides(default):
    program = bpf.device_program([], default)

    assert run(program, "c", 2, 1, 3) is default


@pytest.mark.root
def test_the_verifier_is_quoted():
    broken = bpf.insn(bpf.MOV_REG, 0, 9) + bpf.insn(bpf.EXIT)

    with pytest.raises(bpf.Rejected) as caught:
        bpf.load(broken)

    assert "R9 !read_ok" in caught.value.log


@pytest.mark.root
def test_the_kernel_takes_a_long_program():
    rules = [(True, "c", number, ANY, 7) for number in range(400)]

    with bpf.loaded(bpf.device_program(rules, False)) as fd:
        assert fd >= 0

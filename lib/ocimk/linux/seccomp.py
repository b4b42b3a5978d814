"""seccomp(2): the numbers, what this kernel can do, and putting a filter on the calling process.

A filter here is bytes: an array of struct sock_filter as bpf(4) and linux/filter.h lay it out in memory.
"""

from __future__ import annotations

import _struct
import errno

from ..native._native import NR, syscall

SET_MODE_FILTER = 1
GET_ACTION_AVAIL = 2

# linux/seccomp.h: SECCOMP_RET_*. The low 16 bits carry an errno (ERRNO) or a message (TRACE, TRAP).
ACTIONS = {
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_ERRNO": 0x00050000,
    "SCMP_ACT_NOTIFY": 0x7FC00000,
    "SCMP_ACT_TRACE": 0x7FF00000,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ALLOW": 0x7FFF0000,
}
RET_DATA = 0xFFFF
MAX_ERRNO = 4095

OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}

# SECCOMP_FILTER_FLAG_*
FLAG_TSYNC = 1
FLAG_LOG = 2
FLAG_SPEC_ALLOW = 4
FLAG_NEW_LISTENER = 8
FLAG_TSYNC_ESRCH = 16
FLAG_WAIT_KILLABLE_RECV = 32

FLAGS = {
    "SECCOMP_FILTER_FLAG_TSYNC": FLAG_TSYNC,
    "SECCOMP_FILTER_FLAG_LOG": FLAG_LOG,
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW": FLAG_SPEC_ALLOW,
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV": FLAG_WAIT_KILLABLE_RECV,
}

_64 = 0x80000000  # __AUDIT_ARCH_64BIT
_LE = 0x40000000  # __AUDIT_ARCH_LE
_N32 = 0x20000000  # __AUDIT_ARCH_CONVENTION_MIPS64_N32

# linux/audit.h: what seccomp_data.arch says. x32 is x86_64 with bit 30 set in the syscall's number.
AUDIT_ARCH = {
    "SCMP_ARCH_X86": 3 | _LE,
    "SCMP_ARCH_X86_64": 62 | _64 | _LE,
    "SCMP_ARCH_X32": 62 | _64 | _LE,
    "SCMP_ARCH_ARM": 40 | _LE,
    "SCMP_ARCH_AARCH64": 183 | _64 | _LE,
    "SCMP_ARCH_MIPS": 8,
    "SCMP_ARCH_MIPS64": 8 | _64,
    "SCMP_ARCH_MIPS64N32": 8 | _64 | _N32,
    "SCMP_ARCH_MIPSEL": 8 | _LE,
    "SCMP_ARCH_MIPSEL64": 8 | _64 | _LE,
    "SCMP_ARCH_MIPSEL64N32": 8 | _64 | _LE | _N32,
    "SCMP_ARCH_PPC": 20,
    "SCMP_ARCH_PPC64": 21 | _64,
    "SCMP_ARCH_PPC64LE": 21 | _64 | _LE,
    "SCMP_ARCH_S390": 22,
    "SCMP_ARCH_S390X": 22 | _64,
    "SCMP_ARCH_PARISC": 15,
    "SCMP_ARCH_PARISC64": 15 | _64,
    "SCMP_ARCH_RISCV64": 243 | _64 | _LE,
    "SCMP_ARCH_LOONGARCH64": 258 | _64 | _LE,
    "SCMP_ARCH_M68K": 4,
    "SCMP_ARCH_SH": 42 | _LE,
    "SCMP_ARCH_SHEB": 42,
}
X32_BIT = 0x40000000

# uname(2) machine -> the architecture of its 64-bit (or only) programs.
NATIVE = {
    "x86_64": "SCMP_ARCH_X86_64",
    "aarch64": "SCMP_ARCH_AARCH64",
    "riscv64": "SCMP_ARCH_RISCV64",
    "ppc64le": "SCMP_ARCH_PPC64LE",
    "ppc64": "SCMP_ARCH_PPC64",
    "s390x": "SCMP_ARCH_S390X",
    "loongarch64": "SCMP_ARCH_LOONGARCH64",
    "i686": "SCMP_ARCH_X86",
    "armv7l": "SCMP_ARCH_ARM",
}


def action_available(action: int) -> bool:
    """Whether this kernel knows the action (SECCOMP_GET_ACTION_AVAIL, Linux 4.14)."""
    try:
        syscall(NR["seccomp"], GET_ACTION_AVAIL, 0, _struct.pack("=I", action & ~RET_DATA))
    except OSError as problem:
        if problem.errno in (errno.EOPNOTSUPP, errno.EINVAL):
            return False
        raise
    return True


def flags_available(flags: int) -> bool:
    """Whether this kernel takes these filter flags: with no program it says EFAULT where it would have read
    one."""
    try:
        syscall(NR["seccomp"], SET_MODE_FILTER, flags, None)
    except OSError as problem:
        return problem.errno == errno.EFAULT
    return False


def flag_available(flag: int) -> bool:
    """Whether this kernel knows one filter flag; WAIT_KILLABLE_RECV (Linux 5.19) exists only beside a
    listener."""
    return flags_available(flag | (FLAG_NEW_LISTENER if flag == FLAG_WAIT_KILLABLE_RECV else 0))


def install(program: bytes, flags: int = 0) -> int:
    """Put the filter on the calling thread; returns the listener's descriptor with FLAG_NEW_LISTENER, else 0.

    Needs no_new_privs or CAP_SYS_ADMIN in the user namespace (EACCES otherwise); EINVAL: not a valid program.
    """
    import ctypes

    held = ctypes.create_string_buffer(program, len(program))
    return syscall(NR["seccomp"], SET_MODE_FILTER, flags, fprog(len(program) // 8, ctypes.addressof(held)))


def fprog(length: int, address: int) -> bytes:
    """struct sock_fprog: how many instructions, and where they are."""
    return _struct.pack("@HP", length, address)

"""The words and the table of linux.seccomp (config-linux.md, Seccomp), imported when it is met."""

from __future__ import annotations

from .shape import SOME, TEXT, UINT32, UINT64, among, listing, thing, whole
from .walk import Finding, array, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ACTIONS = (
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_TRAP",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_LOG",
    "SCMP_ACT_NOTIFY",
)

ERRNO_LIMITS = {"SCMP_ACT_ERRNO": 4095, "SCMP_ACT_TRACE": 65535}
"""The actions that take a number, and the greatest one (seccomp(2): MAX_ERRNO, 16 bits)."""

ARCHITECTURES = (
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_AARCH64",
    "SCMP_ARCH_LOONGARCH64",
    "SCMP_ARCH_M68K",
    "SCMP_ARCH_MIPS",
    "SCMP_ARCH_MIPS64",
    "SCMP_ARCH_MIPS64N32",
    "SCMP_ARCH_MIPSEL",
    "SCMP_ARCH_MIPSEL64",
    "SCMP_ARCH_MIPSEL64N32",
    "SCMP_ARCH_PPC",
    "SCMP_ARCH_PPC64",
    "SCMP_ARCH_PPC64LE",
    "SCMP_ARCH_S390",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_SH",
    "SCMP_ARCH_SHEB",
    "SCMP_ARCH_PARISC",
    "SCMP_ARCH_PARISC64",
    "SCMP_ARCH_RISCV64",
)

OPERATORS = (
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_EQ",
    "SCMP_CMP_GE",
    "SCMP_CMP_GT",
    "SCMP_CMP_MASKED_EQ",
)

FLAGS = (
    "SECCOMP_FILTER_FLAG_TSYNC",
    "SECCOMP_FILTER_FLAG_LOG",
    "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
    "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
)


def _errno(action: str, number: int | None, path: str, out: list[Finding]) -> None:
    """A number with an action that takes none MUST be an error."""
    limit = ERRNO_LIMITS.get(action)
    if number is None:
        return
    if limit is None:
        wrong(out, path, number, f"nothing, with {action} (only {' and '.join(ERRNO_LIMITS)} take a number),")
    elif number > limit:
        wrong(out, path, number, f"at most {limit}, with {action},")


def _call(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    _errno(value["action"], value.get("errnoRet"), f"{path}.errnoRet", out)


def _default(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    """As runc: a default of NOTIFY would stop the very process that hands the listener over."""
    _errno(value["defaultAction"], value.get("defaultErrnoRet"), f"{path}.defaultErrnoRet", out)
    if value["defaultAction"] == "SCMP_ACT_NOTIFY":
        wrong(
            out, f"{path}.defaultAction", "SCMP_ACT_NOTIFY", "another action (nobody could start the process)"
        )


def _listener(value: dict[str, Any], path: str, out: list[Finding]) -> None:
    if value.get("listenerMetadata") and not value.get("listenerPath"):
        metadata = value["listenerMetadata"]
        wrong(out, f"{path}.listenerMetadata", metadata, "nothing, without listenerPath,")


_ARGUMENT = thing(
    {"index": whole(0, 5), "value": UINT64, "valueTwo": UINT64, "op": among(OPERATORS)},
    ("index", "value", "op"),
)

_SYSCALL = thing(
    {
        "names": (array, "an array of at least 1 system call", SOME, 1),
        "action": among(ACTIONS),
        "errnoRet": UINT32,
        "args": listing(_ARGUMENT),
    },
    ("names", "action"),
    _call,
)

SECCOMP = thing(
    {
        "defaultAction": among(ACTIONS),
        "defaultErrnoRet": UINT32,
        "architectures": listing(among(ARCHITECTURES)),
        "flags": listing(among(FLAGS)),
        "listenerPath": TEXT,
        "listenerMetadata": TEXT,
        "syscalls": listing(_SYSCALL),
    },
    ("defaultAction",),
    _default,
    _listener,
)

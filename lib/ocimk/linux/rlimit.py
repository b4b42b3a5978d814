"""prlimit(2): resource limits by name, as calls."""

from __future__ import annotations

import _struct
import posix

from ..errors import Error
from ..native._native import NR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from .prctl import Call

INFINITY = 2**64 - 1

# asm-generic/resource.h
_GENERIC = (
    "RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC",
    "RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME",
)  # fmt: skip

# The architectures that number the middle of the list in their own way (arch/mips, arch/sparc:
# asm/resource.h).
_ELSEWHERE = {
    "mips": {"RLIMIT_NOFILE": 5, "RLIMIT_AS": 6, "RLIMIT_RSS": 7, "RLIMIT_NPROC": 8, "RLIMIT_MEMLOCK": 9},
    "sparc": {"RLIMIT_NOFILE": 6, "RLIMIT_NPROC": 7},
}


def _numbers() -> dict[str, int]:
    found = {name: number for number, name in enumerate(_GENERIC)}
    machine = posix.uname().machine
    for prefix, own in _ELSEWHERE.items():
        if machine.startswith(prefix):
            found.update(own)
    return found


NUMBERS = _numbers()


def pack(soft: int, hard: int) -> bytes:
    """struct rlimit64."""
    return _struct.pack("=QQ", soft, hard)


def calls(limits: Iterable[tuple[str, int, int]], pid: int = 0) -> list[Call]:
    """(name, soft, hard) as calls for the process *pid* (0: the caller).

    Raises Error, naming ``rlimits[N]``, for a name the kernel does not have, one given twice, a soft limit
    above the hard one, and a value that is no unsigned 64-bit number. RLIM_INFINITY is 2**64-1."""
    made: list[Call] = []
    seen: dict[str, int] = {}
    for i, (name, soft, hard) in enumerate(limits):
        where = f"rlimits[{i}]"
        if name not in NUMBERS:
            raise Error(f"{where}.type", f"{name!r} is not a resource limit", " ".join(sorted(NUMBERS)))
        if name in seen:
            raise Error(f"{where}.type", f"{name} is already set by rlimits[{seen[name]}]", "name each limit once")
        for key, value in (("soft", soft), ("hard", hard)):
            if not 0 <= value <= INFINITY:
                raise Error(f"{where}.{key}", f"{value} is not between 0 and 2^64-1")
        if soft > hard:
            raise Error(f"{where} {name}", f"the soft limit {soft} is above the hard limit {hard}")
        seen[name] = i
        made.append((f"{where} {name}={soft}:{hard}", NR["prlimit64"], (pid, NUMBERS[name], pack(soft, hard), 0)))
    return made


def get(name: str, pid: int = 0) -> tuple[int, int]:
    """(soft, hard) of a process. Raises OSError."""
    held = bytearray(16)
    syscall(NR["prlimit64"], pid, NUMBERS[name], None, held)
    soft, hard = _struct.unpack("=QQ", held)
    return soft, hard


def hint(number: int) -> str:
    """What to do about the errno of a limit that could not be set."""
    import errno

    hints = {
        errno.EPERM: "a hard limit above ours needs CAP_SYS_RESOURCE; RLIMIT_NOFILE ends at fs.nr_open",
        errno.EINVAL: "the kernel does not know this limit",
    }
    return hints.get(number, "")


def lift(pid: int, name: str, hard: int) -> None:
    """Raise the hard limit of the process *pid* to at least *hard*; the soft one stays. Raises Error."""
    soft, present = get(name, pid)
    if present >= hard:
        return
    try:
        syscall(NR["prlimit64"], pid, NUMBERS[name], pack(soft, hard), None)
    except OSError as problem:
        raise Error(f"process.rlimits: raise {name} to {hard}", problem, hint(problem.errno or 0)) from None

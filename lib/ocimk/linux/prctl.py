"""prctl(2): the numbers, and the calls that Python code itself makes.

What is done to a process that will be the user's program is handed over as data, a list of (label, number,
arguments), and carried out by the image that waits in the container: see capability, rlimit, sched. The
package python-prctl has the same calls but costs 7 ms to import."""

from __future__ import annotations

from ..native._native import NR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    Call = tuple[str, int, tuple[int | bytes, ...]]

# linux/prctl.h
SET_PDEATHSIG = 1
GET_PDEATHSIG = 2
GET_DUMPABLE = 3
SET_DUMPABLE = 4
GET_KEEPCAPS = 7
SET_KEEPCAPS = 8
SET_NAME = 15
GET_NAME = 16
CAPBSET_READ = 23
CAPBSET_DROP = 24
GET_SECUREBITS = 27
SET_SECUREBITS = 28
SET_CHILD_SUBREAPER = 36
GET_CHILD_SUBREAPER = 37
SET_NO_NEW_PRIVS = 38
GET_NO_NEW_PRIVS = 39
CAP_AMBIENT = 47

AMBIENT_IS_SET = 1
AMBIENT_RAISE = 2
AMBIENT_LOWER = 3
AMBIENT_CLEAR_ALL = 4

# linux/securebits.h
SECBIT_NOROOT = 1
SECBIT_NO_SETUID_FIXUP = 4
SECBIT_KEEP_CAPS = 16
SECBIT_NO_CAP_AMBIENT_RAISE = 64

_PRCTL = NR["prctl"]


def call(label: str, option: int, *args: int | bytes) -> Call:
    """One prctl as data; the kernel wants the arguments that are not used to be 0."""
    return label, _PRCTL, (option, *args, *(0,) * (4 - len(args)))


def prctl(option: int, *args: int | bytes | bytearray) -> int:
    """Call prctl(2) for ourselves. Raises OSError."""
    return syscall(_PRCTL, option, *args, *(0,) * (4 - len(args)))


def set_dumpable(on: bool) -> None:
    """Whether others of our user may trace us and look into /proc/PID: off while we are inside of a
    container."""
    prctl(SET_DUMPABLE, int(on))


def dumpable() -> int:
    """0 not dumpable, 1 dumpable, 2 readable by root only."""
    return prctl(GET_DUMPABLE)


def set_name(name: str) -> None:
    """The name in /proc/PID/comm; the kernel keeps 15 bytes."""
    prctl(SET_NAME, name.encode("utf-8", "surrogateescape")[:15] + b"\0")


def name() -> str:
    """The name in /proc/PID/comm."""
    held = bytearray(16)
    prctl(GET_NAME, held)
    return bytes(held).partition(b"\0")[0].decode("utf-8", "surrogateescape")


def set_parent_death_signal(number: int) -> None:
    """The signal we get when the thread that made us ends; 0 for none. Lost on a change of user, and over
    fork."""
    prctl(SET_PDEATHSIG, number)


def set_child_subreaper(on: bool) -> None:
    """Whether orphans below us become our children rather than init's."""
    prctl(SET_CHILD_SUBREAPER, int(on))


def keep_capabilities(on: bool) -> Call:
    """The permitted set survives the change from root to another user (cleared by execve)."""
    return call("keep capabilities", SET_KEEPCAPS, int(on))


def no_new_privileges() -> Call:
    """execve gives no more privileges than we have; cannot be taken back."""
    return call("no_new_privs", SET_NO_NEW_PRIVS, 1)


def has_no_new_privileges() -> bool:
    """Whether no_new_privs is set on us."""
    return prctl(GET_NO_NEW_PRIVS) == 1

"""How a process ended, told to those who are not its parent. See pidfd_open(2) and linux/pidfd.h.

Two places know it: /proc/PID/stat as long as the parent has not collected the zombie (proc_pid_stat(5),
exit_code), and from then on the pidfd itself (PIDFD_GET_INFO with PIDFD_INFO_EXIT, kernel 6.15).
"""

from __future__ import annotations

import _struct
import fcntl
import posix

_GET_INFO = 0xC040FF0B
"""_IOWR(0xFF, 11, struct pidfd_info) with the structure's first size, 64 bytes."""

_SIZE = 64
_INFO_EXIT = 1 << 3
_EXIT_CODE = _struct.Struct("=Q52xi")
"""mask and exit_code of struct pidfd_info; cgroupid and eleven ids lie between."""

_STATE, _START, _CODE = 0, 19, 49
"""Fields of /proc/PID/stat, counted from the one after the command name (which is field 3 in the manual)."""


def decode(code: int) -> dict[str, int]:
    """A wait status as ``{"exitStatus": N}`` or ``{"signal": N}``. See wait(2)."""
    return {"signal": code & 0x7F} if code & 0x7F else {"exitStatus": code >> 8 & 0xFF}


def how_it_ended(pidfd: int, pid: int, started: int) -> dict[str, int]:
    """How the process ended: ``{"exitStatus": N}``, ``{"signal": N}``, or {} when the kernel does not tell.

    started  its start time in clock ticks since boot
    """
    # The zombie first: were it collected between two looks in the other order, both would find nothing.
    code = _of_zombie(pid, started)
    if code is None:
        code = _of_collected(pidfd)
    return {} if code is None else decode(code)


def _of_zombie(pid: int, started: int) -> int | None:
    try:
        fd = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        line = posix.read(fd, 4096)
    except OSError:
        return None
    finally:
        posix.close(fd)
    fields = line[line.rfind(b")") + 2 :].split()
    if int(fields[_START]) != started or fields[_STATE] not in (b"Z", b"X"):
        return None
    # The kernel writes 0 here for those who may not trace the process: then a 0 says nothing.
    code = int(fields[_CODE])
    return code if code or _may_look_at(pid) else None


def _may_look_at(pid: int) -> bool:
    """Whether we pass the check that guards exit_code (PTRACE_MODE_READ_FSCREDS): this link is guarded by the
    same, and unlike others of its kind it stays readable when the process is a zombie."""
    try:
        return bool(posix.readlink(f"/proc/{pid}/ns/user"))
    except OSError:
        return False


def _of_collected(pidfd: int) -> int | None:
    info = bytearray(_SIZE)
    _EXIT_CODE.pack_into(info, 0, _INFO_EXIT, 0)
    try:
        fcntl.ioctl(pidfd, _GET_INFO, info, True)
    except OSError:
        return None
    mask, code = _EXIT_CODE.unpack_from(info)
    return int(code) if mask & _INFO_EXIT else None

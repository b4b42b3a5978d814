"""Why a mount fails, as far as it can be told from the errno: the text people need instead of "invalid
argument"."""

from __future__ import annotations

import errno

from ...errors import Error, reason
from ...linux import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Entry

_PROC = (
    "in a user namespace the kernel allows a new proc only with a pid namespace of its own"
    " and when no part of the caller's /proc is hidden by other mounts"
)
_SYSFS = (
    "in a user namespace the kernel allows a new sysfs only with a network namespace of its own"
    " and when no part of the caller's /sys is hidden; a bind mount of /sys (rbind, ro) works"
)
_MQUEUE = "in a user namespace an ipc namespace of its own is needed"
_CGROUP = "a cgroup namespace of its own is needed"

_DENIED = {"proc": _PROC, "sysfs": _SYSFS, "mqueue": _MQUEUE, "cgroup": _CGROUP, "cgroup2": _CGROUP}


def failed(entry: Entry, problem: OSError, userns: bool) -> Error:
    """The Error for a mount that could not be made."""
    cause = reason(problem)
    detail = getattr(problem, "detail", "")
    return Error(entry.doing, f"{cause}: {detail}" if detail else cause, hint(entry, problem.errno or 0, userns))


def hint(entry: Entry, number: int, userns: bool) -> str:
    """What is known of the reason, "" when nothing is."""
    if number == errno.ENODEV:
        return f"the kernel has no filesystem type {entry.kind}, or its module is not loaded"
    if number == errno.EPERM:
        if userns:
            return _DENIED.get(entry.kind, "not allowed in a user namespace")
        return "the capability CAP_SYS_ADMIN is needed"
    if number == errno.EINVAL and entry.kind == "devpts" and userns:
        return "gid= and uid= must name an id that is mapped in the user namespace"
    if number == errno.EBUSY and entry.kind in ("cgroup", "cgroup2"):
        return "a cgroup filesystem is mounted there already"
    if number == errno.ENOSYS:
        return "options on a whole tree and id-mapped mounts need Linux 5.12"
    if number == errno.ENOSPC:
        return "too many mounts: see /proc/sys/fs/mount-max"
    return ""


def source(entry: Entry, problem: OSError, userns: bool) -> str:
    """Why a bind source could not be opened, "" when nothing is known."""
    if problem.errno == errno.EMFILE:
        return "every source is a file open until it is mounted: see ulimit -n"
    if problem.errno == errno.EINVAL and userns and not entry.options.flags & m.MS_REC:
        return "something is mounted below it, which a user namespace may only take along: use rbind"
    return ""


def bind(entry: Entry, problem: OSError, userns: bool) -> Error:
    """The Error for a bind mount whose source could be opened and whose destination is there."""
    text = ""
    if problem.errno == errno.EPERM and userns:
        text = "a flag of the source is locked by the user namespace and cannot be cleared"
    return Error(f"{entry.doing} from {entry.source}", problem, text)


def place(entry: Entry, problem: OSError, userns: bool) -> Error:
    """The Error for a destination that could not be made."""
    text = ""
    if problem.errno == errno.EROFS:
        text = "the destination is missing and what it would be made in is read-only"
    elif problem.errno in (errno.EACCES, errno.EOVERFLOW, errno.EPERM) and userns:
        text = "the destination is missing and its directory belongs to a user outside of the user namespace"
    elif problem.errno == errno.ELOOP:
        text = "a magic link of /proc, or too many links"
    return Error(f"mounts[{entry.index}] {entry.destination}: make the destination", problem, text)

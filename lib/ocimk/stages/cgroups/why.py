"""Why the kernel refused a write to a cgroup file, and what to do about it. Imported when that has
happened."""

from __future__ import annotations

import errno

from ...errors import Error
from ...linux import cgroup
from ...linux import path as paths
from .create import Denied
from .plan import PREFIX

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Write

_PERMISSION = (errno.EACCES, errno.EPERM, errno.EROFS)


def explain(write: Write, path: str, problem: OSError) -> Error:
    """The failure of one write in one line."""
    name, file, value, _ = write
    doing = f"{PREFIX}.{name}: write {value!r} to {path}/{file}"
    if problem.errno in (errno.ENOENT, *_PERMISSION) and not offers(path, file):
        return Error(doing, *missing(path, file))
    if problem.errno in _PERMISSION:
        hint = "delegate the cgroup to this user, or ask for no limit"
        return Denied(doing, problem, hint)
    if problem.errno == errno.ENOENT:
        return Error(doing, problem, f"this kernel has no {file}")
    return Error(doing, problem, remedy(path, file, value, problem))


def controller(file: str) -> str:
    """The controller that a file belongs to: what stands before the first dot."""
    return file.partition(".")[0]


def offers(path: str, file: str) -> bool:
    """Whether the cgroup has the file's controller; a v1 directory has what it is mounted for."""
    if controller(file) == "cgroup":
        return True
    if cgroup.magic(path) != cgroup.MAGIC_V2:
        return True
    return controller(file) in cgroup.controllers(path)


def missing(path: str, file: str) -> tuple[str, str]:
    """The cause and the remedy of a cgroup2 controller that is not there."""
    name = controller(file)
    at = path
    while cgroup.magic(paths.dirname(at)) == cgroup.MAGIC_V2:
        at = paths.dirname(at)
        if name in cgroup.controllers(at):
            hint = (
                f"echo +{name} > {at}/cgroup.subtree_control, which needs {at} without processes of its own"
            )
            if at in (cgroup.ROOT, cgroup.UNIFIED):
                hint = f"echo +{name} > {at}/cgroup.subtree_control"
            return f"the {name} controller is not switched on here", hint
    cause = f"the {name} controller is not available"
    return cause, f"{at}/cgroup.controllers does not have it: this kernel lacks it or a v1 hierarchy holds it"


def remedy(path: str, file: str, value: str, problem: OSError) -> str:
    """A hint by the kernel's error."""
    if problem.errno == errno.EOPNOTSUPP and ".bfq." in file:
        device = value.partition(" ")[0]
        return f"its I/O scheduler is not BFQ; echo bfq > /sys/dev/block/{device}/queue/scheduler"
    if problem.errno == errno.EBUSY and file.startswith("memory."):
        return usage(path)
    if problem.errno == errno.EINVAL:
        return f"the kernel refuses this value for {file}"
    if problem.errno == errno.ERANGE:
        return "the value is out of the kernel's range"
    if problem.errno == errno.ENODEV:
        return "there is no such device, or its I/O scheduler does not do this"
    return ""


def usage(path: str) -> str:
    """How much memory a v1 cgroup uses, for a limit that the kernel found too low."""
    try:
        with cgroup.Group(path) as group:
            now, peak = group.number("memory.usage_in_bytes"), group.number("memory.max_usage_in_bytes")
    except (OSError, ValueError):
        return "it is below what is in use"
    return f"current usage: {now}, peak usage: {peak}"

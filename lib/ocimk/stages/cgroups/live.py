"""What is done with the cgroups of a living container: its processes listed, frozen, killed, waited for.

For the dispatcher's verbs ps, pause, resume, kill, delete, state, update, events. All find the cgroups by
cgroup.json. A cgroup2 is used wherever there is one, beside v1 too: its freezer and its cgroup.kill meet
processes that fork meanwhile, which the v1 freezer cannot promise.
"""

from __future__ import annotations

import errno

from ...errors import Error
from ...linux import cgroup_procs
from ...linux.cgroup_procs import SIGKILL
from . import Layout, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder

_GONE = (errno.ENOENT, errno.ENODEV)
_KILL_SECONDS = 10.0


def main_path(layout: Layout) -> str:
    """The directory that knows the container's processes best. Raises Error when there is none."""
    for name in ("", "freezer", "devices"):
        if name in layout.paths:
            return layout.paths[name]
    for path in layout.paths.values():
        return path
    raise Error(
        "container has no cgroup",
        hint="it was made without one, rootless or with the cgroup manager disabled",
    )


def freezer(layout: Layout) -> str:
    """The directory that can be frozen. Raises Error when there is none."""
    path = layout.v2 or layout.paths.get("freezer", "")
    if not path:
        raise Error("cannot toggle freezer", "cgroups not configured for container")
    return path


def pids(folder: Folder) -> list[int]:
    """All processes of the container, sub-cgroups included, in ascending order; [] when its cgroups are
    gone. Raises Error."""
    return sorted(_pids(main_path(load(folder))))


def _pids(path: str) -> list[int]:
    try:
        return cgroup_procs.of_tree(path)
    except OSError as problem:
        if problem.errno in _GONE:
            return []
        raise Error(f"read processes of cgroup {path}", problem) from None


# ---- pausing -----------------------------------------------------------------------------------------------


def freeze(folder: Folder) -> None:
    """Stop all processes and wait until they stand. Raises Error."""
    path = freezer(load(folder))
    try:
        cgroup_procs.freeze(path)
    except OSError as problem:
        hint = (
            "a process in an uninterruptible system call cannot be frozen"
            if problem.errno == errno.ETIMEDOUT
            else ""
        )
        raise Error(f"freeze cgroup {path}", problem, hint) from None


def thaw(folder: Folder) -> None:
    """Let all processes run on, whoever froze them in whichever hierarchy. Raises Error."""
    layout = load(folder)
    freezer(layout)
    for path in freezers(layout):
        try:
            if path == layout.v2 or cgroup_procs.frozen(path):
                cgroup_procs.thaw(path)
        except OSError as problem:
            raise Error(f"thaw cgroup {path}", problem) from None


def freezers(layout: Layout) -> list[str]:
    """The directories by which the container may have been frozen."""
    return [layout.paths[name] for name in ("", "freezer") if name in layout.paths]


def frozen(folder: Folder) -> bool:
    """Whether the container is paused; False when it has no cgroup or it is gone. Raises Error."""
    try:
        return any(cgroup_procs.frozen(path) for path in freezers(load(folder)))
    except OSError as problem:
        raise Error("read the freezer's state", problem) from None


# ---- killing -----------------------------------------------------------------------------------------------


def kill_all(folder: Folder, signal: int) -> None:
    """Send a signal to every process of the container, missing none that is forked meanwhile. Raises Error.

    SIGKILL goes by cgroup.kill where there is one, else one by one with forks forbidden. Other signals: all
    are frozen, signalled and thawed; a container that was paused before stays so, except for SIGKILL on v1,
    where a frozen process cannot die.
    """
    layout = load(folder)
    path = main_path(layout)
    try:
        if signal == SIGKILL:
            kill_layout(layout)
        else:
            signal_frozen(layout, signal)
    except OSError as problem:
        if problem.errno not in _GONE:
            raise Error(f"kill processes of cgroup {path}", problem) from None


def kill_layout(layout: Layout) -> None:
    """SIGKILL to everything in the container's cgroups. Raises OSError."""
    if layout.v2 and cgroup_procs.kill(layout.v2):
        if "freezer" in layout.paths and cgroup_procs.frozen(layout.paths["freezer"]):
            cgroup_procs.thaw(layout.paths["freezer"])
        return
    path = main_path(layout)
    try:
        if "pids" in layout.paths:
            cgroup_procs.kill_unforking(path, layout.paths["pids"])
        else:
            _try_freeze(freezers(layout))
            cgroup_procs.kill_each(path)
    finally:
        # A process that v1 has frozen dies when it is thawed.
        for place in freezers(layout):
            cgroup_procs.thaw(place)


def signal_frozen(layout: Layout, signal: int) -> None:
    """Send a signal to a set of processes that is held still for it. Raises OSError."""
    path, places = main_path(layout), freezers(layout)
    was = any(cgroup_procs.frozen(place) for place in places)
    still = was or _try_freeze(places)
    try:
        cgroup_procs.signal(path, signal)
    finally:
        if still and not was:
            cgroup_procs.thaw(places[0])


def _try_freeze(places: list[str]) -> bool:
    """Freeze by the first freezer; False when that does not work, which must not keep a signal from being
    sent."""
    if not places:
        return False
    try:
        cgroup_procs.freeze(places[0])
    except OSError:
        return False
    return True


def await_empty(folder: Folder, seconds: float = _KILL_SECONDS) -> bool:
    """Wait until no process of the container is left; False when the time is up. Raises Error."""
    path = main_path(load(folder))
    try:
        return cgroup_procs.await_empty(path, seconds)
    except OSError as problem:
        raise Error(f"wait for the processes of cgroup {path}", problem) from None


# ---- what the others do ------------------------------------------------------------------------------------


def update(folder: Folder, resources: dict[str, Any]) -> None:
    """Change the limits of a living container to those of *resources* (LinuxResources). Raises Error."""
    from . import update as updating

    updating.update(folder, resources)


def stats(folder: Folder) -> dict[str, Any]:
    """What the container uses, in the shape of ``runc events --stats``. Raises Error."""
    from . import stats as measuring

    return measuring.stats(load(folder))


def oom_hint(folder: Folder) -> str:
    """Why a process may have been killed before it could say a word: "" unless the OOM killer was at work.
    Raises Error."""
    if not oom_kills(folder):
        return ""
    from ...linux.cgroup import Group

    layout = load(folder)
    path, files = layout.paths.get("memory", ""), ("memory.limit_in_bytes", "memory.max_usage_in_bytes")
    if not path:
        path, files = layout.v2, ("memory.max", "memory.peak")
    with Group(path) as group:
        limit, peak = (group.number(file) for file in files)
    return f"killed for lack of memory: linux.resources.memory.limit is {limit}, {peak} were needed"


def oom_kills(folder: Folder) -> int:
    """How many processes of the container the OOM killer has killed; 0 where no memory controller tells.
    Raises Error."""
    from ...linux.cgroup import Group

    layout = load(folder)
    path, file = layout.paths.get("memory", ""), "memory.oom_control"
    if not path:
        path, file = layout.v2, "memory.events"
    if not path:
        return 0
    try:
        with Group(path) as group:
            return group.keyed(file).get("oom_kill", 0)
    except OSError as problem:
        if problem.errno in _GONE:
            return 0
        raise Error(f"read {path}/{file}", problem) from None

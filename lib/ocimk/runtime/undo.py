"""Undoing a container: its ledger backwards, then its folder, then the poststop hooks. For delete and for failures."""

from __future__ import annotations

from ..container import names
from ..container.folder import Folder
from ..errors import Error, reason, warn
from ..linux import path as paths
from ..stages import runner
from . import plan

_NO_SUCH_PROGRAM = 127


def unmake(folder: Folder, force: bool = False) -> None:
    """Undo what the ledger names, the last first. Raises Error (the first failure, after trying the rest).

    force  what a stage has made that is no longer installed is left as it is, with a warning
    """
    failed: Error | None = None
    for stage in plan.undo_order(folder):
        try:
            runner.run(folder, [stage, "undo", folder.path])
        except Error as problem:
            if force and problem.status == _NO_SUCH_PROGRAM:
                made = [f"{kind} {value}" for _, kind, value in folder.records(stage)]
                warn(f"{stage}: no such stage: {', '.join(made)}: left as it is")
            else:
                failed = failed or problem
    if failed is not None:
        raise failed


def destroy(folder: Folder, poststop: bool = True, force: bool = False) -> None:
    """Undo everything and run the poststop hooks. Raises Error; the folder then stays, for another try."""
    hooks, state = remember(folder) if poststop else ({}, {})
    unmake(folder, force)
    folder.vanish()
    if hooks.get("poststop"):
        _poststop(folder, hooks, state)


def remember(folder: Folder) -> tuple[dict[str, object], dict[str, object]]:
    """The hooks and the state, read while the folder is there; nothing of a folder that is broken."""
    try:
        if "poststop" not in folder.state["ocimk"].get("hooks", ()):
            return {}, {}
        return dict(folder.config.get("hooks") or {}), dict(folder.state)
    except (Error, OSError):
        return {}, {}


def _poststop(folder: Folder, hooks: dict[str, object], state: dict[str, object]) -> None:
    from ..stages import hooks as stage

    folder.config = {"hooks": hooks}
    folder.bundle = str(state.get("bundle", ""))
    folder.recall(state)
    stage.run(folder, "poststop", "stopped")


def after_failure(folder: Folder, problem: BaseException) -> None:
    """Undo a container that could not be made. What cannot be undone is only a warning."""
    try:
        if folder.state.get("status") == "created":
            folder.commit(ocimk={**folder.state["ocimk"], "failed": True})
        destroy(folder, poststop=bool(folder.records("oci-unshare")))
    except (Error, OSError) as second:
        told = second if isinstance(second, Error) else reason(second)
        warn(f"while undoing: {told}; delete --force {folder.id} tries again")


def has_cgroup(folder: Folder) -> bool:
    """Whether the container has cgroups of its own that somebody may be in: nobody is before cgroup.json is there."""
    return bool(folder.records("oci-cgroup")) and paths.exists(f"{folder.path}/{names.CGROUP}")


def kill_all(folder: Folder) -> None:
    """Kill every process in the container's cgroup: without a pid namespace of its own they outlive the first one."""
    from ..stages.cgroups import live

    live.kill_all(folder, 9)

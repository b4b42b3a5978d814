"""oci delete: remove a stopped container (with --force any) and all that was made for it."""

from __future__ import annotations

import time

from ..container import names, state
from ..container.folder import Folder, check_id
from ..errors import Error, warn
from ..linux import path as paths
from . import plan, undo

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation

_BUSY = 10.0
"""Seconds that --force waits for another command at work on the container."""


def main(invocation: Invocation) -> int:
    """The command. Raises Error."""
    if invocation.flag("regex"):
        from . import matching

        matching.each(invocation, lambda found: one(invocation, found))
    else:
        one(invocation, invocation.args[0])
    return 0


def one(invocation: Invocation, name: str) -> None:
    """Remove the container of this name. Raises Error."""
    force = invocation.flag("force")
    check_id(name)
    folder = plan.prepare(Folder(f"{invocation.root}/{name}"), invocation)
    if not paths.is_dir(folder.path):
        if force:
            return
        raise Error(f"container {name}", "container does not exist")
    try:
        take(folder, force)
    except Error:
        if force and not paths.is_dir(folder.path):
            return  # another command has removed it while we waited
        raise
    if not paths.exists(f"{folder.path}/{names.STATE}"):
        return _left_over(folder, force)
    if not force:
        _check_stopped(folder)
    delete(folder, force)


def take(folder: Folder, force: bool) -> None:
    """Lock the folder; --force does not wait for ever for one that is held. Raises Error."""
    if not paths.exists(f"{folder.path}/{names.LOCK}"):
        return  # its making was killed before there was a lock
    if not force:
        folder.lock()
        return
    deadline = time.monotonic() + _BUSY
    while not folder.lock(wait=False):
        if time.monotonic() > deadline:
            raise Error(f"container {folder.id}", f"another command has been at work on it for {_BUSY:.0f} s")
        time.sleep(0.01)


def _left_over(folder: Folder, force: bool) -> None:
    """A folder without state.json: a creation that was killed at its very start."""
    undo.unmake(folder, force)
    folder.vanish()
    if not force:
        raise Error(f"container {folder.id}", "container does not exist", "what was left of its folder is removed")


def _check_stopped(folder: Folder) -> None:
    now = state.status(folder)
    if now == "created":
        return
    if now != "stopped":
        hint = "stop it first, or delete --force"
        raise Error(f"cannot delete container {folder.id} that is not stopped", now, hint)


def delete(folder: Folder, force: bool = False) -> None:
    """Undo the container; the folder must be locked. Raises Error."""
    try:
        recorded = folder.state
    except (Error, OSError) as problem:
        if not force:
            raise
        warn(str(problem))
        recorded = {}
    if recorded.get("ocimk") and not _own_pid_namespace(recorded) and undo.has_cgroup(folder):
        undo.kill_all(folder)
    undo.destroy(folder, force=force)


def _own_pid_namespace(recorded: dict[str, object]) -> bool:
    own = recorded.get("ocimk")
    return isinstance(own, dict) and own.get("pidNamespace") == "new"

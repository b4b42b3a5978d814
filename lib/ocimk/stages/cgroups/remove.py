"""Removing what oci-cgroup made, by the ledger."""

from __future__ import annotations

import errno
import posix

from ...errors import Error
from ...linux import cgroup_procs
from .create import LEAF, PARENT, STAGE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...container.folder import Folder

_BUSY = (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT)


def remove(folder: Folder, seconds: float) -> None:
    """Remove the recorded cgroups, newest first, and then empty parents; a missing one is fine.

    seconds: how long processes that are ending are waited for, in all. Raises Error naming those that stay.
    """
    noted = [(kind, path) for _, kind, path in reversed(folder.records(STAGE))]
    if not noted:
        return
    by_systemd = any(kind not in (LEAF, PARENT) for kind, _ in noted)
    if by_systemd:
        from . import holder, systemd

        holder.dismiss(folder)
    for path in [path for kind, path in noted if kind == LEAF]:
        remove_one(path, seconds)
    if by_systemd:
        systemd.stop(folder)
    for path in [path for kind, path in noted if kind == PARENT]:
        remove_parent(path)
    folder.remove("cgroup.json")
    folder.remove("resources.json")
    folder.strike(STAGE)


def remove_one(path: str, seconds: float) -> None:
    """Remove one cgroup with all below it. Raises Error."""
    try:
        left = cgroup_procs.remove(path, seconds)
    except OSError as problem:
        raise Error(f"remove cgroup {path}", problem) from None
    if left:
        shown = ", ".join(f"{pid} ({command(pid)})" for pid in left[:10])
        more = f" and {len(left) - 10} more" if len(left) > 10 else ""
        raise Error(
            f"remove cgroup {path}", f"still in use by {shown}{more}", "kill them first, or delete --force"
        )


def remove_parent(path: str) -> None:
    """Remove a parent that we made, unless others have put their cgroups there meanwhile. Raises Error."""
    try:
        posix.rmdir(path)
    except OSError as problem:
        if problem.errno not in _BUSY:
            raise Error(f"remove cgroup {path}", problem) from None


def command(pid: int) -> str:
    """The process's name, as ps shows it."""
    try:
        with open(f"/proc/{pid}/comm", encoding="utf-8", errors="replace") as file:
            return file.read().strip()
    except OSError:
        return "?"

"""oci pause, oci resume: hold all processes of a container still, and let them run on."""

from __future__ import annotations

from ..container import state as states
from ..container.folder import Folder
from ..errors import Error
from ..stages.cgroups import live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def pause(invocation: Invocation) -> int:
    """``pause ID``: ends when every process stands still. Raises Error ``container not running``."""
    folder = _taken(invocation)
    now = states.status(folder)
    if now not in ("created", "running"):
        hint = "it is paused already" if now == "paused" else ""
        raise Error(f"pause container {folder.id}", "container not running", hint)
    live.freeze(folder)
    states.announce(folder)
    return 0


def resume(invocation: Invocation) -> int:
    """``resume ID``. Raises Error ``container not paused``."""
    folder = _taken(invocation)
    if states.status(folder) != "paused":
        raise Error(f"resume container {folder.id}", "container not paused")
    live.thaw(folder)
    states.announce(folder)
    return 0


def _taken(invocation: Invocation) -> Folder:
    folder = Folder.existing(invocation.root, invocation.args[0])
    folder.lock()
    return folder

"""oci run: create and start a container, and unless it is detached stay with it to its end."""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error, warn
from ..linux import prctl
from . import create as creation
from . import delete as deletion
from . import start as starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """The command; returns the program's exit status (128+n when signal n ended it). Raises Error."""
    detached = invocation.flag("detach")
    # While it is made, in any case: an oci-unshare that was executed leaves its child, the first process, to us.
    prctl.set_child_subreaper(True)
    folder, child = creation.create(invocation, detached)
    if invocation.flag("no-subreaper"):
        prctl.set_child_subreaper(False)
    if detached:
        _start(folder)
        folder.release()
        return 0
    from . import foreground

    with foreground.Foreground(child) as screen:
        _start(folder)
        folder.release()
        status = screen.stay()
    if not invocation.flag("keep"):
        _delete(folder)
    return status


def _start(folder: Folder) -> None:
    """Start; a container whose program cannot be run is not left behind. Raises Error."""
    try:
        starting.start(folder)
    except Error:
        try:
            if _there(folder):
                deletion.delete(folder, force=True)
        except Error as problem:
            warn(f"while undoing: {problem}")
        raise


def _there(folder: Folder) -> bool:
    try:
        posix.stat(folder.path)
    except FileNotFoundError:
        return False
    return True


def _delete(folder: Folder) -> None:
    """Delete, unless somebody else has already done so."""
    if not _there(folder):
        return
    try:
        folder.lock()
    except Error:
        return
    deletion.delete(folder, force=True)

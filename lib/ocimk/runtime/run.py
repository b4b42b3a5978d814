"""oci run: create and start a container, and unless it is detached stay with it to its end."""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error, log, warn
from ..linux import prctl
from . import create as creation
from . import delete as deletion
from . import start as starting

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation
    from ..stages.child import Child


def main(invocation: Invocation) -> int:
    """The command; returns the program's exit status (128+n when signal n ended it). Raises Error."""
    detached = invocation.flag("detach")
    # While it is made, in any case: an oci-unshare that was executed leaves its child, the first process, to us.
    prctl.set_child_subreaper(True)
    folder, child = creation.create(invocation, detached)
    if invocation.flag("no-subreaper"):
        prctl.set_child_subreaper(False)
    try:
        status = 0 if detached else _stay(folder, child)
        if detached:
            starting.start_and_wait(folder) if b"NOTIFY_SOCKET" in posix.environ else starting.start(folder)
    except BaseException:
        discard(folder)
        raise
    folder.release()
    if not detached and not invocation.flag("keep"):
        delete_it(folder)
    return status


def _stay(folder: Folder, child: Child) -> int:
    """Start it and stay to its end; returns the program's exit status. Raises Error."""
    from . import foreground

    with foreground.Foreground(child) as screen:
        if b"NOTIFY_SOCKET" in posix.environ:
            from . import notify

            screen.notify = notify.listen(folder)
        starting.start(folder)
        folder.release()
        log.release()  # the container may run for years
        return screen.stay()


def discard(folder: Folder) -> None:
    """Leave nothing of a container that could not be started, or that we can no longer follow."""
    try:
        delete_it(folder)
    except Error as problem:
        warn(f"while undoing: {problem}; delete --force {folder.id} tries again")


def _there(folder: Folder) -> bool:
    try:
        posix.stat(folder.path)
    except FileNotFoundError:
        return False
    return True


def delete_it(folder: Folder) -> None:
    """Delete, unless somebody else has already done so."""
    if not _there(folder):
        return
    try:
        folder.relock()
    except Error:
        return
    folder.forget()
    deletion.delete(folder, force=True)

"""oci start: let the created container's program run."""

from __future__ import annotations

import posix

from ..container import barrier, state
from ..container.folder import Folder
from ..errors import Error, warn
from ..linux import process
from ..stages import runner
from . import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """The command. Raises Error when the container is not created, or its program cannot be run."""
    folder = plan.prepare(Folder.existing(invocation.root, invocation.args[0]), invocation)
    folder.lock()
    if b"NOTIFY_SOCKET" not in posix.environ:
        start(folder)
    else:
        start_and_wait(folder, needed=True)
    return 0


def start_and_wait(folder: Folder, needed: bool = False) -> None:
    """As start(), and when a service manager waits for the container stay until it is ready. Raises Error.

    needed  do not start it when the service manager cannot be told
    """
    from . import notify

    pid, started = state.init(folder.state)
    pidfd = process.pidfd_of(pid, started)
    ready = notify.listen(folder, needed) if pidfd >= 0 else None
    start(folder)
    folder.release()
    if ready is not None:
        ready.wait(pidfd, pid)


def start(folder: Folder) -> None:
    """Release the waiting image; the folder must be locked. Raises Error."""
    now = state.status(folder)
    if now != "created":
        raise Error(f"container {folder.id}", _REFUSED.get(now, f"cannot start a container in the {now} state"))
    try:
        barrier.release(folder)
    except Error as problem:
        _failed(folder, problem)
        raise
    state.advance(folder, "running")
    barrier.drop(folder)
    if folder.state["ocimk"].get("hooks"):
        _poststart(folder)


_REFUSED = {
    "stopped": "cannot start a container that has stopped",
    "running": "cannot start an already running container",
}


def _failed(folder: Folder, problem: Error) -> None:
    """What failed after the FIFO: the container is stopped; after a startContainer hook it is destroyed too."""
    from . import undo

    if "startContainer hook" in str(problem):
        undo.after_failure(folder, problem)
        return
    runner.run(folder, ["oci-unshare", "undo", folder.path])
    state.advance(folder, "stopped")
    barrier.drop(folder)


def _poststart(folder: Folder) -> None:
    """The poststart hooks. Before 1.3.0 a failure is a warning; from then on the container is stopped and destroyed
    (runtime.md, Lifecycle, step 9)."""
    from ..spec.state import poststart_must_succeed
    from . import undo

    try:
        runner.run(folder, ["oci-hooks", "apply", folder.path, "poststart"])
    except Error as problem:
        if not poststart_must_succeed(str(folder.state.get("ociVersion", ""))):
            warn(str(problem))
            return
        undo.after_failure(folder, problem)
        raise

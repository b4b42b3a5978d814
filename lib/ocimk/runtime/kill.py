"""oci kill: send a signal to the container's first process, or to all its processes."""

from __future__ import annotations

import posix

from ..container import state as states
from ..container.folder import Folder
from ..errors import Error
from ..linux import path as paths
from ..linux import process
from . import signals

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation

_KILL = 9


def main(invocation: Invocation) -> int:
    """``kill ID [SIGNAL]``. Raises Error: an unknown signal, no such container, one that does not run."""
    name, *rest = invocation.args
    word = (rest and rest[0]) or "SIGTERM"
    everybody = invocation.flag("all")
    if invocation.flag("regex"):
        from . import matching

        number = signals.number(word)
        matching.each(invocation, lambda found: kill(Folder.existing(invocation.root, found), number, everybody))
    else:
        # That there is no such container is what callers must hear, also when they know signals that we do not.
        kill(Folder.existing(invocation.root, name), signals.number(word), everybody)
    return 0


def kill(folder: Folder, number: int, everybody: bool = False) -> None:
    """Send the signal to the container's first process, by pidfd: to this very process or to none.

    everybody  to all processes of its cgroup; then it is no error that the first one has ended

    SIGKILL for a container that shares a pid namespace goes to everybody in any case, since the others would
    outlive their first process. Raises Error ``container not running``.
    """
    now = states.status(folder)
    if now == "stopped" and not everybody:
        raise _not_running(folder)
    if now == "creating":
        raise Error(f"kill container {folder.id}", "it is being created", "delete --force ends it")
    own = folder.state["ocimk"]
    shared = own.get("pidNamespace", "new") != "new"
    if everybody or (number == _KILL and shared):
        _signal_all(folder, number)
    else:
        _signal_init(folder, number)
    if number == _KILL and now == "paused":
        _thaw(own.get("freezer", ""))


def _signal_init(folder: Folder, number: int) -> None:
    fd = process.pidfd_of(*states.init(folder.state))
    if fd < 0:
        raise _not_running(folder)
    try:
        process.pidfd_signal(fd, number)
    except ProcessLookupError:
        raise _not_running(folder) from None
    except OSError as problem:
        raise Error(f"kill container {folder.id}: send {signals.name(number)}", problem) from None
    finally:
        posix.close(fd)


def _signal_all(folder: Folder, number: int) -> None:
    """To all in the cgroup; without one (rootless, or switched off) the first process is all that we know of."""
    from ..stages.cgroups import live, load

    if folder.records("oci-cgroup") and load(folder).paths:
        live.kill_all(folder, number)
    elif states.init_lives(folder.state):
        _signal_init(folder, number)


def _thaw(freezer: str) -> None:
    """Let a frozen container die: in cgroup v1 not even SIGKILL reaches a frozen process."""
    if paths.basename(freezer) != "freezer.state":
        return
    try:
        fd = posix.open(freezer, posix.O_WRONLY | posix.O_CLOEXEC)
    except OSError:
        return
    try:
        posix.write(fd, b"THAWED")
    except OSError as problem:
        raise Error(f"thaw {freezer}", problem) from None
    finally:
        posix.close(fd)


def _not_running(folder: Folder) -> Error:
    return Error(f"kill container {folder.id}", "container not running")

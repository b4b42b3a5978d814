"""oci create: make a container; its program waits for start."""

from __future__ import annotations

import posix
import sys

from ..container.folder import Folder, check_id
from ..container.trace import Span
from ..errors import Error
from ..linux import process
from ..stages import birth, runner
from ..stages.child import Child, hand_over_console, receive, send_descriptor
from . import plan, undo
from .handover import check_console, write_pid_file
from .interrupt import Interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """The command. Raises Error; then nothing is left of the container."""
    if invocation.flag("dry-run"):
        return dry_run(invocation)
    folder, child = create(invocation, detached=True)
    if child.pidfd >= 0:
        posix.close(child.pidfd)
    folder.release()
    return 0


def dry_run(invocation: Invocation) -> int:
    """Print the plan's command lines; nothing is made."""
    from ..stages.words import shell

    folder, bundle = _named(invocation)
    for line in _planned(folder, bundle, invocation).lines():
        sys.stdout.write(shell(line) + "\n")
    return 0


def create(invocation: Invocation, detached: bool) -> tuple[Folder, Child]:
    """Make the container up to the waiting image; the folder stays locked by us. Raises Error after undoing all."""
    folder, bundle = _named(invocation)
    planned = _planned(folder, bundle, invocation)
    with Interruptible():
        runner.run(folder, planned.host[0])  # makes the folder, or leaves another's alone
        folder.relock()
        try:
            child = _carry_out(folder, planned, invocation, detached)
        except BaseException as problem:
            undo.after_failure(folder, problem)
            raise
    return folder, child


def _named(invocation: Invocation) -> tuple[Folder, str]:
    name = invocation.args[0]
    check_id(name)
    folder = plan.prepare(Folder(f"{invocation.root}/{name}"), invocation)
    return folder, plan.enter_bundle(invocation)


def _planned(folder: Folder, bundle: str, invocation: Invocation) -> plan.CreatePlan:
    planned = plan.CreatePlan(folder, bundle, invocation)
    if invocation.text("break"):
        planned.break_at(invocation.text("break"))
    return planned


def _carry_out(folder: Folder, planned: plan.CreatePlan, invocation: Invocation, detached: bool) -> Child:
    terminal = bool((folder.config.get("process") or {}).get("terminal"))
    check_console(terminal, invocation.text("console-socket"), detached)
    if invocation.flag("no-new-keyring"):
        # exec must know it, too.
        folder.commit(ocimk={**folder.state["ocimk"], "callersKeyring": True})
    for line in planned.host[1:]:
        runner.run(folder, line)
    if folder.inprocess and not _overridden(folder):
        with Span(folder, planned.unshare):
            child = birth.start(folder, planned.chain())
            birth.attend(folder, child, invocation.meanwhile)
        if child.ready and child.console >= 0 and invocation.text("console-socket"):
            hand_over_console(child, invocation.text("console-socket"))
    else:
        child = _of_another(folder, [*planned.unshare, "--", *planned.chain()], not detached)
    if not child.ready:
        raise Error("the container's first process ended", f"exit status {child.status}", "before it was created")
    _tell_pid(folder, invocation, child)
    return child


def _overridden(folder: Folder) -> bool:
    from ..stages.contract import override

    return bool(override(folder, "oci-unshare"))


def _of_another(folder: Folder, line: list[str], foreground: bool) -> Child:
    """The first process as another program (an oci-unshare that is executed) makes it; in the foreground that program
    gives us the master of its terminal. Raises Error."""
    import _socket

    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    if foreground:
        folder.fds["terminal"] = theirs.fileno()
    try:
        runner.run(folder, line)
    finally:
        folder.fds.pop("terminal", -1)
        theirs.close()
    child = Child(ours)
    receive(child)
    folder.forget()
    child.pid = int(folder.state.get("pid", 0))
    child.started = int(folder.state["ocimk"].get("startTime", 0))
    child.pidfd = process.pidfd_of(child.pid, child.started)
    child.ready = folder.state.get("status") == "created"
    return child


def _tell_pid(folder: Folder, invocation: Invocation, child: Child) -> None:
    """--pid-file, --pidfd-socket and crun's annotation for the same, once the container is created."""
    if invocation.text("pid-file"):
        write_pid_file(invocation.text("pid-file"), child.pid)
    if invocation.text("pidfd-socket"):
        send_descriptor(invocation.text("pidfd-socket"), child.pidfd, "standard")
    receiver = (folder.config.get("annotations") or {}).get("run.oci.pidfd_receiver")
    if receiver:
        send_descriptor(receiver, child.pidfd, "pidfd")

"""Running a stage on the host's side to its end: called in this interpreter, or executed and waited for."""

from __future__ import annotations

import _signal
import _socket
import posix

from ..container import sync
from ..container.folder import Folder
from ..container.trace import Span
from ..errors import Error
from ..linux import prctl, process
from . import contract


def run(folder: Folder, argv: list[str]) -> None:
    """Carry out one command line of a plan, ``[oci-STAGE, VERB, DIR, ...]``. Raises Error with the stage's name."""
    with Span(folder, argv):
        if folder.inprocess and argv[0] in contract.STOCK and not contract.override(folder, argv[0]):
            _call(folder, argv)
        else:
            _spawn(folder, argv)
            folder.forget()


def _call(folder: Folder, argv: list[str]) -> None:
    stage = contract.load(argv[0])
    try:
        call = contract.parse(stage, argv[1:])
        contract.perform(stage, folder, call)
    except Error as problem:
        problem.stage = problem.stage or stage.NAME
        raise


def _spawn(folder: Folder, argv: list[str]) -> None:
    """Execute the stage; what it has to complain about reaches us over a socket pair, not over standard error."""
    program = contract.locate(argv[0], folder.search)
    process.collectable_children()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    before = folder.fds
    try:
        folder.fds = {**before, "sync": theirs.fileno()}
        if argv[0] != "oci-unshare":
            folder.fds.pop("trace", None)  # its line is ours to write; only a chain goes on where we cannot see it
        for fd in folder.fds.values():
            posix.set_inheritable(fd, True)
        pid = _start(program, argv, contract.environment(folder), theirs.fileno())
        theirs.close()
        told = sync.receive_answer(ours.fileno())
        status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    finally:
        folder.fds = before
        for fd in before.values():
            posix.set_inheritable(fd, False)
        ours.close()
    _judge(argv[0], status, told)


def _start(program: str, argv: list[str], environment: dict[bytes, bytes], sync_fd: int) -> int:
    """The pid of a new process that becomes the program, and dies when we do: whoever cleans up after a dispatcher that
    was killed must not find a stage still at work. See PR_SET_PDEATHSIG in prctl(2); what it starts itself lives on.
    """
    ours = posix.getpid()
    pid = posix.fork()
    if pid:
        return pid
    try:
        prctl.prctl(prctl.SET_PDEATHSIG, _signal.SIGKILL)
        if posix.getppid() == ours:
            posix.execve(program, argv, environment)
    except OSError as problem:
        sync.send_error(sync_fd, Error(f"execute {program}", problem))
    finally:
        posix._exit(126)


def _judge(name: str, status: int, told: str) -> None:
    problem = sync.to_error(told)
    if problem is not None:
        raise problem
    if status < 0:
        raise Error(name, f"killed by signal {-status}")
    if status:
        raise Error(name, f"exit status {status}")

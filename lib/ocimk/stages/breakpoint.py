"""oci-break: a shell at this point of the chain. ``oci create --break STAGE`` puts it before a stage.

Leaving the shell with status 0 goes on; any other status stops the creation, which is then undone.
"""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error

NAME = "oci-break"
SUMMARY = "open a shell at this point of the chain; its exit status says whether to go on"
OPTIONS = (("--before", "STAGE", "the stage that comes next, for the greeting"),)
VALUES = ""
CHAINS = True


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Run $SHELL (else /bin/sh) on our standard streams. Raises Error when it does not exit with 0."""
    from . import contract

    shell = posix.environ.get(b"SHELL", b"/bin/sh").decode("utf-8", "surrogateescape")
    before = options.get("--before", "the next stage")
    greeting = f"before {before}: container {folder.id}, folder {folder.path}; exit goes on, exit 1 stops\n"
    posix.write(2, f"oci-break: {greeting}".encode("utf-8", "surrogateescape"))
    env = contract.environment(folder) | {b"OCI_DIR": folder.path.encode("utf-8", "surrogateescape")}
    program = contract.locate(shell, [])
    for fd in folder.fds.values():
        posix.set_inheritable(fd, True)  # so that stages can be run from the shell
    pid = posix.posix_spawn(program, [shell], env, setsigdef=[2, 13, 15, 25])
    for fd in folder.fds.values():
        posix.set_inheritable(fd, False)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if status:
        raise Error(f"stopped before {before}", f"the shell ended with status {status}")


def undo(folder: Folder) -> None:
    """Nothing: what was done by hand is undone by hand."""


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The shell."""
    return ["${SHELL:-/bin/sh}"]


def check(folder: Folder) -> list[str]:
    """Whether there is a shell."""
    shell = posix.environ.get(b"SHELL", b"/bin/sh").decode("utf-8", "surrogateescape")
    return [] if posix.access(shell, posix.X_OK) else [f"{shell}: no such program"]

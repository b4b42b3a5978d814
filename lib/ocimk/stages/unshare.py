"""oci-unshare: make the container's first process, in its namespaces and cgroup; it goes on with the rest of the chain.

The host's side stays until the container is created (or has failed) and then ends; see `attend`. Where nothing in the
chain says that it is created (``-- sh``), it stays until the child ends and takes over its exit status.
"""

from __future__ import annotations

import posix

from ..container import sync
from ..container.folder import Folder
from ..errors import Error
from ..linux import namespaces as ns
from ..linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .child import Child

NAME = "oci-unshare"
SUMMARY = "make the container's first process in its namespaces and cgroup; it becomes NEXT"
OPTIONS = (("--console-socket", "PATH", "send the terminal's master there once the container is created"),)
VALUES = ""
CHAINS = True


def wanted(config: dict[str, Any]) -> tuple[int, list[tuple[str, str]]]:
    """The flags of the namespaces to make, and the (kind, path) of those to join."""
    flags = 0
    joins = []
    for entry in (config.get("linux") or {}).get("namespaces") or []:
        if entry.get("path"):
            joins.append((entry["type"], entry["path"]))
        else:
            flags |= ns.FLAGS[entry["type"]]
    return flags, joins


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Refused: without a program to become there would be nothing in the new namespaces."""
    raise Error("nothing to run in the namespaces", hint="oci-unshare apply DIR -- NEXT...")


def apply_next(folder: Folder, options: dict[str, str], following: list[str]) -> int:
    """Make the child, see it to its end or until the container is created; returns the exit status."""
    from . import birth

    if not following:
        apply(folder, options, [])
    outer: dict[str, int] = {name: folder.fds.pop(name) for name in ("sync", "terminal") if name in folder.fds}
    try:
        child = birth.start(folder, following)
    finally:
        folder.fds |= outer  # also when it failed: who started us is to hear of it there
    birth.attend(folder, child)
    if not child.ready:
        return child.status
    if child.console >= 0:
        _hand_over_console(folder, child, options)
    return 0


def _hand_over_console(folder: Folder, child: Child, options: dict[str, str]) -> None:
    """Send the terminal's master to the socket, or back to an ``oci run`` in the foreground. Raises Error."""
    from . import birth
    from .child import hand_over_console

    if "--console-socket" in options:
        hand_over_console(child, options["--console-socket"])
    elif "terminal" in folder.fds:
        sync.send_descriptor(folder.fds["terminal"], "terminal", child.console)
    else:
        birth.give_up(child)
        hint = "pass --console-socket, or set process.terminal to false"
        raise Error("process.terminal", "nobody takes the terminal's master", hint)


def undo(folder: Folder) -> None:
    """End the processes that were made and wait until they are gone."""
    for _, kind, value in reversed(folder.records(NAME)):
        if kind == "process":
            pid, _, started = value.partition(" ")
            end(int(pid), int(started))
    folder.strike(NAME)


def end(pid: int, started: int) -> None:
    """Kill the very process and wait for its end. Raises Error when it is still there after ten seconds."""
    if not process.end(pid, started, 10_000):
        hint = f"/proc/{pid}/stack tells what it waits on"
        raise Error(f"kill process {pid}", "it has not ended within 10 s", hint)


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The same with nsenter(1) and unshare(1)."""
    from .words import shell

    flags, joins = wanted(folder.config)
    short = {"network": "net"}
    enter = [f"--{short.get(kind, kind)}={path}" for kind, path in joins]
    made = [f"--{short.get(kind, kind)}" for kind, flag in ns.FLAGS.items() if flags & flag]
    if flags & ns.NEWUSER:
        for option, key in (("--map-users", "uidMappings"), ("--map-groups", "gidMappings")):
            for m in (folder.config.get("linux") or {}).get(key) or []:
                made.append(f"{option}={m['hostID']},{m['containerID']},{m['size']}")
    lines = [shell(["nsenter", *enter, "\\"])] if enter else []
    lines.append(shell(["unshare", "--fork", *made, "--", "NEXT"]))
    return [line.replace("'\\'", "\\") for line in lines]


def check(folder: Folder) -> list[str]:
    """Namespaces that this kernel lacks, paths that do not name what they should."""
    problems = []
    _, joins = wanted(folder.config)
    kinds = [entry["type"] for entry in (folder.config.get("linux") or {}).get("namespaces") or []]
    for number, kind in enumerate(kinds):
        if not _known(kind):
            problems.append(f"linux.namespaces[{number}].type: {kind}: this kernel has no such namespace")
    for kind, path in joins:
        try:
            posix.close(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC))
        except OSError as problem:
            problems.append(f"linux.namespaces: {kind} {path}: {problem.strerror}")
    return problems


def _known(kind: str) -> bool:
    return posix.access(f"/proc/self/ns/{ns.FILES[kind]}", posix.F_OK)

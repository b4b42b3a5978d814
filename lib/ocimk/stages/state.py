"""oci-state: commit a container's transitions, tell its state, watch and wait for transitions."""

from __future__ import annotations

import posix
import time

from ..container import names
from ..container import state as states
from ..container.folder import Folder
from ..errors import Error, Usage, rfc3339
from ..linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "oci-state"
SUMMARY = "commit a transition of the container: creating, created, running, stopped"
OPTIONS = (
    ("--pid", "PID", "created: the container's first process, when no stage has recorded it"),
    ("--creator", "PID", "creating: the process that sees the creation through; the caller, unless given"),
    ("--exit-status", "N", "stopped: the first process exited with this status"),
    ("--signal", "N", "stopped: the first process was killed by this signal"),
)
VALUES = "STATUS"
CHAINS = True

FORMS = (
    ("get ID [--root DIR]", "print the state as JSON"),
    ("watch [ID...] [--root DIR] [--from-start]", "print a line of JSON for every transition"),
    ("wait ID STATUS [--root DIR] [--timeout SECONDS]", "end when the container has reached the status"),
)
"""Other forms of call than the contract's four verbs."""


def command(argv: list[str]) -> int | None:
    """``get``, ``watch`` and ``wait``; None for what the contract handles."""
    if argv and argv[0] in ("get", "watch", "wait"):
        from . import state_command

        return state_command.main(argv[0], argv[1:])
    return None


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Commit the transition to the status named. Raises Usage; Error when it does not follow the last one."""
    to = wanted(operands)
    states.must_follow(folder, to)
    if to == "creating":
        _creating(folder, options)
    elif to == "created":
        _created(folder, options)
    elif to == "running":
        states.advance(folder, to)
    else:
        known = folder.state["ocimk"].get("exit") or _exit(options)
        states.advance(folder, to, {"exit": known} if known else {})


def wanted(operands: list[str]) -> str:
    """The one operand, a status that can be recorded. Raises Usage."""
    if len(operands) != 1 or operands[0] not in states.ORDER:
        raise Usage(f"one status is needed: {', '.join(states.ORDER)}")
    return operands[0]


def _creating(folder: Folder, options: dict[str, str]) -> None:
    """Who makes it, since when, and what of config.json a reader of the state wants to know."""
    # Called by the dispatcher, that is our process; executed, we end at once and whoever called us goes on.
    pid = _number(options, "--creator") or (posix.getpid() if folder.inprocess else posix.getppid())
    own = {"creator": [pid, process.start_time(pid)], **_origin(folder)}
    states.advance(folder, "creating", own, owner=posix.geteuid(), rootfs=folder.rootfs)


def _origin(folder: Folder) -> dict[str, Any]:
    """What does not change any more."""
    return {"bootId": process.boot_id(), "pidNamespace": pid_namespace(folder.config), "freezer": ""}


def _created(folder: Folder, options: dict[str, str]) -> None:
    """The first process by pid and start time, which must be there, and how to tell whether it is frozen."""
    pid, started = (_number(options, "--pid"), 0) if "--pid" in options else states.init(folder.state)
    if pid <= 0:
        raise Error(f"container {folder.id}", "no first process is recorded", "--pid PID names it")
    started = started or process.start_time(pid)
    if not process.alive(pid, started):
        raise Error(f"container {folder.id}", f"its first process {pid} has ended")
    own: dict[str, Any] = {}
    changes: dict[str, Any] = {"pid": pid}
    if "owner" not in folder.state:
        # Put together by hand, without the transition to creating.
        own = _origin(folder)
        changes |= {"created": rfc3339(time.time_ns()), "owner": posix.geteuid(), "rootfs": folder.rootfs}
    states.advance(folder, "created", {**own, "startTime": started, "freezer": _freezer(folder)}, **changes)


def _freezer(folder: Folder) -> str:
    """The file that tells whether it is frozen, from what oci-cgroup left; "" without a cgroup of its own."""
    from ..jsonio import loads

    try:
        layout = loads(folder.read(names.CGROUP), names.CGROUP)
    except FileNotFoundError:
        return ""
    # Where there is both (v1 with a cgroup2 beside it), pausing is done in the cgroup2.
    places = layout["paths"]
    if places.get(""):
        return f"{places['']}/cgroup.events"
    return f"{places['freezer']}/freezer.state" if "freezer" in places else ""


def pid_namespace(config: dict[str, Any]) -> str:
    """``new``, ``joined`` or ``host``: whether the end of the first process ends all the others."""
    for entry in (config.get("linux") or {}).get("namespaces") or []:
        if entry.get("type") == "pid":
            return "joined" if entry.get("path") else "new"
    return "host"


def _number(options: dict[str, str], name: str) -> int:
    text = options.get(name, "")
    if text and not (text.isascii() and text.isdigit()):
        raise Usage(f"option {name}", f"{text!r} is not a number")
    return int(text or 0)


def _exit(options: dict[str, str]) -> dict[str, int]:
    """How the process ended, from the options; {} when they do not tell."""
    keys = (("--exit-status", "exitStatus"), ("--signal", "signal"))
    return {key: _number(options, name) for name, key in keys if name in options}


def undo(folder: Folder) -> None:
    """Nothing: a transition makes nothing but a new state.json, which says what the folder is for as long as
    it is there, and goes with it."""
    folder.strike(NAME)


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The same with jq(1) and mv(1)."""
    to = wanted(operands)
    place = folder.path or "DIR"
    edit = f'.status = "{to}" | .ocimk.times.{to} = "{rfc3339(time.time_ns())}"'
    if to == "created":
        edit += ' | .pid = PID | .ocimk.startTime = (START, field 22 of /proc/PID/stat)'
    return [
        f"jq '{edit}' {place}/state.json > {place}/.state.json.new",
        f"mv {place}/.state.json.new {place}/state.json",
    ]


def check(folder: Folder) -> list[str]:
    """What telling and watching a state needs of the host."""
    problems = []
    if not process.start_time(posix.getpid()):
        problems.append("/proc/PID/stat cannot be read: processes cannot be told apart; mount proc on /proc")
    try:
        posix.close(process.pidfd_open(posix.getpid()))
    except OSError as problem:
        why = "the end of a container cannot be watched; Linux 5.10 is needed"
        problems.append(f"pidfd_open: {problem.strerror}: {why}")
    return problems

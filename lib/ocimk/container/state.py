"""What state.json says of a container, and what is true of it now.

Recorded is one of creating, created, running, stopped, in this order and never back. True may be another one:
a container whose first process has ended is stopped whatever is recorded, and one that is frozen is paused.

Members of state.json besides the specification's: rootfs, created (RFC 3339), owner (uid), and under "ocimk":

    version       of this format
    startTime     of the first process, in clock ticks since boot: with the pid it names the process
    bootId        of the boot it was started in: pids and start times of another boot mean nothing
    pidNamespace  new, joined or host: whether the end of the first process ends all others
    freezer       the file that tells whether the cgroup is frozen, or ""
    creator       [pid, start time] of the process that sees the creation through
    callersKeyring  true when it was made with --no-new-keyring
    times         when each status was reached, by status (RFC 3339)
    exit          how the first process ended, when that is known: {"exitStatus": N} or {"signal": N}
"""

from __future__ import annotations

import posix
import time

from ..errors import Error, rfc3339
from ..jsonio import dumps
from ..linux import path as paths
from ..linux import process
from . import names
from .folder import Folder, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

ORDER = ("creating", "created", "running", "stopped")
"""The recorded statuses, as they follow each other."""

_NEXT = {
    "": ("creating",),
    "creating": ("creating", "created", "stopped"),
    "created": ("running", "stopped"),
    "running": ("stopped",),
    "stopped": ("stopped",),
}
"""What may follow what. Making the folder has recorded creating already; the end may be told twice."""

_boot: list[str] = []


# ---- what is true now --------------------------------------------------------------------------------------


def status(folder: Folder) -> str:
    """The container's status now: creating, created, running, paused or stopped.

    Reads state.json (once a Folder), /proc/PID/stat and the freezer's file. Raises FileNotFoundError when the
    folder has no state.json, Error when that is broken or foreign.
    """
    state = folder.state
    own = state["ocimk"]
    recorded = state.get("status")
    if recorded == "creating":
        return "creating" if being_made(folder) else "stopped"
    if recorded not in ("created", "running") or not init_lives(state):
        return "stopped"
    return "paused" if frozen(own.get("freezer", "")) else str(recorded)


def current(folder: Folder) -> dict[str, Any]:
    """The state as ``runc state`` prints it: pid 0 when stopped, annotations sorted, owner empty (list fills it in).

    Raises as status() does.
    """
    now = status(folder)
    state = folder.state
    annotations = {"annotations": dict(sorted(state["annotations"].items()))} if state.get("annotations") else {}
    return {
        "ociVersion": state.get("ociVersion", ""),
        "id": state.get("id", folder.id),
        "pid": 0 if now == "stopped" else _number(state.get("pid")),
        "status": now,
        "bundle": state.get("bundle", ""),
        "rootfs": state.get("rootfs", ""),
        "created": state.get("created", ""),
        **annotations,
        "owner": "",
    }


def init(state: dict[str, Any]) -> tuple[int, int]:
    """The pid and start time of the container's first process; (0, 0) when none is recorded."""
    return _number(state.get("pid")), _number(state["ocimk"].get("startTime"))


def creator(state: dict[str, Any]) -> tuple[int, int]:
    """The pid and start time of the process that sees the creation through; (0, 0) when none is recorded."""
    found = state["ocimk"].get("creator")
    return (_number(found[0]), _number(found[1])) if isinstance(found, list) and len(found) == 2 else (0, 0)


def init_lives(state: dict[str, Any]) -> bool:
    """Whether the very first process runs: same pid, same start time, same boot, no zombie."""
    return process.alive(*init(state)) and this_boot(state)


def this_boot(state: dict[str, Any]) -> bool:
    """Whether the state was written since the machine was started."""
    written = state["ocimk"].get("bootId", "")
    if not _boot:
        _boot.append(process.boot_id())
    return not written or not _boot[0] or written == _boot[0]


def being_made(folder: Folder) -> bool:
    """Whether somebody is at work on the creation: its creator lives, or another has the folder locked."""
    if process.alive(*creator(folder.state)) and this_boot(folder.state):
        return True
    return folder._lock < 0 and folder.locked()


def frozen(path: str) -> bool:
    """Whether the freezer's file says so: freezer.state (v1), cgroup.events or cgroup.freeze (v2).

    False where the file cannot be read: a cgroup that is gone freezes nobody.
    """
    if not path:
        return False
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        told = posix.read(fd, 4096)
    except OSError:
        return False
    finally:
        posix.close(fd)
    if path.endswith("/cgroup.events"):
        return b"frozen 1" in told
    return told.strip() in (b"1", b"FROZEN", b"FREEZING")


# ---- transitions -------------------------------------------------------------------------------------------


def advance(folder: Folder, to: str, own: dict[str, Any] | None = None, **changes: Any) -> None:
    """Commit a transition: the status, its moment, and what else changes with it.

    own      members below "ocimk" that change
    changes  members of the state that change
    Raises Error when *to* does not follow the recorded status; then nothing is written.
    """
    must_follow(folder, to)
    state = folder.state
    now = time.time_ns()
    moment = rfc3339(now)
    times = state["ocimk"].get("times", {})
    if to == "creating" or to not in times:
        times = {**times, to: moment}
    if to == "creating":
        changes = {"created": moment, **changes}
    own = {**state["ocimk"], **(own or {}), "times": times}
    _replace(folder, {**state, "status": to, **changes, "ocimk": own}, now)


def _replace(folder: Folder, state: dict[str, Any], now: int) -> None:
    """Write state.json by way of a temporary file whose name tells the transition, see note()."""
    temporary = f"{folder.path}/{note(state, now)}"
    try:
        fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)
        try:
            write_all(fd, dumps(state).encode("utf-8", "surrogateescape"))
            posix.fsync(fd)
        finally:
            posix.close(fd)
        posix.rename(temporary, f"{folder.path}/{names.STATE}")
    except OSError as problem:
        raise Error(f"write {folder.path}/{names.STATE}", problem) from None
    folder.recall(state)


NOTE = f".{names.STATE}."
"""How the name of a state.json in the making begins."""

_HOW = {"e": "exitStatus", "s": "signal"}


def note(state: dict[str, Any], now: int) -> str:
    """The name of the temporary file: ``.state.json.STATUS.PID.NANOSECONDS``, for an end that is known with ``.eN``
    (exit status) or ``.sN`` (signal) after it.

    inotify queues names. So who watches the folder learns of every transition, also of one whose file was replaced,
    or removed with the container, before it could be read.
    """
    how = state["ocimk"].get("exit") or {}
    end = "".join(f".{letter}{how[key]}" for letter, key in _HOW.items() if key in how)
    return f"{NOTE}{state['status']}.{init(state)[0]}.{now}{end}"


def parse_note(name: str) -> tuple[str, int, str, dict[str, int]] | None:
    """Status, pid, moment (RFC 3339) and how it ended, from a name that note() made; None for any other."""
    status, *rest = name.removeprefix(NOTE).split(".")
    if status not in ORDER or len(rest) not in (2, 3) or not all(part.isalnum() for part in rest):
        return None
    pid, now, *end = rest
    try:
        how = {_HOW[end[0][0]]: int(end[0][1:])} if end else {}
        return status, int(pid) if status != "creating" else 0, rfc3339(int(now)), how
    except (KeyError, ValueError):
        return None


def must_follow(folder: Folder, to: str) -> None:
    """Raise Error when *to* does not follow the recorded status."""
    recorded = str(folder.state.get("status", ""))
    if to not in _NEXT.get(recorded, ()):
        raise Error(f"container {folder.id}", f"it is {recorded or 'nothing yet'} and cannot become {to}")


def announce(folder: Folder) -> None:
    """Write state.json anew as it is, so that those who watch look again. Pausing and resuming call it: a
    freezer of cgroup v1 tells nobody that its state has changed."""
    folder.forget()
    folder.commit(status=folder.state["status"])


# ---- where containers are ----------------------------------------------------------------------------------


def default_root() -> str:
    """Where containers are when no root is named: /run/oci, or $XDG_RUNTIME_DIR/oci if we are not really root.

    The dispatcher's rule (ocimk.cli.rootless), which is runc's: root of a user namespace counts as not root
    unless $USER says that it means it. Nothing is made.
    """
    runtime = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if not runtime or (posix.geteuid() == 0 and (posix.environ.get(b"USER") == b"root" or _whole_machine())):
        return "/run/oci"
    return paths.absolute(f"{runtime}/oci")


def _whole_machine() -> bool:
    """Whether we are in the first user namespace, whose map is the one that maps everything."""
    try:
        fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return True
    try:
        return posix.read(fd, 4096).split() == [b"0", b"0", b"4294967295"]
    finally:
        posix.close(fd)


def _number(value: object) -> int:
    """The value when it is a number, else 0: a state.json that somebody edited must not break a listing."""
    return value if isinstance(value, int) else 0

"""What only the host's side may give to the first process: its id maps, raised limits, its place in the OOM order."""

from __future__ import annotations

import posix

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _put(path: str, data: bytes) -> None:
    fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
    try:
        posix.write(fd, data)
    finally:
        posix.close(fd)


def write(config: dict[str, Any], pid: int) -> None:
    """Write the maps of a new user namespace. See user_namespaces(7). Raises Error."""
    linux = config.get("linux") or {}
    kinds = {entry["type"]: entry.get("path") for entry in linux.get("namespaces") or []}
    if kinds.get("user", "absent"):
        return  # none, or joined by path: that one has its maps
    maps = {"uid": linux.get("uidMappings") or [], "gid": linux.get("gidMappings") or []}
    if posix.geteuid() != 0 and maps["gid"]:
        _deny_setgroups(maps["gid"], pid)
    for kind in ("gid", "uid"):
        if maps[kind]:
            _write_map(kind, maps[kind], pid)


def _deny_setgroups(gids: list[dict[str, int]], pid: int) -> None:
    """One's own group may be mapped without privilege only once setgroups(2) is denied."""
    if not _own(gids, posix.getegid()):
        return
    try:
        _put(f"/proc/{pid}/setgroups", b"deny")
    except OSError as problem:
        raise Error("linux.gidMappings: deny setgroups", problem) from None


def _own(rows: list[dict[str, int]], own: int) -> bool:
    return len(rows) == 1 and rows[0]["size"] == 1 and rows[0]["hostID"] == own


def _write_map(kind: str, rows: list[dict[str, int]], pid: int) -> None:
    own = posix.geteuid() if kind == "uid" else posix.getegid()
    if posix.geteuid() == 0 or _own(rows, own):
        lines = "".join(f"{row['containerID']} {row['hostID']} {row['size']}\n" for row in rows)
        try:
            _put(f"/proc/{pid}/{kind}_map", lines.encode())
        except OSError as problem:
            raise Error(f"linux.{kind}Mappings: write {kind}_map", problem, "do ranges overlap?") from None
        return
    _helper(f"new{kind}map", rows, pid)


def _helper(program: str, rows: list[dict[str, int]], pid: int) -> None:
    """newuidmap(1), newgidmap(1): set-uid programs that check /etc/subuid and /etc/subgid."""
    from .contract import locate

    numbers = [str(row[key]) for row in rows for key in ("containerID", "hostID", "size")]
    try:
        path = locate(program, [])
    except Error:
        raise Error(f"map ids with {program}", "not found", "install the package uidmap") from None
    child = posix.posix_spawn(path, [program, str(pid), *numbers], posix.environ)
    status = posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])
    if status:
        hint = "are the ranges in /etc/subuid and /etc/subgid?"
        raise Error(f"{program} {pid} {' '.join(numbers)}", f"exit status {status}", hint)


def raise_limits(config: dict[str, Any], pid: int) -> None:
    """In a user namespace a process cannot raise its hard limits: lift them here, the image then sets them exactly."""
    process = config.get("process") or {}
    if not process.get("rlimits") or not _user_namespace(config) or posix.geteuid() != 0:
        return
    from ..linux import rlimit

    for row in process["rlimits"]:
        rlimit.lift(pid, row["type"], row["hard"])


def _user_namespace(config: dict[str, Any]) -> bool:
    return any(entry["type"] == "user" for entry in (config.get("linux") or {}).get("namespaces") or [])


def oom_score_adj(config: dict[str, Any], pid: int) -> None:
    """process.oomScoreAdj; not touched when it is not set (config.md). Raises Error."""
    value = (config.get("process") or {}).get("oomScoreAdj")
    if value is None:
        return
    try:
        _put(f"/proc/{pid}/oom_score_adj", str(value).encode())
    except OSError as problem:
        hint = "lowering it needs CAP_SYS_RESOURCE" if problem.errno == 13 else ""
        raise Error(f"process.oomScoreAdj: set to {value}", problem, hint) from None


def own_streams(config: dict[str, Any]) -> None:
    """Give the streams to the user that the program runs as where the namespace's root has no power over them."""
    wanted = config.get("process") or {}
    if wanted.get("terminal") or not _user_namespace(config) or posix.geteuid() != 0:
        return
    from ..linux import process

    uid = int((wanted.get("user") or {}).get("uid") or 0)
    for row in config["linux"].get("uidMappings") or []:
        if 0 <= uid - row["containerID"] < row["size"]:
            process.own_streams(row["hostID"] + uid - row["containerID"])

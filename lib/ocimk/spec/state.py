"""The state of a container (runtime.md, State), for hooks, seccomp agents and callers."""

from __future__ import annotations

from .version import version_at_least

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "STATUSES",
    "container_process_state",
    "poststart_must_succeed",
    "runc_state",
    "state_json",
    "version_at_least",
]

STATUSES = ("creating", "created", "running", "paused", "stopped")
"""runtime.md's four, and ``paused``, which runtime.md lets runtimes add and every caller expects."""

_WITHOUT_PID = ("stopped",)


def state_json(
    version: str,
    name: str,
    status: str,
    pid: int,
    bundle: str,
    annotations: dict[str, str] | None = None,
) -> dict[str, Any]:
    """What a hook reads on its standard input.

    version      the configuration's ociVersion
    pid          as seen from where the hook runs; left out when 0 or when the container is stopped
    annotations  the configuration's; left out when there are none
    """
    state: dict[str, Any] = {"ociVersion": version, "id": name, "status": status}
    if pid and status not in _WITHOUT_PID:
        state["pid"] = pid
    state["bundle"] = bundle
    if annotations:
        state["annotations"] = annotations
    return state


def runc_state(state: dict[str, Any], rootfs: str, created: str, owner: str = "") -> dict[str, Any]:
    """The state as ``runc state`` and ``runc list`` print it: with more members, in runc's order, pid 0 when
    stopped.

    state    what state_json() made
    created  a moment in RFC 3339 with UTC, as errors.rfc3339() writes it
    """
    annotations = {"annotations": state["annotations"]} if state.get("annotations") else {}
    return {
        "ociVersion": state["ociVersion"],
        "id": state["id"],
        "pid": state.get("pid", 0),
        "status": state["status"],
        "bundle": state["bundle"],
        "rootfs": rootfs,
        "created": created,
        **annotations,
        "owner": owner,
    }


def container_process_state(state: dict[str, Any], pid: int, metadata: str = "") -> dict[str, Any]:
    """What a seccomp agent gets with the listener's descriptor (config-linux.md, The Container Process
    State).

    pid  of the process, as the runtime sees it
    """
    told: dict[str, Any] = {"ociVersion": state["ociVersion"], "fds": ["seccompFd"], "pid": pid}
    if metadata:
        told["metadata"] = metadata
    return {**told, "state": state}


def poststart_must_succeed(version: str) -> bool:
    """Whether a failing poststart hook stops the container: since 1.3.0; before, it was only warned of."""
    return version_at_least(version, "1.3.0")

"""oci-hooks: run the hooks of config.json, each with the container's state on its standard input.

Spec: config.md "POSIX-platform Hooks", runtime.md "Lifecycle". createContainer runs on the container's side of the
chain, after the host's side has run prestart and createRuntime; startContainer is run by the waiting image.
"""

from __future__ import annotations

import posix

from .. import errors
from ..container import sync
from ..container.folder import Folder
from ..errors import Error, Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "oci-hooks"
SUMMARY = "run the hooks of the given kinds, with the container's state on standard input"
OPTIONS = (("--status", "STATUS", "the status that the hooks are told (default: what the kind implies)"),)
VALUES = "KIND..."
CHAINS = True

STATUS = {
    "prestart": "creating",
    "createRuntime": "creating",
    "createContainer": "creating",
    "startContainer": "created",
    "poststart": "running",
    "poststop": "stopped",
}
"""The kinds, and the status that each is told. See runtime.md."""

OUTPUT = ("hooks.stdout", "hooks.stderr")
"""The annotations behind run.oci., and the names of the descriptors."""

HOST_FIRST = ("prestart", "createRuntime")


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Run all hooks of the kinds, in the order of the operands. Raises Error at the first that fails."""
    kinds = known(operands)
    if "createContainer" in kinds:
        await_host(folder)
    for kind in kinds:
        run(folder, kind, options.get("--status", ""))


def known(operands: list[str]) -> list[str]:
    """The operands as kinds of hooks. Raises Usage."""
    if not operands:
        raise Usage("name the kinds of hooks to run", ", ".join(STATUS))
    for kind in operands:
        if kind not in STATUS:
            raise Usage(f"unknown kind of hook {kind}", hint=", ".join(STATUS))
    return operands


def of_kind(folder: Folder, kind: str) -> list[dict[str, Any]]:
    """The hooks of one kind."""
    return list((folder.config.get("hooks") or {}).get(kind) or [])


def await_host(folder: Folder) -> None:
    """On the container's side: let the host's side run its hooks first, now that the mounts stand."""
    fd = folder.fds.get("sync", -1)
    if fd >= 0 and any(of_kind(folder, kind) for kind in HOST_FIRST):
        sync.send(fd, "mounted")
        sync.expect_go(fd)


def run(folder: Folder, kind: str, status: str = "") -> None:
    """Run the hooks of one kind in their order. Raises Error at the first that fails, unless the spec says go on.

    poststop failures are warnings and the remaining hooks still run (runtime.md, step 13).
    """
    hooks = of_kind(folder, kind)
    if not hooks:
        return
    from .hook_process import carry_out

    files = output_files(folder)
    told = state(folder, kind, status or STATUS[kind])
    inside = kind == "createContainer"
    cwd = folder.rootfs if inside else folder.bundle
    for number, hook in enumerate(hooks):
        try:
            carry_out(hook, told, cwd, inherit=not inside, files=files)
        except Error as problem:
            problem.doing = f"error running {kind} hook #{number} {hook['path']}"
            if kind != "poststop":
                raise
            errors.warn(str(problem))


def output_files(folder: Folder) -> tuple[int, int]:
    """The files that annotations of crun's name for what hooks print, opened for appending; -1 without. Once opened
    they are handed along, to the container's side too, which may not be able to. Raises Error."""
    annotations = folder.state.get("annotations") or {}  # which are there still when all else is removed
    for name in OUTPUT:
        path = annotations.get(f"run.oci.{name}")
        if path and name not in folder.fds:
            try:
                how = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
                folder.fds[name] = posix.open(path, how, 0o600)
            except OSError as problem:
                raise Error(f"annotations.run.oci.{name}: open {path}", problem) from None
    return folder.fds.get(OUTPUT[0], -1), folder.fds.get(OUTPUT[1], -1)


def state(folder: Folder, kind: str, status: str, pid: int = 0) -> bytes:
    """The state that hooks get: the pid as seen from where they run, none once the container is stopped."""
    from ..jsonio import dumps
    from ..spec.state import state_json

    own = folder.state
    inside = posix.getpid() if kind == "createContainer" else int(own.get("pid", 0))
    pid = 0 if status == "stopped" else pid or inside
    told = state_json(own["ociVersion"], folder.id, status, pid, folder.bundle, own.get("annotations"))
    return dumps(told).encode("utf-8", "surrogateescape")


def undo(folder: Folder) -> None:
    """Nothing: what a hook does it must undo in a poststop hook."""


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """One command line per hook."""
    from .words import shell

    lines = []
    for kind in operands or list(STATUS):
        for hook in of_kind(folder, kind):
            argv = list(hook.get("args") or [hook["path"]])
            env = [f"{pair}" for pair in hook.get("env") or []]
            limit = ["timeout", str(hook["timeout"])] if hook.get("timeout") else []
            clean = ["env", "-i", *env] if hook.get("env") is not None else []
            told = f"oci-state get {folder.id or 'ID'} |"
            lines.append(f"{told} {shell([*clean, *limit, hook['path'], *argv[1:]])}  # {kind}")
    return lines


def check(folder: Folder) -> list[str]:
    """Hooks that this host could not run."""
    problems = []
    for kind in STATUS:
        if kind == "startContainer":
            continue  # its paths are the container's
        for number, hook in enumerate(of_kind(folder, kind)):
            if not posix.access(hook["path"], posix.X_OK):
                problems.append(f"hooks.{kind}[{number}].path: {hook['path']}: not an executable file on this host")
    return problems

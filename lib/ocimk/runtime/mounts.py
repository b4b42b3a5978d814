"""oci mounts add, oci mounts remove: change the mounts of a container that is there, as crun has it."""

from __future__ import annotations

import posix

from .. import jsonio
from ..container import names, state
from ..container.folder import Folder, read_all
from ..errors import Error, warn
from ..linux import path as paths
from ..linux import process
from . import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli.invocation import Invocation

    Mounts = list[dict[str, Any]]


def main(invocation: Invocation) -> int:
    """``mounts add|remove ID FILE``. Raises Error; then the container's mounts are as they were."""
    action, name, file = invocation.args
    if action not in ("add", "remove"):
        raise Error(f"unknown command {action}", hint="mounts add, or mounts remove")
    folder = plan.prepare(Folder.existing(invocation.root, name), invocation)
    wanted = read(file)
    folder.lock()
    change(folder, action, wanted)
    return 0


def read(file: str) -> Mounts:
    """The array of mounts in the file (``-``: standard input). Raises Error."""
    try:
        fd = 0 if file == "-" else posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC)
        found = jsonio.loads(read_all(fd), file)
    except OSError as problem:
        raise Error(f"read {file}", problem) from None
    if not isinstance(found, list) or not all(isinstance(mount, dict) for mount in found):
        raise Error(file, "an array of mounts is required", "as config.json has in mounts")
    return found


def change(folder: Folder, action: str, wanted: Mounts) -> None:
    """Add or remove them; the folder must be locked. Raises Error."""
    from ..stages.rootfs import live

    now = state.status(folder)
    pid, started = state.init(folder.state)
    pidfd = process.pidfd_of(pid, started) if now in ("created", "running", "paused") else -1
    if pidfd < 0:
        raise Error(f"container {folder.id}", "container not running", f"it is {now}")
    live.needs_own_namespace(folder.config)
    view = Folder(folder.path)
    view.bundle, view.fds = folder.bundle, dict(folder.fds)
    view.config = {**folder.config, "mounts": wanted}
    before = recorded(folder)
    if action == "remove":
        _destinations(wanted)
        live.remove(view, pidfd, pid)
        gone = {paths.clean(f"/{mount['destination']}") for mount in wanted}
        _record(folder, [mount for mount in before if paths.clean(f"/{mount['destination']}") not in gone])
        return
    if any(str(word).startswith("idmap=") for mount in wanted for word in mount.get("options") or ()):
        from ..spec import idmap_words

        idmap_words.spell_out(view.config)
    _check(view.config)
    _record(folder, before + wanted)
    try:
        live.add(view, pidfd, pid)
    except BaseException:
        _record(folder, before)
        raise


def recorded(folder: Folder) -> Mounts:
    """What was added and not removed since. Raises Error."""
    place = f"{folder.path}/{names.MOUNTS}"
    try:
        found = jsonio.loads(folder.read(names.MOUNTS), place)
    except FileNotFoundError:
        return []
    from ..spec.validate import ERROR, drop_nulls, findings

    for finding in findings({**folder.config, "mounts": found}):
        if finding.path.startswith("mounts") and finding.severity == ERROR:
            raise Error(place, str(finding), "not what mounts add writes")
    return list(drop_nulls(found) or [])


def _record(folder: Folder, found: Mounts) -> None:
    if found:
        folder.write(names.MOUNTS, jsonio.dumps(found).encode("utf-8", "surrogateescape"))
    else:
        folder.remove(names.MOUNTS)


def _destinations(wanted: Mounts) -> None:
    """To remove, a destination is all that counts. Raises Error."""
    for index, mount in enumerate(wanted):
        where = f"mounts[{index}].destination"
        if not isinstance(mount.get("destination"), str) or not mount["destination"]:
            raise Error(where, "required")
        if paths.clean(f"/{mount['destination']}") == "/":
            raise Error(where, "the container's root cannot be unmounted")
        for name in [name for name in mount if name != "destination"]:
            del mount[name]
        mount["type"] = "none"


def _check(config: dict[str, Any]) -> None:
    """What the specification says of mounts. Raises Error with the first that is wrong."""
    from ..spec.validate import WARNING, findings

    for finding in findings(config):
        if finding.path.startswith("mounts") and finding.severity == WARNING:
            warn(str(finding))
        elif finding.severity != WARNING:
            raise Error(str(finding))

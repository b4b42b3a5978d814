"""oci-cgroup: make the container's control groups and write its limits. See oci-cgroup(1), cgroups(7).

Reads   config.json (linux.cgroupsPath, linux.resources, linux.devices, namespaces and mounts for delegation)
Writes  cgroup.json: {"mode": "v1"|"hybrid"|"v2"|"none", "paths": {"memory": "/sys/fs/cgroup/memory/x", ...,
"": cgroup2}} Notes   in the ledger each directory it makes

The work may be done in parts, named as operands (all of them by default): ``create`` makes the cgroups ready
to be joined, ``limits`` writes limits and device rules, ``tight`` those of memory and processes.
"""

from __future__ import annotations

from ..errors import Error, Usage
from .cgroups import Layout, load, save
from .cgroups import resources as limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..container.folder import Folder

    Driver = Callable[[Folder, str, tuple[str, ...]], None]

NAME = "oci-cgroup"
SUMMARY = "make the container's control groups and write its limits"
OPTIONS = (
    ("--manager", "NAME", "cgroupfs (default), systemd or disabled"),
    ("--rootless", "WHEN", "true, false or auto (default): whether lacking permission is no error"),
)
VALUES = "[create|limits|tight]..."
CHAINS = True

_REMOVE_SECONDS = 5.0


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Make the cgroups and write the limits; what was made is removed again when it fails. Raises Error."""
    parts = chosen(operands)
    manager = options.get("--manager", "cgroupfs")
    try:
        driver = DRIVERS[manager]
    except KeyError:
        raise Usage(f"--manager {manager}", "no such cgroup manager", " or ".join(DRIVERS)) from None
    try:
        driver(folder, options.get("--rootless", "auto"), parts)
    except Error:
        if "create" in parts:
            _clean_up(folder)
        raise


def chosen(operands: list[str]) -> tuple[str, ...]:
    """The parts to do, in their order. Raises Usage."""
    unknown = [word for word in operands if word not in limits.PARTS]
    if unknown:
        raise Usage(f"unknown part {unknown[0]}", hint=", ".join(limits.PARTS))
    return tuple(part for part in limits.PARTS if part in operands or not operands)


def cgroupfs(folder: Folder, rootless: str, parts: tuple[str, ...]) -> None:
    """The driver that makes directories and writes files itself. Raises Error."""
    wanted = limits.of(folder.config)
    if "create" in parts:
        layout = create(folder, wanted, rootless)
    else:
        layout = load(folder)
        if layout.unit:
            return systemd(folder, rootless, parts)
    # Without a cgroup there is nothing to tighten later: what cannot hold is told now.
    limits.apply(layout, wanted, limits.PARTS if layout.mode == "none" else parts)
    if "limits" in parts and layout.mode != "none":
        limits.apply_devices(layout, folder.config, may_lack(rootless))


def create(folder: Folder, wanted: limits.Resources, rootless: str) -> Layout:
    """Make the directories and hand them over to the container's user where that is asked for. Raises
    Error."""
    from .cgroups import create as making
    from .cgroups import paths

    layout = Layout(*paths.decide(folder.config, folder.id))
    lenient = not paths.wanted(folder.config) and may_lack(rootless)
    making.make_all(folder, layout, limits.asked(wanted), lenient)
    if layout.mode == "v2":
        from .cgroups import delegate

        delegate.delegate(layout.v2, folder.config)
    save(folder, layout)
    return layout


def may_lack(rootless: str) -> bool:
    """Whether we are rootless: not root, or root of a user namespace only. Raises Usage."""
    word = rootless.lower()
    if word in ("true", "1", "t"):
        return True
    if word in ("false", "0", "f"):
        return False
    if word != "auto":
        raise Usage(f"--rootless {rootless}", "true, false or auto")
    import posix

    from ..linux.cgroup import read_file

    return posix.geteuid() != 0 or read_file("/proc/self/uid_map").split() != ["0", "0", "4294967295"]


def systemd(folder: Folder, rootless: str, parts: tuple[str, ...]) -> None:
    """The driver that has systemd make the cgroup. Raises Error."""
    from .cgroups import systemd as asking

    asking.apply(folder, may_lack(rootless), parts)


def disabled(folder: Folder, rootless: str, parts: tuple[str, ...]) -> None:
    """The driver that makes nothing: the container lives in its caller's cgroup, as with crun and podman's
    ``--cgroups=disabled``. Limits cannot hold then, of which a warning tells."""
    if "create" not in parts:
        return
    if asked := limits.limited(limits.of(folder.config)):
        from ..errors import warn

        named = ", ".join(f"linux.resources.{name}" for name in asked)
        warn(f"{named}: not applied, the cgroup manager is disabled")
    save(folder, Layout("none", {}))


DRIVERS: dict[str, Driver] = {"cgroupfs": cgroupfs, "systemd": systemd, "disabled": disabled}
"""How cgroups are made, by name. All share cgroup.json, the ledger and what is done with a living
container."""


def undo(folder: Folder) -> None:
    """Remove the cgroups we made, with the sub-cgroups made in them, and empty parents we made. Raises
    Error that names the processes which are still there; nothing is killed."""
    from .cgroups import remove

    remove.remove(folder, _REMOVE_SECONDS)


def _clean_up(folder: Folder) -> None:
    """Undo after a failure, whose own error is the one to tell."""
    try:
        undo(folder)
    except Error as problem:
        from ..errors import warn

        warn(str(problem))


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The mkdir and echo commands that do the same. Raises Error for what apply would refuse as well."""
    from .cgroups import explain as explaining

    manager = options.get("--manager", "cgroupfs")
    if manager == "systemd":
        from .cgroups import systemd as asking

        return asking.explain(folder, chosen(operands), may_lack(options.get("--rootless", "auto")))
    return explaining.explain(folder, manager, chosen(operands))


def check(folder: Folder) -> list[str]:
    """What of linux.cgroupsPath and linux.resources this host cannot do."""
    from .cgroups import explain as explaining

    return explaining.check(folder)

"""What oci-cgroup would do, as commands; and what on this host stands against it. Nothing is touched."""

from __future__ import annotations

from ...errors import Error
from ...linux import cgroup
from ...linux import path as paths
from . import Layout, create, devices, plan, resources
from . import paths as places

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder

_SYSTEMD_FORM = "slice:prefix:name"


def explain(folder: Folder, manager: str, parts: tuple[str, ...]) -> list[str]:
    """The commands, in order. Raises Error."""
    if manager == "disabled":
        return ["# the cgroup manager is disabled: the container stays in its caller's cgroup"]
    layout = Layout(*places.decide(folder.config, folder.id or "CONTAINER"))
    wanted = resources.of(folder.config)
    lines = [f"# cgroup mode of this host: {layout.mode}"]
    if "create" in parts:
        lines += directories(folder, layout, resources.asked(wanted))
    for path, writes in resources.plan(layout, wanted, parts):
        lines += plan.commands(path, writes)
    if "limits" in parts:
        lines += device_lines(folder, layout)
    return lines


def directories(folder: Folder, layout: Layout, asked: frozenset[str]) -> list[str]:
    """How the directories are made ready."""
    lines = [f"mkdir -p {path}" for path in layout.every()]
    if (path := layout.paths.get("cpuset", "")) and new(folder, path):
        for name in ("cpuset.cpus", "cpuset.mems"):
            lines.append(f"cat {paths.dirname(path)}/{name} > {path}/{name}")
    return lines + switching(layout, asked)


def new(folder: Folder, path: str) -> bool:
    """Whether the cgroup is not there yet, or we made it: then it began as its parent is."""
    return not paths.is_dir(path) or (create.STAGE, create.LEAF, path) in folder.records(create.STAGE)


def switching(layout: Layout, asked: frozenset[str]) -> list[str]:
    """How controllers are switched on down to the cgroup2."""
    top = cgroup.ROOT if layout.mode == "v2" else cgroup.UNIFIED
    wanted = [name for name in cgroup.controllers(top) if layout.mode == "v2" or name in asked]
    lines, level = [], top
    for part in layout.v2.removeprefix(f"{top}/").split("/") if layout.v2 else ():
        have = cgroup.controllers(level, "cgroup.subtree_control")
        if missing := [f"+{name}" for name in wanted if name not in have]:
            lines.append(f"echo '{' '.join(missing)}' > {level}/cgroup.subtree_control")
        level = f"{level}/{part}"
    return lines


def device_lines(folder: Folder, layout: Layout) -> list[str]:
    """How the device rules are set: files on v1, on cgroup2 a program, which no command loads."""
    found = devices.rules(folder.config)
    if path := layout.paths.get("devices", ""):
        now = devices.Exceptions(True)
        try:
            start = existing(paths.dirname(path)) if new(folder, path) else path
            now = devices.from_list(cgroup.read_file(f"{start}/devices.list"))
        except OSError:
            pass
        writes = [
            ("devices", file, value, "") for file, value in devices.transition(now, devices.fold(found))
        ]
        return plan.commands(path, writes)
    if not layout.v2:
        return []
    return [
        f"# BPF program (BPF_CGROUP_DEVICE) on {layout.v2}:",
        *(f"#   {x}" for x in devices.describe(found)),
    ]


def existing(path: str) -> str:
    """The cgroup, or the nearest one above it that is there: a new cgroup begins with its parent's rules."""
    while not paths.is_dir(path):
        path = paths.dirname(path)
    return path


# ---- check -------------------------------------------------------------------------------------------------


def check(folder: Folder) -> list[str]:
    """Problems, one line each."""
    try:
        layout = Layout(*places.decide(folder.config, folder.id or "CONTAINER"))
    except Error as problem:
        return [str(problem)]
    return check_paths(folder, layout) + check_resources(folder.config, layout)


def check_paths(folder: Folder, layout: Layout) -> list[str]:
    """What is wrong with the places: in use, frozen, not ours to write."""
    found = []
    asked = places.wanted(folder.config)
    if asked.count(":") == 2 and not asked.startswith("/"):
        from .bus import booted

        hint = f"{_SYSTEMD_FORM} is for the systemd cgroup manager; cgroupfs takes it as a directory's name"
        hint += "" if booted() else "; no systemd is running here"
        found.append(f"{places.PROPERTY} {asked}: {hint}")
    if layout.mode == "none":
        return [
            *found,
            f"{places.PROPERTY}: no hierarchy is mounted at {cgroup.ROOT} (mount one, or --manager disabled)",
        ]
    if folder.records(create.STAGE):
        return found
    for path in layout.every():
        if paths.is_dir(path):
            try:
                create.inspect(path, True)
            except Error as problem:
                found.append(str(problem))
        else:
            found += check_parent(path)
    return found


def check_parent(path: str) -> list[str]:
    """Whether the cgroup can be made in the nearest directory that is there."""
    import posix

    parent = existing(path)
    if posix.access(parent, posix.W_OK):
        return []
    return [f"make cgroup {path}: permission denied (delegate {parent} to this user)"]


def check_resources(config: dict[str, Any], layout: Layout) -> list[str]:
    """Limits that no controller here can keep, and values that make no sense; each section by itself."""
    found = []
    wanted = resources.of(config)
    for name in resources.limited(wanted):
        try:
            for path, writes in resources.plan(layout, {name: wanted[name]}):
                found += check_controllers(layout, path, writes)
        except Error as problem:
            found.append(str(problem))
    try:
        rules = devices.rules(config)
        if "devices" in layout.paths:
            devices.fold(rules)
    except Error as problem:
        found.append(str(problem))
    return list(dict.fromkeys(found))


def check_controllers(layout: Layout, path: str, writes: list[plan.Write]) -> list[str]:
    """The cgroup2 controllers that the host does not offer."""
    if path != layout.v2:
        return []
    top = cgroup.ROOT if layout.mode == "v2" else cgroup.UNIFIED
    offered = (*cgroup.controllers(top), "cgroup")
    gone = [w for w in writes if w[1].partition(".")[0] not in offered]
    return [
        f"{plan.PREFIX}.{name}: {file} cannot be set: {top}/cgroup.controllers does not have "
        f"{file.partition('.')[0]} (this kernel lacks it or a v1 hierarchy holds it)"
        for name, file, *_ in gone
    ]

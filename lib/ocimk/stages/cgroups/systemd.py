"""The driver that has systemd make the container's cgroup: a transient scope, started over D-Bus.

The scope is delegated to us (systemd.resource-control(5), "Delegate="), so that all else is done as the cgroupfs
driver does it: what systemd knows no property for is written to the kernel's files, and so is the rest, since systemd
takes its time. On v1 systemd's place in the hierarchies that it does not use is made by us.

Ledger: ``unit ADDRESS UNIT DESCRIPTION``, noted before the unit is started. One of the same name that is somebody
else's has another description, and is not touched.
"""

from __future__ import annotations

from ...errors import Error, debug
from ...linux import cgroup
from ...linux import path as path_tools
from . import Layout, bus, create, delegate, holder, load, paths, plan, save, unit
from . import resources as limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder
    from .bus import Manager, Properties
    from .resources import Resources, Work

KIND = "unit"
_IDLE_VERSION, _OOM_VERSION = 252, 253
_GONE = ("NoSuchUnit", "NoSuchObject", "UnknownObject")
_BUSY = ("active", "activating", "deactivating", "reloading")


def apply(folder: Folder, rootless: bool, parts: tuple[str, ...]) -> None:
    """The driver. Raises Error."""
    wanted = limits.of(folder.config)
    layout = start(folder, wanted, rootless) if "create" in parts else load(folder)
    work = limits.plan(layout, unit.rounded(wanted), parts)
    set_properties(layout, work)
    for path, writes in work:
        plan.carry_out(path, writes)
    if "limits" in parts:
        # systemd's own program stays where it is; none of ours can be there yet.
        limits.apply_devices(layout, folder.config, rootless, fresh=True)


def start(folder: Folder, wanted: Resources, rootless: bool) -> Layout:
    """Start the scope and make ready what systemd does not. Raises Error."""
    where, name = unit.named(folder.config, folder.id, rootless)
    mode = cgroup.mode()
    addresses = bus.user_addresses() if rootless else [bus.SYSTEM]
    if rootless and mode != "v2" and bus.booted():
        raise Error("cannot use rootless systemd cgroups manager on cgroup v1", hint="boot with cgroup v2")
    properties = unit.started(folder.config, where, described(folder), mode)
    properties += [] if rootless else unit.devices(folder.config, mode)
    with bus.connect(addresses) as manager:
        layout = placed(mode, f"{root_of(manager)}{unit.expand(where)}/{name}")
        layout.unit, layout.bus = name, manager.address
        if policy := unit.oom_policy(wanted):
            properties += policy if manager.version() >= _OOM_VERSION else []
        run(folder, manager, name, properties)
    make_ready(folder, layout, limits.asked(wanted))
    save(folder, layout)
    return layout


def described(folder: Folder) -> str:
    """What the unit is called for people; no other container's is called so."""
    return f"ocimk container {folder.id} ({folder.path})".encode("utf-8", "replace").decode()


def root_of(manager: Manager) -> str:
    """The manager's own cgroup, below which its slices are. Raises Error."""
    return str(manager.property("ControlGroup")).rstrip("/")


def placed(mode: str, path: str) -> Layout:
    """The directories of the unit whose path in each hierarchy is *path*."""
    if mode == "v2":
        return Layout(mode, {"": f"{cgroup.ROOT}{path}"})
    found = paths.v1_paths(path)
    if mode == "hybrid":
        found[""] = f"{cgroup.UNIFIED}{path}"
    return Layout(mode, found)


def run(folder: Folder, manager: Manager, name: str, properties: Properties) -> None:
    """Start the unit with a process that holds its place. Raises Error."""
    refuse_running(manager, name)
    description = next(value for key, (_, value) in reversed(properties) if key == "Description")
    note = f"{manager.address} {name} {description}"
    folder.record(create.STAGE, KIND, note)
    pid = holder.make(folder)
    started = [*properties, ("PIDs", ("au", [pid]))]
    for again in (True, False):
        try:
            result = manager.job("StartTransientUnit", "ssa(sv)a(sa(sv))", (name, "replace", started, []))
            break
        except bus.Refused as problem:
            if problem.name != "UnitExists" or not again:
                folder.strike(create.STAGE, KIND, note)
                raise Error(f"unable to start unit {name}", problem.cause, hint(problem)) from None
        # A failed one that is left of another container; systemd forgets it then.
        reset(manager, name)
    if result != "done":
        reset(manager, name)
        raise Error(f"error creating systemd unit {name}", f"got {result}", f"journalctl --unit {name} may tell why")


def hint(problem: bus.Refused) -> str:
    """What can be done about a start that was refused."""
    if problem.name == "UnitExists":
        return "another container may use it: choose another ID or linux.cgroupsPath"
    return f"is it one of the {unit.ANNOTATION}* annotations?" if problem.name == "PropertyReadOnly" else ""


def refuse_running(manager: Manager, name: str) -> None:
    """Raise Error when there is such a unit that is at work."""
    if (state := unit_property(manager, name, "ActiveState")) in _BUSY:
        why = "another container may use it: choose another ID or linux.cgroupsPath"
        raise Error(f"unable to start unit {name}", f"it is {state} already", why)
    if state == "failed":
        reset(manager, name)


def unit_property(manager: Manager, name: str, key: str) -> str:
    """A property of a unit that is loaded, else "". Raises Error."""
    try:
        path = manager.call("GetUnit", "s", (name,))[0]
        return str(manager.property(key, path, "org.freedesktop.systemd1.Unit"))
    except bus.Refused as problem:
        if problem.name in _GONE:
            return ""
        raise


def reset(manager: Manager, name: str) -> None:
    """Let systemd forget a failed unit; of one that is not, it says so, which is no matter."""
    try:
        manager.call("ResetFailedUnit", "s", (name,))
    except bus.Refused as problem:
        debug(f"reset failed unit {name}: {problem}")


def make_ready(folder: Folder, layout: Layout, asked: frozenset[str]) -> None:
    """What systemd leaves to us: controllers that it does not know, the hierarchies of v1 that it does not use, the
    owner. Raises Error."""
    for name, path in list(layout.paths.items()):
        made = not path_tools.is_dir(path)
        if not made:
            folder.record(create.STAGE, create.LEAF, path)
        elif name == "" and layout.mode == "v2":
            raise Error(f"unit {layout.unit}", f"its cgroup is not {path}", "is its slice another's?")
        elif name:
            create.make_one(folder, path, name == "freezer")
        if name == "cpuset":
            create.fill_cpuset(path, made)
        if name == "":
            create.prepare_v2(path, layout.mode, asked, True)
    if layout.mode == "v2":
        delegate.delegate(layout.v2, folder.config)


# ---- the living container ----------------------------------------------------------------------------------


def set_properties(layout: Layout, work: list[Work]) -> None:
    """Tell systemd of the limits that are about to be written. Raises Error."""
    found = unit.limits(work)
    if not found:
        return
    with bus.connect([layout.bus]) as manager:
        if ("CPUWeight", ("t", 0)) in found and manager.version() < _IDLE_VERSION:
            found.remove(("CPUWeight", ("t", 0)))
        try:
            manager.call("SetUnitProperties", "sba(sv)", (layout.unit, True, found))
        except bus.Refused as problem:
            raise Error(f"unable to set unit properties of {layout.unit}", problem.cause) from None


def reachable(layout: Layout) -> bool:
    """Whether we may move processes from our cgroup into the container's ourselves: for that, the cgroup above both
    must be ours to write (cgroup-v2.rst, "Delegation Containment"). A user's login session is in none of theirs."""
    import posix

    if layout.mode != "v2" or layout.bus == bus.SYSTEM:
        return True
    own = f"{cgroup.ROOT}{cgroup.memberships().get('', '/')}/".replace("//", "/")
    common = layout.v2
    while not own.startswith(f"{common}/"):
        common = path_tools.dirname(common)
    return posix.access(f"{common}/cgroup.procs", posix.W_OK)


def attach(folder: Folder, pid: int, path: str = "") -> None:
    """Have systemd move a process into the container's cgroup, or the one at *path* below it. Raises Error."""
    layout = load(folder)
    below = path.removeprefix(layout.v2)
    with bus.connect([layout.bus]) as manager:
        try:
            manager.call("AttachProcessesToUnit", "ssau", (layout.unit, below, [pid]))
        except bus.Refused as problem:
            raise Error(f"move process {pid} into unit {layout.unit}", problem.cause) from None


# ---- the end -----------------------------------------------------------------------------------------------


def stop(folder: Folder) -> None:
    """Stop the unit that was noted, with all that is left in it, and wait for that. Raises Error."""
    for _, kind, value in folder.records(create.STAGE):
        if kind == KIND:
            address, name, description = value.split(" ", 2)
            if address == bus.SYSTEM and not bus.booted():
                continue
            try:
                manager = bus.connect([address])
            except Error:
                if address == bus.SYSTEM:
                    raise
                continue  # the user's manager has ended, and its units with it
            with manager:
                stop_one(manager, name, description)


def stop_one(manager: Manager, name: str, description: str) -> None:
    """Stop a unit, if it is the one that is so described. Raises Error."""
    if unit_property(manager, name, "Description") != description:
        return
    try:
        result = manager.job("StopUnit", "ss", (name, "replace"))
    except bus.Refused as problem:
        if problem.name not in _GONE:
            raise Error(f"stop unit {name}", problem.cause) from None
        return
    if result != "done":
        debug(f"stop unit {name}: {result}")
    reset(manager, name)


# ---- telling -----------------------------------------------------------------------------------------------


def explain(folder: Folder, parts: tuple[str, ...], rootless: bool) -> list[str]:
    """The calls that would be made, for busctl(1), then the files. Raises Error."""
    wanted = limits.of(folder.config)
    name_of = folder.id or "CONTAINER"
    where, name = unit.named(folder.config, name_of, rootless)
    mode = cgroup.mode()
    layout = placed(mode, f"{'/USER-MANAGER' if rootless else ''}{unit.expand(where)}/{name}")
    call = f"busctl {'--user ' if rootless else ''}call {' '.join(bus.OBJECT)}"
    lines = [] if bus.booted() else [f"# {bus.NOT_HERE}"]
    if "create" in parts:
        properties = unit.started(folder.config, where, f"ocimk container {name_of}", mode)
        properties += [] if rootless else unit.devices(folder.config, mode)
        properties.append(("PIDs", ("au", ["$$"])))
        words = f"{name} replace {spelled('a(sv)', properties)} 0"
        lines.append(f"{call} StartTransientUnit 'ssa(sv)a(sa(sv))' {words}")
    work = limits.plan(layout, unit.rounded(wanted), parts)
    if properties := unit.limits(work):
        lines.append(f"{call} SetUnitProperties 'sba(sv)' {name} true {spelled('a(sv)', properties)}")
    for path, writes in work:
        lines += plan.commands(path, writes)
    return lines


def spelled(signature: str, value: Any) -> str:
    """A value as busctl takes it: the members one after the other, an array's number before."""
    from ..words import shell
    from .variant import split

    if signature == "v":
        return f"{shell([value[0]])} {spelled(value[0], value[1])}"
    if signature == "a(sv)":
        return " ".join([str(len(value)), *(f"{name} {spelled('v', inner)}" for name, inner in value)])
    if signature[0] == "a":
        return " ".join([str(len(value)), *(spelled(signature[1:], item) for item in value)])
    if signature[0] == "(":
        return " ".join(spelled(kind, item) for kind, item in zip(split(signature[1:-1]), value, strict=True))
    if signature == "b":
        return "true" if value else "false"
    return str(value) if not isinstance(value, str) or value.startswith("$") else shell([value])

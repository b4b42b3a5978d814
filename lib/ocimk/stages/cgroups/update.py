"""New limits for a living container: merged with those it has, by runc's rules, written, and kept in
resources.json.

The rules (runc's update): a section's property that is not given keeps its value, except that cpus, mems,
burst, idle, pids.limit and unified are taken as given; of quota and period one alone leaves the other as it
is; memory.limit -1 without a swap lifts the limit of swap too; idle without shares drops them; entries of
blockIO's device lists replace those of the same device. Device rules are not touched: who changed them since
(a GPU's plug-in, say) knows better.
"""

from __future__ import annotations

from ... import jsonio
from ...errors import Error, debug
from ...linux import cgroup
from ...spec import validate
from . import Layout, load, plan
from . import resources as limits

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder

    Resources = dict[str, Any]

FILE = "resources.json"

_AS_GIVEN = ("cpus", "mems", "burst", "idle")
_IGNORED = ("kernel", "kernelTCP")
"""Of these memory.py warns, once."""

_DEVICE_LISTS = (
    "weightDevice",
    "throttleReadBpsDevice",
    "throttleWriteBpsDevice",
    "throttleReadIOPSDevice",
    "throttleWriteIOPSDevice",
)


def update(folder: Folder, given: Resources) -> None:
    """Write the new limits; when one is refused the old ones are written back. Raises Error."""
    layout = load(folder)
    old = current(folder)
    new = merge(old, given)
    touched = [name for name in dict.fromkeys(row[1] for row in limits.SECTIONS) if given.get(name)]
    if layout.mode == "none" and touched:
        raise Error(
            f"linux.resources.{touched[0]}", "the container has no cgroup", "make it with one to limit it"
        )
    check_usage(layout, given)
    work = planned(layout, new, touched)
    before = snapshot(work)
    try:
        tell_systemd(layout, work)
        for path, writes in work:
            plan.carry_out(path, writes)
    except Error:
        restore(before)
        tell_systemd(layout, planned(layout, old, touched))
        raise
    if given.get("devices"):
        debug("linux.resources.devices: update leaves device rules as they are")
    folder.write(FILE, jsonio.dumps(new).encode("utf-8", "surrogateescape"))


def planned(layout: Layout, resources: Resources, touched: list[str]) -> list[limits.Work]:
    """The writes for the sections that are touched. Raises Error."""
    if layout.unit:
        from . import unit

        resources = unit.rounded(resources)
    return limits.plan(layout, {name: resources[name] for name in touched if name in resources})


def tell_systemd(layout: Layout, work: list[limits.Work]) -> None:
    """Where systemd has made the cgroup, let it know the same limits. Raises Error."""
    if layout.unit:
        from . import systemd

        systemd.set_properties(layout, work)


def current(folder: Folder) -> Resources:
    """The limits as last set: by an update, else by the configuration. Raises Error."""
    place = f"{folder.path}/{FILE}"
    try:
        found: Resources = jsonio.loads(folder.read(FILE), place)
    except FileNotFoundError:
        return limits.of(folder.config)
    for finding in validate.resources_findings(found):
        if finding.severity == validate.ERROR:
            raise Error(place, str(finding), "not what oci update writes")
    return found


def snapshot(work: list[limits.Work]) -> list[tuple[str, str, str]]:
    """What the files that will be written hold now: ``(directory, file, text)``."""
    found = []
    for path, writes in work:
        for file in dict.fromkeys(write[1] for write in writes):
            try:
                with cgroup.Group(path) as group:
                    found.append((path, file, group.read(file)))
            except OSError:
                continue
    return found


def restore(before: list[tuple[str, str, str]]) -> None:
    """Write a snapshot back. Twice, because of values that are checked against each other; what the kernel
    shows in another form than it takes (memory.oom_control) or will not take again is left."""
    for _ in range(2):
        for path, file, text in before:
            for line in text.splitlines():
                try:
                    with cgroup.Group(path) as group:
                        group.write(file, line)
                except OSError as problem:
                    debug(f"setting {path}/{file} back to {line!r}: {problem}")


def merge(old: Resources, given: Resources) -> Resources:
    """The limits that hold afterwards."""
    new = dict(old)
    for name, section in given.items():
        if name == "memory":
            new[name] = merge_memory(old.get(name) or {}, section or {})
        elif name == "cpu":
            new[name] = merge_cpu(old.get(name) or {}, section or {})
        elif name == "blockIO":
            new[name] = merge_blockio(old.get(name) or {}, section or {})
        elif name != "devices":
            new[name] = section
    return new


def merge_memory(old: Resources, given: Resources) -> Resources:
    """linux.resources.memory."""
    kept = {name: value for name, value in old.items() if name not in _IGNORED}
    new = {**kept, **set_ones(given)}
    if given.get("limit") == -1 and given.get("swap") is None:
        new["swap"] = 0
    return new


def merge_cpu(old: Resources, given: Resources) -> Resources:
    """linux.resources.cpu."""
    new = {**old, **set_ones(given)}
    for name in _AS_GIVEN:
        if given.get(name) is None:
            new.pop(name, None)
    if not plan.number(given, "quota") and not plan.number(given, "period"):
        new.pop("quota", None)
        new.pop("period", None)
    else:
        for name in ("quota", "period"):
            if not plan.number(given, name) and name in old:
                new[name] = old[name]
    if given.get("idle") is not None and given.get("shares") is None:
        new.pop("shares", None)
    return new


def merge_blockio(old: Resources, given: Resources) -> Resources:
    """linux.resources.blockIO."""
    new = {**old, **set_ones(given)}
    for name in _DEVICE_LISTS:
        if given.get(name):
            new[name] = upsert(old, given, name)
    return new


def upsert(old: Resources, given: Resources, name: str) -> list[Resources]:
    """A list of devices with the given entries put in the place of, or onto, those of the same device."""
    found: dict[tuple[int, int], Resources] = {}
    for entry in (*(old.get(name) or ()), *given[name]):
        key = (plan.number(entry, "major"), plan.number(entry, "minor"))
        found[key] = {**found.get(key, {}), **set_ones(entry)}
    return list(found.values())


def set_ones(section: Resources) -> Resources:
    """The properties that have a value."""
    return {name: value for name, value in section.items() if value is not None}


def check_usage(layout: Layout, given: Resources) -> None:
    """memory.checkBeforeUpdate: a limit below what is in use is refused, where cgroup2 would kill and v1 would first
    try to swap out. Raises Error."""
    memory = given.get("memory") or {}
    if not memory.get("checkBeforeUpdate"):
        return
    path = layout.paths.get("memory", "")
    files = {"swap": "memory.memsw.usage_in_bytes", "limit": "memory.usage_in_bytes"}
    if not path:
        path, files = layout.v2, {"swap": "memory.current", "limit": "memory.current"}
    for name, file in files.items():
        value, usage = plan.number(memory, name), used(path, file)
        if 0 < value <= usage:
            raise plan.refuse(
                f"memory.{name}", f"rejecting {value}, for {usage} are in use", "checkBeforeUpdate is set"
            )


def used(path: str, file: str) -> int:
    """The number in a file of the cgroup; -1 when it cannot be told, which is no reason to refuse."""
    try:
        with cgroup.Group(path) as group:
            return group.number(file)
    except OSError:
        return -1

"""linux.resources brought to the container's cgroups: which section goes to which controller, in which
version's files.

The sections fall into three parts, which may be applied at different moments of a container's making:

    create   what must be there before a process joins: CPUs and memory nodes, realtime bandwidth
    limits   all else, device rules too: when the mounts are made, for that of a block device could be denied
    tight    memory and pids, which we could run into ourselves while preparing the container
"""

from __future__ import annotations

from ...errors import Error
from ...linux import cgroup
from . import Layout
from . import plan as plans

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any

    from .plan import Has, Write

    Resources = dict[str, Any]
    Work = tuple[str, list[Write]]

PARTS = ("create", "limits", "tight")

SECTIONS = (
    # part, property, v1 controller, v2 controller, module, function for v1, for v2 ("": no such thing there)
    ("create", "cpu", "cpuset", "cpuset", "cpu", "sets", "sets"),
    ("create", "cpu", "cpu", "", "cpu", "realtime", ""),
    ("limits", "cpu", "cpu", "cpu", "cpu", "v1", "v2"),
    ("limits", "blockIO", "blkio", "io", "blockio", "v1", "v2"),
    ("limits", "hugepageLimits", "hugetlb", "hugetlb", "rare", "hugetlb", "hugetlb"),
    ("limits", "network", "net_cls", "", "rare", "net_cls", ""),
    ("limits", "network", "net_prio", "", "rare", "net_prio", ""),
    ("limits", "rdma", "rdma", "rdma", "rare", "rdma", "rdma"),
    ("tight", "pids", "pids", "pids", "", "pids", "pids"),
    ("tight", "memory", "memory", "memory", "memory", "v1", "v2"),
    ("tight", "unified", "", "", "rare", "", "unified"),
)

_CHOOSY = frozenset(("memory", "blockio"))
"""The modules whose planners ask which files there are."""


def pids(section: dict[str, Any]) -> list[Write]:
    """pids.max: 0 is a limit like any other (config-linux.md, "PIDs"), negative is none."""
    value = section.get("limit")
    return [] if value is None else [("pids.limit", "pids.max", plans.limit(int(value)), plans.MUST)]


def of(config: dict[str, Any]) -> Resources:
    """linux.resources of a configuration; {} when absent."""
    return (config.get("linux") or {}).get("resources") or {}


def asked(resources: Resources) -> frozenset[str]:
    """The cgroup2 controllers that the resources need."""
    named = {v2 for _, name, _, v2, *_ in SECTIONS if v2 and resources.get(name)}
    if "cpuset" in named and not any(resources["cpu"].get(n) for n in ("cpus", "mems")):
        named.discard("cpuset")
    return frozenset(
        named | {file.partition(".")[0] for file in resources.get("unified") or () if "." in file}
    )


def limited(resources: Resources) -> list[str]:
    """The sections that limit something, device rules aside: these hold even where devices cannot be
    ruled."""
    return [name for name in dict.fromkeys(row[1] for row in SECTIONS) if resources.get(name)]


# ---- planning ----------------------------------------------------------------------------------------------


def plan(layout: Layout, resources: Resources, parts: tuple[str, ...] = PARTS) -> list[Work]:
    """What is to be written where: ``(directory, writes)`` in order; touches nothing. Raises Error."""
    return [(path, writes) for path, writes in _sections(layout, resources, parts) if writes]


def _sections(layout: Layout, resources: Resources, parts: tuple[str, ...]) -> Iterator[Work]:
    for part, name, v1, v2, module, for_v1, for_v2 in SECTIONS:
        section = resources.get(name)
        if part not in parts or not section:
            continue
        if v1 in layout.paths and for_v1 and v1:
            path, function = layout.paths[v1], for_v1
        elif layout.v2 and for_v2 and (layout.mode == "v2" or not v1 or lives_in_v2(v2)):
            path, function = layout.v2, for_v2
        else:
            _refuse_unless_empty(layout, name, v1, module, for_v1, section)
            continue
        yield path, _call(module, function, section, path, path == layout.v2)


def _call(module: str, function: str, section: Any, path: str, is_v2: bool) -> list[Write]:
    """The planner's writes."""
    if not module:
        return pids(section)
    planner = planner_of(module, function)
    if module in _CHOOSY:
        return planner(section, has_in(path))
    if function == "hugetlb":
        return planner(section, "max" if is_v2 else "limit_in_bytes")
    return planner(section)


def planner_of(module: str, function: str) -> Callable[..., list[Write]]:
    """A planner; its module is imported only when its section is there."""
    found = __import__(f"{__package__}.{module}", fromlist=[function])
    planner: Callable[..., list[Write]] = getattr(found, function)
    return planner


def has_in(path: str) -> Has:
    """Tells whether a cgroup offers a file; of a cgroup that is not made yet, everything is supposed to be
    there."""

    def has(file: str) -> bool:
        try:
            with cgroup.Group(path) as group:
                return group.has(file)
        except OSError:
            return True

    return has


def lives_in_v2(controller: str) -> bool:
    """Whether a controller that no v1 hierarchy holds is the cgroup2's on a hybrid host."""
    return controller in cgroup.controllers(cgroup.UNIFIED)


def _refuse_unless_empty(
    layout: Layout, name: str, v1: str, module: str, function: str, section: Any
) -> None:
    """Raise Error when a section asks for something that no controller here can do; an empty wish is none."""
    if name == "unified":
        raise plans.refuse(
            "unified",
            "this host has no cgroup2 for it",
            "use the properties of linux.resources, or boot with v2",
        )
    if not function:
        return
    wanted = _call(module, function, section, "", False)
    if not wanted:
        return
    what, file = wanted[0][:2]
    if layout.mode == "none":
        hint = "the container has no cgroup: make one as root, or ask for no limit"
        raise plans.refuse(what, f"{file} cannot be set: there is no cgroup to set it in", hint)
    if layout.mode == "v2":
        raise plans.refuse(
            what, f"{file} is a file of cgroup v1, which this host does not have", "leave it out"
        )
    if v1 in cgroup.memberships():
        hint = f"delegate a cgroup of {v1} to this user, or ask for no limit"
        raise plans.refuse(what, f"{file} cannot be set: we may not make a cgroup of {v1}", hint)
    hint = f"boot with a kernel that has it, or mount it: mount -t cgroup -o {v1} {v1} {cgroup.ROOT}/{v1}"
    raise plans.refuse(what, f"{file} cannot be set: the {v1} controller is not mounted", hint)


# ---- applying ----------------------------------------------------------------------------------------------


def apply(layout: Layout, resources: Resources, parts: tuple[str, ...]) -> None:
    """Plan everything, so that a mistake is found before anything is written, then write. Raises Error."""
    for path, writes in plan(layout, resources, parts):
        plans.carry_out(path, writes)


def apply_devices(layout: Layout, config: dict[str, Any], lenient: bool, fresh: bool = False) -> None:
    """Bring the device rules to the devices hierarchy, or to the cgroup2 where v1 has none. Raises Error.

    lenient: we are not expected to be able to (rootless, or inside a user namespace), so being refused is no
    error.
    """
    from . import devices
    from .create import Denied

    found = devices.rules(config)
    try:
        if "devices" in layout.paths:
            devices.apply_v1(layout.paths["devices"], found)
        elif layout.v2:
            devices.apply_v2(layout.v2, found, fresh)
        elif layout.mode != "none":
            hint = "mount -t cgroup -o devices devices /sys/fs/cgroup/devices"
            raise Error(
                f"{plans.PREFIX}.devices", "neither the devices hierarchy nor a cgroup2 is mounted", hint
            )
    except Denied as problem:
        if not lenient:
            raise
        from ...errors import debug

        debug(f"device rules are left to the user namespace: {problem}")

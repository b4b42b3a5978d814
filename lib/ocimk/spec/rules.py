"""Rules between properties that are far from each other, each with the properties it looks at.

A rule is skipped when one of these is itself wrong: what follows from nonsense helps nobody.
"""

from __future__ import annotations

from . import tables
from .walk import WARNING, Finding, member, show, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Config = dict[str, Any]


class View:
    """A configuration as the rules look at it: sections that are missing are empty."""

    __slots__ = ("config", "linux", "mounts", "namespaces", "process")

    def __init__(self, config: Config) -> None:
        self.config = config
        self.linux: Config = _section(config, "linux", dict)
        self.process: Config = _section(config, "process", dict)
        self.mounts: list[Config] = _section(config, "mounts", list)
        self.namespaces = namespaces_of(config)

    def private(self, kind: str) -> bool:
        """Whether the container gets a new namespace of this type."""
        return self.namespaces.get(kind) == ""


def _section(config: Config, name: str, kind: type) -> Any:
    found = config.get(name)
    return found if type(found) is kind else kind()


def namespaces_of(config: Config) -> dict[str, str]:
    """linux.namespaces as type -> path ("" for a new one); tolerates a configuration with errors."""
    entries = _section(_section(config, "linux", dict), "namespaces", list)
    return {
        entry["type"]: entry.get("path") or ""
        for entry in entries
        if type(entry) is dict and type(entry.get("type")) is str
    }


def _namespaces(view: View, out: list[Finding]) -> None:
    """Duplicates MUST be an error (config-linux.md, Namespaces)."""
    seen = set()
    for at, entry in enumerate(view.linux.get("namespaces") or ()):
        if entry["type"] in seen:
            wrong(
                out,
                f"linux.namespaces[{at}].type",
                entry["type"],
                "one namespace of each type (this is the second)",
            )
        seen.add(entry["type"])


def _rlimits(view: View, out: list[Finding]) -> None:
    """Duplicates MUST be an error (config.md, POSIX process)."""
    seen = set()
    for at, entry in enumerate(view.process.get("rlimits") or ()):
        if entry["type"] in seen:
            wrong(
                out,
                f"process.rlimits[{at}].type",
                entry["type"],
                "one limit of each type (this is the second)",
            )
        seen.add(entry["type"])


def _names(view: View, out: list[Finding]) -> None:
    """Without a uts namespace in the list the host would be renamed."""
    for name in ("hostname", "domainname"):
        if view.config.get(name) and "uts" not in view.namespaces:
            wrong(out, name, view.config[name], "a private uts namespace in linux.namespaces")


def _mask(view: View, out: list[Finding]) -> None:
    """As runc: masks would cover the host's files."""
    for name in ("maskedPaths", "readonlyPaths"):
        if view.linux.get(name) and "mount" not in view.namespaces:
            wrong(out, f"linux.{name}", view.linux[name], "a private mount namespace in linux.namespaces")


def _user_namespace(view: View, out: list[Finding]) -> None:
    """As runc: mappings need a user namespace; in a new one without mappings nobody could be root."""
    for name in ("uidMappings", "gidMappings"):
        entries = view.linux.get(name)
        if entries and "user" not in view.namespaces:
            wrong(out, f"linux.{name}", entries, "a user namespace in linux.namespaces")
        elif not entries and view.private("user"):
            wrong(out, f"linux.{name}", entries, "at least one mapping, with a new user namespace,")


def _ranges(view: View, out: list[Finding]) -> None:
    """user_namespaces(7): ranges may not overlap on either side, and there are at most 340 of them."""
    mappings = [("linux", view.linux), *((f"mounts[{at}]", mount) for at, mount in enumerate(view.mounts))]
    for path, holder in mappings:
        for name in ("uidMappings", "gidMappings"):
            entries = holder.get(name)
            if entries:
                _overlaps(entries, f"{path}.{name}", out)


def _overlaps(entries: list[dict[str, int]], path: str, out: list[Finding]) -> None:
    if len(entries) > 340:
        out.append(Finding(path, f"found {len(entries)} mappings, at most 340 are allowed"))
    for side in ("containerID", "hostID"):
        order = sorted(range(len(entries)), key=lambda at: entries[at][side])
        for left, right in zip(order, order[1:], strict=False):
            if entries[left][side] + entries[left]["size"] > entries[right][side]:
                later, other = max(left, right), min(left, right)
                wrong(out, f"{path}[{later}].{side}", entries[later][side], f"a range apart from [{other}]")


def _mapped(view: View, out: list[Finding]) -> None:
    """In a new user namespace only mapped ids can be taken: setuid(2), EINVAL."""
    user = view.process.get("user") or {}
    if not view.private("user"):
        return
    wanted = [("uid", user.get("uid") or 0, "uidMappings"), ("gid", user.get("gid") or 0, "gidMappings")]
    wanted += [
        (f"additionalGids[{at}]", gid, "gidMappings")
        for at, gid in enumerate(user.get("additionalGids") or ())
    ]
    for name, number, table in wanted:
        ranges = view.linux.get(table) or ()
        if ranges and not any(0 <= number - entry["containerID"] < entry["size"] for entry in ranges):
            wrong(out, f"process.user.{name}", number, f"an id that linux.{table} maps")


def _time_offsets(view: View, out: list[Finding]) -> None:
    """Clocks can be shifted only in a namespace that is new (time_namespaces(7))."""
    if view.linux.get("timeOffsets") and not view.private("time"):
        found = view.linux["timeOffsets"]
        wrong(out, "linux.timeOffsets", found, "a time namespace without path in linux.namespaces")


def _sysctl(view: View, out: list[Finding]) -> None:
    if view.linux.get("sysctl"):
        from . import sysctl

        sysctl.check(view.linux["sysctl"], view.namespaces, out)


def _net_devices(view: View, out: list[Finding]) -> None:
    """The specification does not demand a namespace to move a device to, but nothing moves without one."""
    for name in view.linux.get("netDevices") or ():
        if "network" not in view.namespaces:
            text = "stays where it is without a network namespace in linux.namespaces"
            out.append(Finding(member("linux.netDevices", name), text, WARNING))


def _devices(view: View, out: list[Finding]) -> None:
    """One path cannot be two devices; one device SHOULD NOT have two paths (config-linux.md, Devices)."""
    paths: dict[str, Any] = {}
    nodes: dict[Any, str] = {}
    for at, device in enumerate(view.linux.get("devices") or ()):
        path, where = device["path"], f"linux.devices[{at}]"
        node = ("c" if device["type"] == "u" else device["type"], device.get("major"), device.get("minor"))
        if paths.setdefault(path, node) != node:
            wrong(out, f"{where}.path", path, "one device for each path (this is another)")
        elif node[0] != "p" and nodes.setdefault(node, path) != path:
            out.append(Finding(where, f"found the device of {show(nodes[node])} again", WARNING))


def _binds(view: View, out: list[Finding]) -> None:
    """As runc: a bind mount takes no options of a filesystem, which the kernel would ignore. nofail is not one: see
    mount(8)."""
    for at, mount in enumerate(view.mounts):
        options = mount.get("options") or ()
        if "bind" not in options and "rbind" not in options:
            continue
        if not mount.get("source"):
            wrong(out, f"mounts[{at}].source", mount.get("source"), "the path to bind")
        for place, option in enumerate(options):
            if option not in tables.MOUNT_OPTIONS and option != "nofail":
                where = f"mounts[{at}].options[{place}]"
                allowed = "an option that a bind mount can have (this would be the filesystem's)"
                if option.startswith("idmap="):
                    from .idmap_words import FORM as allowed
                wrong(out, where, option, allowed)


def _id_mapped(view: View, out: list[Finding]) -> None:
    """config.md, POSIX-platform mounts: both mappings or none; for none the user namespace's."""
    for at, mount in enumerate(view.mounts):
        path, options = f"mounts[{at}]", mount.get("options") or ()
        asked = "idmap" in options or "ridmap" in options
        uids, gids = mount.get("uidMappings"), mount.get("gidMappings")
        if uids and not gids:
            wrong(out, f"{path}.gidMappings", gids, "at least one mapping, with uidMappings,")
        elif gids and not uids:
            wrong(out, f"{path}.uidMappings", uids, "at least one mapping, with gidMappings,")
        elif uids and not asked:
            out.append(Finding(f"{path}.options", "should hold idmap or ridmap, with mappings", WARNING))
        elif asked and not uids and "user" not in view.namespaces:
            wrong(out, f"{path}.options", mount["options"], "mappings or a user namespace, with idmap,")


def _annotations(view: View, out: list[Finding]) -> None:
    """Those that change what is done, if there are any."""
    found = _section(view.config, "annotations", dict)
    if any(name.startswith("run.oci.") for name in found):
        from . import annotations

        annotations.judge(found, out)


RULES: tuple[tuple[Callable[[View, list[Finding]], None], tuple[str, ...]], ...] = (
    (_namespaces, ("linux.namespaces",)),
    (_rlimits, ("process.rlimits",)),
    (_names, ("hostname", "domainname", "linux.namespaces")),
    (_mask, ("linux.maskedPaths", "linux.readonlyPaths", "linux.namespaces")),
    (_user_namespace, ("linux.namespaces", "linux.uidMappings", "linux.gidMappings")),
    (_ranges, ("linux.uidMappings", "linux.gidMappings", "mounts")),
    (_mapped, ("linux.namespaces", "linux.uidMappings", "linux.gidMappings", "process.user")),
    (_time_offsets, ("linux.namespaces", "linux.timeOffsets")),
    (_sysctl, ("linux.namespaces", "linux.sysctl")),
    (_net_devices, ("linux.namespaces", "linux.netDevices")),
    (_devices, ("linux.devices",)),
    (_binds, ("mounts",)),
    (_id_mapped, ("linux.namespaces", "mounts")),
    (_annotations, ("annotations",)),
)
"""Each rule and the properties that it reads."""


def apply_rules(config: Config, out: list[Finding]) -> None:
    """Add what the rules find; *out* holds what is wrong with single properties."""
    view = View(config)
    bad = [finding.path for finding in out if finding.severity != WARNING]
    for rule, needs in RULES:
        if not bad or not _touches(bad, needs):
            rule(view, out)


def _touches(bad: list[str], needs: tuple[str, ...]) -> bool:
    """Whether a wrong property is one of those needed, within one, or around one."""
    return any(path.startswith(need) or need.startswith(f"{path}.") for path in bad for need in needs)

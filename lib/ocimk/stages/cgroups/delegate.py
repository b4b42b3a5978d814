"""Giving a container's cgroup to the user it runs as (config-linux.md, "Cgroup ownership"; cgroups(7),
"Delegation").

Only on v2, where that is secure, and only when the container gets its own view of it that it can write to: a
cgroup namespace of its own and a mount of cgroup at /sys/fs/cgroup that is not read-only.
"""

from __future__ import annotations

import posix

from ...errors import Error
from ...linux import cgroup
from ...linux import path as paths
from . import attach, below, load

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder

LIST = "/sys/kernel/cgroup/delegate"
_FALLBACK = ("cgroup.procs", "cgroup.subtree_control", "cgroup.threads")


def delegate(path: str, config: dict[str, Any]) -> None:
    """Change the owner of the cgroup and of the files that the kernel lists for it, if the rules say so.
    Raises Error."""
    owner = wanted_owner(config)
    if owner <= 0:
        return
    try:
        give(path, owner)
    except OSError as problem:
        raise Error(f"give cgroup {path} to uid {owner}", problem) from None


def give(path: str, owner: int) -> None:
    """Change the owner of the cgroup and of the files that may be given away. Raises OSError."""
    posix.chown(path, owner, -1)
    with cgroup.Group(path) as group:
        for name in files():
            if group.has(name):
                posix.chown(name, owner, -1, dir_fd=group.fd, follow_symlinks=False)


def move_below(folder: Folder, pid: int, sub: str) -> None:
    """Move the container's first process into a sub-cgroup that is the container's own (an annotation of crun's): the
    limits stay above it, out of reach, and with them the root of its cgroup namespace. Raises Error."""
    where = "annotations.run.oci.delegate-cgroup"
    layout = load(folder)
    if layout.mode != "v2":
        raise Error(where, "delegate-cgroup not supported on cgroup v1", "only on a host with cgroup v2 alone")
    path = below(layout.v2, sub)
    try:
        paths.make_dirs(path, 0o755)
    except OSError as problem:
        raise Error(f"{where}: make {path}", problem) from None
    attach(folder, pid, {"": sub})
    try:
        with cgroup.Group(layout.v2) as group:
            on = " ".join(f"+{name}" for name in cgroup.controllers(layout.v2))
            if on:
                group.write("cgroup.subtree_control", on)
        owner = host_uid(0, folder.config.get("linux") or {})
        if owner > 0:
            give(path, owner)
    except OSError as problem:
        raise Error(f"{where}: {path}", problem) from None


def files() -> list[str]:
    """The files that may be given away; not all of them are in every cgroup."""
    try:
        return cgroup.read_file(LIST).split()
    except OSError:
        return list(_FALLBACK)


def wanted_owner(config: dict[str, Any]) -> int:
    """The host's uid for process.user.uid when the cgroup is to be given away, else -1."""
    linux = config.get("linux") or {}
    namespaces = {entry.get("type"): entry.get("path") or "" for entry in linux.get("namespaces") or ()}
    if namespaces.get("cgroup") != "" or not any(writable(mount) for mount in config.get("mounts") or ()):
        return -1
    uid = int(((config.get("process") or {}).get("user") or {}).get("uid") or 0)
    return host_uid(uid, linux) if "user" in namespaces else uid


def writable(mount: dict[str, Any]) -> bool:
    """Whether a mount shows the container its cgroup for writing."""
    at = paths.clean(str(mount.get("destination") or ""))
    return mount.get("source") == "cgroup" and at == cgroup.ROOT and "ro" not in (mount.get("options") or ())


def host_uid(uid: int, linux: dict[str, Any]) -> int:
    """The uid on the host that the mappings give, -1 when it has none or they are not known."""
    for entry in linux.get("uidMappings") or ():
        first, size = int(entry.get("containerID", 0)), int(entry.get("size", 0))
        if first <= uid < first + size:
            return int(entry.get("hostID", 0)) + uid - first
    return -1

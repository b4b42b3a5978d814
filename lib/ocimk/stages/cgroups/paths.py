"""Where a container's cgroups are: linux.cgroupsPath and the host's hierarchies made into directories.

An absolute cgroupsPath is taken below the mount point of each hierarchy; a relative one, and the container's
name when there is none, below the cgroup that we are in ourselves: per hierarchy on v1, beside us on v2 (a
cgroup2 that holds processes cannot have controllers for its children). These are runc's rules, so that both
find the same cgroups.
"""

from __future__ import annotations

import posix

from ...errors import Error
from ...linux import cgroup
from ...linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Found = dict[str, str]

PROPERTY = "linux.cgroupsPath"

_ROOT_INODE = 1
"""The inode of a hierarchy's root (kernfs counts from there); a mount of a part of it shows another."""


def wanted(config: dict[str, Any]) -> str:
    """linux.cgroupsPath as it stands, "" when absent."""
    return str((config.get("linux") or {}).get("cgroupsPath") or "")


def inner(text: str, name: str) -> str:
    """The path below a hierarchy: *text* cleaned, or *name*. Raises Error when it would lead out or is the
    root."""
    if ".." in text.split("/"):
        raise Error(f"{PROPERTY} {text}", '".." is not allowed in it')
    if not text:
        return name
    if "\n" in text or "\0" in text:
        raise Error(f"{PROPERTY} {text!r}", "a newline or NUL cannot be in it")
    cleaned = paths.clean(text)
    if cleaned in ("/", "."):
        raise Error(f"{PROPERTY} {text}", "the root of the hierarchies cannot be a container's cgroup")
    return cleaned


def decide(config: dict[str, Any], name: str) -> tuple[str, Found]:
    """The host's mode and the directory per controller ("": the cgroup2). Raises Error."""
    below = inner(wanted(config), name)
    mode = cgroup.mode()
    if mode == "none":
        return mode, {}
    if mode == "v2":
        return mode, {"": v2_path(below)}
    found = v1_paths(below)
    if mode == "hybrid":
        # As runc: the cgroup2 beside v1 has no processes to care for, so the relative path starts at its
        # root.
        found[""] = f"{cgroup.UNIFIED}/{below.lstrip('/')}"
    return (mode, found) if found else ("none", {})


def v2_path(below: str) -> str:
    """The directory in the one hierarchy of cgroup v2."""
    if below.startswith("/"):
        return cgroup.ROOT + below
    own = paths.dirname(cgroup.memberships().get("", "/")).rstrip("/")
    return f"{cgroup.ROOT}{own}/{below}"


def v1_paths(below: str) -> Found:
    """The directory in each mounted v1 hierarchy that runc would join."""
    own = cgroup.memberships()
    host = posix.stat(cgroup.ROOT).st_dev
    mounts: list[cgroup.Mount] | None = None
    found = {}
    for name in cgroup.CONTROLLERS:
        if name not in own:
            continue
        (point, whole), inside = usual_place(name, host), own[name]
        # Reading the mount table takes time where there are thousands of mounts: only when the hierarchy is
        # somewhere unusual, or when it is mounted in part and our own place in it counts.
        if not point or (inside != "/" and not whole and not below.startswith("/")):
            if mounts is None:
                mounts = cgroup.mounts()
            point, root = mounted(mounts, name)
            inside = relative(inside, root)
        if point:
            start = point if below.startswith("/") or inside == "/" else point + inside
            found[name] = f"{start}/{below.lstrip('/')}"
    return found


def usual_place(name: str, host: int) -> tuple[str, bool]:
    """The mount point below /sys/fs/cgroup that carries the controller's name, a link followed, and
    whether the hierarchy's root is mounted there; ("", False) when there is none."""
    point = f"{cgroup.ROOT}/{name.removeprefix('name=')}"
    try:
        status = posix.stat(point)
    except OSError:
        return "", False
    if status.st_dev == host:
        return "", False
    try:
        point = paths.join(cgroup.ROOT, posix.readlink(point))
    except OSError:
        pass
    return point, status.st_ino == _ROOT_INODE


def mounted(mounts: list[cgroup.Mount], name: str) -> tuple[str, str]:
    """The mount point of a v1 controller and the mount's root in its hierarchy; ("", "/") when it is not
    mounted."""
    for point, root, version, names in mounts:
        if version == 1 and name in names:
            return point, root
    return "", "/"


def relative(own: str, root: str) -> str:
    """Our own cgroup as seen below a mount whose root is *root*: in a container without a cgroup namespace
    /proc/self/cgroup tells the host's path, of which only the part below the mount's root can be reached."""
    root = root.rstrip("/")
    if not root or root.startswith("/.."):
        return own
    if own == root:
        return "/"
    return own.removeprefix(root) if own.startswith(f"{root}/") else "/"

"""The features structure of the specification (features.md, features-linux.md), made from the tables.

It tells what ocimk can do, not what the host can. What callers look for: runc's annotation for checkpoints,
and libseccomp's version.
"""

from __future__ import annotations

from . import seccomp, tables
from .annotations import OBEYED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

IMPLEMENTED = {
    "cgroup.v1": True,
    "cgroup.v2": True,
    "cgroup.systemd": True,
    "cgroup.systemdUser": True,
    "cgroup.rdma": True,
    "seccomp": True,
    "apparmor": True,
    "selinux": True,
    "intelRdt": True,
    "intelRdt.schemata": True,
    "intelRdt.monitoring": True,
    "memoryPolicy": True,
    "idmap": True,
    "netDevices": True,
    "checkpoint": True,
}
"""Whoever makes a thing work says True here, and deletes its row in ocimk.spec.supported."""

UNSAFE_ANNOTATIONS = (("cgroup.systemd", "org.systemd.property."), ("checkpoint", "org.criu.config"))
"""The feature, and the annotation that it makes ocimk obey; a trailing dot stands for a prefix."""

LIBSECCOMP = "io.github.seccomp.libseccomp.version"
CHECKPOINT = "org.opencontainers.runc.checkpoint.enabled"
VERSION = "org.ocimk.version"
COMMIT = "org.ocimk.commit"


def features(host: dict[str, Any]) -> dict[str, Any]:
    """The whole structure, in the order of the specification's Go type.

    host  what this build and its libraries are; every member may be missing:
          version, commit (strings), libseccomp (its version), archs (the seccomp architectures it can compile
          for), supportedFlags (the seccomp flags that the library and the kernel know; missing: not known)
    """
    return {
        "ociVersionMin": tables.SPEC_VERSION_MIN,
        "ociVersionMax": tables.SPEC_VERSION,
        "hooks": list(tables.HOOKS),
        "mountOptions": sorted(tables.MOUNT_OPTIONS),
        "linux": _linux(host),
        "annotations": _annotations(host),
        "potentiallyUnsafeConfigAnnotations": [
            *(name for thing, name in UNSAFE_ANNOTATIONS if IMPLEMENTED[thing]),
            *OBEYED,
        ],
    }


def _linux(host: dict[str, Any]) -> dict[str, Any]:
    cgroup = ("v1", "v2", "systemd", "systemdUser", "rdma")
    linux: dict[str, Any] = {
        "namespaces": sorted(tables.NAMESPACES),
        "capabilities": list(tables.CAPABILITIES),
        "cgroup": {name: IMPLEMENTED[f"cgroup.{name}"] for name in cgroup},
        "seccomp": _seccomp(host),
        "apparmor": {"enabled": IMPLEMENTED["apparmor"]},
        "selinux": {"enabled": IMPLEMENTED["selinux"]},
        "intelRdt": {
            "enabled": IMPLEMENTED["intelRdt"],
            "schemata": IMPLEMENTED["intelRdt.schemata"],
            "monitoring": IMPLEMENTED["intelRdt.monitoring"],
        },
    }
    if IMPLEMENTED["memoryPolicy"]:
        modes, flags = sorted(tables.MEMORY_POLICY_MODES), sorted(tables.MEMORY_POLICY_FLAGS)
        linux["memoryPolicy"] = {"modes": modes, "flags": flags}
    linux["mountExtensions"] = {"idmap": {"enabled": IMPLEMENTED["idmap"]}}
    linux["netDevices"] = {"enabled": IMPLEMENTED["netDevices"]}
    return linux


def _seccomp(host: dict[str, Any]) -> dict[str, Any]:
    if not IMPLEMENTED["seccomp"]:
        return {"enabled": False}
    found: dict[str, Any] = {
        "enabled": True,
        "actions": sorted(seccomp.ACTIONS),
        "operators": sorted(seccomp.OPERATORS),
        "archs": sorted(host.get("archs") or seccomp.ARCHITECTURES),
        "knownFlags": list(seccomp.FLAGS),
    }
    if host.get("supportedFlags") is not None:
        found["supportedFlags"] = [name for name in seccomp.FLAGS if name in host["supportedFlags"]]
    return found


def _annotations(host: dict[str, Any]) -> dict[str, str]:
    told = {LIBSECCOMP: host.get("libseccomp"), VERSION: host.get("version"), COMMIT: host.get("commit")}
    if IMPLEMENTED["checkpoint"]:
        told[CHECKPOINT] = "true"
    return {name: str(text) for name, text in sorted(told.items()) if text}

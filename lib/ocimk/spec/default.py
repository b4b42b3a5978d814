"""The configuration to start from, as ``oci spec`` prints it: runc's, property for property and in its order.

Source: runc, libcontainer/specconv/example.go. No system call is made here: what depends on the caller (ids)
and the host (whether cgroups are unified) is an argument.
"""

from __future__ import annotations

from .tables import SPEC_VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Config = dict[str, Any]

_CAPABILITIES = ("CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE")

_MOUNTS = (
    ("/proc", "proc", "proc", ""),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
)
_ROOTLESS_SYS = ("/sys", "none", "/sys", "rbind nosuid noexec nodev ro")

_MASKED = (
    "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list /proc/timer_stats "
    "/proc/sched_debug /sys/firmware /proc/scsi"
)
_READONLY = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger"


def default_config(rootless: bool = False, cgroup2: bool = True, uid: int = 0, gid: int = 0) -> Config:
    """A whole configuration that runs ``sh`` from ``rootfs``.

    rootless  for a caller without privileges: a user namespace that maps the one id, no network, no cgroup
    limits cgroup2   whether the host has the unified hierarchy: then there is a cgroup namespace too uid, gid
    the caller's effective ids, for the mappings of a rootless one
    """
    return {
        "ociVersion": SPEC_VERSION,
        "process": _process(),
        "root": {"path": "rootfs", "readonly": True},
        "hostname": "runc",
        "mounts": [_mount(rootless, entry) for entry in _MOUNTS],
        "linux": _linux(rootless, cgroup2, uid, gid),
    }


def _process() -> Config:
    return {
        "terminal": True,
        "user": {"uid": 0, "gid": 0},
        "args": ["sh"],
        "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
        "cwd": "/",
        "capabilities": {name: list(_CAPABILITIES) for name in ("bounding", "effective", "permitted")},
        "rlimits": [{"type": "RLIMIT_NOFILE", "hard": 1024, "soft": 1024}],
        "noNewPrivileges": True,
    }


def _mount(rootless: bool, entry: tuple[str, str, str, str]) -> Config:
    """Without privileges sysfs can only be bound, and only the one mapped id may be named."""
    if rootless and entry[0] == "/sys":
        entry = _ROOTLESS_SYS
    destination, kind, source, words = entry
    options = [word for word in words.split() if not (rootless and word.startswith(("uid=", "gid=")))]
    mount: Config = {"destination": destination, "type": kind, "source": source}
    if options:
        mount["options"] = options
    return mount


def _linux(rootless: bool, cgroup2: bool, uid: int, gid: int) -> Config:
    kinds = ["pid", "network", "ipc", "uts", "mount"] + ["cgroup"] * cgroup2
    head: Config = {"resources": {"devices": [{"allow": False, "access": "rwm"}]}}
    if rootless:
        kinds = [kind for kind in kinds if kind != "network"] + ["user"]
        head = {"uidMappings": [_mapping(uid)], "gidMappings": [_mapping(gid)]}
    return {
        **head,
        "namespaces": [{"type": kind} for kind in kinds],
        "maskedPaths": _MASKED.split(),
        "readonlyPaths": _READONLY.split(),
    }


def _mapping(host: int) -> Config:
    return {"containerID": 0, "hostID": host, "size": 1}

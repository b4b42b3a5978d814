"""What of the root filesystem's configuration this host cannot do. Nothing is changed."""

from __future__ import annotations

import errno
import posix

from ...errors import Error, reason
from ...linux import mount as m
from . import plan
from .root import propagation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...container.folder import Folder
    from .plan import Entry


def problems(folder: Folder) -> list[str]:
    """One line each: the property, why, what to do. [] when all is well."""
    config = folder.config
    found = _root(folder)
    try:
        mounts = plan.entries(config, folder.bundle)
        plan.devices(config)
        propagation(config)
    except Error as problem:
        return [*found, str(problem)]
    types = filesystems()
    old = not has_mount_setattr()
    for entry in mounts:
        found += _entry(config, entry, types, old)
    found += _terminal(config, mounts)
    if (config.get("linux") or {}).get("mountLabel"):
        found += _label()
    return found


def _root(folder: Folder) -> list[str]:
    path = folder.rootfs
    try:
        kind = posix.stat(path).st_mode & 0o170000
    except OSError as problem:
        return [str(Error(f"root.path {path}", problem, "make the directory or correct root.path"))]
    return [] if kind == 0o040000 else [f"root.path {path}: not a directory"]


def _entry(config: dict[str, object], entry: Entry, types: set[str], old: bool) -> list[str]:
    found = []
    if entry.kind == "bind":
        found += _source(entry)
    elif entry.kind not in (*types, "cgroup") and not entry.options.flags & m.MS_REMOUNT:
        hint = f"modprobe {entry.kind}, or another kernel"
        found.append(f"{entry.where}.type {entry.kind}: not among the kernel's filesystems ({hint})")
    if old and (entry.options.recursive or plan.id_mapped(entry)):
        found.append(f"{entry.where}.options: this kernel has no mount_setattr (Linux 5.12 is needed for r* and idmap)")
    if entry.options.idmap and not entry.uids and plan.namespace(config, "user") is None:
        hint = "give uidMappings and gidMappings, or use a user namespace"
        found.append(f"{entry.where}.options {entry.options.idmap}: there is no mapping ({hint})")
    return found


def _source(entry: Entry) -> list[str]:
    if entry.options.flags & m.MS_REMOUNT or entry.options.nofail:
        return []
    itself = entry.options.source_itself or entry.options.copy_link
    try:
        posix.stat(plan.encode(entry.source, f"{entry.where}.source"), follow_symlinks=not itself)
    except OSError as problem:
        return [f"{entry.where}.source {entry.source}: {reason(problem)} (make it, or give the option nofail)"]
    return []


def _terminal(config: dict[str, object], mounts: list[Entry]) -> list[str]:
    process = config.get("process")
    if not isinstance(process, dict) or not process.get("terminal"):
        return []
    if any(entry.path in (b"/dev/pts", b"/dev") and entry.kind in ("devpts", "bind") for entry in mounts):
        return []
    return ["process.terminal: there is no devpts (add an entry of type devpts at /dev/pts to mounts)"]


def _label() -> list[str]:
    from ..mount import check_label

    try:
        check_label()
    except Error as problem:
        return [str(problem)]
    return []


def filesystems() -> set[str]:
    """The types the kernel knows just now; more may be loadable. See proc_filesystems(5)."""
    fd = posix.open("/proc/filesystems", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        text = b""
        while part := posix.read(fd, 1 << 16):
            text += part
    finally:
        posix.close(fd)
    return {line.split()[-1] for line in text.decode().splitlines() if line.strip()}


def has_mount_setattr() -> bool:
    """Whether the kernel is 5.12 or later, by asking for the call itself."""
    try:
        m.mount_setattr(-1)
    except OSError as problem:
        return problem.errno != errno.ENOSYS
    return True

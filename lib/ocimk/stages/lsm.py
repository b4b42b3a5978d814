"""process.apparmorProfile and process.selinuxLabel: what the program is to be confined by from its execve(2) on.

Both are written to a file of the task's own below /proc, which takes effect at the next exec. The file's folder is
opened here, on the host's procfs and proven to be one (CVE-2019-16884, CVE-2025-52881). The waiting image, which is the
same task, opens the file in it and writes at the last moment: kernels from 5.13 on take what is written only from the
very credentials that opened the file, and an exec makes new ones.
"""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error
from ..linux import mount
from ..native import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_APPARMOR = ("/proc/self/attr/apparmor", "/proc/self/attr")
_SELINUX = ("/proc/self/attr",)
_FILE = "exec"
_AT_FDCWD = -100


def apparmor() -> bool:
    """Whether AppArmor is on."""
    return _first("/sys/module/apparmor/parameters/enabled") == b"Y"


def selinux() -> bool:
    """Whether SELinux is on."""
    return posix.access("/sys/fs/selinux/enforce", posix.F_OK)


def _first(path: str) -> bytes:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return b""
    try:
        return posix.read(fd, 1)
    finally:
        posix.close(fd)


def prepare(folder: Folder) -> None:
    """Open the folder of the file to write to, as ``fds["label"]``. Raises Error where the host has no such module."""
    process: dict[str, Any] = folder.config["process"]
    paths, doing, _ = _wanted(process)
    if paths:
        folder.fds["label"] = _open(paths, doing)[0]


def _wanted(process: dict[str, Any]) -> tuple[tuple[str, ...], str, str]:
    """Where the label may be written, the property, and what is written. Raises Error where the host has no such
    module."""
    if process.get("apparmorProfile"):
        doing = "process.apparmorProfile"
        if not apparmor():
            raise Error(doing, "AppArmor is not enabled on this host", "remove it, or boot with AppArmor")
        return _APPARMOR, doing, f"exec {process['apparmorProfile']}"
    if process.get("selinuxLabel"):
        doing = "process.selinuxLabel"
        if not selinux():
            raise Error(doing, "SELinux is not enabled on this host", "remove it, or enable SELinux")
        return _SELINUX, doing, str(process["selinuxLabel"])
    return (), "", ""


def _open(paths: tuple[str, ...], doing: str) -> tuple[int, str]:
    for path in paths:
        try:
            fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise Error(f"{doing}: open {path}", problem) from None
        if mount.magic(fd) != mount.PROC:
            posix.close(fd)
            raise Error(f"{doing}: open {path}", "it is not on procfs")
        return fd, path
    raise Error(doing, f"no {paths[-1]}", "the kernel lacks the security module")


def write(plan: image.Plan, folder: Folder) -> None:
    """Add the calls that write the label; what the kernel refuses (an unknown profile) becomes the error."""
    fd = folder.fds.get("label", -1)
    if fd >= 0:
        _write(plan, folder.config["process"], fd, _FILE)


def _write(plan: image.Plan, process: dict[str, Any], fd: int, path: str) -> None:
    _, doing, text = _wanted(process)
    data = text.encode("utf-8", "surrogateescape")
    doing = f"{doing}: apply {text.removeprefix('exec ')}"
    opened = plan.call(doing, "openat", fd, path.encode() + b"\0", posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW)
    plan.feeds(opened, plan.call(doing, "write", -1, data, len(data)))


def write_outside(plan: image.Plan, process: dict[str, Any]) -> None:
    """Add the calls by which a process that is still outside of the container labels itself: what is to hold from the
    next exec on is inherited by the child that it goes on as. Raises Error."""
    paths, doing, _ = _wanted(process)
    if paths:
        fd, path = _open(paths, doing)
        posix.close(fd)
        _write(plan, process, _AT_FDCWD, f"{path}/{_FILE}")

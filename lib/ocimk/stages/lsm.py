"""process.apparmorProfile and process.selinuxLabel: what the program is to be confined by from its execve(2) on.

Both are written to a file of the task's own below /proc, which takes effect at the next exec. The file's folder is
opened here, on the host's procfs and proven to be one (CVE-2019-16884, CVE-2025-52881). The waiting image, which is the
same task, opens the file in it and writes at the last moment: kernels from 5.13 on take what is written only from the
very credentials that opened the file, and an exec makes new ones.
"""

from __future__ import annotations

import errno
import posix
from _struct import pack

from ..container.folder import Folder
from ..errors import Error
from ..linux import openat2
from ..native import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_APPARMOR = ("/proc/self/attr/apparmor", "/proc/self/attr")
_SELINUX = ("/proc/self/attr",)
_FILE = "exec"
_STRAIGHT = openat2.RESOLVE_BENEATH | openat2.RESOLVE_NO_MAGICLINKS | openat2.RESOLVE_NO_XDEV
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
    """The first of these folders that is there, from a verified procfs and through no mount. Raises Error."""
    from .sysctl import open_proc

    with openat2.Held(open_proc(doing)) as proc:
        for path in paths:
            try:
                below = path.removeprefix("/proc/").encode()
                return openat2.openat2(proc, below, openat2.DIRECTORY, 0, _STRAIGHT), path
            except FileNotFoundError:
                continue
            except OSError as problem:
                hint = "something is mounted over it" if problem.errno == errno.EXDEV else ""
                raise Error(f"{doing}: open {path}", problem, hint) from None
    raise Error(doing, f"no {paths[-1]}", "the kernel lacks the security module")


def write(plan: image.Plan, folder: Folder) -> None:
    """Add the calls that write the label; what the kernel refuses (an unknown profile) becomes the error."""
    fd = folder.fds.get("label", -1)
    if fd >= 0:
        _write(plan, folder.config["process"], fd)


def _write(plan: image.Plan, process: dict[str, Any], fd: int, opened: image.Step | None = None) -> None:
    """Write to the file in the folder *fd*, or that the step *opened* opens, whatever may be mounted over it."""
    _, doing, text = _wanted(process)
    data = text.encode("utf-8", "surrogateescape")
    doing = f"{doing}: apply {text.removeprefix('exec ')}"
    how = pack("=3Q", posix.O_WRONLY | posix.O_CLOEXEC, 0, _STRAIGHT | openat2.RESOLVE_NO_SYMLINKS)
    found = plan.call(doing, "openat2", fd, _FILE.encode() + b"\0", how, len(how))
    if opened is not None:
        plan.feeds(opened, found)
    plan.feeds(found, plan.call(doing, "write", -1, data, len(data)))


def write_outside(plan: image.Plan, process: dict[str, Any]) -> None:
    """Add the calls by which a process that is still outside of the container labels itself: what is to hold from the
    next exec on is inherited by the child that it goes on as. Raises Error."""
    paths, doing, _ = _wanted(process)
    if paths:
        fd, path = _open(paths, doing)
        posix.close(fd)
        opened = plan.call(doing, "openat", _AT_FDCWD, path.encode() + b"\0", openat2.DIRECTORY)
        _write(plan, process, -1, opened)

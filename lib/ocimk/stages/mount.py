"""oci-mount: the container's root filesystem, made ready before the root is changed.

Runs in the container's namespaces. Reads config.json, cgroup.json (for a cgroup mount that must be a bind
mount) and the descriptors "mountN" (id-mapped sources, see rootfs/idmap.py). Leaves folder.fds "root" (the
root mount), "ptmx" and "console" (process.terminal), "readonly-N" (mounts that enter() makes read-only,
when hooks may write until then). Everything below the root is found and mounted by descriptor; nothing is
written that undo would have to remove, but in the host's mount namespace the root mount, which the ledger
names.
"""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux.openat2 import Held, make_directories
from .rootfs import masks, mounts, plan, root
from .rootfs.enter import LATE, make_readonly
from .rootfs.work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..container.folder import Folder

NAME = "oci-mount"
SUMMARY = "mount a container's root filesystem and all that belongs into it"
OPTIONS = (
    ("--enter", "", "change the root at once, to look around inside"),
    ("--no-pivot", "", "with --enter: move the root mount and chroot instead of pivot_root"),
)
VALUES = ""
CHAINS = True

_WRITING_HOOKS = ("prestart", "createRuntime", "createContainer")


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Mount everything; with --enter change the root too. Raises Error."""
    if operands:
        raise Error("oci-mount takes no operands", operands[0], status=2)
    umask = posix.umask(0)
    try:
        work = Work(folder)
        try:
            build(work)
        finally:
            work.close()
    finally:
        posix.umask(umask)
    folder.fds["root"] = work.root
    if "--enter" in options:
        from .rootfs.enter import enter

        enter(folder, "--no-pivot" in options, root.propagation(folder.config))


def build(work: Work) -> None:
    """The root filesystem, step by step. Raises Error."""
    if work.label:
        check_label()
    private = plan.namespace(work.config, "mount") is not None
    nobody = posix.geteuid() != 0
    if private:
        root.set_propagation(work)
    elif nobody:
        hint = "add a mount namespace to linux.namespaces"
        raise Error("linux.namespaces", "a user namespace may not mount in the host's mount namespace", hint)
    work.root = root.open_root(work)
    mounts.open_sources(work)
    root.attach(work, private)
    if nobody:
        from .rootfs import cgroups

        cgroups.remember(work)
        root.become_root()
    mounts.apply(work)
    fill(work)
    seal(work)


def fill(work: Work) -> None:
    """What goes into the mounted tree: devices, console, restrictions, the working directory. Raises
    Error."""
    process = work.config.get("process") or {}
    if plan.needs_dev(work.mounts):
        from .rootfs import devices

        devices.apply(work)
    if process.get("terminal"):
        from .rootfs import console

        console.apply(work)
    working_directory(work, str(process.get("cwd") or ""))
    masks.readonly(work)
    masks.masked(work)


def working_directory(work: Work, path: str) -> None:
    """Make process.cwd, as runc does; nobody can once the root is read-only. Raises Error."""
    if not path:
        return
    try:
        with Held(make_directories(work.root, plan.place(path, "process.cwd"))):
            pass
    except OSError as problem:
        raise Error(f"process.cwd {path}", problem) from None


def seal(work: Work) -> None:
    """Make read-only what is to be; where hooks may still write (as they may with runc) leave that to
    enter()."""
    if (work.config.get("root") or {}).get("readonly"):
        work.late.append(("root.readonly", posix.dup(work.root)))
    hooks = work.config.get("hooks") or {}
    if any(hooks.get(kind) for kind in _WRITING_HOOKS):
        for number, (_, fd) in enumerate(work.late):
            work.folder.fds[f"{LATE}{number}"] = fd
        work.late.clear()
        return
    for doing, fd in work.late:
        try:
            make_readonly(fd)
        except OSError as problem:
            raise Error(f"{doing}: make it read-only", problem) from None


def check_label() -> None:
    """Raise Error where linux.mountLabel cannot be had."""
    try:
        posix.stat("/sys/fs/selinux/enforce")
    except OSError:
        raise Error("linux.mountLabel", "SELinux is not enabled on this host", "remove linux.mountLabel") from None


def undo(folder: Folder) -> None:
    """Unmount what apply mounted in the host's mount namespace; a namespace of the container's took the
    rest with it."""
    for _, kind, value in reversed(folder.records(NAME)):
        if kind == "mount":
            identity, _, path = value.partition(" ")
            root.detach(path, int(identity))
    folder.strike(NAME)


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The commands that would make the same root filesystem."""
    from .rootfs import explain as words

    return words.lines(folder, options)


def check(folder: Folder) -> list[str]:
    """What of the configuration this host cannot do."""
    from .rootfs import check as checks

    return checks.problems(folder)

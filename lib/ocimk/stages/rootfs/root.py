"""The root mount: propagation first, then the root filesystem attached onto itself."""

from __future__ import annotations

import posix

from ...errors import Error
from ...linux import mount as m
from ...linux import path as paths
from ...linux.namespaces import leave_chroot
from ...linux.openat2 import DIRECTORY, Held
from ...native import _native
from . import plan
from .options import PROPAGATION
from .work import change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .work import Work

STAGE = "oci-mount"

_PR_CAP_AMBIENT = 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4


def propagation(config: dict[str, object]) -> str:
    """linux.rootfsPropagation, "" when not set. Raises Error for an unknown one."""
    linux = config.get("linux")
    wanted = str((linux if isinstance(linux, dict) else {}).get("rootfsPropagation") or "")
    if wanted and wanted not in PROPAGATION:
        raise Error("linux.rootfsPropagation", f"{wanted!r} is none of {', '.join(PROPAGATION)}")
    return wanted


def set_propagation(work: Work) -> None:
    """Cut (or, with rootfsPropagation, tune) what flows between our mount namespace and the host's.

    By default everything is rslave: the host's mounts arrive, ours do not leave. For another choice the
    mount that the root filesystem lies on is made private (slave for slave), since the root mount must not
    appear on the host and pivot_root(2) refuses a shared parent.
    """
    wanted = propagation(work.config)
    flag = PROPAGATION[wanted] if wanted else m.MS_SLAVE | m.MS_REC
    try:
        _change_all(flag)
        if wanted not in ("", "rslave", "rprivate"):
            _parent(work.folder.rootfs, m.MS_SLAVE if flag & m.MS_SLAVE else m.MS_PRIVATE)
    except OSError as problem:
        hint = "" if posix.geteuid() == 0 else "the mount namespace must belong to the container's user namespace"
        raise Error(f"set mount propagation {wanted or 'rslave'}", problem, hint) from None


def _change_all(flag: int) -> None:
    """Change the propagation of the whole namespace, also of what is above the directory that chroot(2) keeps us in."""
    with Held(posix.open("/", DIRECTORY)) as root:
        try:
            here = posix.open(".", DIRECTORY)
        except OSError:
            here = posix.dup(root)
        with Held(here):
            leave_chroot()
            try:
                m.mount(None, b"/", None, flag)
            finally:
                posix.fchdir(root)
                posix.chroot(".")
                posix.fchdir(here)


def _parent(path: str, flag: int) -> None:
    """Change the mount that *path* lies on: the nearest mount point upwards."""
    while True:
        try:
            m.mount(None, plan.encode(path, "root.path"), None, flag)
            return
        except OSError as problem:
            if problem.errno != 22 or path == "/":
                raise
        path = paths.dirname(path)


def open_root(work: Work) -> int:
    """A detached copy of the root filesystem with all that is mounted in it. Raises Error."""
    path = work.folder.rootfs
    try:
        with Held(posix.open(plan.encode(path, "root.path"), DIRECTORY)) as fd:
            return m.open_tree(fd, b"", recursive=True)
    except OSError as problem:
        raise Error(f"root.path {path}", problem) from None


def attach(work: Work, private_namespace: bool) -> None:
    """Mount the root filesystem onto itself. Sets work.root, work.real.

    In the host's mount namespace the mount is noted in the ledger before it is made, by its identity: what
    else may be mounted there is not ours to remove.
    """
    path = work.folder.rootfs
    if not private_namespace:
        work.folder.record(STAGE, "mount", f"{m.mount_id(work.root)} {path}")
    try:
        with Held(posix.open(plan.encode(path, "root.path"), DIRECTORY)) as fd:
            m.move_mount(work.root, fd)
        if propagation(work.config) in ("", "private", "rprivate") or not private_namespace:
            change(work.root, propagation=m.MS_PRIVATE)
        work.real = posix.readlink(m.of_descriptor(work.root))
    except OSError as problem:
        raise Error(f"root.path {path}: mount onto itself", problem) from None


def detach(path: str, identity: int) -> None:
    """Unmount the root mount and all below it, if it is still there. Raises Error."""
    place = plan.encode(path, "mount")
    try:
        with Held(posix.open(place, DIRECTORY)) as fd:
            if m.mount_id(fd) != identity:
                return
        m.umount(place, m.MNT_DETACH | m.UMOUNT_NOFOLLOW)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise Error(f"unmount {path}", problem) from None


def become_root() -> None:
    """Take user and group 0 of the user namespace we are in, where we are nobody yet but have every
    capability.

    Raises Error where the namespace has no user 0. See user_namespaces(7).
    """
    call, numbers = _native.syscall, _native.NR
    # Raw calls: those of the C library wait for every thread it remembers, and clone3 left ours behind.
    try:
        call(numbers["setgroups"], 0, None)
    except PermissionError:
        # /proc/PID/setgroups says deny: an unprivileged user made the namespace, the groups stay.
        pass
    try:
        call(numbers["setresgid"], 0, 0, 0)
        call(numbers["setresuid"], 0, 0, 0)
    except OSError as problem:
        doing = "linux.uidMappings: become user 0 of the container"
        raise Error(doing, problem, "map user and group 0") from None
    call(numbers["prctl"], _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)

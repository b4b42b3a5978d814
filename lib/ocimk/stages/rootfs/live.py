"""Mounts of a container that lives: made and removed in its mount namespace, by descriptor like those of oci-mount.

A process of ours takes detached copies of the sources in a mount namespace of its own (so that nothing flows back to
the host), joins the container's namespaces, and goes back to the host's root: the container's procfs could be a lie,
and nothing below the container's root is resolved by us but with openat2(2). It closes itself to others' eyes first.
"""

from __future__ import annotations

import _socket
import posix

from ...container import sync
from ...errors import Error, log
from ...linux import mount as m
from ...linux import namespaces as ns
from ...linux.openat2 import DIRECTORY, O_PATH, Held, find
from ...native import _native
from .. import contract
from . import mounts, plan, root
from .enter import make_readonly
from .work import Work

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ...container.folder import Folder
    from .plan import Entry

_SET_DUMPABLE = 4

_NEEDS = {"proc": "pid", "sysfs": "network", "mqueue": "ipc"}
"""Filesystems that show a namespace of the process that mounts them."""


def add(folder: Folder, pidfd: int, pid: int) -> None:
    """Mount folder.config's mounts, all or none. Raises Error."""
    entries = plan.entries(folder.config, folder.bundle)
    for entry in entries:
        if entry.kind in ("cgroup", "cgroup2"):
            raise Error(entry.doing, "cgroups cannot be mounted once the container is created")
    kinds = {"mount", *(_NEEDS[entry.kind] for entry in entries if entry.kind in _NEEDS)}
    _within(folder, pidfd, pid, kinds, _add)


def remove(folder: Folder, pidfd: int, pid: int) -> None:
    """Unmount what is mounted at the destinations of folder.config's mounts, the last first. Raises Error."""
    _within(folder, pidfd, pid, {"mount"}, _remove)


# ---- in the container's namespaces -----------------------------------------------------------------------------------


def _add(work: Work) -> None:
    entries = work.mounts
    done: list[Entry] = []
    try:
        for entry in entries:
            work.mounts = [entry]
            mounts.apply(work)
            done.append(entry)
        for doing, fd in work.late:
            try:
                make_readonly(fd)
            except OSError as problem:
                raise Error(f"{doing}: make it read-only", problem) from None
    except BaseException:
        for entry in reversed(done):
            if not entry.options.flags & m.MS_REMOUNT and entry.index not in work.links:
                unmount(work, entry)
        raise


def _remove(work: Work) -> None:
    for entry in reversed(work.mounts):
        unmount(work, entry)


def unmount(work: Work, entry: Entry) -> None:
    """Take off what is mounted at the destination. Raises Error."""
    doing = f"{entry.where} {entry.destination}: unmount"
    try:
        # A link may be what is mounted (src-nofollow), so it is looked at before it is followed.
        for flags in (O_PATH | posix.O_NOFOLLOW, O_PATH):
            with Held(find(work.root, entry.path, flags)) as fd:
                if m.is_mount_root(fd):
                    m.umount(m.of_descriptor(fd), m.MNT_DETACH)
                    return
        raise Error(doing, "nothing is mounted there")
    except OSError as problem:
        hint = "it was there when the container's user namespace was made" if problem.errno == 22 else ""
        raise Error(doing, problem, hint) from None


# ---- getting there ---------------------------------------------------------------------------------------------------


def _within(folder: Folder, pidfd: int, pid: int, kinds: set[str], act: Callable[[Work], None]) -> None:
    """Have a process in the container's namespaces of these kinds, and in its user namespace, carry it out. Raises
    Error."""
    flags = _different(pid, {*kinds, "user"})
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    child = posix.fork()
    if child == 0:
        ours.close()
        _inside(folder, pidfd, flags, theirs.detach(), act)
    theirs.close()
    try:
        problem = sync.to_error(sync.receive_answer(ours.fileno()))
    finally:
        ours.close()
    status = posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1])
    if problem is not None:
        raise problem
    if status:
        raise Error(f"container {folder.id}: mount in its namespaces", f"the process for it ended with status {status}")


def _different(pid: int, kinds: set[str]) -> int:
    """The flags of those namespaces in which the process is not where we are. Raises Error."""
    try:
        return sum(
            ns.FLAGS[kind]
            for kind in kinds
            if not ns.same(f"/proc/{pid}/ns/{ns.FILES[kind]}", f"/proc/self/ns/{ns.FILES[kind]}")
        )
    except OSError as problem:
        raise Error(f"look at the namespaces of process {pid}", problem) from None


def _inside(folder: Folder, pidfd: int, flags: int, fd: int, act: Callable[[Work], None]) -> NoReturn:
    status = 1
    try:
        folder.fds["sync"] = fd
        log.relay = sync.relay(fd)
        log.held.clear()
        _native.syscall(_native.NR["prctl"], _SET_DUMPABLE, 0)
        posix.umask(0)
        work = Work(folder)
        _join(work, pidfd, flags, act is _add)
        if flags & ns.NEWPID:
            _as_member(work, act)
        act(work)
        status = 0
    except BaseException as problem:
        status = contract.lament(folder, _Stage, problem)  # type: ignore[arg-type]
    finally:
        posix._exit(status)


class _Stage:
    NAME = "oci-mount"


def _join(work: Work, pidfd: int, flags: int, sources: bool) -> None:
    """Take the sources, enter the namespaces, and stand at the host's root again. Sets work.root, work.real."""
    # Of the namespace that we came from: one of our own ends, mounts and all, when we leave it.
    host = posix.open("/", DIRECTORY)
    if posix.geteuid() != 0 and flags & ns.NEWUSER:
        _enter(pidfd, ns.NEWUSER)
        flags &= ~ns.NEWUSER
        root.become_root()
    if sources:
        try:
            ns.unshare(ns.NEWNS)
            m.mount(None, b"/", None, m.MS_SLAVE | m.MS_REC)
        except OSError as problem:
            raise Error("take copies of the sources: make a mount namespace", problem) from None
        mounts.open_sources(work)
    _enter(pidfd, flags)
    if flags & ns.NEWUSER:
        root.become_root()
    work.root = posix.open("/", DIRECTORY)
    posix.fchdir(host)
    posix.chroot(".")
    work.real = posix.readlink(m.of_descriptor(work.root))


def _enter(pidfd: int, flags: int) -> None:
    try:
        ns.setns(pidfd, flags)
    except OSError as problem:
        raise Error("join the container's namespaces", problem) from None


def _as_member(work: Work, act: Callable[[Work], None]) -> NoReturn:
    """A pid namespace holds for the children of who joined it: go on as one."""
    child = posix.fork()
    if child:
        posix._exit(posix.waitstatus_to_exitcode(posix.waitpid(child, 0)[1]) & 255)
    status = 1
    try:
        act(work)
        status = 0
    except BaseException as problem:
        status = contract.lament(work.folder, _Stage, problem)  # type: ignore[arg-type]
    finally:
        posix._exit(status)


def needs_own_namespace(config: dict[str, Any]) -> None:
    """Raise Error for a container whose mounts would not go with it."""
    entry = plan.namespace(config, "mount")
    if entry is None or entry.get("path"):
        whose = "shares the host's" if entry is None else f"has joined {entry['path']} as its"
        raise Error("mount in the container", f"it {whose} mount namespace", "the mounts would outlive it")

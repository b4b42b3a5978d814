"""The container's cgroups, for those who put processes into them. What the folder's cgroup.json says is the
truth.

Joining is dear or cheap depending on who does it. A foreign process's id written to cgroup.procs makes the
kernel take cgroup_threadgroup_rwsem for writing, which after a quiet moment costs an RCU grace period: 7 to
30 ms. Two ways cost nothing of the sort: being cloned into the cgroup2 (CLONE_INTO_CGROUP), and on v1 moving
*oneself*, a process of one thread, through ``tasks`` rather than ``cgroup.procs``. So:

    fd = clone_fd(folder)                    a cgroup2 directory for clone3, or -1
    fds = join_fds(folder, cloned=fd >= 0)   in the parent, which still may open the files
    join(fds)                                in the child, before it unshares its cgroup namespace
"""

from __future__ import annotations

import errno
import posix
import time

from ... import jsonio
from ...container import names
from ...errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...container.folder import Folder

_NEW_TASK_TRIES = 10
_NEW_TASK_PAUSE = 0.005


class Layout:
    """What cgroup.json says: the host's mode, the directory per controller ("": the cgroup2), and where systemd
    made it, the unit and the manager's address."""

    __slots__ = ("bus", "mode", "paths", "unit")

    def __init__(self, mode: str, paths: dict[str, str], unit: str = "", bus: str = "") -> None:
        self.mode = mode
        self.paths = paths
        self.unit = unit
        self.bus = bus

    @property
    def v2(self) -> str:
        """The cgroup2 directory, "" where there is none."""
        return self.paths.get("", "")

    def v1(self) -> list[str]:
        """The directories in the v1 hierarchies, each once (cpu and cpuacct may be one)."""
        return list(dict.fromkeys(path for name, path in self.paths.items() if name))

    def every(self) -> list[str]:
        """All directories, each once, the cgroup2 first."""
        return ([self.v2] if self.v2 else []) + self.v1()


def load(folder: Folder) -> Layout:
    """The container's cgroups. Raises Error when oci-cgroup has not run; its ``none`` mode is no error."""
    try:
        found = jsonio.loads(folder.read(names.CGROUP), f"{folder.path}/{names.CGROUP}")
    except FileNotFoundError:
        raise Error(f"container {folder.id}", "has no cgroup.json", "oci-cgroup apply makes it") from None
    paths = found.get("paths") if isinstance(found, dict) else None
    texts = [found.get("mode"), found.get("unit", ""), found.get("bus", "")] if isinstance(paths, dict) else [None]
    if not isinstance(paths, dict) or not all(isinstance(text, str) for text in [*texts, *paths.values()]):
        raise Error(f"{folder.path}/{names.CGROUP}", "not what oci-cgroup writes", "delete --force goes without it")
    return Layout(found["mode"], paths, found.get("unit", ""), found.get("bus", ""))


def save(folder: Folder, layout: Layout) -> None:
    """Write cgroup.json. Raises Error."""
    told: dict[str, object] = {"mode": layout.mode, "paths": layout.paths}
    if layout.unit:
        told |= {"unit": layout.unit, "bus": layout.bus}
    folder.write(names.CGROUP, jsonio.dumps(told).encode())


def below(path: str, sub: str) -> str:
    """The sub-cgroup *sub* of *path*. Raises Error when it would lead out."""
    parts = [part for part in sub.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise Error(f"sub-cgroup {sub}", '".." is not allowed in it')
    return "/".join([path, *parts])


def places(layout: Layout, sub: dict[str, str] | None = None) -> dict[str, str]:
    """The directory per controller with a sub-cgroup each: ``{"memory": "x"}``, "*" for all. Raises Error."""
    sub = sub or {}
    unknown = [name for name in sub if name not in layout.paths and name != "*"]
    if unknown:
        raise Error(
            f"sub-cgroup {sub[unknown[0]]}", f"the container has no cgroup of {unknown[0] or 'cgroup2'}"
        )
    every = sub.get("*", "")
    return {name: below(path, sub.get(name, every)) for name, path in layout.paths.items()}


def beside_init(folder: Folder, pid: int) -> dict[str, str]:
    """The sub-cgroup, for the functions below, where the container's first process *pid* is, when nothing
    else may be joined: a cgroup2 that has switched controllers on for its children cannot hold processes
    itself, and an init that did so (systemd, for one) has moved. {} in the usual case. Raises Error.
    """
    from ...linux import cgroup

    top = load(folder).v2
    if not top or not cgroup.controllers(top, "cgroup.subtree_control"):
        return {}
    mount = cgroup.UNIFIED if top.startswith(f"{cgroup.UNIFIED}/") else cgroup.ROOT
    there = mount + cgroup.memberships(str(pid)).get("", "")
    return {"": there.removeprefix(f"{top}/")} if there.startswith(f"{top}/") else {}


def apart(folder: Folder) -> bool:
    """Whether nobody but systemd may move processes from our cgroup into the container's. Raises Error."""
    layout = load(folder)
    if not layout.unit:
        return False
    from . import systemd

    return not systemd.reachable(layout)


def clone_fd(folder: Folder, sub: dict[str, str] | None = None) -> int:
    """The cgroup2 directory opened for CLONE_INTO_CGROUP (v2 and hybrid), else -1. Raises Error.

    Kernels from 6.14 on compare the cgroup.kill counter of the *parent's* cgroup with the new one's and kill
    the child at birth when they differ, that is, when either was ever killed as a whole. So a directory that
    was there before us, whose past we do not know, is not offered; and whoever clones should, if the child
    dies of SIGKILL before its first word, clone again without.
    """
    path = places(load(folder), sub).get("", "")
    if not path or path not in [value for _, _, value in folder.records("oci-cgroup")]:
        return -1
    return _open(path, posix.O_PATH | posix.O_DIRECTORY)


def join_fds(folder: Folder, sub: dict[str, str] | None = None, *, cloned: bool = False) -> list[int]:
    """The files through which a process moves itself into every cgroup, opened for writing; for :func:`join`.

    *cloned*: it is born in the cgroup2, which is left out then. Raises Error.
    """
    return [fd for _, fd in join_files(folder, sub, cloned=cloned)]


def join_files(
    folder: Folder, sub: dict[str, str] | None = None, *, cloned: bool = False
) -> list[tuple[str, int]]:
    """The same with their paths. Raises Error."""
    found = places(load(folder), sub)
    return open_files(
        [f"{path}/{'tasks' if name else 'cgroup.procs'}" for name, path in found.items() if name or not cloned]
    )


def open_files(files: list[str]) -> list[tuple[str, int]]:
    """Each file once, with a descriptor to write to it. Raises Error."""
    opened: list[tuple[str, int]] = []
    try:
        for file in dict.fromkeys(files):
            opened.append((file, _open(file, posix.O_WRONLY)))
    except Error:
        for _, fd in opened:
            posix.close(fd)
        raise
    return opened


def join(fds: list[int]) -> None:
    """Move this process, which must have one thread, into the cgroups of :func:`join_fds`; closes the
    files. Raises Error."""
    for fd in fds:
        try:
            posix.write(fd, b"0")
        except OSError as problem:
            raise Error(f"join cgroup {_name(fd)}", problem, hint(problem.errno or 0)) from None
        finally:
            posix.close(fd)


def attach(folder: Folder, pid: int, sub: dict[str, str] | None = None) -> None:
    """Move another process into every cgroup of the container: the dear way, see above. Raises Error."""
    for path in dict.fromkeys(places(load(folder), sub).values()):
        fd = _open(f"{path}/cgroup.procs", posix.O_WRONLY)
        try:
            _write_pid(fd, pid)
        except OSError as problem:
            raise Error(f"move process {pid} into cgroup {path}", problem, hint(problem.errno or 0)) from None
        finally:
            posix.close(fd)


def _write_pid(fd: int, pid: int) -> None:
    """Write the pid; a task that is only just being made (EINVAL) is tried again. Raises OSError."""
    for _ in range(_NEW_TASK_TRIES):
        try:
            posix.write(fd, b"%d" % pid)
            return
        except OSError as problem:
            if problem.errno != errno.EINVAL:
                raise
        time.sleep(_NEW_TASK_PAUSE)
    posix.write(fd, b"%d" % pid)


def _open(path: str, flags: int) -> int:
    try:
        return posix.open(path, flags | posix.O_CLOEXEC)
    except OSError as problem:
        raise Error(f"open {path}", problem, hint(problem.errno or 0)) from None


def _name(fd: int) -> str:
    try:
        return posix.readlink(f"/proc/self/fd/{fd}").rpartition("/")[0]
    except OSError:
        return f"behind descriptor {fd}"


_HINTS = {
    errno.EBUSY: "its controllers are on for sub-cgroups, so it cannot hold processes itself",
    errno.EOPNOTSUPP: "the cgroup is in threaded mode or in an invalid state, see cgroup.type",
    errno.ENOENT: "the cgroup was removed",
    errno.EAGAIN: "the pids limit of the cgroup or of one above it is reached",
    errno.EINVAL: "a realtime process needs cpu.realtimeRuntime, and cpuset.cpus and cpuset.mems must be set",
    errno.ENOSPC: "cpuset.cpus or cpuset.mems of the cgroup is empty",
}


def hint(number: int) -> str:
    """What is behind an errno of joining."""
    return _HINTS.get(number, "")

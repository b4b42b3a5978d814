"""What the tests of oci-cgroup share: folders, processes born in a container's cgroups, and a world of
pure cgroup v2."""

from __future__ import annotations

import errno
import itertools
import json
import mmap
import os
import signal
import time
import traceback
from contextlib import contextmanager

import pytest

from ocimk.container.folder import Folder
from ocimk.linux import cgroup, cgroup_procs
from ocimk.native import _native
from ocimk.stages import cgroup as stage
from ocimk.stages import cgroups

CLONE_INTO_CGROUP = 0x200000000
CLONE_NEWNS, CLONE_NEWUSER = 0x20000, 0x10000000
MS_PRIVATE, MS_REC, MNT_DETACH = 1 << 18, 1 << 14, 2
DENY_ALL = {"allow": False, "access": "rwm"}

_count = itertools.count()

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs to be root")
needs_hybrid = pytest.mark.skipif(cgroup.mode() not in ("hybrid", "v1"), reason="needs v1 hierarchies")


def fresh_name() -> str:
    return f"ocimk-test-{os.getpid()}-{next(_count)}"


def make_folder(tmp_path, resources=None, path=None, **linux) -> Folder:
    """A container's folder whose configuration asks for *resources* at cgroupsPath *path* ("" for none)."""
    name = fresh_name()
    linux["cgroupsPath"] = f"/{name}" if path is None else path
    linux["resources"] = {"devices": [DENY_ALL], **(resources or {})}
    folder = Folder(f"{tmp_path}/{name}")
    folder.make(f"{tmp_path}/bundle")
    folder.write("config.json", json.dumps({"ociVersion": "1.2.0", "linux": linux}).encode())
    return folder


@contextmanager
def applied(tmp_path, resources=None, path=None, options=None, **linux):
    """A folder with its cgroups made; whatever lives in them is killed at the end and all is removed."""
    folder = make_folder(tmp_path, resources, path, **linux)
    try:
        stage.apply(folder, options or {}, [])
        yield folder
    finally:
        clean(folder)


def clean(folder: Folder) -> None:
    for _, kind, path in folder.records(stage.NAME):
        if kind == "cgroup" and os.path.isdir(path):
            for place in (path, f"{cgroup.UNIFIED}/{os.path.basename(path)}"):
                if os.path.exists(f"{place}/cgroup.freeze"):
                    cgroup_procs.thaw(place)
            if os.path.exists(f"{path}/freezer.state"):
                cgroup_procs.thaw(path)
            cgroup_procs.signal(path, signal.SIGKILL)
    reap()
    stage.undo(folder)


def reap() -> None:
    """Collect the children that have ended."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def paths_of(folder: Folder) -> dict[str, str]:
    return cgroups.load(folder).paths


def read(folder: Folder, controller: str, file: str) -> str:
    with open(f"{paths_of(folder)[controller]}/{file}", encoding="ascii") as f:
        return f.read().strip()


def spawn(folder: Folder, function) -> int:
    """A child in the container's cgroups, joined as ocimk does it; it runs *function* and exits with its
    value."""
    joined, tell = os.pipe()
    into = cgroups.clone_fd(folder)
    fds = cgroups.join_fds(folder, cloned=into >= 0)
    if into >= 0:
        pid, _ = _native.clone3(CLONE_INTO_CGROUP, signal.SIGCHLD, into, False)
    else:
        pid = os.fork()
    if pid == 0:
        status = 99
        try:
            cgroups.join(fds)
            os.close(joined)
            os.close(tell)
            status = function() or 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    for fd in [*fds, into, tell]:
        if fd >= 0:
            os.close(fd)
    os.read(joined, 1)
    os.close(joined)
    return pid


def result(folder: Folder, function) -> int:
    """The exit status of *function* run in the container's cgroups; minus the signal when one ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(spawn(folder, function), 0)[1])


class Counter:
    """A number that a process in the container counts up as fast as it can."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, 8)

    def run(self) -> None:
        value = 0
        while True:
            value += 1
            self.memory[:8] = value.to_bytes(8, "little")

    def value(self) -> int:
        return int.from_bytes(self.memory[:8], "little")

    def await_more(self) -> None:
        """Wait until it counts. Fails after ten seconds."""
        before = self.value()
        await_true(lambda: self.value() > before)

    def stands(self) -> bool:
        """Whether it does not count: nothing can be waited for, so it is watched for a while."""
        before = self.value()
        end = time.monotonic() + 0.05
        while time.monotonic() < end:
            if self.value() != before:
                return False
        return True


def await_true(done) -> None:
    assert cgroup_procs.look_again(done, 10.0), "waited ten seconds in vain"


def openable(path: str, flags: int) -> bool:
    """Whether a device can be opened; False when the cgroup forbids it."""
    try:
        os.close(os.open(path, flags | os.O_NONBLOCK))
    except PermissionError:
        return False
    except OSError as problem:
        assert problem.errno in (errno.ENXIO, errno.EIO, errno.ENODEV), problem
    return True


def fork_bomb() -> None:
    """A process that forks for ever, its children too, each living a moment: never the same pids for long."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    while True:
        try:
            if os.fork() == 0:
                for _ in range(20000):
                    pass
                if os.getpid() % 3:
                    os._exit(0)
        except BlockingIOError:
            pass


# ---- other worlds ------------------------------------------------------------------------------------------


def apart(function, *, user: bool = False) -> None:
    """Run *function* in a child with a mount namespace of its own; a failure there is ours. user: as uid
    65534."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(reader)
            _native.syscall(_native.NR["unshare"], CLONE_NEWNS)
            _native.syscall(_native.NR["mount"], b"none\0", b"/\0", None, MS_PRIVATE | MS_REC, None)
            if user:
                os.setgroups([])
                os.setresgid(65534, 65534, 65534)
                os.setresuid(65534, 65534, 65534)
            function()
            status = 0
        except BaseException:
            os.write(writer, traceback.format_exc().encode())
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, encoding="utf-8", errors="replace") as file:
        told = file.read()
    _, status = os.waitpid(pid, 0)
    if status:
        pytest.fail(told or f"the child ended with status {status}", pytrace=False)


def mount(source: str, target: str, kind: str, data: str = "") -> None:
    words = [word.encode() + b"\0" for word in (source, target, kind)]
    _native.syscall(_native.NR["mount"], *words, 0, data.encode() + b"\0")


def umount(target: str) -> None:
    _native.syscall(_native.NR["umount2"], target.encode() + b"\0", MNT_DETACH)


@contextmanager
def controllers_as_before(path: str):
    """Switch off at the end what was switched on at a cgroup2's root: ocimk leaves it on, for others may
    use it."""
    before = cgroup.controllers(path, "cgroup.subtree_control")
    try:
        yield
    finally:
        with cgroup.Group(path) as root:
            for name in cgroup.controllers(path, "cgroup.subtree_control"):
                if name not in before:
                    root.write("cgroup.subtree_control", f"-{name}")


def in_v2(function) -> None:
    """Run *function* where /sys/fs/cgroup is a cgroup2 and nothing else, as on a modern host. Which
    controllers it has depends on the real host; those it switches on at the root are switched off again."""

    def inside() -> None:
        umount("/sys/fs/cgroup")
        mount("none", "/sys/fs/cgroup", "cgroup2")
        with controllers_as_before("/sys/fs/cgroup"):
            function()

    apart(inside)

"""oci-mount: the cgroup mount, on hosts with cgroup v1 and v2."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

from ocimk.container.folder import Folder
from ocimk.linux import mount as m
from ocimk.stages.rootfs import cgroups

TOP = Path("/sys/fs/cgroup")
V2 = TOP / "unified" if (TOP / "unified/cgroup.procs").exists() else TOP
V1 = (TOP / "pids/cgroup.procs").exists()
HAS_V2 = (V2 / "cgroup.controllers").exists()

pytestmark = needs_root
needs_v1 = pytest.mark.skipif(not V1, reason="no cgroup v1 hierarchies here")
needs_v2 = pytest.mark.skipif(not HAS_V2, reason="no cgroup v2 hierarchy here")


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    before = lab.host_mounts()
    (tmp_path / "b").mkdir()
    made = Bundle(tmp_path / "b")
    made.config["mounts"] = [lab.PROC, lab.SYS]
    yield made
    assert lab.host_mounts() == before, "the host's mounts changed"


def cgroup(directory: Path) -> Iterator[Path]:
    place = directory / f"ocimk-mount-test-{os.getpid()}"
    place.mkdir()
    yield place
    place.rmdir()


@pytest.fixture
def own_v1() -> Iterator[Path]:
    yield from cgroup(TOP / "pids")


@pytest.fixture
def own_v2() -> Iterator[Path]:
    yield from cgroup(V2)


def joining(place: Path, *more: Callable[[Folder], None]) -> Callable[[Folder], None]:
    """A step that puts the container into a cgroup, before the rest."""

    def step(folder: Folder) -> None:
        (place / "cgroup.procs").write_text("0")
        for one in more:
            one(folder)

    return step


def only_v2(folder: Folder) -> None:
    """Make this mount namespace look like a host with cgroup v2 only."""
    m.mount(None, b"/", None, m.MS_PRIVATE | m.MS_REC)
    if V2 != TOP:
        m.mount(str(V2).encode(), str(TOP).encode(), None, m.MS_BIND)


# ---- v1


@needs_v1
def test_own_cgroups_are_bound(bundle: Bundle, own_v1: Path) -> None:
    bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "nodev", "noexec")
    script = "cat /proc/self/mountinfo; touch /sys/fs/cgroup/made && ls /sys/fs/cgroup"
    result = bundle.run(script, before=joining(own_v1)).ok()
    assert result.mounts["/sys/fs/cgroup"].type == "tmpfs"
    pids = result.mounts["/sys/fs/cgroup/pids"]
    assert pids.root == f"/{own_v1.name}"
    assert pids.flags == {"rw", "nosuid", "nodev", "noexec", "relatime"}
    assert "/sys/fs/cgroup/unified" not in result.mounts, "as in runc"


@needs_v1
def test_readonly_throughout(bundle: Bundle) -> None:
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro")
    result = bundle.run("cat /proc/self/mountinfo; mkdir /sys/fs/cgroup/pids/x; mkdir /sys/fs/cgroup/x")
    assert result.out.count("Read-only file system") == 2
    mounts = [mount for point, mount in result.mounts.items() if point.startswith("/sys/fs/cgroup")]
    assert len(mounts) > 3
    assert all("ro" in mount.flags for mount in mounts)


@needs_v1
def test_with_a_cgroup_namespace(bundle: Bundle, own_v1: Path) -> None:
    bundle.namespaces("mount", "pid", "ipc", "uts", "network")
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", "nosuid")
    bundle.config["linux"]["namespaces"].append({"type": "cgroup"})

    def before(folder: Folder) -> None:
        # The namespace's root is where we are when it is made: as oci-unshare has it, in the cgroup first.
        (own_v1 / "cgroup.procs").write_text("0")
        lab._native.syscall(lab._native.NR["unshare"], lab.FLAGS["cgroup"])

    result = bundle.run("cat /proc/self/mountinfo; cat /proc/self/cgroup", before=before).ok()
    pids = result.mounts["/sys/fs/cgroup/pids"]
    assert pids.root == "/"
    assert {"ro", "nosuid", "nodev", "noexec"} <= pids.flags
    assert "pids:/\n" in result.out
    if "/sys/fs/cgroup/systemd" in lab.host_mounts():
        assert "name=systemd" in result.mounts["/sys/fs/cgroup/systemd"].superblock


@needs_v1
def test_controllers_that_share_a_hierarchy(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(b"one,two", [b"pids"], b"/sys/fs/cgroup/pids")]
    monkeypatch.setattr(cgroups, "hierarchies", lambda: found)
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro")
    script = "cd /sys/fs/cgroup; readlink one; readlink two; test -e two/cgroup.procs"
    assert bundle.run(script).ok().out.split() == ["one,two"] * 2


@needs_v1
@pytest.mark.parametrize(("option", "tag"), [("rshared", {"shared"}), ("rprivate", set())])
def test_propagation_of_the_hierarchies(bundle: Bundle, option: str, tag: set[str]) -> None:
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro", option)
    mounts = bundle.run().ok().mounts
    assert mounts["/sys/fs/cgroup"].propagation == tag
    assert mounts["/sys/fs/cgroup/pids"].propagation == tag


def test_hierarchies_of_a_systemd_host(monkeypatch: pytest.MonkeyPatch) -> None:
    cgroup = b"4:cpu,cpuacct:/a/b\n3:pids:/a\n2:blkio:/\n1:name=systemd:/s\n0::/u"
    mounts = b"""\
30 23 0:26 / /sys/fs/cgroup ro,nosuid shared:9 - tmpfs tmpfs ro,mode=755
31 30 0:27 / /sys/fs/cgroup/unified rw shared:10 - cgroup2 cgroup2 rw,nsdelegate
32 30 0:28 / /sys/fs/cgroup/systemd rw shared:11 - cgroup cgroup rw,xattr,name=systemd
33 30 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:12 - cgroup cgroup rw,cpu,cpuacct
34 30 0:30 /a /sys/fs/cgroup/pids rw shared:13 - cgroup cgroup rw,pids
35 30 0:31 / /sys/fs/cgroup/blk\\040io rw shared:13 - cgroup cgroup rw,blkio
36 30 0:30 / /mnt/pids rw - cgroup cgroup rw,pids"""
    files = {b"/proc/self/cgroup": cgroup, b"/proc/self/mountinfo": mounts}
    monkeypatch.setattr(cgroups, "_lines", lambda path: files[path].splitlines())
    assert cgroups.hierarchies() == [
        (b"systemd", [b"name=systemd"], b"/sys/fs/cgroup/systemd/s"),
        (b"cpu,cpuacct", [b"cpu", b"cpuacct"], b"/sys/fs/cgroup/cpu,cpuacct/a/b"),
        (b"pids", [b"pids"], b"/sys/fs/cgroup/pids"),
        (b"blk io", [b"blkio"], b"/sys/fs/cgroup/blk io"),
    ]


# ---- v2


@needs_v2
def test_unified(bundle: Bundle) -> None:
    bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    mounts = bundle.run(before=only_v2).ok().mounts
    assert mounts["/sys/fs/cgroup"].type == "cgroup2"
    assert mounts["/sys/fs/cgroup"].flags == {"ro", "nosuid", "nodev", "noexec", "relatime"}


@needs_v2
def test_unified_with_a_cgroup_namespace(bundle: Bundle, own_v2: Path) -> None:
    bundle.mount("/sys/fs/cgroup", "cgroup")
    bundle.config["linux"]["namespaces"].append({"type": "cgroup"})

    def unshare(folder: Folder) -> None:
        lab._native.syscall(lab._native.NR["unshare"], lab.FLAGS["cgroup"])

    result = bundle.run(before=joining(own_v2, unshare, only_v2)).ok()
    assert result.mounts["/sys/fs/cgroup"].root == "/"
    assert result.mounts["/sys/fs/cgroup"].type == "cgroup2"


@needs_v2
@pytest.mark.parametrize("option", ["ro", "rw"])
def test_user_namespace_without_a_cgroup_namespace(bundle: Bundle, own_v2: Path, option: str) -> None:
    """CVE-2023-25809: nothing above the container's own cgroup may be writable."""
    bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", option)
    bundle.user()
    os.chown(own_v2, 100000, 100000)
    # What only its mode keeps from being written would hide a writable mount.
    writable = V2 / f"{own_v2.name}-sibling"
    writable.mkdir()
    try:
        os.chown(writable, 100000, 100000)
        here = f"/sys/fs/cgroup/{own_v2.name}"
        script = f"cat /proc/self/mountinfo; mkdir {here}-sibling/x; mkdir {here}/x && echo made"
        before = joining(own_v2, only_v2)
        result = bundle.run(script, before=before, host=remember(own_v2))
        assert result.error == ""
        assert "ro" in result.mounts["/sys/fs/cgroup"].flags
        assert f"mkdir: can't create directory '{here}-sibling/x': Read-only file system" in result.out
        assert ("made" in result.out) == (option == "rw")
    finally:
        for left in (own_v2 / "x", writable):
            if left.exists():
                left.rmdir()


def remember(own: Path) -> Callable[[Folder], None]:
    """What oci-cgroup leaves."""

    def step(folder: Folder) -> None:
        folder.write("cgroup.json", f'{{"mode":"v2","paths":{{"":"{TOP}/{own.name}"}}}}'.encode())

    return step


@needs_v2
def test_own_cgroup_bound_where_a_mount_is_refused(bundle: Bundle, own_v2: Path) -> None:
    bundle.config["mounts"] = []
    bundle.bind("/proc", "/proc", "rbind")
    bundle.mount("/sys/fs/cgroup", "cgroup", "nodev")
    bundle.config["linux"]["namespaces"].append({"type": "cgroup"})

    def refuse(folder: Folder) -> None:
        lab.refuse(fsopen=1)

    before = joining(own_v2, only_v2, refuse)
    script = "cat /proc/self/mountinfo; test -e /sys/fs/cgroup/cgroup.procs"
    result = bundle.run(script, before=before, host=remember(own_v2)).ok()
    mount = result.mounts["/sys/fs/cgroup"]
    assert mount.type == "cgroup2"
    assert mount.root.endswith(own_v2.name)
    assert "nodev" in mount.flags


@needs_v2
def test_own_cgroup_is_looked_up_before_the_folder_closes(bundle: Bundle, own_v2: Path) -> None:
    """Root of a user namespace may not enter the container's folder, which only the host's root may."""
    bundle.config["mounts"] = []
    bundle.bind("/proc", "/proc", "rbind")
    bundle.mount("/sys/fs/cgroup", "cgroup")
    bundle.config["linux"]["namespaces"].append({"type": "cgroup"})
    bundle.user()

    def refuse(folder: Folder) -> None:
        lab.refuse(fsopen=1)

    before = joining(own_v2, only_v2, refuse)
    mount = bundle.run(before=before, host=remember(own_v2)).ok().mounts["/sys/fs/cgroup"]
    assert mount.type == "cgroup2"
    assert mount.root.endswith(own_v2.name)


@needs_v2
def test_unknown_own_cgroup_is_never_the_hosts(bundle: Bundle, own_v2: Path) -> None:
    bundle.config["mounts"] = []
    bundle.bind("/proc", "/proc", "rbind")
    bundle.mount("/sys/fs/cgroup", "cgroup")
    bundle.config["linux"]["namespaces"].append({"type": "cgroup"})
    tries: list[str] = []

    def refuse(folder: Folder) -> None:
        # The first filesystem, the cgroup2, is refused; the empty one that takes its place is not.
        real = m.new_filesystem

        def new(kind: bytes, *more: object) -> int:
            tries.append(kind.decode())
            if kind == b"cgroup2":
                raise m.FilesystemError(1, "")
            return real(kind, *more)  # type: ignore[arg-type]

        m.new_filesystem = new  # type: ignore[assignment]

    result = bundle.run(before=joining(own_v2, only_v2, refuse)).ok()
    assert result.mounts["/sys/fs/cgroup"].type == "tmpfs"
    assert "nr_inodes=1" in result.mounts["/sys/fs/cgroup"].superblock

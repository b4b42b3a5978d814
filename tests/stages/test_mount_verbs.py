"""oci-mount: undo, explain and check; and the stage as a program."""

from __future__ import annotations

import json
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.linux import mount as m
from ocimk.stages import mount
from ocimk.stages.rootfs.enter import enter

TOP = Path(__file__).resolve().parents[2]
PRIVATE = {"linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}]}}
"""A mount namespace that stands for the host's."""


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    before = lab.host_mounts()
    (tmp_path / "b").mkdir()
    yield Bundle(tmp_path / "b")
    assert lab.host_mounts() == before, "the host's mounts changed"


def everything(bundle: Bundle, tmp_path: Path) -> None:
    """A configuration with something of every kind that mount(8) can do too."""
    (tmp_path / "volume dir").mkdir()
    (tmp_path / "volume dir/file").write_text("x")
    bundle.config["mounts"] = [lab.PROC, lab.DEV, lab.PTS, lab.SHM, lab.MQUEUE, lab.SYS]
    bundle.mount("/ro", "tmpfs", "ro", "nosuid", "mode=700")
    bundle.mount("/copy", "tmpfs", "tmpcopyup")
    bundle.bind(tmp_path / "volume dir", "/v/with space", "rbind", "ro", "nodev")
    bundle.bind(tmp_path / "volume dir/file", "/etc/file", "bind", "rprivate")
    bundle.bind(tmp_path / "volume dir", "/shared", "bind", "rshared")
    bundle.mount("/ro", "none", "remount", "nosuid")
    bundle.mount("/sys/fs/cgroup", "cgroup", "nosuid", "noexec", "nodev", "relatime", "ro")
    (bundle.rootfs / "copy").mkdir()
    (bundle.rootfs / "copy/file").touch()
    (bundle.rootfs / "etc/it's secret").touch()
    bundle.config["root"]["readonly"] = True
    bundle.config["process"]["cwd"] = "/some/where"
    linux = bundle.config["linux"]
    linux["maskedPaths"] = [*lab.MASKED, "/etc/it's secret"]
    linux["readonlyPaths"] = lab.READONLY
    linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 3, "gid": 4},
        {"path": "/dev/pipe", "type": "p"},
    ]


LOOK = "cat /proc/self/mountinfo; cd /; ls -ln /dev /etc /copy; ls -d /some/where"


def stable(result: lab.Result) -> tuple[list[str], list[str]]:
    """What must be the same: the mounts, and the files without their times."""
    mounts = [repr(one) for one in result.mounts.values()]
    files = [line.split() for line in result.out.splitlines() if " - " not in line]
    return sorted(mounts), [" ".join(line[:5] + line[8:]) for line in files if line[:1] != ["total"]]


# ---- explain


@needs_root
def test_the_commands_make_the_same(bundle: Bundle, tmp_path: Path) -> None:
    everything(bundle, tmp_path)
    script = mount.explain(bundle.folder(), {"--enter": "1"}, [])
    want = stable(bundle.run(LOOK).ok())
    other = Bundle(tmp_path / "other")
    (other.rootfs / "copy").mkdir()
    (other.rootfs / "copy/file").touch()
    (other.rootfs / "etc/it's secret").touch()
    script[0] = script[0].replace(str(bundle.rootfs), str(other.rootfs))
    text = "\n".join(["set -e", "umask 022", *script, f"exec /bin/busybox sh -c '{LOOK}'"])

    def child() -> None:
        os.execve("/bin/sh", ["sh", "-c", text], {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"})

    got = stable(lab.in_namespaces(bundle.config, child).ok())
    assert got[0] == want[0]
    assert got[1] == want[1]


def test_explain_needs_nothing_but_the_bundle(bundle: Bundle, tmp_path: Path) -> None:
    everything(bundle, tmp_path)
    bundle.config["process"]["terminal"] = True
    (bundle.path / "config.json").write_text(json.dumps(bundle.config))
    before = lab.tree(tmp_path)
    lines = mount.explain(Folder.open(str(bundle.path)), {}, [])
    assert lab.tree(tmp_path) == before
    assert lines[0] == f"ROOT={bundle.rootfs}"
    assert 'mount -t tmpfs -o nosuid,strictatime,mode=755,size=65536k tmpfs "$ROOT/dev"' in lines
    assert 'mknod -m 666 "$ROOT/dev/null" c 1 3' in lines
    assert 'ln -sf pts/ptmx "$ROOT/dev/ptmx"' in lines
    assert any(line.startswith('touch "$ROOT/dev/console"') for line in lines)


def test_explain_of_other_ways_in(bundle: Bundle) -> None:
    folder = bundle.folder()
    assert mount.explain(folder, {"--enter": "1", "--no-pivot": "1"}, [])[-1].startswith(
        'cd "$ROOT" && mount --move . /'
    )
    folder.config["linux"] = {"rootfsPropagation": "rshared", "namespaces": [{"type": "mount"}]}
    lines = mount.explain(folder, {"--enter": "1"}, [])
    assert lines[-1] == "mount --make-rshared /"
    assert "mount --make-rshared /" in lines[:3]
    del folder.config["linux"]["namespaces"]
    assert mount.explain(folder, {"--enter": "1"}, [])[-1] == 'exec chroot "$ROOT"'


# ---- check


def test_nothing_to_complain(bundle: Bundle, tmp_path: Path) -> None:
    everything(bundle, tmp_path)
    assert mount.check(bundle.folder()) == []


def test_complaints(bundle: Bundle) -> None:
    bundle.config["root"]["path"] = "nowhere"
    bundle.config["mounts"] = []
    bundle.bind("/no/source", "/a")
    bundle.bind("/no/source", "/b", "bind", "nofail")
    bundle.mount("/c", "nosuchfs")
    bundle.bind("/etc", "/d", "bind", "idmap")
    bundle.config["process"]["terminal"] = True
    if not os.path.exists("/sys/fs/selinux/enforce"):
        bundle.config["linux"]["mountLabel"] = "a:b:c"
    found = mount.check(bundle.folder())
    starts = [
        f"root.path {bundle.path}/nowhere: no such file or directory (",
        "mounts[0].source /no/source: no such file or directory (",
        "mounts[2].type nosuchfs: not among the kernel's filesystems (",
        "mounts[3].options idmap: there is no mapping (",
        "process.terminal: there is no devpts (",
        "linux.mountLabel: SELinux is not enabled",
    ]
    assert len(found) == len(starts)
    for line, start in zip(found, starts, strict=True):
        assert line.startswith(start)


def test_a_configuration_that_makes_no_sense_is_a_complaint(bundle: Bundle) -> None:
    bundle.mount("/", "tmpfs")
    assert mount.check(bundle.folder())[-1].startswith("mounts[2] /: cannot mount on top of")


# ---- undo, in the host's mount namespace


def on_the_host(bundle: Bundle, act: object) -> None:
    """Run *act* in a mount namespace that stands for the host's, with a configuration that has none of its
    own."""
    bundle.namespaces("pid")

    def child() -> None:
        m.mount(None, b"/", None, m.MS_PRIVATE | m.MS_REC)
        act()  # type: ignore[operator]

    result = lab.in_namespaces(PRIVATE, child)
    assert not result.error, result.error
    assert result.status == 0, result.out


@needs_root
def test_undo_takes_off_what_was_mounted_on_the_host(bundle: Bundle) -> None:
    def act() -> None:
        folder = bundle.folder()
        before = lab.host_mounts()
        mount.apply(folder, {}, [])
        assert str(bundle.rootfs / "proc") in lab.host_mounts()
        assert len(folder.records("oci-mount")) == 1
        mount.undo(folder)
        assert lab.host_mounts() == before
        assert folder.records("oci-mount") == []
        mount.undo(folder)
        assert lab.host_mounts() == before

    on_the_host(bundle, act)


@needs_root
def test_undo_spares_what_was_there_before(bundle: Bundle) -> None:
    """A root filesystem that the caller mounted (an overlay, say) stays, wherever we were interrupted."""

    def act() -> None:
        os.system(f"mount --bind '{bundle.rootfs}' '{bundle.rootfs}'")
        before = lab.host_mounts()
        real = m.move_mount

        def killed(fd: int, target: int) -> None:
            raise KeyboardInterrupt

        m.move_mount = killed  # type: ignore[assignment]
        folder = bundle.folder()
        with pytest.raises(KeyboardInterrupt):
            mount.apply(folder, {}, [])
        m.move_mount = real
        assert len(folder.records("oci-mount")) == 1
        mount.undo(folder)
        assert lab.host_mounts() == before
        mount.apply(bundle.folder(), {}, [])
        mount.undo(folder)
        assert lab.host_mounts() == before

    on_the_host(bundle, act)


@needs_root
def test_failure_in_the_middle_can_be_undone(bundle: Bundle) -> None:
    bundle.mount("/x", "nosuchfs")

    def act() -> None:
        before = lab.host_mounts()
        folder = bundle.folder()
        with pytest.raises(Error):
            mount.apply(folder, {}, [])
        assert lab.host_mounts() != before
        mount.undo(folder)
        assert lab.host_mounts() == before

    on_the_host(bundle, act)


@needs_root
def test_undo_after_the_root_is_gone(bundle: Bundle) -> None:
    folder = bundle.folder()
    folder.record("oci-mount", "mount", f"12345 {bundle.path}/gone")
    folder.record("oci-other", "mount", "x")
    mount.undo(folder)
    assert folder.records() == [("oci-other", "mount", "x")]


@needs_root
def test_a_private_namespace_leaves_nothing_to_undo(bundle: Bundle) -> None:
    def after(folder: Folder) -> None:
        assert folder.records() == []

    bundle.run(after=after).ok()


@needs_root
def test_entering_in_the_hosts_namespace_is_a_chroot(bundle: Bundle) -> None:
    bundle.namespaces("pid")
    bundle.config["linux"]["maskedPaths"] = ["/etc"]

    def child() -> None:
        m.mount(None, b"/", None, m.MS_PRIVATE | m.MS_REC)
        folder = bundle.folder()
        mount.apply(folder, {}, [])
        host = os.stat("/proc/self/ns/mnt").st_ino
        enter(folder)
        assert os.getcwd() == "/"
        assert os.listdir("/bin")
        assert os.stat("/proc/self/ns/mnt").st_ino == host
        os.execve("/bin/sh", ["sh", "-c", "ls /; ls /etc"], {"PATH": "/bin"})

    out = lab.in_namespaces(PRIVATE, child).ok().out
    assert out.split() == ["bin", "dev", "etc", "proc", "sys", "tmp"]


@needs_root
def test_mounts_on_the_host_do_not_spread(bundle: Bundle, tmp_path: Path) -> None:
    """On a shared mount of the host only the root mount itself is seen elsewhere, and undone there too."""
    bundle.config["root"]["path"] = str(tmp_path / "shared/rootfs")
    bundle.namespaces("pid")
    with lab.mounted(tmp_path / "shared"):
        os.system(f"mount --make-shared '{tmp_path}/shared' && cp -a '{bundle.rootfs}' '{tmp_path}/shared/'")
        start = lab.host_mounts()
        read, write = os.pipe()

        def child() -> None:
            folder = bundle.folder()
            mount.apply(folder, {}, [])
            os.write(write, b"x")
            assert os.read(0, 1) == b"y"
            mount.undo(folder)

        answer, say = os.pipe()
        watcher = os.fork()
        if watcher == 0:
            os.read(read, 1)
            seen = Counter(lab.host_mounts()) - Counter(start)
            os.write(say, b"y")
            os._exit(0 if list(seen) == [f"{tmp_path}/shared/rootfs"] else 1)
        os.dup2(answer, 0)
        result = lab.in_namespaces({"linux": {"namespaces": [{"type": "mount"}]}}, child)
        os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
        assert os.waitstatus_to_exitcode(os.waitpid(watcher, 0)[1]) == 0, "mounts below the root spread"
        for fd in (read, write, answer, say):
            os.close(fd)
        result.ok()
        assert lab.host_mounts() == start


# ---- the program


@needs_root
def test_by_hand(bundle: Bundle) -> None:
    """oci-mount apply DIR --enter -- sh, started as a program in namespaces made by unshare(1)."""
    place = bundle.path / "folder"
    place.mkdir()
    bundle.config["ociVersion"] = "1.2.0"
    (place / "config.json").write_text(json.dumps(bundle.config))
    state = {"ociVersion": "1.2.0", "id": "folder", "status": "creating", "pid": 0, "bundle": str(bundle.path)}
    (place / "state.json").write_text(json.dumps({**state, "ocimk": {"version": 1}}))
    command = [str(TOP / "libexec/oci-mount"), "apply", str(place), "--enter", "--", "/bin/busybox", "sh", "-c", "ls /"]
    done = subprocess.run(
        ["unshare", "-m", "-p", "-n", "-i", "-f", *command], capture_output=True, text=True, timeout=60
    )
    assert done.stderr == ""
    assert done.stdout.split() == ["bin", "dev", "etc", "proc", "sys", "tmp"]


def test_operands_are_refused(bundle: Bundle) -> None:
    with pytest.raises(Error, match="takes no operands") as caught:
        mount.apply(bundle.folder(), {}, ["x"])
    assert caught.value.status == 2

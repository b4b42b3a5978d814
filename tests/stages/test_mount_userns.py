"""oci-mount in a user namespace: started by the host's root, or by an ordinary user."""

from __future__ import annotations

import ctypes
import os
import struct
from collections.abc import Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

from ocimk.container.folder import Folder
from ocimk.stages.rootfs import idmap

pytestmark = needs_root


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    before = lab.host_mounts()
    (tmp_path / "b").mkdir()
    made = Bundle(tmp_path / "b")
    yield made
    assert lab.host_mounts() == before, "the host's mounts changed"


def ordinary(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC, lab.DEV, lab.PTS, lab.SHM, lab.MQUEUE, lab.SYS]
    bundle.config["linux"]["maskedPaths"] = lab.MASKED
    bundle.config["linux"]["readonlyPaths"] = lab.READONLY
    bundle.user()


def test_the_default_mounts(bundle: Bundle) -> None:
    ordinary(bundle)
    result = bundle.run("cat /proc/self/mountinfo; id; stat -c '%n %u:%g' / /dev /dev/shm").ok()
    mounts = result.mounts
    assert {"/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys", "/proc/keys", "/proc/sys"} <= set(mounts)
    assert "uid=0 gid=0" in result.out
    assert result.out.endswith("/ 0:0\n/dev 0:0\n/dev/shm 0:0\n")


def test_devices_are_the_hosts(bundle: Bundle) -> None:
    ordinary(bundle)
    script = (
        "cat /proc/self/mountinfo; echo x > /dev/null && head -c 4 /dev/zero | cat; stat -c %t:%T /dev/null /dev/tty"
    )
    (bundle.rootfs / "bin/head").symlink_to("busybox")
    result = bundle.run(script).ok()
    for name in ("null", "zero", "full", "random", "urandom", "tty"):
        mount = result.mounts[f"/dev/{name}"]
        assert mount.root == f"/{name}"
        assert "nosuid" in mount.flags
        # /dev/zero and some drivers' devices are mapped with PROT_EXEC.
        assert ("noexec" in mount.flags) == bool(os.statvfs("/dev").f_flag & os.ST_NOEXEC)
        assert mount.propagation == set()
    assert result.out.endswith("\0\0\0\x001:3\n5:0\n")


def test_no_capability_is_left_ambient_and_no_group(bundle: Bundle) -> None:
    ordinary(bundle)
    call, numbers = lab._native.syscall, lab._native.NR

    def ambient(folder: Folder) -> None:
        everything = 0xFFFFFFFF
        caps = struct.pack("6I", everything, everything, 1, 0x1FF, 0x1FF, 0)
        call(numbers["capset"], struct.pack("Ii", 0x20080522, 0), caps)
        call(numbers["prctl"], 47, 2, 0, 0, 0)
        assert "CapAmb:\t0000000000000001" in Path("/proc/self/status").read_text()

    groups = os.getgroups()
    os.setgroups([4321])
    try:
        out = bundle.run("cat /proc/self/status", before=ambient).ok().out
    finally:
        os.setgroups(groups)
    words = dict(line.split(":\t") for line in out.splitlines())
    assert words["CapAmb"] == "0" * 16
    assert words["Groups"].strip() == ""
    assert words["Uid"].split() == words["Gid"].split() == ["0"] * 4


def test_directories_that_only_the_hosts_root_may_enter(bundle: Bundle, tmp_path: Path) -> None:
    ordinary(bundle)
    (tmp_path / "closed/volume").mkdir(parents=True)
    (tmp_path / "closed/volume/file").write_text("reached")
    (tmp_path / "closed").chmod(0o700)
    bundle.path.chmod(0o700)
    bundle.bind(tmp_path / "closed/volume", "/v", "rbind", "ro")
    assert bundle.run("cat /v/file").ok().out == "reached"


def test_locked_flags_stay(bundle: Bundle, tmp_path: Path) -> None:
    """What the host's root set on a mount a user namespace can only add to: as runc, keep what is not
    named."""
    ordinary(bundle)
    with lab.mounted(tmp_path / "s", options="nosuid,nodev,noatime"):
        bundle.bind(tmp_path / "s", "/plain")
        bundle.bind(tmp_path / "s", "/noexec", "bind", "noexec")
        bundle.bind(tmp_path / "s", "/ro", "rbind", "ro")
        bundle.bind(tmp_path / "s", "/rw", "rbind", "rw")
        mounts = bundle.run().ok().mounts
    locked = {"nosuid", "nodev", "noatime"}
    assert mounts["/plain"].flags == {"rw"} | locked
    assert mounts["/noexec"].flags == {"rw", "noexec"} | locked
    assert mounts["/ro"].flags == {"ro"} | locked
    assert mounts["/rw"].flags == {"rw"} | locked


@pytest.mark.parametrize("option", ["suid", "dev", "atime", "relatime", "rsuid"])
def test_locked_flags_cannot_be_cleared(bundle: Bundle, tmp_path: Path, option: str) -> None:
    ordinary(bundle)
    with lab.mounted(tmp_path / "s", options="nosuid,nodev,noatime"):
        bundle.bind(tmp_path / "s", "/v", "bind", option)
        error = bundle.run().error
    assert error.startswith("mounts[6] /v: mount bind")
    assert "operation not permitted" in error


def test_locked_readonly_cannot_become_writable(bundle: Bundle, tmp_path: Path) -> None:
    ordinary(bundle)
    with lab.mounted(tmp_path / "s", options="ro"):
        bundle.bind(tmp_path / "s", "/v", "bind", "rw")
        assert "locked by the user namespace" in bundle.run().error


def test_mounts_below_a_source_cannot_be_left_behind(bundle: Bundle, tmp_path: Path) -> None:
    ordinary(bundle)
    with lab.mounted(tmp_path / "s"), lab.mounted(tmp_path / "s/below"):
        bundle.bind(tmp_path / "s", "/v", "bind")
        hint = "something is mounted below it, which a user namespace may only take along: use rbind"
        assert bundle.run().error == f"mounts[6].source {tmp_path}/s: invalid argument ({hint})"


def test_readonly_root(bundle: Bundle) -> None:
    ordinary(bundle)
    bundle.config["root"]["readonly"] = True
    bundle.config["process"]["cwd"] = "/work"
    result = bundle.run("cat /proc/self/mountinfo; test -d /work; touch /x")
    assert "ro" in result.mounts["/"].flags
    assert "Read-only file system" in result.out


def test_terminal(bundle: Bundle) -> None:
    ordinary(bundle)
    bundle.config["process"]["terminal"] = True
    assert bundle.run("stat -c %F:%t /dev/console").ok().out == "character special file:88\n"


def test_sysfs_without_a_network_namespace(bundle: Bundle) -> None:
    bundle.namespaces("mount", "pid", "ipc", "uts")
    bundle.config["mounts"] = [lab.PROC, lab.DEV, lab.SYS]
    bundle.user()
    result = bundle.run("cat /proc/self/mountinfo; touch /sys/kernel/x")
    assert {"ro", "nosuid", "nodev", "noexec"} <= result.mounts["/sys"].flags
    assert result.error == ""
    below = [mount for point, mount in result.mounts.items() if point.startswith("/sys/")]
    assert all("ro" in mount.flags for mount in below), "something below /sys is writable"


def test_writable_sysfs_without_a_network_namespace(bundle: Bundle) -> None:
    bundle.namespaces("mount", "pid", "ipc", "uts")
    bundle.config["mounts"] = [lab.PROC, {"destination": "/sys", "type": "sysfs", "source": "sysfs"}]
    bundle.user()
    error = bundle.run().error
    assert error.startswith(
        "mounts[1] /sys: mount sysfs: operation not permitted (in a user namespace the kernel allows"
    )


def test_proc_without_a_pid_namespace(bundle: Bundle) -> None:
    bundle.namespaces("mount", "ipc", "uts", "network")
    bundle.config["mounts"] = [lab.PROC]
    bundle.user()
    error = bundle.run().error
    assert error.startswith(
        "mounts[0] /proc: mount proc: operation not permitted (in a user namespace the kernel allows"
    )


def test_group_that_is_not_mapped(bundle: Bundle) -> None:
    ordinary(bundle)
    bundle.config["linux"]["gidMappings"] = [{"containerID": 0, "hostID": 100000, "size": 1}]
    error = bundle.run().error
    assert error.startswith("mounts[2] /dev/pts: mount devpts: invalid argument")
    assert "gid= and uid= must name an id that is mapped" in error


def test_root_is_not_mapped(bundle: Bundle) -> None:
    ordinary(bundle)
    bundle.config["linux"]["uidMappings"] = [{"containerID": 1, "hostID": 100000, "size": 10}]
    assert bundle.run().error.startswith("linux.uidMappings: become user 0 of the container: ")


def test_destination_that_cannot_be_made(bundle: Bundle) -> None:
    ordinary(bundle)
    os.chown(bundle.rootfs, 0, 0)
    bundle.mount("/new", "tmpfs")
    want = "mounts[6] /new: make the destination: permission denied (the destination is missing and its directory"
    assert bundle.run().error.startswith(want)


def test_device_that_the_host_has_not(bundle: Bundle) -> None:
    ordinary(bundle)
    bundle.config["linux"]["devices"] = [{"path": "/dev/odd", "type": "b", "major": 240, "minor": 9}]
    error = bundle.run().error
    assert error.startswith("linux.devices[0] /dev/odd: the host has no block device 240:9 in /dev")


def test_fifo(bundle: Bundle) -> None:
    ordinary(bundle)
    bundle.config["linux"]["devices"] = [{"path": "/run/pipe", "type": "p", "fileMode": 0o640, "uid": 7, "gid": 8}]
    assert bundle.run("stat -c '%F %a %u:%g' /run/pipe").ok().out == "fifo 640 7:8\n"


def test_second_start_with_the_devices_files_left_over(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    bundle.user()
    for _ in range(2):
        assert bundle.run("stat -c %t:%T /dev/null").ok().out == "1:3\n"
    assert (bundle.rootfs / "dev/null").is_file()


def test_link_where_a_device_is_to_be_bound(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    bundle.user()
    want = "default device /dev/null: a link is there, the host's device cannot be mounted on it"
    assert bundle.run().error == want


def test_id_mapped_as_the_container(bundle: Bundle, tmp_path: Path) -> None:
    """The source's user 0 is the container's user 0; prepared on the host's side."""
    ordinary(bundle)
    (tmp_path / "v").mkdir()
    (tmp_path / "v/file").touch()
    os.chown(tmp_path / "v/file", 5, 6)
    bundle.bind(tmp_path / "v", "/v", "rbind", "idmap")
    bundle.bind(tmp_path / "v", "/raw", "rbind")
    result = bundle.run("stat -c %u:%g /v/file /raw/file; touch /v/made", host=idmap.prepare).ok()
    assert result.out.split() == ["5:6", "65534:65534"]
    assert (tmp_path / "v/made").stat().st_uid == 0


def test_id_mapped_sources_are_slaves_of_the_hosts(bundle: Bundle, tmp_path: Path) -> None:
    ordinary(bundle)
    with lab.mounted(tmp_path / "s"):
        os.system(f"mount --make-shared '{tmp_path}/s'")
        bundle.bind(tmp_path / "s", "/v", "rbind", "ridmap")
        assert bundle.run(host=idmap.prepare).ok().mounts["/v"].propagation == {"master"}


def test_id_mapped_without_preparation(bundle: Bundle, tmp_path: Path) -> None:
    ordinary(bundle)
    (tmp_path / "v").mkdir()
    bundle.bind(tmp_path / "v", "/v", "rbind", "idmap")
    error = bundle.run().error
    assert error.startswith("mounts[6] /v: mount bind: idmap: ")
    assert "operation not permitted" in error


def test_without_a_mount_namespace(bundle: Bundle) -> None:
    bundle.namespaces("pid")
    bundle.user()
    want = "linux.namespaces: a user namespace may not mount in the host's mount namespace"
    assert bundle.run().error == f"{want} (add a mount namespace to linux.namespaces)"


def test_as_an_ordinary_user(bundle: Bundle, tmp_path: Path) -> None:
    """Rootless: everything is made by user 1000, who may map only himself and only with setgroups denied."""
    ordinary(bundle)
    user = 1000
    bundle.config["mounts"][2] = {**lab.PTS, "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666"]}
    mapping = [{"containerID": 0, "hostID": user, "size": 1}]
    bundle.config["linux"]["uidMappings"] = bundle.config["linux"]["gidMappings"] = mapping
    for path in [bundle.path, bundle.rootfs, *bundle.rootfs.rglob("*")]:
        os.lchown(path, user, user)
    for above in [bundle.path, *bundle.path.parents]:
        if str(above).startswith("/tmp/"):
            above.chmod(0o755)

    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
            # What execve(2) would do: else our own /proc/PID belongs to root.
            ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
            result = rootless(bundle)
            os.write(write, f"{result.status} {result.error} {result.out}".encode())
        except BaseException as problem:
            os.write(write, repr(problem).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as stream:
        text = stream.read()
    os.waitpid(pid, 0)
    assert text.startswith("0  "), text
    assert "/proc/keys" in text


def rootless(bundle: Bundle) -> lab.Result:
    write = Path.write_text

    def with_setgroups(self: Path, text: str) -> int:
        if self.name == "gid_map":
            write(self.parent / "setgroups", "deny")
        return write(self, text)

    Path.write_text = with_setgroups  # type: ignore[method-assign, assignment]
    return bundle.run()

"""oci-mount: root filesystems that attack. What is outside of the root must stay as it is."""

from __future__ import annotations

import ctypes
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

from ocimk.container.folder import Folder

pytestmark = needs_root


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    (tmp_path / "host").mkdir()
    (tmp_path / "host/file").write_text("of the host")
    mounts, files = lab.host_mounts(), lab.tree(tmp_path / "host")
    (tmp_path / "b").mkdir()
    yield Bundle(tmp_path / "b")
    assert lab.host_mounts() == mounts, "the host's mounts changed"
    assert lab.tree(tmp_path / "host") == files, "files of the host changed"


def replace(bundle: Bundle, name: str, target: str) -> None:
    (bundle.rootfs / name).rmdir()
    (bundle.rootfs / name).symlink_to(target)


@pytest.fixture
def outside(bundle: Bundle) -> str:
    """A way out for links: what a path with too many dots would lead to."""
    return "/.." * 20 + str(bundle.path.parent / "host")


def no_host_path(bundle: Bundle) -> None:
    """The host's directory must not have come to be inside the root either, but as a directory of the
    image."""
    inner = bundle.rootfs / str(bundle.path.parent / "host").lstrip("/")
    assert not (inner / "file").exists()


@pytest.mark.parametrize("link", ["/", "../..", "../../../../../../.."])
def test_a_link_to_the_root(bundle: Bundle, link: str) -> None:
    replace(bundle, "etc", link)
    name = f"ocimk-test-{os.getpid()}"
    bundle.bind(bundle.path.parent / "host", f"/etc/{name}")
    try:
        bundle.run(f"cat /{name}/file").ok()
        assert not os.path.exists(f"/{name}")
    finally:
        if os.path.exists(f"/{name}"):
            os.rmdir(f"/{name}")
    assert (bundle.rootfs / name).is_dir()


def test_a_link_out_of_the_root_is_taken_inside(bundle: Bundle, outside: str) -> None:
    replace(bundle, "etc", outside)
    bundle.mount("/etc/made", "tmpfs")
    bundle.run().ok()
    no_host_path(bundle)


def test_a_file_of_the_host_is_not_made_through_a_dangling_link(bundle: Bundle, outside: str) -> None:
    (bundle.rootfs / "etc/hosts").symlink_to(f"{outside}/new-file")
    bundle.bind(bundle.path.parent / "host/file", "/etc/hosts", "bind")
    assert bundle.run("cat /etc/hosts").ok().out == "of the host"


@pytest.mark.parametrize("name", ["proc", "sys"])
def test_proc_and_sys_must_be_directories(bundle: Bundle, name: str) -> None:
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867."""
    bundle.config["mounts"] = [lab.PROC if name == "proc" else lab.SYS, lab.DEV]
    (bundle.rootfs / "elsewhere").mkdir()
    replace(bundle, name, "/elsewhere")
    kind = "proc" if name == "proc" else "sysfs"
    want = f"mounts[0] /{name}: mount {kind}: must be mounted on a directory, not on a link or file"
    assert bundle.run().error == want


def test_proc_is_made_when_missing(bundle: Bundle) -> None:
    (bundle.rootfs / "proc").rmdir()
    assert bundle.run().ok().mounts["/proc"].type == "proc"


def test_a_filesystem_that_fakes_proc(bundle: Bundle) -> None:
    """CVE-2019-16884."""
    bundle.config["mounts"] = [lab.DEV, {"destination": "/proc", "type": "tmpfs", "source": "tmpfs"}]
    assert bundle.run().error == "mounts[1] /proc: cannot be mounted because it is not of type proc"


def test_a_bind_mount_that_fakes_proc(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.DEV]
    bundle.bind(bundle.path.parent / "host", "/proc")
    assert bundle.run().error == "mounts[1] /proc: cannot be mounted because it is not of type proc"


def test_proc_faked_by_way_of_a_link(bundle: Bundle) -> None:
    (bundle.rootfs / "innocent").symlink_to("proc")
    bundle.bind(bundle.path.parent / "host", "/innocent")
    assert bundle.run().error == "mounts[2] /innocent: cannot be mounted because it is not of type proc"


@pytest.mark.parametrize("place", ["/proc/self/attr", "/proc/1/attr/exec", "/proc/sys/net", "/proc/self", "/data/attr"])
def test_mounts_inside_proc(bundle: Bundle, place: str) -> None:
    (bundle.rootfs / "data").symlink_to("/proc/self")
    bundle.bind(bundle.path.parent / "host/file", place, "bind")
    error = bundle.run().error
    assert error.startswith(f"mounts[2] {place}: cannot be mounted because it is inside /proc"), error


@pytest.mark.parametrize("name", ["meminfo", "uptime", "cpuinfo", "sys/kernel/ns_last_pid"])
def test_the_files_that_lxcfs_gives_are_allowed(bundle: Bundle, name: str) -> None:
    if not os.path.exists(f"/proc/{name}"):
        pytest.skip(f"this kernel has no /proc/{name}")
    bundle.bind(bundle.path.parent / "host/file", f"/proc/{name}", "bind", "ro")
    assert bundle.run(f"cat /proc/{name}").ok().out == "of the host"


def test_magic_links_are_not_followed(bundle: Bundle) -> None:
    bundle.mount("/proc/self/root/x", "tmpfs")
    error = bundle.run().error
    assert error.startswith("mounts[2] /proc/self/root/x: make the destination: too many levels of symbolic links")


def test_working_directory_by_a_magic_link(bundle: Bundle) -> None:
    """CVE-2024-21626."""
    for number in range(3, 12):
        bundle.config["process"]["cwd"] = f"/proc/self/fd/{number}"
        error = bundle.run("pwd").error
        assert error.startswith(f"process.cwd /proc/self/fd/{number}: ")


@pytest.mark.parametrize("link", ["OUTSIDE", "../../host", "../../../../../../../../..OUTSIDE"])
def test_dev_that_is_a_link(bundle: Bundle, outside: str, link: str) -> None:
    """CVE-2026-41579: neither nodes nor links may be made where a link of the image leads on the host."""
    bundle.config["mounts"] = [lab.PROC]
    replace(bundle, "dev", link.replace("OUTSIDE", outside))
    bundle.config["linux"]["devices"] = [{"path": "/dev/more/fifo", "type": "p"}]
    bundle.run("test -c /dev/null && test -L /dev/fd && test -p /dev/more/fifo").ok()
    no_host_path(bundle)


def test_masks_do_not_use_the_containers_null(bundle: Bundle) -> None:
    """CVE-2025-31133: a /dev/null that is a link would be mounted, writable, over the masked file."""
    bundle.config["mounts"] = [lab.PROC]
    (bundle.rootfs / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
    (bundle.rootfs / "secret").write_text("x")
    bundle.config["linux"]["maskedPaths"] = ["/secret", "/proc/keys"]
    want = "default device /dev/null: a link is there instead of character device 1:3"
    assert bundle.run().error == want


def test_masks_are_of_the_hosts_null(bundle: Bundle) -> None:
    with lab.mounted(bundle.path / "dev"):
        (bundle.path / "dev/null").symlink_to("/proc/sys/kernel/core_pattern")
        bundle.config["mounts"] = [lab.PROC]
        bundle.bind(bundle.path / "dev", "/dev")
        (bundle.rootfs / "secret").write_text("x")
        bundle.config["linux"]["maskedPaths"] = ["/secret"]
        bundle.config["process"]["terminal"] = False
        result = bundle.run("cat /proc/self/mountinfo; stat -c %t:%T /secret").ok()
        assert result.mounts["/secret"].root == "/null"
        assert result.out.endswith("1:3\n")


def test_masked_path_that_is_a_link(bundle: Bundle, outside: str) -> None:
    (bundle.rootfs / "secret").symlink_to(f"{outside}/file")
    (bundle.rootfs / "hidden").write_text("hidden")
    (bundle.rootfs / "other").symlink_to("/hidden")
    bundle.config["linux"]["maskedPaths"] = ["/secret", "/other"]
    assert bundle.run("cat /hidden").ok().out == ""


def test_default_device_that_is_something_else(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    os.mknod(bundle.rootfs / "dev/zero", 0o600 | 0o020000, os.makedev(1, 8))
    want = "default device /dev/zero: a character device 1:8 is there instead of character device 1:5"
    assert bundle.run().error == want


def test_ptmx_of_the_image_is_replaced(bundle: Bundle, outside: str) -> None:
    bundle.config["mounts"] = [lab.PROC]
    (bundle.rootfs / "dev/ptmx").symlink_to(f"{outside}/file")
    assert bundle.run("readlink /dev/ptmx").ok().out == "pts/ptmx\n"


def test_links_of_dev_that_the_image_has_stay(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    (bundle.rootfs / "dev/stdin").symlink_to("/etc/own")
    out = bundle.run("readlink /dev/stdin; readlink /dev/stdout").ok().out
    assert out.split() == ["/etc/own", "/proc/self/fd/1"]


@pytest.mark.parametrize("kind", ["link", "directory"])
def test_console_is_not_followed(bundle: Bundle, outside: str, kind: str) -> None:
    """CVE-2025-52565."""
    bundle.config["mounts"] = [lab.PROC, lab.PTS]
    bundle.config["process"]["terminal"] = True
    (bundle.rootfs / "dev/pts").mkdir()
    if kind == "link":
        (bundle.rootfs / "dev/console").symlink_to(f"{outside}/file")
    else:
        (bundle.rootfs / "dev/console").mkdir()
    assert bundle.run().error == "process.terminal: mount /dev/console: a link or directory is there"


def test_ptmx_must_be_of_a_devpts(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    bundle.config["process"]["terminal"] = True
    (bundle.rootfs / "dev/pts").mkdir()
    os.mknod(bundle.rootfs / "dev/pts/ptmx", 0o666 | 0o020000, os.makedev(5, 2))
    assert bundle.run().error.startswith("process.terminal: open /dev/pts/ptmx: it is not the ptmx of a devpts")


def test_ptmx_must_not_only_look_like_one(bundle: Bundle) -> None:
    """With the number of the device and the inode, but on a tmpfs."""
    bundle.config["process"]["terminal"] = True
    with lab.mounted(bundle.path / "pts"):
        os.mknod(bundle.path / "pts/ptmx", 0o666 | 0o020000, os.makedev(5, 2))
        assert (bundle.path / "pts/ptmx").stat().st_ino == 2
        bundle.bind(bundle.path / "pts", "/dev/pts")
        assert "it is not the ptmx of a devpts" in bundle.run().error


def test_ptmx_must_not_be_a_link(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC, {**lab.PTS, "destination": "/other"}]
    bundle.config["process"]["terminal"] = True
    (bundle.rootfs / "dev/pts").mkdir()
    (bundle.rootfs / "dev/pts/ptmx").symlink_to("/other/ptmx")
    assert "it is not the ptmx of a devpts" in bundle.run().error


def test_names_that_end_early(bundle: Bundle) -> None:
    bundle.mount("/x\0/../../etc", "tmpfs")
    assert bundle.run().error == "mounts[2].destination: a NUL character is not allowed"
    bundle.config["mounts"][2] = {"destination": "/x", "type": "tmpfs\0", "source": "tmpfs"}
    assert bundle.run().error == "mounts[2].type: a NUL character is not allowed"
    bundle.config["mounts"][2] = {"destination": "/x", "type": "tmpfs", "options": ["size=1m\0"]}
    assert bundle.run().error == "mounts[2].options: a NUL character is not allowed"
    del bundle.config["mounts"][2]
    bundle.config["linux"]["maskedPaths"] = ["/etc\0/x"]
    assert "a NUL character is not allowed" in bundle.run().error


def swapper(directory: Path, stop: int) -> int:
    """A process that swaps directory/a (a directory) and directory/b (a link) as fast as it can."""
    pid = os.fork()
    if pid:
        return pid
    libc = ctypes.CDLL(None)
    one, two = str(directory / "a").encode(), str(directory / "b").encode()
    while time.monotonic() < stop:
        libc.renameat2(-100, one, -100, two, 2)
    os._exit(0)


@pytest.mark.parametrize("what", ["tmpfs", "file", "devices", "mask"])
def test_a_destination_swapped_for_a_link_all_the_while(bundle: Bundle, outside: str, what: str) -> None:
    """CVE-2021-30465, CVE-2024-45310: whatever comes of it happens inside the root."""
    volume = bundle.path / "volume"
    (volume / "a/deep").mkdir(parents=True)
    (volume / "b").symlink_to(outside)
    bundle.config["mounts"] = [lab.PROC]
    bundle.bind(volume, "/shared")
    if what == "tmpfs":
        bundle.mount("/shared/a/x/y", "tmpfs")
    elif what == "file":
        bundle.bind(bundle.path.parent / "host/file", "/shared/a/new/f", "bind")
    elif what == "devices":
        bundle.config["linux"]["devices"] = [{"path": "/shared/a/n", "type": "c", "major": 1, "minor": 3}]
    else:
        (volume / "a/deep/f").touch()
        bundle.config["linux"]["maskedPaths"] = ["/shared/a/deep/f", "/shared/a/file"]
    pid = swapper(volume, int(time.monotonic()) + 60)
    try:
        for _ in range(40):
            result = bundle.run("true")
            assert result.status == 0 or result.error
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    no_host_path(bundle)


def test_hostile_root_found_by_descriptor(bundle: Bundle) -> None:
    """The root's path is swapped after the root was mounted: what was opened is used, not what is there
    now."""

    def after(folder: Folder) -> None:
        os.rename(bundle.path, bundle.path.parent / "moved")
        bundle.path.symlink_to("host")

    try:
        bundle.run("test -x /bin/busybox", after=after).ok()
    finally:
        bundle.path.unlink()
        os.rename(bundle.path.parent / "moved", bundle.path)

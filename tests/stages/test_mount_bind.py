"""oci-mount: bind mounts."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

pytestmark = needs_root


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    before = lab.host_mounts()
    yield Bundle(tmp_path)
    assert lab.host_mounts() == before, "the host's mounts changed"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    place = tmp_path / "volume"
    place.mkdir()
    (place / "file").write_text("of the volume")
    return place


def test_directory(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume, "/new/place")
    assert bundle.run("cat /new/place/file; touch /new/place/made").ok().out == "of the volume"
    assert (volume / "made").exists()


def test_file_on_a_missing_destination(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume / "file", "/a/b/file", "bind", "ro")
    result = bundle.run("cat /a/b/file /proc/self/mountinfo; echo x > /a/b/file")
    assert result.out.startswith("of the volume")
    assert "ro" in result.mounts["/a/b/file"].flags
    assert "Read-only file system" in result.out
    made = bundle.rootfs / "a/b/file"
    assert made.read_text() == ""
    assert made.stat().st_mode & 0o7777 == 0o644


def test_file_on_a_file(bundle: Bundle, volume: Path) -> None:
    (bundle.rootfs / "etc/hosts").write_text("of the image")
    bundle.bind(volume / "file", "/etc/hosts", "bind")
    assert bundle.run("cat /etc/hosts").ok().out == "of the volume"
    assert (bundle.rootfs / "etc/hosts").read_text() == "of the image"


def test_socket_and_device(bundle: Bundle, volume: Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(volume / "s"))
    bundle.bind(volume / "s", "/run/s", "bind")
    bundle.bind("/dev/null", "/run/null", "bind")
    assert bundle.run("stat -c %F /run/s /run/null").ok().out.splitlines() == [
        "socket",
        "character special file",
    ]


def test_source_relative_to_the_bundle(bundle: Bundle, volume: Path) -> None:
    bundle.bind("volume", "/v")
    assert bundle.run("cat /v/file").ok().out == "of the volume"


def test_source_through_a_link_of_the_host(bundle: Bundle, volume: Path) -> None:
    (volume.parent / "link").symlink_to("volume")
    bundle.bind(volume.parent / "link", "/v")
    assert bundle.run("cat /v/file").ok().out == "of the volume"


def test_the_type_does_not_matter(bundle: Bundle, volume: Path) -> None:
    bundle.mount("/v", "proc", "bind", source=str(volume))
    assert bundle.run("cat /v/file").ok().out == "of the volume"


def test_rbind_takes_what_is_mounted_below(bundle: Bundle, volume: Path) -> None:
    with lab.mounted(volume / "below", options="nosuid"):
        (volume / "below/inner").touch()
        bundle.bind(volume, "/deep", "rbind")
        bundle.bind(volume, "/flat", "bind")
        assert bundle.run("ls /deep/below /flat/below").ok().out.split() == [
            "/deep/below:",
            "inner",
            "/flat/below:",
        ]


def test_missing_source(bundle: Bundle) -> None:
    bundle.bind("/no/such/source", "/x")
    assert bundle.run().error == "mounts[2].source /no/such/source: no such file or directory"
    assert not (bundle.rootfs / "x").exists()


def test_missing_source_with_nofail(bundle: Bundle) -> None:
    bundle.bind("/no/such/source", "/x", "rbind", "nofail")
    result = bundle.run().ok()
    assert "/x" not in result.mounts
    assert "mounts[2].source /no/such/source: no such file or directory, left out (nofail)" in result.out


def test_directory_on_a_file(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume, "/bin/busybox")
    want = f"mounts[2] /bin/busybox: mount bind from {volume}: not a directory"
    assert bundle.run().error == f"{want} (the source is a directory and the destination is a file)"


def test_file_on_a_directory(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume / "file", "/etc")
    assert bundle.run().error.endswith("(the source is a file and the destination is a directory)")


def test_options_of_a_filesystem_are_refused(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume, "/v", "bind", "size=1m")
    assert bundle.run().error.startswith("mounts[2] /v: options: unknown for a bind mount: size=1m (")


@pytest.mark.parametrize(
    ("options", "want"),
    [
        ([], {"rw", "nosuid", "nodev", "noexec", "noatime"}),
        (["ro"], {"ro", "noatime"}),
        (["rw"], {"rw", "noatime"}),
        (["nodev", "noexec"], {"rw", "nodev", "noexec", "noatime"}),
        (["suid"], {"rw", "noatime"}),
        (["relatime"], {"rw", "relatime"}),
        (["strictatime"], {"rw"}),
        (["atime"], {"rw", "relatime"}),
        (["nodiratime"], {"rw", "nodiratime", "relatime"}),
        (["diratime"], {"rw", "noatime"}),
        (["norelatime"], {"rw", "noatime"}),
        (["nosymfollow"], {"rw", "nosymfollow", "noatime"}),
        (["ro", "rw"], {"rw", "noatime"}),
        (["rw", "ro"], {"ro", "noatime"}),
        (["defaults"], {"rw", "nosuid", "nodev", "noexec", "noatime"}),
        (["sync", "dirsync", "lazytime"], {"rw", "noatime"}),
        (["rro"], {"ro", "nosuid", "nodev", "noexec", "noatime"}),
    ],
)
def test_flags(bundle: Bundle, tmp_path: Path, options: list[str], want: set[str]) -> None:
    """With any flag named the others are as without, as with ``mount --bind -o``; with none all stay the
    source's."""
    with lab.mounted(tmp_path / "source", options="nosuid,nodev,noexec,noatime"):
        bundle.bind(tmp_path / "source", "/v", "bind", *options)
        assert bundle.run().ok().mounts["/v"].flags == want


@pytest.mark.parametrize(
    ("option", "top", "below"),
    [
        ("rro", {"ro", "relatime"}, {"ro", "nosuid", "relatime"}),
        ("ro", {"ro", "relatime"}, {"rw", "nosuid", "relatime"}),
        ("rsuid", {"rw", "relatime"}, {"rw", "relatime"}),
        ("rnodev", {"rw", "nodev", "relatime"}, {"rw", "nosuid", "nodev", "relatime"}),
        ("rnoexec", {"rw", "noexec", "relatime"}, {"rw", "nosuid", "noexec", "relatime"}),
        ("rnoatime", {"rw", "noatime"}, {"rw", "nosuid", "noatime"}),
        ("rstrictatime", {"rw"}, {"rw", "nosuid"}),
        ("rrelatime", {"rw", "relatime"}, {"rw", "nosuid", "relatime"}),
        ("rnodiratime", {"rw", "nodiratime", "relatime"}, {"rw", "nosuid", "nodiratime", "relatime"}),
        ("rnosymfollow", {"rw", "nosymfollow", "relatime"}, {"rw", "nosuid", "nosymfollow", "relatime"}),
    ],
)
def test_flags_of_the_whole_tree(bundle: Bundle, tmp_path: Path, option: str, top: set[str], below: set[str]) -> None:
    with lab.mounted(tmp_path / "s"), lab.mounted(tmp_path / "s/below", options="nosuid"):
        bundle.bind(tmp_path / "s", "/v", "rbind", option)
        mounts = bundle.run().ok().mounts
        assert mounts["/v"].flags == top
        assert mounts["/v/below"].flags == below


def test_access_time_of_the_whole_tree_set_back(bundle: Bundle, tmp_path: Path) -> None:
    with lab.mounted(tmp_path / "s", options="noatime"), lab.mounted(tmp_path / "s/below", options="noatime"):
        bundle.bind(tmp_path / "s", "/v", "rbind", "ratime")
        mounts = bundle.run().ok().mounts
        assert mounts["/v"].flags == mounts["/v/below"].flags == {"rw", "relatime"}


def test_the_source_keeps_its_flags(bundle: Bundle, tmp_path: Path) -> None:
    def flags() -> str:
        return subprocess.check_output(["findmnt", "-n", "-o", "OPTIONS", str(tmp_path / "s")], text=True)

    with lab.mounted(tmp_path / "s"):
        before = flags()
        bundle.bind(tmp_path / "s", "/v", "bind", "ro", "nosuid", "nodev", "rnoexec")
        bundle.run().ok()
        assert flags() == before


@pytest.mark.parametrize(
    ("option", "tags"),
    [
        ("", {"master"}),
        ("private", set()),
        ("rprivate", set()),
        ("slave", {"master"}),
        ("rslave", {"master"}),
        ("shared", {"master", "shared"}),
        ("rshared", {"master", "shared"}),
        ("unbindable", {"unbindable"}),
    ],
)
def test_propagation(bundle: Bundle, tmp_path: Path, option: str, tags: set[str]) -> None:
    with lab.mounted(tmp_path / "s"), lab.mounted(tmp_path / "s/below"):
        os.system(f"mount --make-rshared '{tmp_path}/s'")
        bundle.bind(tmp_path / "s", "/v", "rbind", *([option] if option else []))
        mounts = bundle.run().ok().mounts
        assert mounts["/v"].propagation == tags
        assert mounts["/v/below"].propagation == (tags if option.startswith("r") else {"master"})


def test_mounts_of_the_host_reach_a_slave(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "s"
    with lab.mounted(source):
        os.system(f"mount --make-shared '{source}'")
        (source / "late").mkdir()
        bundle.bind(source, "/v", "rbind", "rslave")
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        bundle.bind(fifo, "/fifo", "bind")
        pid = os.fork()
        if pid == 0:
            with open(fifo, "w") as stream:
                os.system(f"mount -t tmpfs tmpfs '{source}/late'; touch '{source}/late/from-host'")
                stream.write("go\n")
            os._exit(0)
        try:
            assert bundle.run("read x < /fifo; ls /v/late").ok().out == "from-host\n"
        finally:
            os.waitpid(pid, 0)
            os.system(f"umount -l '{source}/late'")


def test_mounts_of_the_container_reach_the_host_when_both_are_shared(bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "s"
    with lab.mounted(source):
        os.system(f"mount --make-shared '{source}'")
        (source / "sub").mkdir()
        bundle.config["linux"]["rootfsPropagation"] = "rshared"
        bundle.bind(source, "/v", "rbind", "rshared")
        bundle.run("mount -t tmpfs tmpfs /v/sub && touch /v/sub/from-container").ok()
        assert (source / "sub/from-container").exists()
        os.system(f"umount '{source}/sub'")


def test_remount_changes_the_flags(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume, "/v", "bind")
    bundle.mount("/v", "none", "bind", "remount", "ro", "nodev")
    assert bundle.run().ok().mounts["/v"].flags == {"ro", "nodev", "relatime"}


def test_bind_of_dev_leaves_it_alone(bundle: Bundle, tmp_path: Path) -> None:
    with lab.mounted(tmp_path / "dev"):
        (tmp_path / "dev/own").touch()
        bundle.config["mounts"] = [lab.PROC]
        bundle.bind(tmp_path / "dev", "/dev/")
        assert bundle.run("ls /dev").ok().out == "own\n"


def test_bind_of_proc(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.DEV]
    bundle.bind("/proc", "/proc", "rbind")
    assert bundle.run().ok().mounts["/proc"].type == "proc"


def test_bind_of_the_hosts_root_is_without_our_own_mounts(bundle: Bundle) -> None:
    bundle.bind("/", "/host", "rbind", "ro")
    mounts = bundle.run().ok().mounts
    assert not [point for point in mounts if point.startswith(f"/host{bundle.rootfs}")]


def test_many_binds(bundle: Bundle, volume: Path) -> None:
    for number in range(150):
        bundle.bind(volume, f"/many/{number}")
    assert len([p for p in bundle.run().ok().mounts if p.startswith("/many/")]) == 150


def test_strings_longer_than_a_netlink_message(bundle: Bundle, volume: Path) -> None:
    # CVE-2021-43784: 64 KiB of configuration must be told whole or not at all.
    for number in range(40):
        name = f"{'n' * 200}/" * 9 + f"{number}"
        bundle.bind(volume, f"/long/{name}")
    assert len([p for p in bundle.run().ok().mounts if p.startswith("/long/")]) == 40


def test_id_mapped(bundle: Bundle, volume: Path) -> None:
    os.chown(volume / "file", 1000, 2000)
    maps = {
        "uidMappings": [{"containerID": 1000, "hostID": 5000, "size": 10}],
        "gidMappings": [{"containerID": 2000, "hostID": 6000, "size": 10}],
    }
    bundle.bind(volume, "/v", "rbind", "idmap", **maps)
    bundle.bind(volume, "/w", "rbind", **maps)
    assert bundle.run("stat -c %u:%g /v/file /w/file").ok().out.split() == ["5000:6000"] * 2


@pytest.mark.parametrize(("option", "below"), [("idmap", "1000"), ("ridmap", "5000")])
def test_id_mapped_tree(bundle: Bundle, tmp_path: Path, option: str, below: str) -> None:
    rows = [{"containerID": 1000, "hostID": 5000, "size": 10}]
    with lab.mounted(tmp_path / "s"), lab.mounted(tmp_path / "s/below"):
        for name in ("s/file", "s/below/file"):
            (tmp_path / name).touch()
            os.chown(tmp_path / name, 1000, 1000)
        bundle.bind(tmp_path / "s", "/v", "rbind", option, uidMappings=rows, gidMappings=rows)
        out = bundle.run("stat -c %u /v/file /v/below/file").ok().out.split()
        assert out == ["5000", below]


def test_id_mapping_without_a_mapping(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume, "/v", "bind", "idmap")
    want = "mounts[2] /v: mount bind: idmap: there is no mapping"
    assert bundle.run().error == f"{want} (give uidMappings and gidMappings, or use a user namespace)"


def test_half_a_mapping(bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume, "/v", "bind", uidMappings=[{"containerID": 0, "hostID": 1, "size": 1}])
    assert bundle.run().error == "mounts[2] /v: gidMappings: required where the other mapping is given"


def test_id_mapping_of_a_filesystem_that_cannot(bundle: Bundle) -> None:
    rows = [{"containerID": 0, "hostID": 5000, "size": 10}]
    bundle.bind("/sys", "/v", "bind", "idmap", uidMappings=rows, gidMappings=rows)
    error = bundle.run().error
    want = "mounts[2] /v: mount bind: idmap: invalid argument (the filesystem of /sys does not support"
    assert error.startswith(want)

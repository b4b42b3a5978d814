"""oci-mount: the root filesystem of an ordinary container."""

from __future__ import annotations

import os
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

pytestmark = needs_root


@pytest.fixture
def bundle(tmp_path: Path) -> Bundle:
    before = lab.host_mounts()
    yield Bundle(tmp_path)
    assert lab.host_mounts() == before, "the host's mounts changed"


def ordinary(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC, lab.DEV, lab.PTS, lab.SHM, lab.MQUEUE, lab.SYS]
    bundle.config["linux"]["maskedPaths"] = lab.MASKED
    bundle.config["linux"]["readonlyPaths"] = lab.READONLY


def test_the_default_mounts(bundle: Bundle) -> None:
    ordinary(bundle)
    mounts = bundle.run().ok().mounts
    assert mounts["/"].flags == {"rw", "relatime"}
    assert mounts["/"].propagation == set()
    assert mounts["/proc"].type == "proc"
    assert mounts["/dev"].flags == {"rw", "nosuid"}
    assert {"size=65536k", "mode=755"} <= mounts["/dev"].superblock
    assert mounts["/dev/pts"].type == "devpts"
    assert {"gid=5", "mode=620", "ptmxmode=666"} <= mounts["/dev/pts"].superblock
    assert mounts["/dev/shm"].source == "shm"
    assert mounts["/dev/shm"].flags == {"rw", "nosuid", "nodev", "noexec", "relatime"}
    assert mounts["/dev/mqueue"].type == "mqueue"
    assert mounts["/sys"].flags == {"ro", "nosuid", "nodev", "noexec", "relatime"}


def test_nothing_of_the_host_is_left(bundle: Bundle) -> None:
    ordinary(bundle)
    result = bundle.run("cat /proc/self/mountinfo; cat /proc/1/comm; ls /").ok()
    assert set(result.mounts) <= {
        "/", "/proc", "/dev", "/dev/pts", "/dev/shm", "/dev/mqueue", "/sys",
        "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger",
        "/proc/acpi", "/proc/keys", "/proc/timer_list", "/sys/firmware",
    }  # fmt: skip
    assert result.out.split()[-6:] == ["bin", "dev", "etc", "proc", "sys", "tmp"]


def test_readonly_paths(bundle: Bundle) -> None:
    ordinary(bundle)
    result = bundle.run(
        "cat /proc/self/mountinfo; echo 1 > /proc/sys/kernel/msgmax; echo 1 > /proc/irq/default_smp_affinity"
    )
    for path in ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys"):
        assert "ro" in result.mounts[path].flags
    assert result.out.count("Read-only file system") == 2


def test_readonly_path_keeps_the_other_flags(bundle: Bundle) -> None:
    bundle.mount("/data", "tmpfs", "nosuid", "nodev", "noexec", "noatime")
    bundle.config["linux"]["readonlyPaths"] = ["/data"]
    mounts = bundle.run().ok().mounts
    assert mounts["/data"].flags == {"ro", "nosuid", "nodev", "noexec", "noatime"}


def test_readonly_path_leaves_mounts_below_alone(bundle: Bundle) -> None:
    bundle.mount("/data", "tmpfs")
    bundle.mount("/data/below", "tmpfs")
    bundle.config["linux"]["readonlyPaths"] = ["/data"]
    bundle.run("touch /data/below/x && ! touch /data/y").ok()


def test_masked_paths(bundle: Bundle) -> None:
    (bundle.rootfs / "etc/secret").write_text("secret")
    (bundle.rootfs / "private").mkdir()
    (bundle.rootfs / "private/key").write_text("key")
    ordinary(bundle)
    more = ["/etc/secret", "/private", "/private/", "/etc/secret/x"]
    bundle.config["linux"]["maskedPaths"] = [*lab.MASKED, *more]
    result = bundle.run(
        "cat /proc/self/mountinfo; cat /proc/keys /etc/secret; ls /private /proc/acpi; touch /private/x"
    )
    mounts = result.mounts
    assert mounts["/proc/keys"].root == "/null"
    assert mounts["/etc/secret"].root == "/null"
    assert mounts["/private"].type == "tmpfs"
    assert "ro" in mounts["/private"].flags
    assert "nr_inodes=1" in mounts["/private"].superblock
    assert mounts["/private"].device == mounts["/proc/acpi"].device, "one empty filesystem for all"
    assert "secret" not in result.out.replace("/etc/secret", "")
    assert "touch: /private/x: Read-only file system" in result.out


def test_paths_are_masked_once(bundle: Bundle) -> None:
    bundle.config["linux"]["maskedPaths"] = ["/etc", "/etc/", "//etc"]
    out = bundle.run().ok().out
    assert sum(line.split()[4] == "/etc" for line in out.splitlines()) == 1


def test_the_root_cannot_be_masked(bundle: Bundle) -> None:
    bundle.config["linux"]["maskedPaths"] = ["/.."]
    assert bundle.run().error == "linux.maskedPaths[0] /..: the root cannot be masked"


def test_readonly_root(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.config["process"]["cwd"] = "/not/there/yet"
    result = bundle.run("cat /proc/self/mountinfo; touch /x; touch /dev/x && cd /not/there/yet && echo there")
    assert result.mounts["/"].flags == {"ro", "relatime"}
    assert "touch: /x: Read-only file system" in result.out
    assert result.out.endswith("there\n")
    assert (bundle.rootfs / "not/there/yet").stat().st_mode & 0o7777 == 0o755


def test_readonly_root_by_path(bundle: Bundle) -> None:
    bundle.config["linux"]["readonlyPaths"] = ["/"]
    assert "ro" in bundle.run().ok().mounts["/"].flags


def test_with_hooks_the_root_stays_writable_until_it_is_entered(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True
    bundle.config["hooks"] = {"createContainer": [{"path": "/bin/true"}]}
    bundle.mount("/scratch", "tmpfs", "ro")

    def hook(folder: object) -> None:
        (bundle.rootfs / "made-by-hook").touch()
        (bundle.rootfs / "scratch/by-hook").touch()

    result = bundle.run("cat /proc/self/mountinfo; ls /made-by-hook /scratch", after=hook).ok()
    assert "ro" in result.mounts["/"].flags
    assert "ro" in result.mounts["/scratch"].flags
    assert "by-hook" in result.out


def test_without_hooks_the_root_is_readonly_at_once(bundle: Bundle) -> None:
    bundle.config["root"]["readonly"] = True

    def late(folder: object) -> None:
        with pytest.raises(OSError, match="Read-only"):
            (bundle.rootfs / "x").touch()

    bundle.run(after=late).ok()


def test_working_directory_is_found_through_links(bundle: Bundle) -> None:
    (bundle.rootfs / "work").symlink_to("/srv/deep")
    bundle.config["process"]["cwd"] = "/work/here"
    bundle.run("test -d /srv/deep/here").ok()


def test_working_directory_on_a_file_is_an_error(bundle: Bundle) -> None:
    bundle.config["process"]["cwd"] = "/bin/busybox"
    assert bundle.run().error == "process.cwd /bin/busybox: not a directory"


def test_tmpfs_keeps_the_mode_of_the_directory(bundle: Bundle) -> None:
    (bundle.rootfs / "run").mkdir()
    (bundle.rootfs / "run").chmod(0o1770)
    bundle.mount("/run", "tmpfs", "nosuid")
    bundle.mount("/tmp", "tmpfs", "mode=0711", "size=1m")
    bundle.mount("/fresh", "tmpfs")
    out = bundle.run("stat -c %a /run /tmp /fresh").ok().out
    assert out.split() == ["1770", "711", "1777"]


def test_readonly_tmpfs(bundle: Bundle) -> None:
    bundle.mount("/empty", "tmpfs", "ro", "size=1m")
    bundle.mount("/empty/inner", "tmpfs")
    result = bundle.run("cat /proc/self/mountinfo; touch /empty/inner/x && touch /empty/x")
    assert "ro" in result.mounts["/empty"].flags
    assert "rw" in result.mounts["/empty"].superblock, "only the mount is read-only, as with runc"
    assert result.out.endswith("touch: /empty/x: Read-only file system\n")


def test_readonly_dev_is_filled_first(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC, {**lab.DEV, "options": ["ro", "mode=755"]}]
    result = bundle.run("cat /proc/self/mountinfo; ls -l /dev/null /dev/fd; touch /dev/x")
    assert "ro" in result.mounts["/dev"].flags
    assert "1,   3" in result.out


@pytest.mark.parametrize(
    ("option", "flag"),
    [
        ("ro", "ro"),
        ("nosuid", "nosuid"),
        ("nodev", "nodev"),
        ("noexec", "noexec"),
        ("noatime", "noatime"),
        ("nodiratime", "nodiratime"),
        ("nosymfollow", "nosymfollow"),
        ("relatime", "relatime"),
        ("rnosuid", "nosuid"),
    ],
)
def test_flags_of_a_filesystem(bundle: Bundle, option: str, flag: str) -> None:
    bundle.mount("/x", "ramfs", option)
    assert flag in bundle.run().ok().mounts["/x"].flags


def test_strictatime_means_no_relatime(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "strictatime")
    assert bundle.run().ok().mounts["/x"].flags == {"rw"}


@pytest.mark.parametrize("option", ["sync", "dirsync", "lazytime", "mand"])
def test_flags_of_the_superblock(bundle: Bundle, option: str) -> None:
    bundle.mount("/x", "ramfs", option)
    assert option in bundle.run().ok().mounts["/x"].superblock | {"mand"}


def test_iversion_goes_the_old_way(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "iversion", "size=1m", "mode=700")
    mounts = bundle.run().ok().mounts
    assert {"size=1024k", "mode=700"} <= mounts["/x"].superblock


@pytest.mark.parametrize("words", [["x-systemd.automount", "_netdev", "noauto", "nofail", "comment=a"], ["defaults"]])
def test_words_of_fstab_mean_nothing(bundle: Bundle, words: list[str]) -> None:
    bundle.mount("/x", "tmpfs", *words)
    assert bundle.run().ok().mounts["/x"].flags == {"rw", "relatime"}


def test_user_means_what_mount_says(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "user", "exec")
    assert bundle.run().ok().mounts["/x"].flags == {"rw", "nosuid", "nodev", "relatime"}


@pytest.mark.parametrize(
    ("option", "tag"),
    [
        ("shared", "shared"),
        ("rshared", "shared"),
        ("private", ""),
        ("unbindable", "unbindable"),
        ("rslave", ""),
    ],
)
def test_propagation_of_a_filesystem(bundle: Bundle, option: str, tag: str) -> None:
    bundle.mount("/x", "tmpfs", option)
    assert bundle.run().ok().mounts["/x"].propagation == ({tag} if tag else set())


def test_propagation_options_in_order(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "shared", "slave")
    # A shared mount without peers that becomes a slave has no master: it is private.
    assert bundle.run().ok().mounts["/x"].propagation == set()


def test_mounts_below_mounts_in_order(bundle: Bundle) -> None:
    bundle.mount("/a", "tmpfs")
    bundle.mount("/a/b/c", "tmpfs", "mode=700")
    bundle.mount("/a/b", "tmpfs")
    out = bundle.run("ls -A /a /a/b").ok().out
    assert out.split() == ["/a:", "b", "/a/b:"]


def test_relative_destination(bundle: Bundle) -> None:
    bundle.mount("srv/../data", "tmpfs")
    assert "/data" in bundle.run().ok().mounts


def test_destination_that_leaves_the_root_stays_in_it(bundle: Bundle) -> None:
    bundle.mount("/../../../data", "tmpfs")
    assert "/data" in bundle.run().ok().mounts


def test_missing_destinations_are_made(bundle: Bundle) -> None:
    os.umask(0o077)
    try:
        bundle.mount("/one/two/three", "tmpfs")
        bundle.run().ok()
    finally:
        os.umask(0o022)
    for name in ("one", "one/two", "one/two/three"):
        assert (bundle.rootfs / name).stat().st_mode & 0o7777 == 0o755


def test_the_callers_umask_comes_back(bundle: Bundle) -> None:
    os.umask(0o027)
    try:
        assert bundle.run("umask").ok().out == "0027\n"
    finally:
        os.umask(0o022)


def test_overlay(bundle: Bundle, tmp_path: Path) -> None:
    for name in ("lower1", "lower2", "upper", "work"):
        (tmp_path / name).mkdir()
    (tmp_path / "lower1/one").touch()
    (tmp_path / "lower2/two").touch()
    data = (
        f"lowerdir={tmp_path}/lower1:{tmp_path}/lower2",
        f"upperdir={tmp_path}/upper",
        f"workdir={tmp_path}/work",
    )
    with lab.mounted(tmp_path / "memory"):
        # upperdir of an overlay must not be an overlay itself, whatever pytest's folder lies on
        for name in ("upper", "work"):
            (tmp_path / "memory" / name).mkdir()
        data = (data[0], *(word.replace(f"{tmp_path}/", f"{tmp_path}/memory/") for word in data[1:]))
        bundle.mount("/o", "overlay", *data)
        assert bundle.run("ls /o; touch /o/three").ok().out.split() == ["one", "two"]
        assert (tmp_path / "memory/upper/three").exists()


def test_overlay_with_more_layers_than_fsconfig_takes(bundle: Bundle, tmp_path: Path) -> None:
    layers = [tmp_path / f"layer-with-a-long-name-{number:03d}" for number in range(8)]
    for number, layer in enumerate(layers):
        layer.mkdir()
        (layer / f"f{number}").touch()
    lower = "lowerdir=" + ":".join(map(str, layers))
    assert len(lower) > 300
    bundle.mount("/o", "overlay", lower)
    assert bundle.run("ls /o").ok().out.split() == [f"f{number}" for number in range(8)]


def test_remount_of_a_filesystem(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "size=1m")
    bundle.mount("/x", "tmpfs", "remount", "size=2m", "nosuid")
    mounts = bundle.run().ok().mounts
    assert "size=2048k" in mounts["/x"].superblock
    assert "nosuid" in mounts["/x"].flags


def test_remount_of_nothing(bundle: Bundle) -> None:
    bundle.mount("/bin", "tmpfs", "remount", "ro")
    error = bundle.run().error
    assert error == "mounts[2] /bin: remount: invalid argument (nothing is mounted at the destination)"


def test_tmpcopyup(bundle: Bundle) -> None:
    etc = bundle.rootfs / "etc"
    (etc / "conf").write_text("hello")
    os.chown(etc / "conf", 12, 34)
    (etc / "conf").chmod(0o4750)
    os.utime(etc / "conf", (1000, 2000))
    (etc / "link").symlink_to("/etc/conf")
    (etc / "deep/er").mkdir(parents=True)
    (etc / "deep").chmod(0o2711)
    (etc / "deep/er/leaf").write_bytes(b"x" * 300000)
    os.mkfifo(etc / "pipe")
    os.setxattr(etc / "conf", "trusted.test", b"value")
    etc.chmod(0o751)
    os.chown(etc, 56, 78)
    bundle.mount("/etc", "tmpfs", "tmpcopyup", "ro", "size=10m")
    script = (
        "stat -c '%n %a %u:%g %s %F' /etc /etc/conf /etc/deep /etc/deep/er/leaf /etc/pipe; stat -c %Y /etc/conf;"
        " readlink /etc/link; cat /etc/conf /proc/self/mountinfo; touch /etc/x"
    )
    result = bundle.run(script)
    assert result.error == ""
    lines = result.out.splitlines()
    assert lines[0].startswith("/etc 751 56:78 ")
    assert lines[1] == "/etc/conf 4750 12:34 5 regular file"
    assert lines[2].startswith("/etc/deep 2711 0:0 ")
    assert lines[3] == "/etc/deep/er/leaf 644 0:0 300000 regular file"
    assert lines[4].endswith("fifo")
    assert lines[5:7] == ["2000", "/etc/conf"]
    assert result.mounts["/etc"].type == "tmpfs"
    assert lines[-1] == "touch: /etc/x: Read-only file system"


def test_unknown_option_is_the_filesystems_business(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "nosuid", "nonsense=1")
    error = bundle.run().error
    assert error.startswith("mounts[2] /x: mount tmpfs: invalid argument: ")
    assert "nonsense" in error


def test_bad_value_is_told_in_the_kernels_words(bundle: Bundle) -> None:
    bundle.mount("/x", "tmpfs", "size=much")
    assert bundle.run().error == "mounts[2] /x: mount tmpfs: invalid argument: tmpfs: Bad value for 'size'"


def test_unknown_filesystem(bundle: Bundle) -> None:
    bundle.mount("/x", "nosuchfs")
    hint = "the kernel has no filesystem type nosuchfs, or its module is not loaded"
    assert bundle.run().error == f"mounts[2] /x: mount nosuchfs: no such device ({hint})"


def test_type_bind_without_the_option(bundle: Bundle) -> None:
    bundle.config["mounts"].append({"destination": "/x", "type": "bind", "source": "/etc"})
    want = "mounts[2] /x: type bind: not a filesystem (a bind mount needs the option bind or rbind)"
    assert bundle.run().error == want


def test_filesystem_on_a_file(bundle: Bundle) -> None:
    bundle.mount("/bin/busybox", "tmpfs")
    assert bundle.run().error == "mounts[2] /bin/busybox: mount tmpfs: not a directory (the destination is a file)"


def test_mount_on_the_root(bundle: Bundle) -> None:
    bundle.mount("/..", "tmpfs")
    assert "cannot mount on top of the container's root" in bundle.run().error


def test_missing_root(bundle: Bundle) -> None:
    bundle.config["root"]["path"] = "elsewhere"
    assert bundle.run().error == f"root.path {bundle.path}/elsewhere: no such file or directory"


def test_root_that_is_a_file(bundle: Bundle) -> None:
    bundle.config["root"]["path"] = "rootfs/bin/busybox"
    assert bundle.run().error.endswith("rootfs/bin/busybox: not a directory")


def test_what_is_mounted_in_the_root_comes_along(bundle: Bundle) -> None:
    with lab.mounted(bundle.rootfs / "volume"):
        (bundle.rootfs / "volume/file").touch()
        assert bundle.run("cat /proc/self/mountinfo; test -e /volume/file").ok().mounts["/volume"].type == "tmpfs"


def test_root_that_is_a_mount_itself(bundle: Bundle, tmp_path: Path) -> None:
    with lab.mounted(tmp_path / "layers"):
        upper, work, merged = (tmp_path / "layers" / name for name in ("upper", "work", "merged"))
        for directory in (upper, work, merged):
            directory.mkdir()
        options = f"lowerdir={bundle.rootfs},upperdir={upper},workdir={work}"
        with lab.mounted(merged, "overlay", options):
            bundle.config["root"]["path"] = str(merged)
            result = bundle.run("cat /proc/self/mountinfo; touch /made").ok()
            assert result.mounts["/"].type == "overlay"
            assert (upper / "made").exists()


def test_hostile_mount_label(bundle: Bundle) -> None:
    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("SELinux is on")
    bundle.config["linux"]["mountLabel"] = "system_u:object_r:container_file_t:s0"
    want = "linux.mountLabel: SELinux is not enabled on this host (remove linux.mountLabel)"
    assert bundle.run().error == want


def test_entering_without_pivot_root(bundle: Bundle) -> None:
    ordinary(bundle)
    result = bundle.run("cat /proc/self/mountinfo; ls /", no_pivot=True).ok()
    assert result.mounts["/proc"].type == "proc"
    assert result.out.split()[-6:] == ["bin", "dev", "etc", "proc", "sys", "tmp"]


@pytest.mark.parametrize("no_pivot", [False, True])
def test_a_masked_proc_cannot_be_mounted_anew(bundle: Bundle, no_pivot: bool) -> None:
    # The kernel allows a new proc in a user namespace when a full one is visible: the host's must be gone.
    ordinary(bundle)
    script = "/bin/busybox unshare -U -r -m -p -f /bin/busybox mount -t proc proc /tmp"
    result = bundle.run(script, no_pivot=no_pivot)
    assert not result.error
    assert "permission denied" in result.out or "Operation not permitted" in result.out
    assert result.status != 0


def test_private_without_pivot_root_is_refused(bundle: Bundle) -> None:
    bundle.config["linux"]["rootfsPropagation"] = "rprivate"
    assert "not safe without pivot_root" in bundle.run(no_pivot=True).error


@pytest.mark.parametrize(
    ("wanted", "tags"),
    [
        ("", set()),
        ("private", set()),
        ("rprivate", set()),
        ("shared", {"shared"}),
        ("rshared", {"shared"}),
        ("unbindable", {"unbindable"}),
        ("runbindable", {"unbindable"}),
    ],
)
def test_root_propagation(bundle: Bundle, wanted: str, tags: set[str]) -> None:
    if wanted:
        bundle.config["linux"]["rootfsPropagation"] = wanted
    bundle.mount("/x", "tmpfs")
    mounts = bundle.run().ok().mounts
    assert mounts["/"].propagation == tags
    assert mounts["/x"].propagation == (tags if wanted.startswith("r") and tags else set())


@pytest.mark.parametrize("wanted", ["", "slave", "rslave", "shared", "rshared", "private", "rprivate"])
def test_what_flows_between_host_and_root(bundle: Bundle, tmp_path: Path, wanted: str) -> None:
    """On a shared host mount: the container's mounts never reach the host; the host's reach it when it is
    a slave."""
    if wanted:
        bundle.config["linux"]["rootfsPropagation"] = wanted
    bundle.config["root"]["path"] = str(tmp_path / "host/rootfs")
    with lab.mounted(tmp_path / "host"), lab.mounted(tmp_path / "peer"):
        os.system(f"mount --make-shared '{tmp_path}/peer'; mkdir '{tmp_path}/peer/inner'")
        os.system(f"mount -t tmpfs tmpfs '{tmp_path}/peer/inner'")
        os.system(f"mount --make-shared '{tmp_path}/host' && cp -a '{bundle.rootfs}' '{tmp_path}/host/'")
        (tmp_path / "host/rootfs/late").mkdir()
        bundle.mount("/made", "tmpfs")

        def after(folder: object) -> None:
            seen = Path("/proc/1/mountinfo").read_text() if os.getpid() != 1 else ""
            assert f"{tmp_path}/host/rootfs/made" not in seen

        before = lab.host_mounts()
        result = bundle.run(after=after).ok()
        assert lab.host_mounts() == before, "what the container took off was taken off the host too"
        assert ("master" in result.mounts["/"].propagation) == (wanted in ("slave", "rslave"))


def test_unknown_root_propagation(bundle: Bundle) -> None:
    bundle.config["linux"]["rootfsPropagation"] = "sometimes"
    assert bundle.run().error.startswith("linux.rootfsPropagation: 'sometimes' is none of")


def test_streams_of_the_host_become_the_containers(bundle: Bundle) -> None:
    null = os.open("/dev/null", os.O_RDWR)
    try:
        out = bundle.run("stat -L -c %d /dev/fd/0 /dev/null", stdin=null).ok().out.split()
    finally:
        os.close(null)
    assert out[0] == out[1], "standard input is still the host's /dev/null"


def test_no_descriptor_is_left_but_the_root(bundle: Bundle) -> None:
    ordinary(bundle)

    def after(folder: lab.Folder) -> None:
        assert set(folder.fds) == {"root"}
        opened = {name: os.readlink(f"/proc/self/fd/{name}") for name in os.listdir("/proc/self/fd") if _open(name)}
        left = [place for place in opened.values() if place.startswith((str(bundle.rootfs), "/dev/"))]
        assert left.count(str(bundle.rootfs)) == 1
        assert len([place for place in left if place != "/dev/null"]) == 1

    bundle.run(after=after).ok()


def _open(name: str) -> bool:
    try:
        os.readlink(f"/proc/self/fd/{name}")
    except OSError:
        return False
    return True

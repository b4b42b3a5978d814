"""What config.json says below ``linux``, and of mounts, read from inside the container."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from properties_kit import ask

from kit import Bundle, Runtime
from ocimk.linux.sched import MEMORY_FLAGS, MEMORY_MODES
from ocimk.native._native import NR
from ocimk.stages import lsm
from ocimk.stages import resctrl as resctrl_stage

# ---- memory policy ---------------------------------------------------------------------------------------------------

GET_MEMPOLICY = f"""
mode, nodes = ctypes.c_int(), ctypes.c_ulong()
syscall({NR["get_mempolicy"]}, ctypes.byref(mode), ctypes.byref(nodes), 64, 0, 0)
print(json.dumps([mode.value, nodes.value]))
"""


@pytest.mark.parametrize(
    ("mode", "nodes", "told"),
    [
        ("MPOL_DEFAULT", "", "default"),
        ("MPOL_BIND", "0", "bind:0"),
        ("MPOL_INTERLEAVE", "0", "interleave:0"),
        ("MPOL_WEIGHTED_INTERLEAVE", "0", "weighted interleave:0"),
        ("MPOL_PREFERRED", "0", "prefer:0"),
        ("MPOL_PREFERRED_MANY", "0", "prefer (many):0"),
        ("MPOL_LOCAL", "", "local"),
        ("MPOL_PREFERRED", "", "local"),
    ],
)
def test_memory_policy(oci_called: Runtime, bundle: Bundle, mode: str, nodes: str, told: str) -> None:
    """What numa_maps(5) says of each mapping without a policy of its own is the process's."""
    bundle.linux["memoryPolicy"] = {"mode": mode, "nodes": nodes} if nodes else {"mode": mode}
    lines = oci_called.tell(bundle, "cat /proc/self/numa_maps").lines
    assert lines
    for line in lines:
        assert line.split(" ", 1)[1].startswith(told), line


@pytest.mark.parametrize("flag", MEMORY_FLAGS)
def test_memory_policy_flags(oci_called: Runtime, bundle: Bundle, flag: str) -> None:
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "0", "flags": [flag]}
    assert ask(oci_called, bundle, GET_MEMPOLICY) == [MEMORY_MODES["MPOL_BIND"] | MEMORY_FLAGS[flag], 1]


def test_memory_policy_of_a_node_that_is_not_there(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["memoryPolicy"] = {"mode": "MPOL_BIND", "nodes": "1000"}
    oci_called.run(bundle).refused("linux.memoryPolicy", "MPOL_BIND")


# ---- resctrl ---------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(bool(resctrl_stage.mount_point()), reason="resctrl is mounted here")
@pytest.mark.parametrize("rdt", [{}, {"closID": "x", "schemata": ["L3:0=1"]}])
def test_resctrl_that_is_not_mounted(oci: Runtime, bundle: Bundle, rdt: dict[str, Any]) -> None:
    bundle.linux["intelRdt"] = rdt
    told = oci.run(bundle).refused("linux.intelRdt: resctrl is not mounted on this host", "mount -t resctrl")
    assert "oci-resctrl" in told
    assert oci("resctrl", "check", bundle.path).out.startswith("linux.intelRdt: resctrl is not mounted on this host")


# ---- personality, sysctl ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("domain", "number"), [("LINUX", 0), ("LINUX32", 8)])
def test_personality(oci_called: Runtime, bundle: Bundle, domain: str, number: int) -> None:
    bundle.linux["personality"] = {"domain": domain}
    code = f"print(json.dumps([syscall({NR['personality']}, 0xffffffff), os.uname().machine]))"
    value, machine = ask(oci_called, bundle, code)
    assert value == number
    if os.uname().machine == "x86_64":
        assert machine == ("i686" if number else "x86_64")


def test_sysctl(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {
        "net.ipv4.ip_forward": "1",
        "kernel.shmmni": "1234",
        "fs.mqueue.msg_max": "77",
        "net.ipv4.ping_group_range": "0 2147483647",
    }
    shown = oci_called.tell(
        bundle,
        "cd /proc/sys; cat net/ipv4/ip_forward kernel/shmmni fs/mqueue/msg_max net/ipv4/ping_group_range",
    )
    assert [line.split() for line in shown.lines] == [["1"], ["1234"], ["77"], ["0", "2147483647"]]
    assert Path("/proc/sys/kernel/shmmni").read_text() != "1234\n"


# ---- devices ---------------------------------------------------------------------------------------------------------


def test_devices_with_their_kind_mode_and_owner(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.writable().linux["devices"] = [
        {"path": "/dev/kmsg2", "type": "c", "major": 1, "minor": 11, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/sub/u", "type": "u", "major": 1, "minor": 3, "fileMode": 0o604},
        {"path": "/srv/disk", "type": "b", "major": 7, "minor": 200, "fileMode": 0o060, "uid": 1000, "gid": 1000},
        {"path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 7},
        {"path": "/dev/plain", "type": "c", "major": 1, "minor": 5},
    ]
    shown = oci_called.tell(
        bundle, "stat -c '%n %F %a %u:%g %t:%T' /dev/kmsg2 /dev/sub/u /srv/disk /dev/pipe /dev/plain"
    )
    assert shown.lines == [
        "/dev/kmsg2 character special file 640 5:6 1:b",
        "/dev/sub/u character special file 604 0:0 1:3",
        "/srv/disk block special file 60 1000:1000 7:c8",
        "/dev/pipe fifo 622 7:0 0:0",
        "/dev/plain character special file 666 0:0 1:5",
    ]


def test_a_device_that_the_cgroup_allows_works(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444}]
    bundle.linux["resources"]["devices"].append({"allow": True, "type": "c", "major": 1, "minor": 5, "access": "r"})
    assert oci_called.tell(bundle, "head -c 5 /dev/mine | wc -c").out == "5\n"


def test_what_is_there_already_must_be_the_device(oci_called: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "srv").mkdir()
    (bundle.rootfs / "srv/null").write_text("not a device")
    bundle.writable().linux["devices"] = [{"path": "/srv/null", "type": "c", "major": 1, "minor": 3}]
    oci_called.run(bundle).refused("linux.devices[0]", "/srv/null")


def test_default_devices(oci_called: Runtime, bundle: Bundle) -> None:
    shown = oci_called.tell(
        bundle, "cd /dev; stat -c '%n %F %a %t:%T' null zero full random urandom tty; readlink ptmx"
    )
    assert shown.lines == [
        *(
            f"{name} character special file 666 {number}"
            for name, number in (
                ("null", "1:3"),
                ("zero", "1:5"),
                ("full", "1:7"),
                ("random", "1:8"),
                ("urandom", "1:9"),
                ("tty", "5:0"),
            )
        ),
        "pts/ptmx",
    ]


# ---- mounts ----------------------------------------------------------------------------------------------------------


def options_of(text: str, point: str) -> tuple[set[str], str]:
    """The per-mount options and the optional fields (propagation) of a mount point in mountinfo."""
    for line in text.splitlines():
        fields = line.split(" ")
        if fields[4] == point:
            at = fields.index("-")
            return set(fields[5].split(",")), " ".join(fields[6:at])
    raise KeyError(point)


@pytest.mark.parametrize(
    ("value", "told"),
    [("private", ""), ("shared", "shared:"), ("slave", ""), ("unbindable", "unbindable"), ("rprivate", ""), ("", "")],
)
def test_rootfs_propagation(oci_called: Runtime, bundle: Bundle, value: str, told: str) -> None:
    """A slave of what is nobody's peer is private."""
    bundle.linux["rootfsPropagation"] = value
    _, found = options_of(oci_called.tell(bundle, "cat /proc/self/mountinfo").out, "/")
    assert found.startswith(told) if told else "shared" not in found


def test_recursive_attributes(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """What is mounted below the source has them too; the plain form is for the one mount."""
    tree = tmp_path / "tree"
    (tree / "below").mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", tree / "below"], check=True)
    try:
        bundle.bind(tree, "/mnt", "rro", "rnosuid", "rnodev", "rnoexec", "rnoatime").writable()
        bundle.bind(tree, "/one", "ro", "nosuid")
        text = oci_called.tell(bundle, "cat /proc/self/mountinfo").out
    finally:
        subprocess.run(["umount", tree / "below"], check=True)
    wanted = {"ro", "nosuid", "nodev", "noexec", "noatime"}
    for point in ("/mnt", "/mnt/below"):
        assert wanted <= options_of(text, point)[0]
    assert {"ro", "nosuid"} <= options_of(text, "/one")[0]
    assert not {"ro", "nosuid"} & options_of(text, "/one/below")[0]


def test_tmpcopyup(oci_called: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "srv").mkdir()
    (bundle.rootfs / "srv/file").write_text("kept")
    os.chmod(bundle.rootfs / "srv/file", 0o646)
    os.chown(bundle.rootfs / "srv/file", 5, 6)
    bundle.mount("/srv", "tmpfs", "tmpcopyup", "size=1m")
    told = oci_called.tell(bundle, "cat /srv/file; echo; stat -c '%a %u:%g' /srv/file; echo new > /srv/file")
    assert told.lines == ["kept", "646 5:6"]
    assert (bundle.rootfs / "srv/file").read_text() == "kept"


@pytest.mark.parametrize("option", ["idmap", "ridmap"])
def test_id_mapped_mounts(oci_called: Runtime, bundle: Bundle, tmp_path: Path, option: str) -> None:
    """No user namespace for the container, but for the mount: 1000 there is 5000 here."""
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("")
    os.chown(source / "file", 1000, 1001)
    mapping = [{"containerID": 1000, "hostID": 5000, "size": 10}]
    bundle.bind(source, "/mnt", option).writable()
    bundle.config["mounts"][-1] |= {"uidMappings": mapping, "gidMappings": mapping}
    shown = oci_called.run(bundle.script("stat -c %u:%g /mnt/file"))
    if "invalid argument" in shown.err:
        pytest.skip("the file system of the tests cannot be id-mapped")
    assert shown.ok().out == "5000:5001\n"


def test_id_mapped_as_the_container(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").write_text("")
    os.chown(source / "file", 7, 8)
    for place in (tmp_path, *list(tmp_path.parents)[:2]):
        place.chmod(place.stat().st_mode | 0o11)
    (bundle.rootfs / "mnt").mkdir()
    bundle.user_namespace().bind(source, "/mnt", "idmap").writable()
    assert oci_called.tell(bundle, "stat -c %u:%g /mnt/file").out == "7:8\n"


@pytest.mark.skipif(lsm.selinux(), reason="SELinux is on")
def test_mount_label_without_selinux(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["mountLabel"] = "system_u:object_r:container_file_t:s0"
    oci_called.run(bundle).refused("linux.mountLabel: SELinux is not enabled on this host")
    assert "linux.mountLabel" in oci_called("mount", "check", bundle.path).out


def test_cgroup_mount(oci_called: Runtime, bundle: Bundle) -> None:
    """The container sees its own cgroup as the root of each hierarchy, with itself in it."""
    script = "cat /proc/self/mountinfo; cat /proc/self/cgroup; cat $(find /sys/fs/cgroup -name cgroup.procs | head -1)"
    told = oci_called.tell(bundle.namespace("cgroup"), script)
    options, _ = options_of(told.out, "/sys/fs/cgroup")
    assert {"ro", "nosuid", "nodev", "noexec"} <= options
    groups = [line.split(":", 2)[2] for line in told.lines if line.count(":") == 2 and line[0].isdigit()]
    assert set(groups) == {"/"}
    assert "1" in told.lines


def test_masked_and_readonly_paths(oci_called: Runtime, bundle: Bundle) -> None:
    for name in ("hidden", "fixed"):
        (bundle.rootfs / name).mkdir()
        (bundle.rootfs / name / "file").write_text("here")
    bundle.writable().linux["maskedPaths"] = ["/etc/passwd", "/hidden", "/absent"]
    bundle.linux["readonlyPaths"] = ["/proc/sys", "/fixed", "/absent"]
    told = oci_called.tell(
        bundle,
        "wc -c < /etc/passwd; ls -A /hidden | wc -l; cat /fixed/file; echo; "
        "(echo > /fixed/x) 2>&1; (echo 1 > /proc/sys/net/ipv4/ip_forward) 2>&1; true",
    )
    assert told.lines[:3] == ["0", "0", "here"]
    assert [line.rpartition(": ")[2] for line in told.lines[3:]] == ["Read-only file system"] * 2


@pytest.mark.parametrize("readonly", [True, False])
def test_readonly_root(oci_called: Runtime, bundle: Bundle, readonly: bool) -> None:
    bundle.config["root"]["readonly"] = readonly
    told = oci_called.tell(bundle, "(echo > /file) 2>/dev/null && echo wrote || echo refused")
    assert told.out == ("refused\n" if readonly else "wrote\n")


# ---- limits ----------------------------------------------------------------------------------------------------------


def test_resources_hold(oci_called: Runtime, bundle: Bundle) -> None:
    """The number of processes, as the container itself runs into it."""
    bundle.linux["resources"]["pids"] = {"limit": 5}
    script = "for i in 1 2 3 4 5 6 7 8; do sleep 5 & done 2>&1; echo end"
    told = oci_called.run(bundle.script(script))
    assert "Resource temporarily unavailable" in told.out + told.err


def test_cgroups_path(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.id()
    bundle.without("cgroup").linux["cgroupsPath"] = f"/{name}/inner"
    told = oci_called.run(bundle.script("cat /proc/self/cgroup"), name=name).ok()
    assert any(line.endswith(f":/{name}/inner") for line in told.lines)

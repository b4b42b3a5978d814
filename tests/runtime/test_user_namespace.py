"""User namespaces: mappings, and a root that is not the host's."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from kit import Bundle, Runtime, of_status, status_words


def test_root_inside_is_another_outside(oci: Runtime, bundle: Bundle) -> None:
    bundle.user_namespace(200000)
    name = oci.detached(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    assert set(of_status(pid, "Uid").split()) == {"200000"}
    assert set(of_status(pid, "Gid").split()) == {"200000"}
    assert of_status(pid, "Groups") == ""
    assert Path(f"/proc/{pid}/uid_map").read_text().split() == ["0", "200000", "65536"]
    assert Path(f"/proc/{pid}/gid_map").read_text().split() == ["0", "200000", "65536"]
    assert Path(f"/proc/{pid}/setgroups").read_text() == "allow\n"


def test_files_belong_to_the_mapped_user(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir()
    os.chown(shared, 200000, 200000)
    bundle.user_namespace(200000).bind(shared, "/mnt")
    (bundle.rootfs / "mnt").mkdir()
    bundle.process["capabilities"] = {kind: ["CAP_CHOWN"] for kind in ("bounding", "effective", "permitted")}
    oci.tell(bundle, "echo x > /mnt/file; chown 5:6 /mnt/file")
    found = (shared / "file").stat()
    assert (found.st_uid, found.st_gid) == (200005, 200006)


def test_several_ranges_as_podman_maps(oci: Runtime, bundle: Bundle) -> None:
    """The caller's own id as root, and 65536 others."""
    bundle.namespace("user")
    rows = [
        {"containerID": 0, "hostID": 1000, "size": 1},
        {"containerID": 1, "hostID": 100000, "size": 65535},
        {"containerID": 65536, "hostID": 300000, "size": 1},
    ]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = rows
    bundle.process["user"] = {"uid": 65536, "gid": 7, "additionalGids": [1, 65536]}
    name = oci.detached(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    assert set(of_status(pid, "Uid").split()) == {"300000"}
    assert set(of_status(pid, "Gid").split()) == {"100006"}
    assert of_status(pid, "Groups").split() == ["100000", "300000"]


def test_a_rootfs_that_only_the_hosts_root_can_reach(oci: Runtime, bundle: Bundle) -> None:
    bundle.path.chmod(0o700)
    bundle.user_namespace()
    assert oci.tell(bundle, "id -u; echo /*").lines == ["0", "/bin /dev /etc /proc /sys /tmp"]


def test_root_inside_rules_inside_only(oci: Runtime, bundle: Bundle) -> None:
    """It has the capabilities that were asked for, over its own namespaces and nothing of the host's."""
    bundle.user_namespace()
    names = ["CAP_SYS_ADMIN", "CAP_CHOWN", "CAP_DAC_OVERRIDE"]
    bundle.process["capabilities"] = {kind: names for kind in ("bounding", "effective", "permitted")}
    # /proc/sys is read-only by readonlyPaths.
    result = oci.tell(
        bundle, "hostname changed && hostname; mount -t tmpfs none /tmp && echo mounted; ls -ln /bin/busybox"
    )
    assert result.lines[:2] == ["changed", "mounted"]
    assert "65534" in result.lines[2]
    assert oci.run(bundle.script("echo x > /proc/sys/vm/swappiness")).status != 0


def test_capabilities_in_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    bundle.user_namespace()
    status = status_words(oci.tell(bundle, "cat /proc/self/status").out)
    wanted = f"{1 << 29 | 1 << 5 | 1 << 10:016x}"
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == wanted
    assert status["CapInh"] == status["CapAmb"] == "0" * 16


def test_limits_are_raised_for_it(oci: Runtime, bundle: Bundle) -> None:
    """Its root could not raise them: that takes a capability in the first user namespace."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    ours = int(of_status(os.getpid(), "CapEff"), 16)
    more = hard + 1000 if ours >> 24 & 1 else hard  # CAP_SYS_RESOURCE
    bundle.user_namespace()
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 512, "hard": more}]

    def caller() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))

    result = oci.run(bundle.script("ulimit -Sn; ulimit -Hn"), preexec_fn=caller).ok()
    assert result.lines == ["512", str(more)]


def test_oom_score_is_lowered_from_outside(oci: Runtime, bundle: Bundle) -> None:
    bundle.user_namespace()
    bundle.process["oomScoreAdj"] = 321
    assert oci.tell(bundle, "cat /proc/self/oom_score_adj").out == "321\n"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([], "uidMappings"),
        ([{"containerID": 0, "hostID": 1, "size": 10}, {"containerID": 5, "hostID": 50, "size": 10}], "uidMappings"),
        ([{"containerID": 0, "hostID": 4294967295, "size": 2}], "uidMappings"),
    ],
)
def test_mappings_that_cannot_be(oci: Runtime, bundle: Bundle, rows: list[dict[str, int]], told: str) -> None:
    bundle.user_namespace()
    bundle.linux["uidMappings"] = rows
    oci.run(bundle).refused(told)
    assert oci.names() == []


def test_a_user_that_is_not_mapped(oci: Runtime, bundle: Bundle) -> None:
    bundle.user_namespace(200000, 1000)
    bundle.process["user"] = {"uid": 5000, "gid": 0}
    oci.run(bundle).refused("process.user.uid", "5000")
    assert oci.names() == []


def test_mounts_in_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    """The whole default set, sysfs and mqueue and cgroup among it, belongs to it."""
    bundle.user_namespace()
    points = [line.split()[4] for line in oci.tell(bundle, "cat /proc/self/mountinfo").lines]
    for entry in bundle.config["mounts"]:
        assert entry["destination"] in points


def test_devices_in_a_user_namespace(oci: Runtime, bundle: Bundle) -> None:
    bundle.user_namespace()
    result = oci.tell(bundle, "echo x > /dev/null; head -c 4 /dev/zero | wc -c; ls /dev | tr '\\n' ' '")
    assert result.lines[0] == "4"
    for name in ("full", "null", "ptmx", "pts", "random", "shm", "stdin", "tty", "urandom", "zero"):
        assert name in result.lines[1].split()


def test_hooks_and_seccomp_with_a_user_namespace(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.user_namespace()
    told = tmp_path / "told"
    told.mkdir()
    told.chmod(0o777)
    for kind in ("createRuntime", "createContainer", "poststart", "poststop"):
        bundle.hook(kind, f"cat > {told}/{kind}; chmod 666 {told}/{kind} || true")
    for place in (tmp_path, tmp_path.parent, tmp_path.parent.parent):
        place.chmod(place.stat().st_mode | 0o11)
    bundle.hook("startContainer", "id -u > /tmp/who").writable()
    (bundle.rootfs / "tmp").chmod(0o777)
    bundle.linux["seccomp"] = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}],
    }
    result = oci.tell(bundle, "mkdir /tmp/x 2>&1 || true; cat /tmp/who")
    assert result.lines == ["mkdir: can't create directory '/tmp/x': File descriptor in bad state", "0"]
    for kind in ("createRuntime", "createContainer", "poststart", "poststop"):
        assert (told / kind).stat().st_size, kind

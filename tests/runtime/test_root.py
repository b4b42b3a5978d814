"""The container's file system and what guards it, from inside; the mounts in all their detail are stages/test_mount*."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path

import pytest

from kit import Bundle, Runtime, mount_points


def options(out: str, point: str) -> set[str]:
    """The options of the topmost mount there, from mountinfo."""
    found: set[str] = set()
    for line in out.splitlines():
        fields = line.split()
        if "-" in fields and fields[4] == point:
            found = set(fields[5].split(",")) | set(fields[-1].split(","))
    return found


def test_the_root_is_the_rootfs(oci: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "etc/mark").write_text("inner\n")
    assert oci.tell(bundle, "cat /etc/mark; ls /").lines == ["inner", *sorted(os.listdir(bundle.rootfs))]


def test_nothing_of_the_host_shows(oci: Runtime, bundle: Bundle) -> None:
    out = oci.tell(bundle, "cat /proc/self/mountinfo; ls -a /..; readlink /proc/1/root; readlink /proc/1/cwd").out
    assert str(bundle.path.parent) not in "\n".join(line.split()[4] for line in out.splitlines() if " - " in line)
    assert out.endswith("/\n/\n")


def test_the_hosts_mounts_stay_as_they_are(oci: Runtime, bundle: Bundle) -> None:
    before = mount_points()
    oci.tell(bundle, "true")
    name = oci.create(bundle)
    assert mount_points() == before
    oci("delete", name).ok()


@pytest.mark.parametrize("readonly", [True, False])
def test_readonly_root(oci: Runtime, bundle: Bundle, readonly: bool) -> None:
    bundle.config["root"]["readonly"] = readonly
    result = oci.tell(bundle, "touch /new 2>/dev/null && echo written || echo refused; cat /proc/self/mountinfo")
    assert result.lines[0] == ("refused" if readonly else "written")
    assert ("ro" in options(result.out, "/")) == readonly
    assert (bundle.rootfs / "new").exists() != readonly


def test_a_relative_root_is_the_bundles(oci: Runtime, bundle: Bundle) -> None:
    bundle.rootfs.rename(bundle.path / "image")
    bundle.config["root"]["path"] = "./image"
    assert oci.tell(bundle, "echo fine", cwd="/").out == "fine\n"


def test_an_absolute_root(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.rootfs.rename(tmp_path / "image")
    bundle.config["root"]["path"] = str(tmp_path / "image")
    assert oci.tell(bundle, "echo fine").out == "fine\n"


def test_a_root_behind_a_link(oci: Runtime, bundle: Bundle) -> None:
    bundle.rootfs.rename(bundle.path / "image")
    bundle.rootfs.symlink_to("image")
    name = oci.detached(bundle.args("sleep", "1000"))
    assert oci.state(name)["rootfs"] == str(bundle.rootfs)


def test_no_pivot(oci: Runtime, bundle: Bundle) -> None:
    out = oci.tell(bundle, "ls /; cat /proc/self/mountinfo", "--no-pivot").lines
    assert out[: out.index("tmp") + 1] == sorted(os.listdir(bundle.rootfs))


def test_masked_and_readonly_paths(oci: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "secret").write_text("secret\n")
    (bundle.rootfs / "folder").mkdir()
    (bundle.rootfs / "folder/file").write_text("secret\n")
    bundle.writable()
    bundle.linux["maskedPaths"] += ["/secret", "/folder"]
    bundle.linux["readonlyPaths"] += ["/etc"]
    script = (
        "cat /secret; ls /folder; echo x > /etc/new || echo refused; echo x > /proc/sys/kernel/hostname || echo refused"
    )
    result = oci.tell(bundle, f"{script}; cat /proc/kcore /proc/keys /proc/timer_list | wc -c")
    assert result.lines == ["refused", "refused", "0"]


def test_sysctl(oci: Runtime, bundle: Bundle) -> None:
    before = Path("/proc/sys/net/ipv4/ip_forward").read_text()
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "123456", "net/ipv4/ip_default_ttl": "33"}
    names = "net/ipv4/ip_forward kernel/shmmax net/ipv4/ip_default_ttl"
    assert oci.tell(bundle, f"cd /proc/sys; cat {names}").lines == ["1", "123456", "33"]
    assert Path("/proc/sys/net/ipv4/ip_forward").read_text() == before


def test_a_sysctl_of_the_host_is_refused(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["sysctl"] = {"vm.swappiness": "1"}
    oci.run(bundle).refused("linux.sysctl", "vm.swappiness")
    assert oci.names() == []


def test_the_default_mounts(oci: Runtime, bundle: Bundle) -> None:
    out = oci.tell(bundle, "cat /proc/self/mountinfo").out
    kinds = {line.split()[4]: line.partition(" - ")[2].split()[0] for line in out.splitlines()}
    expected = {"/proc": "proc", "/dev": "tmpfs", "/dev/pts": "devpts", "/dev/shm": "tmpfs", "/dev/mqueue": "mqueue"}
    assert {point: kinds[point] for point in expected} == expected
    assert kinds["/sys"] == "sysfs"
    assert {"ro", "nosuid", "nodev", "noexec"} <= options(out, "/sys")
    assert {"nosuid", "nodev", "noexec", "size=65536k", "mode=1777"} <= options(out, "/dev/shm") | {"mode=1777"}


def test_mounts_in_their_order(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    (source / "file").write_text("bound\n")
    bundle.mount("/mnt", "tmpfs", "size=64k", "mode=700")
    bundle.bind(source, "/mnt/dir", "ro")
    bundle.mount("/mnt/dir/below", "tmpfs", "noexec")
    bundle.bind(source / "file", "/mnt/file")
    result = oci.tell(
        bundle, "cat /mnt/file /mnt/dir/file; touch /mnt/dir/new || echo refused; cat /proc/self/mountinfo"
    )
    assert result.lines[:3] == ["bound", "bound", "refused"]
    assert "ro" in options(result.out, "/mnt/dir")
    assert "noexec" in options(result.out, "/mnt/dir/below")
    assert "size=64k" in options(result.out, "/mnt")


def test_default_devices(oci: Runtime, bundle: Bundle) -> None:
    rows = {}
    out = oci.tell(bundle, "cd /dev; stat -c '%n %F %t %T %a' *; for l in fd std*; do readlink $l; done").lines
    for line in out[:-4]:
        name, *rest = line.split()
        rows[name] = rest
    devices = {"null": "1 3", "zero": "1 5", "full": "1 7", "random": "1 8", "urandom": "1 9", "tty": "5 0"}
    for name, numbers in devices.items():
        assert rows[name] == ["character", "special", "file", *numbers.split(), "666"], name
    assert rows["ptmx"][0] in ("symbolic", "character")
    links = ["/proc/self/fd", "/proc/self/fd/2", "/proc/self/fd/0", "/proc/self/fd/1"]
    assert out[-4:] == links


def test_more_devices(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [
        {"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o640, "uid": 5, "gid": 6},
        {"path": "/dev/deep/er/fifo", "type": "p"},
    ]
    out = oci.tell(bundle, "stat -c '%F %t %T %a %u %g' /dev/fuse; stat -c %F /dev/deep/er/fifo").lines
    assert out == ["character special file a e5 640 5 6", "fifo"]


def test_devices_are_forbidden_but_the_usual_ones(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["devices"] = [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o666}]
    script = "echo x > /dev/null && echo fine; head -c1 /dev/zero | wc -c; cat /dev/fuse || echo refused"
    assert oci.tell(bundle, script).lines == ["fine", "1", "refused"]


def test_propagation(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["rootfsPropagation"] = "private"
    lines = oci.tell(bundle, "cat /proc/self/mountinfo").lines
    assert not [line for line in lines if "shared:" in line or "master:" in line]


def test_the_rootfs_gets_nothing_but_mount_points(oci: Runtime, bundle: Bundle) -> None:
    def tree() -> dict[str, int]:
        return {str(p): stat.S_IFMT(p.lstat().st_mode) for p in bundle.rootfs.rglob("*")}

    before = tree()
    oci.tell(bundle, "true")
    assert tree() == before


# ---- seccomp ---------------------------------------------------------------------------------------------------------


def seccomp(action: str, *names: str, **more: object) -> dict[str, object]:
    rule = {"names": list(names), "action": action, **more}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


@pytest.mark.parametrize("nnp", [True, False])
def test_seccomp_refuses_a_call(oci: Runtime, bundle: Bundle, nnp: bool) -> None:
    bundle.process["noNewPrivileges"] = nnp
    bundle.writable()
    bundle.linux["seccomp"] = seccomp("SCMP_ACT_ERRNO", "mkdir", "mkdirat")
    result = oci.tell(bundle, "mkdir /tmp/x 2>&1 || true; grep Seccomp: /proc/self/status")
    assert result.lines == ["mkdir: can't create directory '/tmp/x': Operation not permitted", "Seccomp:\t2"]


def test_seccomp_binds_the_program_and_not_the_way_to_it(oci: Runtime, bundle: Bundle) -> None:
    """Calls that only the runtime makes after the filter could be loaded (setresuid, capset ...) may be forbidden."""
    names = ["setresuid", "setresgid", "setgroups", "capset", "prctl", "chdir", "umask"]
    bundle.process["user"] = {"uid": 1000, "gid": 1000, "additionalGids": [5]}
    bundle.linux["seccomp"] = seccomp("SCMP_ACT_ERRNO", *names)
    assert oci.run(bundle.args("id", "-u")).ok().out == "1000\n"


def test_seccomp_kills(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["seccomp"] = seccomp("SCMP_ACT_KILL_PROCESS", "mkdir", "mkdirat")
    result = oci.run(bundle.script("mkdir /tmp/x; echo $?"))
    assert result.lines == ["159"]


def test_a_seccomp_that_is_wrong(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_WHATEVER"}
    oci.run(bundle).refused("linux.seccomp.defaultAction", "SCMP_ACT_WHATEVER")
    assert oci.names() == []


def test_both_ways_make_the_same_container(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """All that can be seen from inside is the same whether stages are called or executed."""
    executed = Runtime(oci_called.place, "--exec-stages")
    bundle.user_namespace().namespace("cgroup").namespace("time")
    bundle.config["hostname"] = "same"
    bundle.process["oomScoreAdj"] = 500
    script = (
        "cut -d' ' -f3- /proc/self/mountinfo | sed 's/0:[0-9]* //'; grep -v -i -E 'ctxt|Pid|^Vm|^Rss|Cpus|Mems' /proc/self/status;"
        "cat /proc/self/limits /proc/self/uid_map /proc/self/oom_score_adj /proc/self/cgroup; ls -lnR /dev; env; hostname;"
        "ls /proc/self/fd; cat /proc/self/timerslack_ns /proc/1/comm /proc/self/sessionid; umask"
    )
    bundle.script(script)
    results = []
    for runtime in (oci_called, executed):
        name = oci_called.id()
        out = runtime.run(bundle, name=name).ok().out.replace(name, "NAME")
        results.append([line for line in out.splitlines() if "NSpid" not in line])
    results = [[_without_times(line) for line in lines] for lines in results]
    assert json.dumps(results[0], indent=1) == json.dumps(results[1], indent=1)


def _without_times(line: str) -> str:
    """A line of ls without its date."""
    words = line.split()
    return " ".join(words[:5] + words[8:]) if len(words) > 8 and words[0][0] in "-dclpsb" else line

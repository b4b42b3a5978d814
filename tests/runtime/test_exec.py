"""oci exec: what the process is given, where it runs, and how it is told of."""

from __future__ import annotations

import os
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest
from exec_kit import Exec, failed, name, process_file, run

from kit import CLEAN, Bundle, Runtime, alive, await_true, of_status, status_words

__all__ = ["name", "run"]


# ---- its end ---------------------------------------------------------------------------------------------------------


def test_streams_and_exit_status(run: Exec) -> None:
    done = run("sh", "-c", "cat; echo err >&2; exit 7", stdin=b"in\n")

    assert (done.status, done.out, done.err) == (7, "in\n", "err\n")
    assert run("sh", "-c", "kill -TERM $$").status == 128 + 15
    assert run("sh", "-c", "exit 255").status == 255


@pytest.mark.parametrize(
    ("program", "told"),
    [
        ("nope", 'exec: "nope": executable file not found in $PATH'),
        ("/nope", 'exec: "/nope": no such file or directory'),
        ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
        ("/etc", 'exec: "/etc": is a directory'),
        ("/bin/odd", "exec /bin/odd: no such file or directory (the file is there, but not the interpreter"),
        ("/bin/none", "exec /bin/none: exec format error"),
    ],
)
def test_what_cannot_be_run(bundle: Bundle, run: Exec, program: str, told: str) -> None:
    (bundle.rootfs / "bin/odd").write_text("#!/not/there\n")
    (bundle.rootfs / "bin/none").write_text("\0\0")
    for script in ("odd", "none"):
        (bundle.rootfs / "bin" / script).chmod(0o755)

    failed(run(program), told)


def test_which_containers_can_be_entered(oci_called: Runtime, bundle: Bundle) -> None:
    created = oci_called.create(bundle.args("sleep", "1000"))
    assert oci_called("exec", created, "echo", "there").ok().out == "there\n"
    assert oci_called.state(created)["status"] == "created"
    oci_called("kill", created, "KILL").ok()
    oci_called.wait_stopped(created)
    failed(oci_called("exec", created, "true"), "cannot exec in a stopped container")
    failed(oci_called("exec", "rt-none", "true"), "container does not exist")
    failed(oci_called("exec", created), "stopped")
    assert oci_called("exec").status == 1


def test_stages_that_are_executed_make_no_difference(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.args("sleep", "1000"))
    assert oci("exec", name, "sh", "-c", "echo out; exit 3").status == 3


def test_a_limit_of_processes_holds_for_it(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux.setdefault("resources", {})["pids"] = {"limit": 1}
    made = oci_called.quiet("run", "-d", "-b", bundle.args("sleep", "1000").save(), name := oci_called.id())
    if made.status:
        pytest.skip(f"no limit can be set: {made.err}")
    failed(oci_called("exec", name, "true"), "resource temporarily unavailable", "pids limit")


def test_options_end_at_the_id(run: Exec) -> None:
    assert run("echo", "-u", "5", "--tty", "-e").out == "-u 5 --tty -e\n"
    failed(run(), "exec args cannot be empty")


# ---- where it runs ---------------------------------------------------------------------------------------------------


def test_namespaces_cgroups_and_root_are_those_of_the_first_process(
    oci_called: Runtime, bundle: Bundle, tmp_path: Path
) -> None:
    bundle.namespace("time").linux["timeOffsets"] = {"monotonic": {"secs": 1000}}
    name = oci_called.detached(bundle.namespace("cgroup").args("sleep", "1000"))
    pid = oci_called.pid(name)
    oci_called.quiet("exec", "--detach", "--pid-file", tmp_path / "pid", name, "sleep", "1000").ok()
    other = int((tmp_path / "pid").read_text())

    for kind in os.listdir("/proc/self/ns"):
        assert os.readlink(f"/proc/{other}/ns/{kind}") == os.readlink(f"/proc/{pid}/ns/{kind}"), kind
    assert Path(f"/proc/{other}/cgroup").read_text() == Path(f"/proc/{pid}/cgroup").read_text()
    assert os.stat(f"/proc/{other}/root/etc").st_ino == (bundle.rootfs / "etc").stat().st_ino
    assert of_status(other, "NSsid") != of_status(pid, "NSsid")


def test_shared_namespaces(oci_called: Runtime, bundle: Bundle) -> None:
    """The host's pid, network and ipc namespaces; another container's pid namespace."""
    first = oci_called.detached(bundle.args("sleep", "1000"))
    bundle.without("network", "ipc").namespace("pid", f"/proc/{oci_called.pid(first)}/ns/pid")
    second = oci_called.detached(bundle)
    told = oci_called("exec", second, "sh", "-c", "readlink /proc/self/ns/net; ps -o args").ok().out
    assert os.readlink("/proc/self/ns/net") in told
    assert told.count("sleep 1000") == 2


def test_without_a_mount_namespace(oci_called: Runtime, bundle: Bundle) -> None:
    """The root is then that of the first process, entered by descriptor."""
    bundle.without("mount", "pid").config["mounts"] = []
    bundle.linux.pop("maskedPaths")
    bundle.linux.pop("readonlyPaths")
    bundle.config["root"]["readonly"] = False
    made = oci_called.quiet("run", "-d", "-b", bundle.args("sleep", "1000").save(), name := oci_called.id())
    if made.status:
        pytest.skip(f"no such container: {made.err}")
    assert set(oci_called("exec", name, "ls", "/").ok().lines) >= {"bin", "etc"}
    assert "work" not in oci_called("exec", name, "ls", "/").out


def test_user_namespace(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.user_namespace().args("sleep", "1000"))
    script = "id -u; id -g; cat /proc/self/uid_map; touch /tmp/made && stat -c %u /tmp/made; cat /proc/self/status"
    bundle.mount("/tmp", "tmpfs")
    done = oci_called("exec", "--user", "5:6", "--cap", "CAP_CHOWN", name, "sh", "-c", script).ok()

    assert done.lines[:3] == ["5", "6", "         0     100000      65536"]
    assert status_words(done.out)["CapBnd"] != "0" * 16


def test_sub_cgroup(oci_called: Runtime, name: str, run: Exec) -> None:
    (path,) = [line[3:] for line in Path(f"/proc/{oci_called.pid(name)}/cgroup").read_text().split() if line[:3] == "0::"]
    mount = "/sys/fs/cgroup/unified" if os.path.isdir("/sys/fs/cgroup/unified") else "/sys/fs/cgroup"
    v1 = Path("/sys/fs/cgroup/pids")
    if not v1.is_dir():
        pytest.skip("no hierarchy of cgroup v1")
    os.mkdir(f"{v1}{path}/below")
    os.mkdir(f"{mount}{path}/below")
    try:
        told = run("--cgroup", "pids:below", "--", "cat", "/proc/self/cgroup").ok().out
        assert f"pids:{path}/below\n" in told
        assert f"0::{path}\n" in told
        assert f":pids:{path}\n" in run("cat", "/proc/self/cgroup").out
        failed(run("--cgroup", "pids:nope", "--", "true"), "nope", "no such file or directory")
    finally:
        await_true(lambda: not Path(f"{v1}{path}/below/cgroup.procs").read_text(), "empty")
        os.rmdir(f"{v1}{path}/below")
        os.rmdir(f"{mount}{path}/below")


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("../other", '".." is not allowed'),
        ("a/../../b", '".." is not allowed'),
        ("pids:../x", '".." is not allowed'),
        (":x", "empty <controller> prefix"),
        ("nothing:x", "no cgroup of nothing"),
    ],
)
def test_sub_cgroups_that_are_refused(run: Exec, value: str, told: str) -> None:
    failed(run("--cgroup", value, "--", "true"), told)


# ---- what it is given ------------------------------------------------------------------------------------------------


def test_the_containers_own_process_is_the_base(oci_called: Runtime, bundle: Bundle) -> None:
    user = {"uid": 1000, "gid": 1001, "umask": 0o27, "additionalGids": [5]}
    bundle.config["process"] |= {"user": user, "cwd": "/tmp", "env": ["PATH=/bin", "A=1"], "oomScoreAdj": 300}
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]
    name = oci_called.detached(bundle.args("sleep", "1000"))
    script = "id -u; id -g; pwd; umask; echo $A $B $HOME; ulimit -n; cat /proc/self/oom_score_adj; grep Groups /proc/self/status"
    done = oci_called("exec", "--env", "A=2", "-e", "B=3", "-g", "7", name, "sh", "-c", script).ok()

    assert done.lines == ["1000", "1001", "/tmp", "0027", "2 3 /home/ann", "99", "300", "Groups:\t5 7 "]


def test_options_change_it(run: Exec) -> None:
    words = ("--user", "1000:1000", "--cwd", "/etc", "--no-new-privs=false", "--cap", "CAP_NET_RAW")
    told = run(*words, "--", "sh", "-c", "pwd; cat /proc/self/status").ok()
    status = status_words(told.out)

    assert told.lines[0] == "/etc"
    assert (status["Uid"].split()[0], status["Gid"].split()[0], status["NoNewPrivs"]) == ("1000", "1000", "0")
    assert int(status["CapBnd"], 16) & 1 << 13
    assert (status["CapInh"], status["CapAmb"], status["Groups"]) == ("0" * 16, "0" * 16, "")
    assert status_words(run("cat", "/proc/self/status").out)["NoNewPrivs"] == "1"


def test_what_create_told_of_capabilities_is_not_told_to_the_program_s_reader(
    oci_called: Runtime, bundle: Bundle
) -> None:
    # CRI-O takes all of standard error for the program's, and its exec has the container's own capabilities.
    capabilities = bundle.process["capabilities"]
    capabilities["permitted"].remove("CAP_KILL")  # but it is to be effective
    name = oci_called.detached(bundle.args("sleep", "1000"))
    assert oci_called("exec", name, "true").ok().err == ""
    same = process_file(oci_called, args=["true"], capabilities=capabilities)
    assert oci_called("exec", "--process", same, name).ok().err == ""
    more = process_file(oci_called, args=["true"], capabilities={"effective": ["CAP_CHOWN"]})
    assert "ignoring CAP_CHOWN" in oci_called("exec", "--process", more, name).ok().err


def test_cap_reaches_the_ambient_set_only_where_there_is_an_inheritable_one(
    oci_called: Runtime, bundle: Bundle
) -> None:
    bundle.process["capabilities"]["inheritable"] = []
    name = oci_called.detached(bundle.args("sleep", "1000"))
    status = status_words(oci_called("exec", "--cap", "CAP_CHOWN", name, "cat", "/proc/self/status").ok().out)

    assert (status["CapInh"], status["CapAmb"]) == ("0" * 16, "0" * 16)
    assert int(status["CapEff"], 16) & 1


@pytest.mark.parametrize(
    "user", ["1:", ":1", "abc", "1:abc", "-1", "99999999999", "4294967295", "4294967296", "+1", "1 ", "0x1", "", "1:2:3"]
)
def test_a_user_that_does_not_parse_is_nobody_and_never_root(run: Exec, user: str) -> None:
    """CVE-2026-30892."""
    failed(run("--user", user, "--", "id"), "--user", "bad")


def test_what_looks_like_a_user_in_the_image_is_not_looked_up(bundle: Bundle, run: Exec) -> None:
    """CVE-2016-3697."""
    (bundle.rootfs / "etc/passwd").write_text("1000:x:0:0::/root:/bin/sh\n")

    assert run("--user", "1000", "--", "id", "-u").out == "1000\n"


def test_environment_variables_that_are_none(run: Exec) -> None:
    failed(run("--env", "A", "--", "true"), "missing '='")
    failed(run("--env", "=A", "--", "true"), "name cannot be empty")


def test_a_cwd_outside_is_refused(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    """CVE-2024-21626: a descriptor of the host's that the runtime left open as working directory."""
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        for number in range(3, 60):
            words = ("exec", "--cwd", f"/proc/self/fd/{number}", name, "/bin/busybox", "cat", "etc/hostname", "proc/1/comm")
            done = oci_called(*words, pass_fds=(fd,))
            assert done.status == 255, done
    finally:
        os.close(fd)
    failed(oci_called("exec", "--cwd", "etc", name, "true"), "absolute")
    failed(oci_called("exec", "--cwd", "/nope", name, "true"), 'chdir to cwd ("/nope") set in config.json failed', "no such file or directory")


def test_a_preserved_descriptor_of_the_host_is_no_working_directory(oci_called: Runtime, name: str) -> None:
    fd = os.open("/", os.O_RDONLY | os.O_DIRECTORY)

    def place() -> None:
        os.dup2(fd, 3)

    try:
        words = ("exec", "--preserve-fds", "1", "--cwd", "/proc/self/fd/3", name, "pwd")
        failed(oci_called(*words, preexec_fn=place, close_fds=False), "cwd")
    finally:
        os.close(fd)


def test_process_file(oci_called: Runtime, bundle: Bundle) -> None:
    """All of it as it is; what it leaves out of the confinement is the container's."""
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": 99, "hard": 100}]
    bundle.process["user"]["umask"] = 0o77
    name = oci_called.detached(bundle.args("sleep", "1000"))
    path = process_file(oci_called, args=["sh", "-c", "id -u; pwd; ulimit -n; umask; cat /proc/self/status"], cwd="/tmp",
                        user={"uid": 3, "gid": 4})  # fmt: skip
    done = oci_called("exec", "--process", path, name).ok()
    status = status_words(done.out)

    assert done.lines[:4] == ["3", "/tmp", "99", "0077"]
    assert (status["NoNewPrivs"], status["CapBnd"]) == ("0", "0000000020000420")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"args": []}, "args"),
        ({"cwd": "etc", "args": ["true"]}, "process.cwd"),
        ({"cwd": "/", "args": "true"}, "process.args"),
        ({"args": ["true"], "user": {"uid": 4294967295, "gid": 0}}, "process.user.uid"),
        ({"args": ["true"], "user": {"uid": -1, "gid": 0}}, "process.user.uid"),
        ({"args": ["true"], "rlimits": [{"type": "RLIMIT_X", "soft": 1, "hard": 1}]}, "RLIMIT_X"),
    ],
)
def test_process_files_that_are_refused(
    oci_called: Runtime, name: str, change: dict[str, Any], told: str
) -> None:
    failed(oci_called("exec", "--process", process_file(oci_called, **change), name), told)


def test_a_process_file_that_is_none(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    failed(oci_called("exec", "-p", tmp_path / "none", name), "none", "no such file or directory")
    (tmp_path / "bad").write_text("{")
    failed(oci_called("exec", "-p", tmp_path / "bad", name), "line 1")
    (tmp_path / "bad").write_text("[]")
    failed(oci_called("exec", "-p", tmp_path / "bad", name), "process")


def test_scheduling_and_affinity(oci_called: Runtime, bundle: Bundle) -> None:
    last = max(os.sched_getaffinity(0))
    bundle.config["process"] |= {
        "scheduler": {"policy": "SCHED_BATCH", "nice": 5},
        "ioPriority": {"class": "IOPRIO_CLASS_IDLE"},
        "execCPUAffinity": {"initial": "0", "final": str(last)},
    }
    name = oci_called.detached(bundle.args("sleep", "1000"))
    script = "grep Cpus_allowed_list /proc/self/status; cut -d' ' -f19,41 /proc/self/stat"
    done = oci_called("exec", name, "sh", "-c", script).ok()

    assert done.lines == [f"Cpus_allowed_list:\t{last}", "5 3"]
    if last:
        initial = process_file(oci_called, args=["sh", "-c", script], execCPUAffinity={"initial": "0"})
        assert oci_called("exec", "-p", initial, name).ok().lines[0] == "Cpus_allowed_list:\t0"


@pytest.mark.parametrize("no_new_privileges", [True, False])
def test_the_same_filter(oci_called: Runtime, bundle: Bundle, no_new_privileges: bool) -> None:
    rule = {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    bundle.process["noNewPrivileges"] = no_new_privileges
    name = oci_called.detached(bundle.args("sleep", "1000"))
    done = oci_called("exec", name, "sh", "-c", "grep Seccomp: /proc/self/status; mkdir /dev/shm/x")

    assert done.out == "Seccomp:\t2\n"
    assert "No space left" in done.err


def test_the_session_keyring_is_the_containers(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["maskedPaths"] = []
    name = oci_called.detached(bundle.script("cat /proc/keys > /dev/shm/keys; sleep 1000"))
    await_true(lambda: oci_called("exec", name, "grep", "_ses", "/dev/shm/keys").status == 0, "the first one's keys")
    words = ("exec", name, "grep", f"_ses.{name}:")
    first, own = (oci_called(*words, f"{place}/keys").ok().out for place in ("/dev/shm", "/proc"))

    assert own.count("\n") == 1
    assert own.split()[0] == first.split()[0]


def test_without_a_session_keyring_of_its_own(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["maskedPaths"] = []
    name = oci_called.create(bundle.args("sleep", "1000"), "--no-new-keyring")
    assert f"_ses.{name}" not in oci_called("exec", name, "cat", "/proc/keys").ok().out


# ---- descriptors, sockets, files -------------------------------------------------------------------------------------


def test_nothing_but_the_streams_is_open(run: Exec) -> None:
    with socket.socket() as held:
        done = run("sh", "-c", "ls /proc/$$/fd; :", pass_fds=(held.fileno(),))

    assert done.lines == ["0", "1", "2"]


def test_preserved_descriptors_and_sockets(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    (tmp_path / "three").write_text("three")
    (tmp_path / "four").write_text("four")
    script = f"exec 3<{tmp_path}/three 4<{tmp_path}/four 5</; export LISTEN_FDS=1 LISTEN_PID=$$; exec "
    words = ["exec", "--preserve-fds", "1", name, "sh", "-c", "cat <&3; cat <&4; echo $LISTEN_FDS $LISTEN_PID; ls /proc/$$/fd; :"]
    script += " ".join(f"'{word}'" for word in oci_called.argv(*words))
    done = subprocess.run(["bash", "-c", script], env=CLEAN, capture_output=True, text=True, check=False, timeout=30)

    assert done.stdout.split() == ["threefour1", "1", "0", "1", "2", "3", "4"], done.stderr
    failed(oci_called("exec", "--preserve-fds", "9", name, "true"), "--preserve-fds", "not open")


def test_detached_with_a_pid_file_and_a_pidfd(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        server.listen(1)
        words = ("--pid-file", tmp_path / "pid", "--pidfd-socket", tmp_path / "socket")
        oci_called.quiet("exec", "--detach", *words, name, "sh", "-c", "exec sleep 1000").ok()
        connection, _ = server.accept()
        with connection:
            _, (fd, *more), _, _ = socket.recv_fds(connection, 4096, 8)
    text = (tmp_path / "pid").read_text()
    pid = int(text)

    assert text == str(pid)
    assert alive(pid) and not more
    assert f"Pid:\t{pid}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
    assert os.listdir(tmp_path).count(".pid") == 0
    assert Path(f"/proc/{pid}/cmdline").read_bytes() == b"sleep\x001000\0"
    os.close(fd)


def test_a_process_that_cannot_be_told_of_does_not_stay(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    (tmp_path / "pid").mkdir()
    done = oci_called.quiet("exec", "-d", "--pid-file", tmp_path / "pid", name, "sleep", "77")
    failed(done, "pid file")
    await_true(lambda: "sleep 77" not in oci_called("exec", name, "ps", "-o", "args").out, "killed")
    assert not (tmp_path / "none").exists()
    failed(oci_called("exec", "--pid-file", tmp_path / "none", name, "nope"), "not found")
    assert not (tmp_path / "none").exists()


def test_no_pipe_of_the_callers_stays_open(oci_called: Runtime, name: str) -> None:
    """Detached with pipes: they end with the process, nothing of ours holds them."""
    begun = oci_called.begin("exec", "--detach", name, "sh", "-c", "echo out; exec sleep 0.3")
    out, _ = begun.communicate(timeout=10)
    assert (out, begun.returncode) == (b"out\n", 0)

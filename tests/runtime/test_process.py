"""process: what the program is, as it sees itself."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from kit import Bundle, Runtime, of_status, status_words

DEFAULT_CAPS = 1 << 29 | 1 << 5 | 1 << 10  # AUDIT_WRITE, KILL, NET_BIND_SERVICE
KINDS = ("bounding", "effective", "permitted", "inheritable", "ambient")


def hexa(number: int) -> str:
    return f"{number:016x}"


# ---- args and env ----------------------------------------------------------------------------------------------------


def test_args_as_they_are(oci: Runtime, bundle: Bundle) -> None:
    words = ["/bin/sh", "-c", 'for w; do echo "<$w>"; done', "sh", "", "a b", "$HOME", "*", "ü", "x" * 5000]
    out = oci.run(bundle.args(*words)).ok().lines
    assert out == ["<>", "<a b>", "<$HOME>", "<*>", "<ü>", f"<{'x' * 5000}>"]


def test_many_args(oci: Runtime, bundle: Bundle) -> None:
    out = oci.run(bundle.args("/bin/sh", "-c", "echo $#", "sh", *["word"] * 20000)).ok().out
    assert out == "20000\n"


def test_the_program_is_found_in_the_containers_path(oci: Runtime, bundle: Bundle) -> None:
    place = bundle.rootfs / "opt/tools"
    place.mkdir(parents=True)
    for folder, word in (("opt/tools", "tool"), ("opt", "never")):
        (bundle.rootfs / folder / "hello").write_text(f"#!/bin/sh\necho {word} $0\n")
        (bundle.rootfs / folder / "hello").chmod(0o755)
    bundle.process["env"] = ["PATH=/none:/opt/tools:/opt"]
    assert oci.run(bundle.args("hello")).ok().out == "tool /opt/tools/hello\n"


def test_a_relative_program_is_taken_from_cwd(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/bin"
    assert oci.run(bundle.args("./echo", "here")).ok().out == "here\n"


@pytest.mark.parametrize(
    ("uid", "env", "home"),
    [(0, [], "/root"), (1000, [], "/home/ann"), (1234, [], "/"), (0, ["HOME=/else"], "/else"), (0, ["HOME="], "/root")],
)
def test_home(oci_called: Runtime, bundle: Bundle, uid: int, env: list[str], home: str) -> None:
    bundle.process["user"] = {"uid": uid, "gid": 0}
    bundle.process["env"] += env
    assert oci_called.tell(bundle, "echo $HOME").out == f"{home}\n"


def test_a_passwd_that_is_a_trap(oci: Runtime, bundle: Bundle) -> None:
    """A link out of the container, or a FIFO: neither is followed nor waited for."""
    passwd = bundle.rootfs / "etc/passwd"
    passwd.unlink()
    (bundle.path / "passwd").write_text("root:x:0:0::/outside:/bin/sh\n")
    passwd.symlink_to("../../passwd")
    assert oci.tell(bundle, "echo $HOME").out == "/\n"
    passwd.unlink()
    os.mkfifo(passwd)
    assert oci.tell(bundle, "echo $HOME").out == "/\n"


def test_the_last_of_two_variables_counts(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["env"] = ["A=1", "PATH=/bin", "A=2"]
    assert oci.run(bundle.args("env")).ok().lines.count("A=2") == 1
    assert "A=1" not in oci.run(bundle.args("env")).ok().lines


# ---- cwd -------------------------------------------------------------------------------------------------------------


def test_cwd(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/etc"
    assert oci.tell(bundle, "pwd; cat passwd").lines[0] == "/etc"


def test_a_cwd_that_is_missing_is_made(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/made/for/me"
    assert oci.tell(bundle, "pwd").out == "/made/for/me\n"
    assert (bundle.rootfs / "made/for/me").is_dir()


def test_a_cwd_through_a_link_stays_inside(oci: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "link").symlink_to("/etc")
    bundle.process["cwd"] = "/link"
    assert oci.tell(bundle, "pwd -P; ls").lines == ["/etc", "passwd"]


def test_a_cwd_that_is_no_directory(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/etc/passwd"
    oci.run(bundle).refused("cwd", "/etc/passwd", "not a directory")
    assert oci.names() == []


def test_a_cwd_that_only_its_user_may_enter(oci: Runtime, bundle: Bundle) -> None:
    place = bundle.rootfs / "private"
    place.mkdir(mode=0o700)
    os.chown(place, 1000, 1000)
    bundle.process["cwd"] = "/private"
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert oci.tell(bundle, "pwd").out == "/private\n"


def test_a_cwd_by_way_of_an_open_descriptor_is_refused(oci: Runtime, bundle: Bundle) -> None:
    """CVE-2024-21626: a directory of the host by way of /proc/self/fd."""
    fd = os.open("/", os.O_RDONLY)
    for number in (fd, 3, 5, 7, 8):
        bundle.process["cwd"] = f"/proc/self/fd/{number}"
        result = oci.run(bundle.script("pwd; ls"), pass_fds=(fd,))
        assert result.status == 1, result
        assert "work" not in result.out
    os.close(fd)


# ---- user ------------------------------------------------------------------------------------------------------------


def test_user_and_groups(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 1002, 7]}
    status = status_words(oci.tell(bundle, "cat /proc/self/status").out)
    assert status["Uid"].split() == ["1000"] * 4
    assert status["Gid"].split() == ["1001"] * 4
    assert sorted(status["Groups"].split()) == ["1002", "5", "7"]


def test_no_group_of_the_callers(oci: Runtime, bundle: Bundle) -> None:
    status = status_words(oci.run(bundle.args("cat", "/proc/self/status"), extra_groups=[4, 6, 20]).ok().out)
    assert status["Groups"] == ""


@pytest.mark.parametrize(("umask", "told"), [(None, "0022"), (0, "0000"), (0o27, "0027"), (0o777, "0777")])
def test_umask(oci_called: Runtime, bundle: Bundle, umask: int | None, told: str) -> None:
    if umask is not None:
        bundle.process["user"]["umask"] = umask
    status = status_words(oci_called.run(bundle.args("cat", "/proc/self/status"), umask=0o77).ok().out)
    assert status["Umask"] == told


# ---- capabilities ----------------------------------------------------------------------------------------------------


def test_default_capabilities(oci: Runtime, bundle: Bundle) -> None:
    status = status_words(oci.tell(bundle, "cat /proc/self/status").out)
    assert status["CapEff"] == status["CapPrm"] == status["CapBnd"] == hexa(DEFAULT_CAPS)
    assert status["CapInh"] == status["CapAmb"] == hexa(0)


def test_each_set_is_as_asked(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["capabilities"] = {
        "bounding": ["CAP_CHOWN", "CAP_KILL", "CAP_NET_RAW"],
        "permitted": ["CAP_CHOWN", "CAP_KILL"],
        "effective": ["CAP_KILL"],
        "inheritable": ["CAP_CHOWN"],
        "ambient": [],
    }
    # exec gives a root user all of the bounding set: as another user the sets stay as they were set, less what exec drops.
    status = status_words(oci.run(bundle.args("cat", "/proc/self/status")).ok().out)
    assert status["CapBnd"] == hexa(1 << 0 | 1 << 5 | 1 << 13)
    assert status["CapInh"] == hexa(1)


def test_ambient_ones_reach_a_plain_user(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {kind: ["CAP_NET_BIND_SERVICE"] for kind in KINDS}
    status = status_words(oci.tell(bundle, "cat /proc/self/status").out)
    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {hexa(1 << 10)}


def test_without_ambient_ones_a_plain_user_has_none(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    status = status_words(oci.tell(bundle, "cat /proc/self/status").out)
    assert status["CapEff"] == status["CapPrm"] == hexa(0)
    assert status["CapBnd"] == hexa(DEFAULT_CAPS)


def test_without_capabilities_root_has_none(oci: Runtime, bundle: Bundle) -> None:
    del bundle.process["capabilities"]
    status = status_words(oci.tell(bundle, "cat /proc/self/status").out)
    assert {status[f"Cap{name}"] for name in ("Inh", "Prm", "Eff", "Bnd", "Amb")} == {hexa(0)}


@pytest.mark.parametrize("wanted", [True, False])
def test_no_new_privileges(oci: Runtime, bundle: Bundle, wanted: bool) -> None:
    bundle.process["noNewPrivileges"] = wanted
    assert status_words(oci.tell(bundle, "cat /proc/self/status").out)["NoNewPrivs"] == str(int(wanted))


# ---- limits and places in orders -------------------------------------------------------------------------------------


def test_rlimits(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["rlimits"] = [
        {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
        {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
        {"type": "RLIMIT_STACK", "soft": 1 << 20, "hard": 1 << 21},
        {"type": "RLIMIT_FSIZE", "soft": 1 << 30, "hard": 18446744073709551615},
    ]
    rows = {line[:25].strip(): line[25:].split()[:2] for line in oci.tell(bundle, "cat /proc/self/limits").lines}
    assert rows["Max open files"] == ["100", "200"]
    assert rows["Max core file size"] == ["0", "0"]
    assert rows["Max stack size"] == ["1048576", "2097152"]
    assert rows["Max file size"] == [str(1 << 30), "unlimited"]


def test_limits_that_are_not_named_are_the_callers(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["rlimits"] = []

    def caller() -> None:
        resource.setrlimit(resource.RLIMIT_NPROC, (4321, 5432))

    rows = oci.run(bundle.args("cat", "/proc/self/limits"), preexec_fn=caller).ok().lines
    assert [row.split()[2:4] for row in rows if row.startswith("Max processes")] == [["4321", "5432"]]


def test_a_rlimit_that_cannot_be_raised(oci: Runtime, bundle: Bundle) -> None:
    if int(of_status(os.getpid(), "CapEff"), 16) >> 24 & 1:
        pytest.skip("we may raise limits")
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    bundle.process["rlimits"] = [{"type": "RLIMIT_NOFILE", "soft": hard + 1, "hard": hard + 1}]
    oci.run(bundle).refused("process.rlimits", "RLIMIT_NOFILE", "operation not permitted")
    assert oci.names() == []


def test_oom_score(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["oomScoreAdj"] = 654
    assert oci.tell(bundle, "cat /proc/self/oom_score_adj").out == "654\n"


def test_without_oom_score_it_is_the_callers(oci: Runtime, bundle: Bundle) -> None:
    bundle.process.pop("oomScoreAdj", None)

    def caller() -> None:
        Path("/proc/self/oom_score_adj").write_text("123")

    assert oci.run(bundle.args("cat", "/proc/self/oom_score_adj"), preexec_fn=caller).ok().out == "123\n"


def test_scheduler_and_io_priority(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_BATCH", "nice": 7}
    bundle.process["ioPriority"] = {"class": "IOPRIO_CLASS_BE", "priority": 6}
    name = oci.detached(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    assert fields[16] == "7"  # nice
    assert fields[38] == "3"  # policy: SCHED_BATCH
    assert os.sched_getscheduler(pid) == os.SCHED_BATCH


def test_personality(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["personality"] = {"domain": "LINUX32"}
    assert oci.tell(bundle, "uname -m").out.strip() in ("i686", "armv8l", "riscv32")


def test_the_waiting_process_has_the_users_identity(oci: Runtime, bundle: Bundle) -> None:
    """Already between create and start: its credentials and limits are those of the program."""
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [44]}
    name = oci.create(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    before = {key: of_status(pid, key) for key in ("Uid", "Gid", "Groups", "CapBnd", "NoNewPrivs", "Umask")}
    assert before["Uid"].split() == ["1000"] * 4
    oci("start", name).ok()
    assert {key: of_status(pid, key) for key in before} == before

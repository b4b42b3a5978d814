"""A pid namespace that is joined is entered last: what the program and those around it get is the same."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import Bundle, Runtime, await_true, of_status, processes, shell


@pytest.fixture
def other(oci_holder: Runtime, bundle: Bundle) -> Iterator[int]:
    yield oci_holder.pid(oci_holder.detached(bundle.args("sleep", "1000")))


def joining(bundle: Bundle, pid: int) -> Bundle:
    return bundle.namespace("pid", f"/proc/{pid}/ns/pid")


def test_the_state_names_the_process_that_entered(oci: Runtime, bundle: Bundle, other: int, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    name = oci.create(joining(bundle, other).args("sleep", "1000"), "--pid-file", pid_file)
    pid = oci.state(name)["pid"]
    assert Path(f"/proc/{pid}/ns/pid").readlink() == Path(f"/proc/{other}/ns/pid").readlink()
    assert int(pid_file.read_text()) == pid
    assert of_status(pid, "NSsid").split()[-1] == of_status(pid, "NSpid").split()[-1], "it leads its session"
    oci("start", name).ok()
    assert oci.state(name)["status"] == "running"
    oci("kill", name, "KILL").ok()
    oci.wait_stopped(name)


def test_its_proc_is_that_of_the_namespace(oci: Runtime, bundle: Bundle, other: int) -> None:
    told = oci.tell(joining(bundle, other), "cat /proc/1/comm; readlink /proc/self/ns/pid; readlink /proc/1/ns/mnt || echo no")
    assert told.lines[0] == "sleep"
    assert told.lines[1] == str(Path(f"/proc/{other}/ns/pid").readlink())


def test_hooks_are_told_the_right_process(oci: Runtime, bundle: Bundle, other: int, tmp_path: Path) -> None:
    shared = tmp_path / "told"
    shared.mkdir()
    joining(bundle, other).bind(shared, "/tmp").script("echo $$ > /tmp/own")
    for number in (1, 2):
        bundle.hook("startContainer", f"cat > /tmp/inside{number}")
    bundle.hook("poststart", f"cat > {shared}/outside")
    oci.run(bundle).ok()
    own = int((shared / "own").read_text())
    assert [json.loads((shared / f"inside{n}").read_text())["pid"] for n in (1, 2)] == [own, own]
    assert json.loads((shared / "outside").read_text())["status"] == "running"


@pytest.mark.parametrize("denied", [[], ["clone3"], ["clone", "clone3"], ["setsid"]])
@pytest.mark.parametrize("nnp", [True, False])
def test_with_a_filter(oci_called: Runtime, bundle: Bundle, other: int, denied: list[str], nnp: bool) -> None:
    joining(bundle, other).args("echo", "hello")
    bundle.process["noNewPrivileges"] = nnp
    rules = [{"names": denied, "action": "SCMP_ACT_ERRNO"}] if denied else []
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    assert oci_called.run(bundle).ok().out == "hello\n"


def test_a_kill_at_any_instant_leaves_nothing(oci_called: Runtime, bundle: Bundle, other: int) -> None:
    path = joining(bundle, other).args("sleep", "1000").save()
    for number in range(15):
        name = oci_called.id()
        process = oci_called.begin("create", "--bundle", path, name)
        shell(f"sleep {0.02 + number * 0.003}")
        process.kill()
        process.wait()
        oci_called("delete", "--force", name).ok()
    await_true(lambda: not list(processes(oci_called)), "nothing waits")


def test_with_a_terminal(oci_called: Runtime, bundle: Bundle, other: int, tmp_path: Path) -> None:
    bundle.process["terminal"] = True
    joining(bundle, other).script("tty; ps -o pid,tty,args | grep -c pts; exit 7")
    command = " ".join(oci_called.argv("run", "--bundle", bundle.save(), oci_called.id()))
    done = shell(f"script -qec '{command}' /dev/null && echo status $? || echo status $?")
    assert "/dev/console" in done.out or "/dev/pts/0" in done.out, done
    assert "status 7" in done.out

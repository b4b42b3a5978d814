"""What waits between create and start, and how the program is found and becomes it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from kit import Bundle, Runtime, alive, await_true, of_status, wait_gone

SMALL = 150
"""KiB of PSS that a created container may take."""


def executable(bundle: Bundle, name: str, content: bytes, mode: int = 0o755) -> str:
    """A file in the container; returns its path there."""
    path = bundle.rootfs / "bin" / name
    path.write_bytes(content)
    path.chmod(mode)
    return f"/bin/{name}"


# ---- what waits ------------------------------------------------------------------------------------------------------


def test_what_waits_is_not_python(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle)
    pid = oci.pid(name)
    exe = os.readlink(f"/proc/{pid}/exe")
    assert exe.startswith("/memfd:")
    maps = Path(f"/proc/{pid}/maps").read_text()
    assert "python" not in maps and ".so" not in maps
    assert of_status(pid, "Threads") == "1"


def test_what_waits_is_small(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle)
    rollup = Path(f"/proc/{oci.pid(name)}/smaps_rollup").read_text().splitlines()
    (pss,) = (int(line.split()[1]) for line in rollup if line.startswith("Pss:"))
    assert pss <= SMALL


def test_what_waits_is_sealed(oci: Runtime, bundle: Bundle) -> None:
    """Nothing that the container can open by way of /proc/self/exe can be written to."""
    import fcntl

    name = oci.create(bundle)
    fd = os.open(f"/proc/{oci.pid(name)}/exe", os.O_RDONLY)
    try:
        assert fcntl.fcntl(fd, fcntl.F_GET_SEALS) & 0xF == 0xF
        with pytest.raises(OSError):
            os.open(f"/proc/self/fd/{fd}", os.O_WRONLY)
    finally:
        os.close(fd)


def test_what_waits_has_no_descriptor_of_the_host(oci: Runtime, bundle: Bundle) -> None:
    """Its streams and the two FIFOs; no directory, no file of the host's."""
    name = oci.create(bundle)
    place = f"/proc/{oci.pid(name)}/fd"
    links = {int(fd): os.readlink(f"{place}/{fd}") for fd in os.listdir(place)}
    assert {0, 1, 2} <= set(links)
    others = sorted(os.path.basename(link) for fd, link in links.items() if fd > 2)
    assert others == ["exec.fifo", "exec.status"]


def test_what_waits_cannot_be_traced_by_its_user(oci: Runtime, bundle: Bundle) -> None:
    """Not dumpable: its files in /proc belong to root."""
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    name = oci.create(bundle)
    assert os.stat(f"/proc/{oci.pid(name)}/exe", follow_symlinks=False).st_uid == 0


def test_the_program_is_dumpable_again(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    assert oci.tell(bundle, "stat -c %u /proc/self/exe").out == "1000\n"


@pytest.mark.parametrize("number", ["TERM", "INT", "QUIT", "KILL"])
def test_what_waits_ends_by_what_ends_others(oci: Runtime, bundle: Bundle, number: str) -> None:
    """Though it is the first process of a pid namespace, which is deaf to what it does not handle."""
    name = oci.create(bundle.script("echo started"))
    pid = oci.pid(name)
    for harmless in ("CONT", "USR1", "HUP"):
        oci("kill", name, harmless).ok()
    assert oci.state(name)["status"] == "created"
    oci("kill", name, number).ok()
    wait_gone(pid)
    assert oci.state(name)["status"] == "stopped"
    oci("start", name).refused("cannot start a container that has stopped")
    oci("delete", name).ok()


# ---- start -----------------------------------------------------------------------------------------------------------


def test_start_twice(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle.args("sleep", "1000"))
    oci("start", name).ok()
    oci("start", name).refused("cannot start an already running container")
    assert oci.state(name)["status"] == "running"


def test_start_returns_when_the_program_runs(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle.args("/bin/sleep", "1000"))
    oci("start", name).ok()
    assert Path(f"/proc/{oci.pid(name)}/cmdline").read_bytes() == b"/bin/sleep\x001000\x00"


def test_only_one_of_many_starts_wins(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.create(bundle.script("echo x >> /tmp/ran; exec sleep 1000").writable())
    starts = [oci_called.begin("start", name) for _ in range(5)]
    statuses = sorted(process.wait(20) for process in starts)
    assert statuses == [0, 1, 1, 1, 1]
    await_true(lambda: (bundle.rootfs / "tmp/ran").exists(), "the program")
    assert (bundle.rootfs / "tmp/ran").read_text() == "x\n"


def test_edits_after_create_change_nothing(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.script("echo first > /tmp/which; exec sleep 1000").writable()
    bundle.hook("poststart", f"echo first > {tmp_path}/hook")
    name = oci.create(bundle)
    bundle.config["hooks"] = {}
    bundle.config["annotations"] = {"new": "1"}
    bundle.hook("poststart", f"echo second > {tmp_path}/hook")
    bundle.script("echo second > /tmp/which").save()
    oci("start", name).ok()
    await_true(lambda: (bundle.rootfs / "tmp/which").exists(), "the program")
    assert (bundle.rootfs / "tmp/which").read_text() == "first\n"
    assert (tmp_path / "hook").read_text() == "first\n"
    assert "annotations" not in oci.state(name)
    (bundle.path / "config.json").unlink()
    oci("kill", name, "KILL").ok()
    oci.wait_stopped(name)
    oci("delete", name).ok()


# ---- programs that cannot be run -------------------------------------------------------------------------------------

NOT_FOUND = [
    ("nope", 'exec: "nope": executable file not found in $PATH'),
    ("/no/such", 'exec: "/no/such": no such file or directory'),
    ("/etc/passwd", 'exec: "/etc/passwd": permission denied'),
    ("/bin", 'exec: "/bin": is a directory'),
    ("/etc/passwd/x", 'exec: "/etc/passwd/x": not a directory'),
    ("", 'exec: "": executable file not found in $PATH'),
]


@pytest.mark.parametrize(("program", "told"), NOT_FOUND[:-1])
def test_a_program_that_create_knows_cannot_be_run(oci: Runtime, bundle: Bundle, program: str, told: str) -> None:
    oci("create", "--bundle", bundle.args(program).save(), oci.id()).refused(told)
    assert oci.names() == []


def test_found_but_not_for_this_user(oci: Runtime, bundle: Bundle) -> None:
    executable(bundle, "mine", b"#!/bin/sh\n", 0o700)
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    oci.run(bundle.args("/bin/mine")).refused('exec: "/bin/mine": permission denied')
    oci.run(bundle.args("mine")).refused('exec: "mine": executable file not found in $PATH')


def test_a_program_behind_a_bad_one_in_path(oci: Runtime, bundle: Bundle) -> None:
    """As execvp(3) does: what cannot be executed is passed over."""
    (bundle.rootfs / "a/tool").mkdir(parents=True)
    (bundle.rootfs / "b").mkdir()
    (bundle.rootfs / "b/tool").write_text("not executable")
    executable(bundle, "tool", b"#!/bin/sh\necho found\n")
    bundle.process["env"] = ["PATH=/a:/b:/bin"]
    assert oci.run(bundle.args("tool")).ok().out == "found\n"


START_FAILS = [
    ("interpreter", b"#!/no/interpreter\n", "no such file or directory"),
    ("crlf", b"#!/bin/sh\r\necho\r\n", "no such file or directory"),
    ("format", b"\x01\x02\x03\x04nothing that runs", "exec format error"),
    ("empty", b"", "exec format error"),
    ("short", b"\x7fELF", "exec format error"),
]


@pytest.mark.parametrize(("name", "content", "told"), START_FAILS, ids=[row[0] for row in START_FAILS])
def test_a_program_that_only_exec_knows_cannot_be_run(
    oci: Runtime, bundle: Bundle, name: str, content: bytes, told: str
) -> None:
    """start itself says so, nothing goes on running, and the container can be deleted."""
    path = executable(bundle, name, content)
    box = oci.create(bundle.args(path))
    pid = oci.pid(box)
    oci("start", box).refused(path, told)
    assert not alive(pid)
    assert oci.state(box)["status"] == "stopped"
    oci("start", box).refused("cannot start a container that has stopped")
    oci("delete", box).ok()


def test_run_of_a_program_that_cannot_be_run(oci: Runtime, bundle: Bundle) -> None:
    path = executable(bundle, "bad", b"#!/no/interpreter\n")
    for options in ([], ["--detach"], ["--keep"]):
        oci.run(bundle.args(path), *options).refused(path, "no such file or directory")
        assert oci.names() == []


def test_a_program_removed_after_create(oci: Runtime, bundle: Bundle) -> None:
    path = executable(bundle, "gone", b"#!/bin/sh\n")
    name = oci.create(bundle.args(path))
    (bundle.rootfs / "bin/gone").unlink()
    oci("start", name).refused(path, "no such file or directory")
    assert oci.state(name)["status"] == "stopped"


def test_without_a_process_it_is_created_and_start_fails(oci: Runtime, bundle: Bundle) -> None:
    del bundle.config["process"]
    name = oci.create(bundle)
    assert oci.state(name)["status"] == "created"
    oci("start", name).refused("process property must not be empty")
    assert oci.state(name)["status"] == "stopped"
    oci("delete", name).ok()


def test_a_long_life_of_restarts_leaves_nothing(oci_called: Runtime, bundle: Bundle) -> None:
    """Descriptors, keyrings, cgroups: a hundred containers with the same ID one after the other."""
    name = oci_called.id()
    bundle.args("true").save()
    for _ in range(40):
        assert oci_called("run", "--bundle", bundle.path, name).ok().err == ""
    assert oci_called.names() == []


def test_the_json_of_the_folder_is_whole(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle)
    folder = oci.root / name
    assert folder.stat().st_mode & 0o777 == 0o700
    state = json.loads((folder / "state.json").read_bytes())
    assert state["status"] == "created"
    assert json.loads((folder / "config.json").read_bytes()) == bundle.config
    assert not [path for path in folder.iterdir() if path.name.endswith(".new")]
    os.kill(state["pid"], signal.SIGKILL)

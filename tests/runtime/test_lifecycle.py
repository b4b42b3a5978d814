"""A container's way from create to delete, as a caller sees it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path

import pytest

from kit import Bundle, Runtime, alive, cgroups_of, kill, of_status, wait_gone


def test_create_start_kill_delete(oci: Runtime, bundle: Bundle) -> None:
    bundle.script("echo started > /tmp/mark; exec sleep 1000").writable()
    name = oci.create(bundle)
    created = oci.state(name)
    assert created["status"] == "created"
    assert created["id"] == name
    assert created["bundle"] == str(bundle.path)
    assert created["rootfs"] == str(bundle.rootfs)
    assert created["ociVersion"] == bundle.config["ociVersion"]
    assert alive(created["pid"])
    assert not (bundle.rootfs / "tmp/mark").exists()

    oci("start", name).ok()
    running = oci.state(name)
    assert running["status"] == "running"
    assert running["pid"] == created["pid"]

    oci("kill", name, "KILL").ok()
    wait_gone(running["pid"])
    assert (bundle.rootfs / "tmp/mark").read_text() == "started\n"
    stopped = oci.state(name)
    assert stopped["status"] == "stopped"
    assert stopped["pid"] == 0

    oci("delete", name).ok()
    oci("state", name).refused("container does not exist")
    assert oci.names() == []


def test_the_commands_say_nothing_when_all_is_well(oci: Runtime, bundle: Bundle) -> None:
    bundle.args("sleep", "1000")
    name = oci.id()
    results = [oci.quiet("create", "--bundle", bundle.save(), name), oci("start", name), oci("kill", name, "9")]
    oci.wait_stopped(name)
    results.append(oci("delete", name))
    assert [(r.status, r.out, r.err) for r in results] == [(0, "", "")] * 4


def test_the_bundle_is_the_working_directory_by_default(oci: Runtime, bundle: Bundle) -> None:
    bundle.args("echo", "here")
    assert oci("run", oci.id(), cwd=bundle.save()).ok().out == "here\n"


def test_the_bundle_is_where_the_kernel_finds_it(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """Through a link and back up, which the text of the path alone would put elsewhere."""
    bundle.save()
    (tmp_path / "far").mkdir()
    (tmp_path / "far/link").symlink_to(bundle.path)
    for given in ("far/link", "far/link/", "far/link/../bundle"):
        name = oci.id()
        oci.quiet("create", "--bundle", given, name, cwd=tmp_path).ok()
        assert oci.state(name)["bundle"] == str(bundle.path)
    (tmp_path / "new").mkdir()
    (tmp_path / "far/new").symlink_to(tmp_path / "new")
    oci("spec", "--bundle", "far/new/../new", cwd=tmp_path).ok()
    assert (tmp_path / "new/config.json").exists()


def test_list_shows_all_and_their_state(oci: Runtime, bundle: Bundle) -> None:
    bundle.args("sleep", "1000")
    created, running = oci.create(bundle), oci.detached(bundle)
    listed = {row["id"]: row for row in oci("list", "--format", "json").ok().json}
    assert {name: row["status"] for name, row in listed.items()} == {created: "created", running: "running"}
    assert listed[running]["pid"] == oci.pid(running)
    table = oci("list").ok().lines
    assert table[0].split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    assert {line.split()[0] for line in table[1:]} == {created, running}
    assert set(oci("list", "-q").ok().lines) == {created, running}


def test_delete_ends_a_created_container(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle)
    pid = oci.pid(name)
    oci("delete", name).ok()
    assert not alive(pid)


def test_delete_by_force_ends_a_running_one(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.script("trap '' TERM; sleep 1000 & wait"))
    pid = oci.pid(name)
    oci("delete", "--force", name).ok()
    assert not alive(pid)
    assert cgroups_of([name]) == []


def test_an_id_can_be_used_again(oci: Runtime, bundle: Bundle) -> None:
    name = oci.id()
    for word in ("one", "two"):
        assert oci.run(bundle.args("echo", word), name=name).ok().out == f"{word}\n"


@pytest.mark.parametrize(("script", "status"), [("exit 0", 0), ("exit 3", 3), ("exit 255", 255), ("kill -TERM $$", 0)])
def test_run_ends_as_the_program_does(oci: Runtime, bundle: Bundle, script: str, status: int) -> None:
    # The first process of a pid namespace is spared by signals that it does not handle: kill -TERM $$ does nothing.
    assert oci.run(bundle.script(script)).status == status
    assert oci.names() == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGUSR1])
def test_run_tells_of_death_by_a_signal(oci_called: Runtime, bundle: Bundle, number: int) -> None:
    bundle.without("pid").script(f"kill -{int(number)} $$")
    assert oci_called.run(bundle).status == 128 + number


def test_run_keep_leaves_a_stopped_container(oci: Runtime, bundle: Bundle) -> None:
    name = oci.id()
    assert oci.run(bundle.script("exit 4"), "--keep", name=name).status == 4
    assert oci.state(name)["status"] == "stopped"
    oci("delete", name).ok()


def test_run_without_subreaper(oci: Runtime, bundle: Bundle) -> None:
    assert oci.run(bundle.script("exit 5"), "--no-subreaper").status == 5


def test_detached_run_returns_while_the_program_runs(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.args("sleep", "1000"))
    assert oci.state(name)["status"] == "running"
    oci("kill", name, "SIGKILL").ok()
    oci.wait_stopped(name)
    oci("delete", name).ok()


def test_the_first_process_is_left_to_the_caller(oci: Runtime, bundle: Bundle) -> None:
    """No process of ours stays between the caller (here: as subreaper, as conmon and buildah are) and the container."""
    subreaper = (
        "import ctypes, os, subprocess, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0); "
        "subprocess.run(sys.argv[2:], check=True); pid = int(open(sys.argv[1]).read()); os.kill(pid, 9); "
        "print(os.waitpid(pid, 0)[1])"
    )
    pid_file = oci.place / "pid"
    name = oci.id()
    argv = oci.argv("run", "-d", "--pid-file", pid_file, "--bundle", bundle.args("sleep", "1000").save(), name)
    runtime = Runtime(oci.place)
    runtime.argv = lambda *words: ["/usr/bin/python3", "-c", subreaper, str(pid_file), *argv]  # type: ignore[method-assign]
    assert runtime().ok().out == "9\n"


def test_pid_file(oci: Runtime, bundle: Bundle) -> None:
    place = oci.place / "pid"
    name = oci.create(bundle, "--pid-file", place)
    assert place.read_bytes() == str(oci.pid(name)).encode()


def test_a_relative_pid_file_is_the_callers(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle, "--pid-file", "pid", cwd=oci.place)
    assert (oci.place / "pid").read_text() == str(oci.pid(name))


def test_annotations_are_told(oci: Runtime, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"org.example.key": "välue", "b": ""}
    name = oci.create(bundle)
    assert oci.state(name)["annotations"] == {"org.example.key": "välue", "b": ""}


def test_a_process_that_ended_leaves_a_stopped_container(oci: Runtime, bundle: Bundle) -> None:
    """Also while nobody has collected it: a zombie does not run."""
    name = oci.id()
    process = oci.begin("run", "--keep", "--bundle", bundle.args("sleep", "1000").save(), name)
    while not (oci.root / name / "state.json").exists() or oci.state(name)["status"] != "running":
        pass
    pid = oci.pid(name)
    os.kill(process.pid, signal.SIGSTOP)  # whose child it is: it does not collect it now
    kill(pid)
    assert of_status(pid, "State").startswith("Z")
    assert oci.state(name)["status"] == "stopped"
    os.kill(process.pid, signal.SIGCONT)
    assert process.wait(10) == 128 + 9


def test_state_of_another_boot_is_stopped(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.args("sleep", "1000"))
    file = oci_called.root / name / "state.json"
    state = json.loads(file.read_bytes())
    real = state["ocimk"]["bootId"]
    state["ocimk"]["bootId"] = "another"
    file.write_text(json.dumps(state))
    assert oci_called.state(name)["status"] == "stopped"
    oci_called("kill", name).refused("container not running")
    state["ocimk"]["bootId"] = real
    file.write_text(json.dumps(state))
    assert oci_called.state(name)["status"] == "running"


def test_spec_writes_a_bundle_that_runs(oci: Runtime, bundle: Bundle) -> None:
    place = oci.place / "fresh"
    place.mkdir()
    (place / "rootfs").symlink_to(bundle.rootfs)
    oci("spec", cwd=place).ok()
    config = json.loads((place / "config.json").read_text())
    assert config["process"]["terminal"] is True
    config["process"] |= {"terminal": False, "args": ["echo", "fine"]}
    (place / "config.json").write_text(json.dumps(config))
    assert oci("run", oci.id(), cwd=place).ok().out == "fine\n"


def test_config_of_another_name(oci: Runtime, bundle: Bundle) -> None:
    bundle.args("echo", "bundle").save()
    other: Path = oci.place / "other.json"
    bundle.args("echo", "other")
    other.write_text(json.dumps(bundle.config))
    assert oci("run", "--bundle", bundle.path, "--config", other, oci.id()).ok().out == "other\n"

"""oci-state apply: transitions, committed or refused."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_kit import CONFIG, OCI_STATE, Box

from ocimk.container import state as states
from ocimk.container.folder import Folder
from ocimk.errors import Error, Usage
from ocimk.linux import process
from ocimk.stages import state as stage

Boxes = Callable[..., Box]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Boxes]:
    made: list[Box] = []

    def make(to: str = "creating", config: dict[str, object] | None = None) -> Box:
        made.append(Box(tmp_path, f"c{len(made)}", config, to))
        return made[-1]

    yield make
    for each in made:
        each.clean()


def test_creating_records_who_makes_it(box: Boxes) -> None:
    state = box().recorded()
    assert (state["status"], state["pid"], state["owner"]) == ("creating", 0, os.geteuid())
    assert state["rootfs"] == "/bundle/rootfs"
    assert state["created"] == state["ocimk"]["times"]["creating"]
    assert state["ocimk"]["creator"] == [os.getpid(), process.start_time(os.getpid())]
    assert state["ocimk"]["bootId"] == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_created_names_the_process_by_its_start(box: Boxes) -> None:
    made = box("created")
    state = made.recorded()
    fields = Path(f"/proc/{made.pid}/stat").read_text().rpartition(")")[2].split()
    assert (state["pid"], state["ocimk"]["startTime"]) == (made.pid, int(fields[19]))


def test_the_order_is_kept(box: Boxes) -> None:
    allowed = {
        "creating": {"creating", "created", "stopped"},
        "created": {"running", "stopped"},
        "running": {"stopped"},
        "stopped": {"stopped"},
    }
    for start, good in allowed.items():
        for to in states.ORDER:
            made = box(start)
            if start == "stopped":
                made.to("stopped")
            before = (made.path / "state.json").read_bytes()
            if to in good:
                made.to(to)
                assert made.recorded()["status"] == to
                assert list(made.recorded()["ocimk"]["times"])[-1] == to
            else:
                with pytest.raises(Error, match=f"it is {start} and cannot become {to}"):
                    made.to(to)
                with pytest.raises(Error, match=f"it is {start} and cannot become {to}"):
                    states.advance(made.folder, to)
                assert (made.path / "state.json").read_bytes() == before


def test_created_is_refused_for_a_process_that_has_ended(box: Boxes) -> None:
    made = box()
    ended = subprocess.Popen(["true"])
    os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
    with pytest.raises(Error, match="its first process .* has ended"):
        made.to("created", pid=str(ended.pid))
    ended.wait()
    assert made.recorded()["status"] == "creating"


def test_created_is_refused_without_a_process(box: Boxes) -> None:
    made = box()
    with pytest.raises(Error, match="no first process is recorded"):
        stage.apply(made.folder, {}, ["created"])


def test_the_process_that_another_stage_recorded_is_taken(box: Boxes) -> None:
    made = box()
    made.process = subprocess.Popen(["sleep", "100"])
    own = {**made.folder.state["ocimk"], "startTime": process.start_time(made.pid)}
    made.folder.commit(pid=made.pid, ocimk=own)
    stage.apply(made.folder, {}, ["created"])
    assert states.status(made.folder) == "created"
    own["startTime"] += 1
    made.folder.commit(status="creating", ocimk=own)
    with pytest.raises(Error, match="has ended"):
        stage.apply(made.folder, {}, ["created"])


def test_stopped_keeps_the_exit_that_is_known(box: Boxes) -> None:
    made = box("running")
    made.end()
    made.to("stopped", signal="9")
    made.to("stopped", exit_status="0")
    assert made.recorded()["ocimk"]["exit"] == {"signal": 9}


@pytest.mark.parametrize(
    "namespaces, told",
    [([{"type": "pid"}], "new"), ([{"type": "pid", "path": "/proc/1/ns/pid"}], "joined"), ([], "host")],
)
def test_the_pid_namespace(box: Boxes, namespaces: list[object], told: str) -> None:
    made = box(config={**CONFIG, "linux": {"namespaces": namespaces}})
    assert made.recorded()["ocimk"]["pidNamespace"] == told


@pytest.mark.parametrize(
    "layout, freezer",
    [
        ({"mode": "v2", "paths": {"": "/sys/fs/cgroup/c"}}, "/sys/fs/cgroup/c/cgroup.events"),
        ({"mode": "v1", "paths": {"freezer": "/f/c", "pids": "/p/c"}}, "/f/c/freezer.state"),
        ({"mode": "hybrid", "paths": {"freezer": "/f/c", "": "/u/c"}}, "/u/c/cgroup.events"),
        ({"mode": "none", "paths": {}}, ""),
        (None, ""),
    ],
)
def test_where_it_is_told_that_it_is_frozen(box: Boxes, layout: object, freezer: str) -> None:
    made = box()
    if layout is not None:
        made.folder.write("cgroup.json", json.dumps(layout).encode())
    made.to("created")
    assert made.recorded()["ocimk"]["freezer"] == freezer


@pytest.mark.parametrize("operands", [[], ["paused"], ["created", "running"]])
def test_wrong_operands(box: Boxes, operands: list[str]) -> None:
    with pytest.raises(Usage):
        stage.apply(box().folder, {}, operands)


def test_the_program_takes_its_caller_for_the_creator(box: Boxes) -> None:
    made = box()
    subprocess.run([OCI_STATE, "apply", made.path, "creating"], check=True)
    assert made.recorded()["ocimk"]["creator"] == [os.getpid(), process.start_time(os.getpid())]


def test_by_hand_without_creating(tmp_path: Path) -> None:
    """A chain typed by hand may leave out the transition to creating: created makes up for it."""
    folder = Folder(str(tmp_path / "hand"))
    folder.make("/bundle", CONFIG)
    folder.write("config.json", json.dumps(CONFIG).encode())
    folder.release()
    with subprocess.Popen(["sleep", "100"]) as sleep:
        subprocess.run([OCI_STATE, "apply", folder.path, "created", "--pid", str(sleep.pid)], check=True)
        folder.forget()
        assert states.status(folder) == "created"
        assert folder.state["rootfs"] == "/bundle/rootfs"
        assert folder.state["ocimk"]["pidNamespace"] == "new"
        sleep.kill()


def test_undo_leaves_the_folder_what_it_is_and_may_be_repeated(box: Boxes) -> None:
    made = box("created")
    before = made.recorded()
    for _ in range(2):
        subprocess.run([OCI_STATE, "undo", made.path], check=True)
    assert made.recorded() == before


def test_explain_changes_nothing_and_names_the_file(box: Boxes) -> None:
    made = box("created")
    before = made.recorded()
    done = subprocess.run(
        [OCI_STATE, "explain", made.path, "running"], check=True, capture_output=True, text=True
    )
    assert f"mv {made.path}/.state.json.new {made.path}/state.json" in done.stdout
    assert made.recorded() == before


def test_check_finds_nothing_missing_here(box: Boxes) -> None:
    assert stage.check(box().folder) == []

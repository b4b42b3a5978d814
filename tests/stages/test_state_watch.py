"""oci-state watch: every transition of real processes and folders, in order, none missed."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_kit import TREE, Box, Program, holds_pidfd, wait_until

from ocimk.container.folder import Folder
from ocimk.linux.process import start_time

Watch = Callable[..., Program]
Boxes = Callable[..., Box]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


@pytest.fixture
def watch(root: Path) -> Iterator[Watch]:
    started: list[Program] = []

    def start(*argv: str) -> Program:
        started.append(Program("watch", "--root", str(root), *argv))
        return started[-1]

    yield start
    for program in started:
        program.stop()


@pytest.fixture
def box(root: Path) -> Iterator[Boxes]:
    made: list[Box] = []

    def make(name: str = "c1", to: str = "running") -> Box:
        made.append(Box(root, name, to=to))
        return made[-1]

    yield make
    for each in made:
        each.clean()


def test_a_whole_life_is_told_in_order(watch: Watch, box: Boxes, root: Path) -> None:
    root.mkdir()
    program = watch()
    container = box(to="created")
    creating, created = program.line(), program.line()
    assert (creating["status"], creating["pid"]) == ("creating", 0)
    assert (created["id"], created["status"], created["pid"]) == ("c1", "created", container.pid)
    container.to("running")
    assert program.line()["status"] == "running"
    container.end(9)
    stopped = program.line()
    assert (stopped["status"], stopped["pid"], stopped["signal"]) == ("stopped", container.pid, 9)
    shutil.rmtree(container.path)
    assert program.line()["status"] == "deleted"


def test_the_root_may_come_later_and_its_parents_too(watch: Watch, box: Boxes, root: Path) -> None:
    program = Program("watch", "--root", str(root / "a" / "b"))
    try:
        root.mkdir()
        (root / "a").mkdir()
        (root / "a" / "b").mkdir()
        container = Box(root / "a" / "b", "late")
        assert program.statuses(3) == [("late", "creating"), ("late", "created"), ("late", "running")]
        container.clean()
        assert program.line()["status"] == "stopped"
        shutil.rmtree(root / "a")
        assert program.line()["status"] == "deleted"
        container = Box(root / "a" / "b", "again", to="creating")
        assert program.statuses(1) == [("again", "creating")]
    finally:
        program.stop()


def test_a_container_not_started_by_the_watcher_and_already_running(watch: Watch, box: Boxes) -> None:
    container = box()
    program = watch()
    container.end(15)
    line = program.line()
    assert (line["status"], line["signal"]) == ("stopped", 15)


def test_what_was_before_is_told_only_from_start(watch: Watch, box: Boxes) -> None:
    container = box()
    quiet, full = watch(), watch("--from-start")
    assert [status for _, status in full.statuses(3)] == ["creating", "created", "running"]
    container.end()
    assert quiet.line()["status"] == "stopped"


def test_the_times_are_those_of_the_transitions(watch: Watch, box: Boxes) -> None:
    container = box()
    program = watch("--from-start")
    told = {line["status"]: line["time"] for line in (program.line() for _ in range(3))}
    assert told == container.recorded()["ocimk"]["times"]


def test_transitions_faster_than_the_watcher_are_all_told(watch: Watch, box: Boxes, root: Path) -> None:
    root.mkdir()
    program = watch()
    os.kill(program.process.pid, 19)  # stopped, it sees but the last state.json
    container = box()
    container.end(9)
    os.kill(program.process.pid, 18)
    assert [status for _, status in program.statuses(4)] == ["creating", "created", "running", "stopped"]


def test_a_folder_that_was_gone_before_it_could_be_looked_at(watch: Watch, box: Boxes, root: Path) -> None:
    root.mkdir()
    program = watch()
    os.kill(program.process.pid, 19)
    shutil.rmtree(box(to="creating").path)
    os.kill(program.process.pid, 18)
    assert program.statuses(1) == [("c1", "deleted")]


def test_a_life_that_is_over_before_it_could_be_looked_at(watch: Watch, box: Boxes, root: Path) -> None:
    """Every file is gone when the watcher looks; names in inotify's queue tell."""
    root.mkdir()
    program = watch()
    container = box(to="creating")
    assert program.statuses(1) == [("c1", "creating")]
    os.kill(program.process.pid, 19)
    container.to("created")
    container.to("running")
    container.end(9)
    container.to("stopped", signal="9")
    times = container.recorded()["ocimk"]["times"]
    shutil.rmtree(container.path)
    os.kill(program.process.pid, 18)
    lines = [program.line() for _ in range(4)]
    assert [line["status"] for line in lines] == ["created", "running", "stopped", "deleted"]
    assert [line["time"] for line in lines[:3]] == [times[line["status"]] for line in lines[:3]]
    assert {line["pid"] for line in lines[:3]} == {container.pid}
    assert lines[2]["signal"] == 9


def test_the_end_is_known_of_a_process_that_was_seen_while_creating(watch: Watch, box: Boxes, root: Path) -> None:
    """Its pidfd was opened as soon as its pid was recorded, so how it ended is told though it was collected."""
    root.mkdir()
    program = watch()
    container = box(to="creating")
    container.process = subprocess.Popen(["sleep", "1000"])
    own = {**container.folder.state["ocimk"], "startTime": start_time(container.pid)}
    container.folder.commit(pid=container.pid, ocimk=own)
    assert program.statuses(1) == [("c1", "creating")]
    wait_until(lambda: holds_pidfd(program.process.pid, container.pid), "it does not watch the process")
    os.kill(program.process.pid, 19)
    container.to("created")
    container.to("running")
    container.end(9)
    shutil.rmtree(container.path)
    os.kill(program.process.pid, 18)
    assert [status for _, status in program.statuses(2)] == ["created", "running"]
    stopped = program.line()
    assert stopped["status"] == "stopped"
    assert stopped["signal"] == 9 or kernel() < (6, 15)


def test_a_name_used_again_is_another_container(watch: Watch, box: Boxes, root: Path) -> None:
    root.mkdir()
    program = watch()
    container = box()
    assert len(program.statuses(3)) == 3
    os.kill(program.process.pid, 19)
    container.end(9)
    shutil.rmtree(container.path)
    second = box(to="created")
    os.kill(program.process.pid, 18)
    lines = [program.line() for _ in range(4)]
    assert [line["status"] for line in lines] == ["stopped", "deleted", "creating", "created"]
    assert (lines[0]["pid"], lines[3]["pid"]) == (container.pid, second.pid)


def test_a_hundred_containers_while_watching(watch: Watch, root: Path) -> None:
    root.mkdir()
    program = watch()
    made = [Box(root, f"c{number}") for number in range(100)]
    try:
        expected = [(each.folder.id, status) for each in made for status in ("creating", "created", "running")]
        assert sorted(program.statuses(300)) == sorted(expected)
    finally:
        for each in made:
            each.clean()
    lines = [program.line() for _ in range(100)]
    assert {(line["id"], line["status"], line["signal"]) for line in lines} == {
        (each.folder.id, "stopped", 9) for each in made
    }


def test_only_the_named(watch: Watch, box: Boxes, root: Path) -> None:
    root.mkdir()
    program = watch("mine", "later")
    box("other")
    box("later", to="creating")
    assert program.statuses(1) == [("later", "creating")]


def test_an_overflow_of_the_queue_loses_nothing(watch: Watch, root: Path) -> None:
    root.mkdir()
    program = watch()
    os.kill(program.process.pid, 19)
    first = Box(root, "first", to="creating")
    limit = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    (root / ".cache").mkdir()
    for _ in range(limit // 4 + 10):
        os.rename(root / ".cache", root / "no container")
        os.rename(root / "no container", root / ".cache")
    last = Box(root, "last", to="creating")
    os.kill(program.process.pid, 18)
    assert sorted(program.statuses(2)) == [("first", "creating"), ("last", "creating")]
    for each in (first, last):
        each.clean()


# ---- how it ended -----------------------------------------------------------------------------------------


def exits(status: int) -> subprocess.Popen[bytes]:
    """A process that exits with the status when its standard input ends."""
    return subprocess.Popen(["sh", "-c", f"read x; exit {status}"], stdin=subprocess.PIPE)


@pytest.mark.parametrize("collected", [True, False])
def test_the_exit_status_is_told_and_recorded(watch: Watch, box: Boxes, root: Path, collected: bool) -> None:
    container = box(to="creating")
    container.process = exits(7)
    container.to("created", pid=str(container.pid))
    container.to("running")
    program = watch()
    os.kill(program.process.pid, 19)
    assert container.process.stdin is not None
    container.process.stdin.close()
    os.waitid(os.P_PID, container.pid, os.WEXITED | (0 if collected else os.WNOWAIT))
    os.kill(program.process.pid, 18)
    try:
        line = program.line()
        if not collected or kernel() >= (6, 15):
            assert line["exitStatus"] == 7
            wait_until(lambda: container.recorded()["status"] == "stopped", "not recorded")
            assert container.recorded()["ocimk"]["exit"] == {"exitStatus": 7}
        assert line["status"] == "stopped"
    finally:
        container.process.wait()


def kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in os.uname().release.split(".")[:2])


def test_nothing_is_recorded_while_another_has_the_lock(watch: Watch, box: Boxes) -> None:
    container = box()
    program = watch()
    other = Folder(container.folder.path)
    other.lock()
    container.end()
    assert program.line()["status"] == "stopped"
    program.stop()
    assert container.recorded()["status"] == "running"
    other.release()


def test_the_end_in_the_middle_of_start_comes_after_running(watch: Watch, box: Boxes) -> None:
    """A program that ends at once: start has it released but not yet recorded running."""
    container = box(to="created")
    program = watch()
    container.folder.lock()
    container.end()
    wait_until(lambda: not holds_pidfd(program.process.pid), "the watcher has not seen the end")
    container.to("running")
    assert program.statuses(2) == [("c1", "running"), ("c1", "stopped")]
    container.folder.release()


def test_the_end_of_one_never_started_is_told_when_the_lock_is_given_back(watch: Watch, box: Boxes) -> None:
    container = box(to="created")
    program = watch()
    container.folder.lock()
    container.end(15)
    wait_until(lambda: not holds_pidfd(program.process.pid), "the watcher has not seen the end")
    container.folder.release()
    line = program.line()
    assert (line["status"], line["signal"]) == ("stopped", 15)


def test_a_creator_that_is_killed_leaves_a_stopped_container(watch: Watch, root: Path) -> None:
    program_text = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from ocimk.linux.process import start_time
from state_kit import Box
Box(Path(sys.argv[1]), "half", to="creating").folder.lock()
print("made", flush=True)
sys.stdin.read()
"""
    root.mkdir()
    program = watch()
    here = [str(TREE / "lib"), str(TREE / "tests/stages")]
    creator = subprocess.Popen(
        [sys.executable, "-c", program_text, str(root), *here], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert creator.stdout is not None
    assert creator.stdout.readline() == b"made\n"
    assert program.statuses(1) == [("half", "creating")]
    creator.kill()
    creator.communicate()
    assert program.statuses(1) == [("half", "stopped")]


# ---- frozen -----------------------------------------------------------------------------------------------


def cgroup2() -> Path | None:
    for place in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified"):
        if Path(place, "cgroup.procs").exists() and os.access(place, os.W_OK):
            return Path(place)
    return None


@pytest.fixture
def freezer() -> Iterator[Path]:
    parent = cgroup2()
    if parent is None or os.geteuid() != 0:
        pytest.skip("needs a cgroup2 we may write to")
    place = parent / f"ocimk-test-{os.getpid()}"
    place.mkdir()
    yield place
    (place / "cgroup.freeze").write_text("0")
    for pid in (place / "cgroup.procs").read_text().split():
        os.kill(int(pid), 9)
        fd = os.pidfd_open(int(pid))
        os.waitid(os.P_PIDFD, fd, os.WEXITED)
        os.close(fd)
    place.rmdir()


@pytest.mark.root
def test_pausing_and_resuming(watch: Watch, box: Boxes, freezer: Path) -> None:
    container = box(to="creating")
    cgroup = {"mode": "v2", "paths": {"": str(freezer)}}
    container.folder.write("cgroup.json", json.dumps(cgroup).encode())
    container.to("created")
    (freezer / "cgroup.procs").write_text(str(container.pid))
    container.to("running")
    program = watch()
    (freezer / "cgroup.freeze").write_text("1")
    assert program.line()["status"] == "paused"
    (freezer / "cgroup.freeze").write_text("0")
    assert program.line()["status"] == "running"


# ---- the program itself -----------------------------------------------------------------------------------


def test_it_ends_when_nobody_reads_any_more(watch: Watch, root: Path) -> None:
    root.mkdir()
    program = watch()
    assert program.process.stdout is not None
    program.process.stdout.close()
    assert program.process.wait(10) == 0


def test_a_broken_state_is_warned_of_and_does_not_stop_it(watch: Watch, box: Boxes, root: Path) -> None:
    broken = root / "broken"
    broken.mkdir(parents=True)
    (broken / "state.json").write_text('{"ocimk": {"ver')
    program = watch()
    box(to="creating")
    assert program.statuses(1) == [("c1", "creating")]
    program.process.kill()
    assert "broken/state.json: line 1" in program.finish()[2]


def test_every_line_says_the_same_members(watch: Watch, box: Boxes) -> None:
    box()
    program = watch("--from-start")
    assert list(program.line()) == ["id", "status", "pid", "time"]

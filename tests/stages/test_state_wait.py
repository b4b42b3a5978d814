"""oci-state wait and get."""

from __future__ import annotations

import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_kit import OCI_STATE, Box, Program, polls, wait_until

Wait = Callable[..., Program]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


@pytest.fixture
def wait(root: Path) -> Iterator[Wait]:
    started: list[Program] = []

    def start(*argv: str, ready: bool = True) -> Program:
        started.append(Program("wait", "--root", str(root), *argv, wait_until_ready=ready))
        return started[-1]

    yield start
    for program in started:
        program.stop()


@pytest.fixture
def running(root: Path) -> Iterator[Box]:
    box = Box(root, "c1")
    yield box
    box.clean()


def test_it_ends_at_the_very_moment(wait: Wait, running: Box) -> None:
    program = wait("c1", "stopped")
    wait_until(lambda: polls(program.process.pid), "wait does not wait")
    assert running.process is not None
    before = time.monotonic()
    running.process.kill()
    status, out, _ = program.finish()
    assert time.monotonic() - before < 0.05
    assert status == 0
    told = json.loads(out)
    assert (told["status"], told["signal"]) == ("stopped", 9)


@pytest.mark.parametrize("status", ["creating", "created", "running"])
def test_a_status_that_was_passed_is_reached(wait: Wait, running: Box, status: str) -> None:
    code, out, _ = wait("c1", status, "--timeout", "0", ready=False).finish()
    assert code == 0
    assert json.loads(out)["time"] == running.recorded()["ocimk"]["times"][status]


def test_a_container_that_comes_later(wait: Wait, root: Path) -> None:
    program = wait("c1", "created")
    box = Box(root, "c1", to="created")
    try:
        assert program.finish()[0] == 0
    finally:
        box.clean()


def test_the_time_is_up(wait: Wait, running: Box) -> None:
    code, out, error = wait("c1", "stopped", "--timeout", "0.05").finish()
    assert (code, out) == (1, "")
    assert "timed out after 0.05 s (running)" in error


def test_stopped_before_it_ran(wait: Wait, root: Path) -> None:
    box = Box(root, "c1", to="created")
    program = wait("c1", "running")
    box.end()
    code, _, error = program.finish()
    assert code == 1
    assert "it is stopped and never was running" in error


@pytest.mark.parametrize("status", ["stopped", "deleted"])
def test_deleted_is_stopped_too(wait: Wait, root: Path, status: str) -> None:
    box = Box(root, "c1", to="creating")
    program = wait("c1", status)
    shutil.rmtree(box.path)
    code, out, _ = program.finish()
    assert code == 0
    assert json.loads(out)["status"] == "deleted"


def test_what_is_not_there_is_deleted(wait: Wait) -> None:
    assert wait("c1", "deleted", "--timeout", "5").finish()[0] == 0


@pytest.mark.parametrize(
    "argv", [["c1"], ["c1", "ended"], ["c1", "running", "--timeout", "soon"], ["c1", "running", "--what"]]
)
def test_wrong_usage(wait: Wait, argv: list[str]) -> None:
    assert wait(*argv, ready=False).finish()[0] == 2


def test_get_prints_the_state(running: Box, root: Path) -> None:
    done = subprocess.run([OCI_STATE, "get", "c1", "--root", str(root)], capture_output=True, check=True)
    told = json.loads(done.stdout)
    assert list(told) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert (told["pid"], told["status"], told["rootfs"]) == (running.pid, "running", "/bundle/rootfs")


def test_get_of_none(root: Path) -> None:
    done = subprocess.run([OCI_STATE, "get", "c1", "--root", str(root)], capture_output=True)
    assert done.returncode == 1
    assert b"container does not exist" in done.stderr

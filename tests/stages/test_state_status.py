"""The status that is true now, whatever is recorded."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_kit import TREE, Box

from ocimk.container import state as states
from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.linux import process
from ocimk.linux.pidfd_info import how_it_ended

Boxes = Callable[..., Box]


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Boxes]:
    made: list[Box] = []

    def make(to: str = "running") -> Box:
        made.append(Box(tmp_path, f"c{len(made)}", to=to))
        return made[-1]

    yield make
    for each in made:
        each.clean()


def now(box: Box) -> str:
    """The status as another process reads it."""
    return states.status(Folder(box.folder.path))


@pytest.mark.parametrize("status", ["creating", "created", "running"])
def test_as_recorded(box: Boxes, status: str) -> None:
    assert now(box(status)) == status


@pytest.mark.parametrize("status", ["created", "running"])
@pytest.mark.parametrize("collected", [True, False])
def test_stopped_when_the_process_is_gone_or_a_zombie(box: Boxes, status: str, collected: bool) -> None:
    container = box(status)
    container.end(collect=collected)
    assert now(container) == "stopped"
    assert states.current(Folder(container.folder.path))["pid"] == 0


def test_stopped_when_the_pid_is_another_process_by_now(box: Boxes) -> None:
    container = box()
    own = container.folder.state["ocimk"]
    container.folder.commit(ocimk={**own, "startTime": own["startTime"] - 1})
    assert now(container) == "stopped"


def test_stopped_when_the_machine_was_started_again(box: Boxes) -> None:
    container = box()
    container.folder.commit(ocimk={**container.folder.state["ocimk"], "bootId": "another"})
    assert now(container) == "stopped"


@pytest.mark.parametrize(
    "name, text, frozen",
    [
        ("freezer.state", "FROZEN\n", True),
        ("freezer.state", "FREEZING\n", True),
        ("freezer.state", "THAWED\n", False),
        ("cgroup.freeze", "1\n", True),
        ("cgroup.freeze", "0\n", False),
        ("cgroup.events", "populated 1\nfrozen 1\n", True),
        ("cgroup.events", "populated 1\nfrozen 0\n", False),
    ],
)
def test_paused_when_the_freezer_says_so(box: Boxes, tmp_path: Path, name: str, text: str, frozen: bool) -> None:
    container = box()
    (tmp_path / name).write_text(text)
    container.folder.commit(ocimk={**container.folder.state["ocimk"], "freezer": str(tmp_path / name)})
    assert now(container) == ("paused" if frozen else "running")
    container.end()
    assert now(container) == "stopped"


def test_a_freezer_that_is_gone_freezes_nobody(box: Boxes, tmp_path: Path) -> None:
    container = box()
    container.folder.commit(ocimk={**container.folder.state["ocimk"], "freezer": str(tmp_path / "none")})
    assert now(container) == "running"


@pytest.mark.root
def test_paused_by_the_real_freezer_of_cgroup_v1(box: Boxes) -> None:
    place = Path("/sys/fs/cgroup/freezer", f"ocimk-test-{os.getpid()}")
    if not place.parent.is_dir() or not os.access(place.parent, os.W_OK):
        pytest.skip("needs the freezer of cgroup v1")
    container = box()
    place.mkdir()
    try:
        (place / "cgroup.procs").write_text(str(container.pid))
        freezer = str(place / "freezer.state")
        container.folder.commit(ocimk={**container.folder.state["ocimk"], "freezer": freezer})
        (place / "freezer.state").write_text("FROZEN")
        assert now(container) == "paused"
        (place / "freezer.state").write_text("THAWED")
        assert now(container) == "running"
    finally:
        (place / "freezer.state").write_text("THAWED")
        container.clean()
        place.rmdir()


MAKER = """
import sys
sys.path[:0] = sys.argv[2:]
from pathlib import Path
from state_kit import Box
box = Box(Path(sys.argv[1]), "half", to="creating")
box.folder.lock()
print("made", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def maker(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that is making the container ``half`` and has it locked."""
    here = [str(TREE / "lib"), str(TREE / "tests/stages")]
    program = [sys.executable, "-c", MAKER, str(tmp_path), *here]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as made:
        assert made.stdout is not None
        assert made.stdout.readline() == b"made\n"
        yield made
        made.kill()


def test_creating_ends_with_the_creator(tmp_path: Path, maker: subprocess.Popen[bytes]) -> None:
    half = str(tmp_path / "half")
    assert states.status(Folder(half)) == "creating"
    maker.kill()
    maker.wait()
    assert states.status(Folder(half)) == "stopped"


def test_creating_while_somebody_else_has_the_folder_locked(
    tmp_path: Path, maker: subprocess.Popen[bytes]
) -> None:
    half = str(tmp_path / "half")
    maker.kill()
    maker.wait()
    other = Folder(half)
    other.lock()
    assert states.status(Folder(half)) == "creating"
    # Not for the one who has the lock: delete asks so.
    assert states.status(other) == "stopped"


def test_current_is_laid_out_as_runc_does(box: Boxes) -> None:
    container = box()
    state = container.recorded()
    assert states.current(Folder(container.folder.path)) == {
        "ociVersion": "1.2.0",
        "id": "c0",
        "pid": container.pid,
        "status": "running",
        "bundle": "/bundle",
        "rootfs": "/bundle/rootfs",
        "created": state["created"],
        "owner": "",
    }


def test_annotations_are_told(tmp_path: Path) -> None:
    folder = Folder(str(tmp_path / "c"))
    folder.make("/b", {"ociVersion": "1.0.2", "annotations": {"a": "b"}})
    assert states.current(folder)["annotations"] == {"a": "b"}
    folder.release()


@pytest.mark.parametrize(
    "text, told",
    [
        ('{"ociVersion": "1.0', "state.json: line 1"),
        ("[]", "not a state of ocimk"),
        ('{"ociVersion": "1.0.2", "id": "x", "init_process_pid": 1}', "not a state of ocimk"),
        ('{"ocimk": {"version": 99}}', "not a state of ocimk"),
        ("", "state.json: line 1"),
    ],
)
def test_broken_and_foreign_states(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "state.json").write_text(text)
    with pytest.raises(Error, match=told):
        states.status(Folder(str(tmp_path)))


def test_an_edited_state_is_no_fault_of_ours(tmp_path: Path) -> None:
    edited = {"ocimk": {"version": 1, "startTime": 5}, "pid": 1, "status": "running"}
    for wrong in ({"pid": "1"}, {"ocimk": 5}, {"ocimk": {"version": 1, "startTime": "x"}}, {"status": []}):
        (tmp_path / "state.json").write_text(json.dumps({**edited, **wrong}))
        with pytest.raises(Error, match=r"delete --force removes it"):
            states.status(Folder(str(tmp_path)))
    for status in ("running", "creating"):
        (tmp_path / "state.json").write_text(json.dumps({**edited, "status": status}))
        assert states.status(Folder(str(tmp_path))) == "stopped"


@pytest.mark.parametrize(
    "runtime, root",
    [("", "/run/oci"), ("/run/user/1", "/run/oci")],
)
def test_the_default_root_of_real_root(monkeypatch: pytest.MonkeyPatch, runtime: str, root: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    assert in_a_process(runtime, uid=0) == root


def test_the_default_root_of_others() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become somebody else")
    assert in_a_process("/run/user/65534/", uid=65534) == "/run/user/65534/oci"
    assert in_a_process("", uid=65534) == "/run/oci"


def in_a_process(runtime: str, uid: int) -> str:
    """What default_root() says to a process with this uid and $XDG_RUNTIME_DIR."""
    text = "import os, sys; sys.path.insert(0, sys.argv[1]); from ocimk.container import state; "
    text += "os.setuid(int(sys.argv[2])); print(state.default_root(), end='')"
    env = {"XDG_RUNTIME_DIR": runtime} if runtime else {}
    program = [sys.executable, "-I", "-c", text, str(TREE / "lib"), str(uid)]
    return subprocess.run(program, env=env, capture_output=True, check=True, text=True).stdout


def test_how_a_process_ended_is_not_asked_of_another() -> None:
    with subprocess.Popen(["false"]) as ended:
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        started = process.start_time(ended.pid)
        of_one_that_lives = process.pidfd_open(os.getpid())
        assert how_it_ended(of_one_that_lives, ended.pid, started) == {"exitStatus": 1}
        assert how_it_ended(of_one_that_lives, ended.pid, started - 1) == {}
        os.close(of_one_that_lives)


@pytest.mark.parametrize("how", [{}, {"exitStatus": 0}, {"exitStatus": 255}, {"signal": 9}])
def test_a_note_comes_back_as_it_was(how: dict[str, int]) -> None:
    state = {"status": "stopped", "pid": 77, "ocimk": {"startTime": 1, "exit": how}}
    name = states.note(state, 1_700_000_000_500_000_000)
    assert states.parse_note(name) == ("stopped", 77, "2023-11-14T22:13:20.5Z", how)


NOT_NOTES = ["new", "", "running", "paused.1.2", "stopped.1.2.x3", "stopped.1.2.e", "created.1.-2"]


@pytest.mark.parametrize("name", NOT_NOTES)
def test_what_is_no_note(name: str) -> None:
    assert states.parse_note(f".state.json.{name}") is None

"""oci state, list, kill and spec, executed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from state_kit import CONFIG, OCI, Box

Boxes = Callable[..., Box]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    place = tmp_path / "root"
    place.mkdir()
    return place


@pytest.fixture
def box(root: Path) -> Iterator[Boxes]:
    made: list[Box] = []

    def make(name: str = "c1", to: str = "running", config: dict[str, object] | None = None) -> Box:
        made.append(Box(root, name, config, to))
        return made[-1]

    yield make
    for each in made:
        each.clean()


def oci(root: Path, *argv: str, **how: object) -> subprocess.CompletedProcess[str]:
    command = [OCI, "--root", str(root), *argv]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **how)  # type: ignore[call-overload, no-any-return]


# ---- state ------------------------------------------------------------------------------------------------


def test_state_as_runc_prints_it(root: Path, box: Boxes) -> None:
    container = box()
    done = oci(root, "state", "c1")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == json.dumps(json.loads(done.stdout), indent=2)
    told = json.loads(done.stdout)
    assert list(told) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert (told["pid"], told["status"]) == (container.pid, "running")
    container.end()
    told = json.loads(oci(root, "state", "c1").stdout)
    assert (told["pid"], told["status"]) == (0, "stopped")


@pytest.mark.parametrize("command", ["state", "kill"])
def test_none_of_this_name(root: Path, command: str) -> None:
    done = oci(root, command, "c1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "container does not exist" in done.stderr


# ---- list -------------------------------------------------------------------------------------------------


def test_the_table_is_set_as_by_tabwriter(root: Path, box: Boxes) -> None:
    short, long = box(), box("a-name-longer-than-the-column", to="stopped")
    header, second, first = oci(root, "list").stdout.splitlines()
    assert header.split() == ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"]
    starts = [match.start() for match in re.finditer(r"\S+", header)]
    assert starts[1] == len(long.folder.id) + 3
    assert starts[2] - starts[1] == 12
    rows = {row.split()[0]: row for row in (first, second)}
    for row, status, pid in ((rows["c1"], "running", short.pid), (rows[long.folder.id], "stopped", 0)):
        cells = [row[at:].split("   ")[0].strip() for at in starts]
        assert cells[1:4] == [str(pid), status, "/bundle"]
        assert cells[5] == "root" if os.geteuid() == 0 else cells[5]


@pytest.mark.skipif(shutil.which("runc") is None, reason="compares with runc")
def test_an_empty_table_is_runcs(root: Path) -> None:
    theirs = subprocess.run(["runc", "--root", str(root), "list"], capture_output=True, text=True)
    assert oci(root, "list").stdout == theirs.stdout


def test_json(root: Path, box: Boxes) -> None:
    assert oci(root, "list", "-f", "json").stdout == "null\n"
    box("c2", to="created")
    box("c1")
    done = oci(root, "list", "--format", "json")
    assert done.stdout.count("\n") == 1
    told = json.loads(done.stdout)
    assert [(each["id"], each["status"]) for each in told] == [("c1", "running"), ("c2", "created")]
    assert told[0]["owner"] == subprocess.check_output(["id", "-un"], text=True).strip()


def test_quiet(root: Path, box: Boxes) -> None:
    box("c2", to="creating")
    box("c1")
    box(".hidden")
    (root / ".cache").mkdir()
    for more in ([], ["-f", "unknown"]):
        assert oci(root, "list", "-q", *more).stdout == ".hidden\nc1\nc2\n"


@pytest.mark.parametrize("words", ["state c1", "list", "list -q", "list -f json", "features", "--help"])
def test_what_cannot_be_printed(root: Path, box: Boxes, words: str) -> None:
    box()
    with open("/dev/full", "w") as full:
        done = subprocess.run([OCI, "--root", root, *words.split()], stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "oci: write standard output: no space left on device\n")
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([OCI, "--root", root, *words.split()], stdout=writing, stderr=subprocess.PIPE, text=True)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1 if words == "--help" else 141, "")


def test_an_owner_without_a_name(root: Path, box: Boxes) -> None:
    box().folder.commit(owner=3_999_999)
    assert json.loads(oci(root, "list", "-f", "json").stdout)[0]["owner"] == "#3999999"


def test_what_is_broken_is_warned_of_and_skipped(root: Path, box: Boxes) -> None:
    box()
    for name, text in (("broken", "{"), ("foreign", '{"id": "foreign", "init_process_pid": 1}'), ("bare", "")):
        (root / name).mkdir()
        if text:
            (root / name / "state.json").write_text(text)
    (root / ".cache").mkdir()
    (root / "file").touch()
    done = oci(root, "list", "-q")
    assert (done.returncode, done.stdout) == (0, "c1\n")
    assert [line.split()[3].strip(":") for line in done.stderr.splitlines()] == ["bare", "broken", "foreign"]


def test_a_root_that_is_missing(root: Path, tmp_path: Path) -> None:
    done = oci(tmp_path / "none", "list")
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr
    env = {"XDG_RUNTIME_DIR": str(tmp_path), "USER": "somebody", "PATH": os.environ["PATH"]}
    if not Path("/run/oci").exists():
        done = subprocess.run([OCI, "list", "-q"], capture_output=True, text=True, env=env)
        assert (done.returncode, done.stdout) == (0, "")


def test_a_thousand_containers(root: Path, box: Boxes) -> None:
    """The goal is runc's time, which was measured at four times ours; here only that it is no matter of seconds."""
    one = box("c0")
    for number in range(1, 1000):
        shutil.copytree(one.path, root / f"c{number}")
        state = {**one.recorded(), "id": f"c{number}"}
        (root / f"c{number}" / "state.json").write_text(json.dumps(state))
    before = time.monotonic()
    told = json.loads(oci(root, "list", "-f", "json").stdout)
    assert time.monotonic() - before < 2
    assert [each["status"] for each in told] == ["running"] * 1000


# ---- kill -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "argv, number", [([], 15), (["9"], 9), (["KILL"], 9), (["sighup"], 1), (["SIGRTMIN+3"], 37)]
)
def test_the_signal_reaches_the_process(root: Path, box: Boxes, argv: list[str], number: int) -> None:
    container = box()
    done = oci(root, "kill", "c1", *argv)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert container.process is not None
    assert container.process.wait(10) == -number


def test_a_created_one_can_be_killed(root: Path, box: Boxes) -> None:
    container = box(to="created")
    assert oci(root, "kill", "c1", "KILL").returncode == 0
    assert container.process is not None
    assert container.process.wait(10) == -9


def test_no_signal_is_sigterm(root: Path, box: Boxes) -> None:
    container = box()
    assert oci(root, "kill", "c1", "").returncode == 0
    assert container.process is not None
    assert container.process.wait(10) == -signal.SIGTERM


def test_an_unknown_signal_is_none(root: Path, box: Boxes) -> None:
    container = box()
    done = oci(root, "kill", "c1", "FOO")
    assert (done.returncode, 'unknown signal "FOO"' in done.stderr) == (1, True)
    assert container.process is not None
    assert container.process.poll() is None


@pytest.mark.parametrize("collected", [True, False])
def test_one_that_does_not_run(root: Path, box: Boxes, collected: bool) -> None:
    container = box()
    container.end(collect=collected)
    done = oci(root, "kill", "c1", "KILL")
    assert (done.returncode, "container not running" in done.stderr) == (1, True)
    done = oci(root, "kill", "--all", "c1", "KILL")
    assert (done.returncode, done.stderr) == (0, "")


def test_one_that_is_being_made_is_left_alone(root: Path, box: Boxes) -> None:
    box(to="creating")
    done = oci(root, "kill", "c1", "KILL")
    assert (done.returncode, "it is being created" in done.stderr) == (1, True)


def test_a_reused_pid_is_not_hit(root: Path, box: Boxes) -> None:
    container = box()
    own = container.folder.state["ocimk"]
    container.folder.commit(ocimk={**own, "startTime": own["startTime"] - 1})
    assert oci(root, "kill", "c1", "KILL").returncode == 1
    assert container.process is not None
    assert container.process.poll() is None


# ---- kill, with a real cgroup -----------------------------------------------------------------------------

FREEZER = Path("/sys/fs/cgroup/freezer")


@pytest.fixture
def cgroup() -> Iterator[Path]:
    if not FREEZER.is_dir() or not os.access(FREEZER, os.W_OK):
        pytest.skip("needs the freezer of cgroup v1")
    place = FREEZER / f"ocimk-test-{os.getpid()}"
    place.mkdir()
    yield place
    (place / "freezer.state").write_text("THAWED")
    end = time.monotonic() + 10
    while (place / "cgroup.procs").read_text() and time.monotonic() < end:
        time.sleep(0.005)
    place.rmdir()


@pytest.fixture
def second(cgroup: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Another process in the cgroup."""
    with subprocess.Popen(["sleep", "1000"]) as process:
        (cgroup / "cgroup.procs").write_text(str(process.pid))
        yield process
        (cgroup / "freezer.state").write_text("THAWED")
        process.kill()


def in_cgroup(box: Boxes, cgroup: Path, config: dict[str, object]) -> Box:
    container = box(to="creating", config=config)
    container.folder.record("oci-cgroup", "cgroup", str(cgroup))
    layout = {"mode": "v1", "paths": {"freezer": str(cgroup)}}
    container.folder.write("cgroup.json", json.dumps(layout).encode())
    container.to("created")
    (cgroup / "cgroup.procs").write_text(str(container.pid))
    container.to("running")
    return container


SHARED: dict[str, object] = {**CONFIG, "linux": {"namespaces": []}}


@pytest.mark.root
def test_sigkill_without_a_pid_namespace_kills_all(
    root: Path, box: Boxes, cgroup: Path, second: subprocess.Popen[bytes]
) -> None:
    container = in_cgroup(box, cgroup, SHARED)
    assert oci(root, "kill", "c1", "TERM").returncode == 0
    assert container.process is not None
    assert container.process.wait(10) == -signal.SIGTERM
    assert second.poll() is None
    assert oci(root, "kill", "c1", "KILL").returncode == 1
    assert second.poll() is None
    assert oci(root, "kill", "--all", "c1", "KILL").returncode == 0
    assert second.wait(10) == -signal.SIGKILL


@pytest.mark.root
def test_sigkill_meets_all_while_it_runs(
    root: Path, box: Boxes, cgroup: Path, second: subprocess.Popen[bytes]
) -> None:
    container = in_cgroup(box, cgroup, SHARED)
    assert oci(root, "kill", "c1", "KILL").returncode == 0
    assert container.process is not None
    assert container.process.wait(10) == second.wait(10) == -signal.SIGKILL


@pytest.mark.root
def test_all_means_all(root: Path, box: Boxes, cgroup: Path, second: subprocess.Popen[bytes]) -> None:
    container = in_cgroup(box, cgroup, dict(CONFIG))
    assert oci(root, "kill", "-a", "c1", "USR1").returncode == 0
    assert container.process is not None
    assert container.process.wait(10) == second.wait(10) == -signal.SIGUSR1


@pytest.mark.root
def test_sigkill_of_a_paused_one(root: Path, box: Boxes, cgroup: Path) -> None:
    container = in_cgroup(box, cgroup, dict(CONFIG))
    (cgroup / "freezer.state").write_text("FROZEN")
    assert json.loads(oci(root, "state", "c1").stdout)["status"] == "paused"
    assert oci(root, "kill", "c1", "KILL").returncode == 0
    assert container.process is not None
    assert container.process.wait(10) == -signal.SIGKILL


# ---- spec -------------------------------------------------------------------------------------------------


def test_spec_writes_what_oci_validate_accepts(root: Path, tmp_path: Path) -> None:
    (tmp_path / "rootfs").mkdir()
    assert oci(root, "spec", cwd=tmp_path, umask=0o027).returncode == 0
    written = (tmp_path / "config.json").read_text()
    assert (tmp_path / "config.json").stat().st_mode & 0o777 == 0o640
    assert written == json.dumps(json.loads(written), indent="\t")
    check = [str(Path(OCI).parents[1] / "libexec/oci-validate"), "check", str(tmp_path)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "")


def test_spec_leaves_what_is_there(root: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("mine")
    done = oci(root, "spec", "-b", str(tmp_path))
    assert (done.returncode, "File config.json exists. Remove it first" in done.stderr) == (1, True)
    assert (tmp_path / "config.json").read_text() == "mine"


def test_spec_for_those_without_root(root: Path, tmp_path: Path) -> None:
    assert oci(root, "spec", "--rootless", "--bundle", str(tmp_path)).returncode == 0
    config = json.loads((tmp_path / "config.json").read_text())
    assert {"type": "user"} in config["linux"]["namespaces"]
    assert config["linux"]["uidMappings"] == [{"containerID": 0, "hostID": os.geteuid(), "size": 1}]

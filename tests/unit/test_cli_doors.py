"""The programs themselves: found from anywhere, with anything closed, and never a traceback."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
OCI = TOP / "bin/oci"
STAGES = sorted((TOP / "libexec").glob("oci-*"))


def run(*words: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    """Run a program with an empty environment unless told otherwise."""
    more = {"env": {}, "capture_output": True, "text": True, "timeout": 30, **more}
    return subprocess.run([str(word) for word in words], check=False, **more)  # type: ignore[call-overload,no-any-return]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def test_it_runs_with_an_empty_environment(root: Path) -> None:
    done = run(OCI, "--root", root, "state", "nobody")

    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == "oci: container nobody: container does not exist\n"


@pytest.mark.parametrize("stage", STAGES, ids=lambda path: path.name)
def test_every_stage_runs_and_tells_wrong_usage(stage: Path) -> None:
    assert run(stage, "--help").stdout.startswith(f"Usage: {stage.name} ")
    done = run(stage, "apply")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{stage.name}: ")
    assert done.stderr.count("\n") == 1


def test_all_programs_begin_alike() -> None:
    """One way to find the library: what is mended in one program must be mended in all."""
    dispatcher = [line for line in OCI.read_text().splitlines() if not line.startswith("# ")]
    for stage in STAGES:
        expected = [line.replace("oci:", f"{stage.name}:") for line in dispatcher]
        lines = stage.read_text().splitlines()
        assert lines[0] == expected[0]
        assert lines[2:-1] == expected[2:-1], stage.name
        assert lines[-1] == f'door.stage("{stage.name}")'


def test_it_finds_its_library_through_links(tmp_path: Path) -> None:
    folder = tmp_path / "links"
    folder.mkdir()
    (folder / "first").symlink_to(OCI)
    (folder / "second").symlink_to("first")
    (tmp_path / "bin").symlink_to(OCI.parent)
    relative = tmp_path / "oci"
    relative.symlink_to(os.path.relpath(OCI, tmp_path))

    for program in (folder / "second", tmp_path / "bin/oci", relative):
        assert run(program, "--version").stdout.startswith("oci version ")
    assert run("second", "--version", env={"PATH": str(folder)}).stdout.startswith("oci version ")
    assert run("./oci", "--version", cwd=tmp_path).stdout.startswith("oci version ")


def test_a_missing_library_is_told_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    shutil.copy(OCI, tmp_path / "bin/oci")

    done = run(tmp_path / "bin/oci", "list")

    assert done.returncode == 1
    assert done.stderr == "oci: cannot load its library: No module named 'ocimk'\n"


def test_python_variables_and_the_working_directory_change_nothing(tmp_path: Path) -> None:
    (tmp_path / "posix.py").write_text("raise SystemExit(77)")
    (tmp_path / "ocimk.py").write_text("raise SystemExit(77)")
    (tmp_path / "sitecustomize.py").write_text("raise SystemExit(77)")
    environment = {"PYTHONPATH": str(tmp_path), "PYTHONHOME": str(tmp_path), "PYTHONSTARTUP": "x", "LC_ALL": "xx_YY"}

    done = run(OCI, "--version", env=environment, cwd=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_standard_descriptors_do_no_harm(closed: str, root: Path) -> None:
    done = run("/bin/sh", "-c", f'"$0" --root "$1" list {closed}', OCI, root)

    assert done.returncode == 1
    assert "internal error" not in done.stderr


def test_closed_standard_descriptors_are_not_taken_by_files(tmp_path: Path) -> None:
    """What is opened later must not become the standard input of a program that we become."""
    helper = tmp_path / "oci-show"
    helper.write_text("#!/bin/sh\nout=$(readlink /proc/$$/fd/0 /proc/$$/fd/1 /proc/$$/fd/2)\necho $out >&3\n")
    helper.chmod(0o755)
    shown = tmp_path / "shown"

    command = '"$0" --exec-path "$1" show 3>"$2" <&- >&- 2>&-'
    assert run("/bin/sh", "-c", command, OCI, tmp_path, shown).returncode == 0

    assert shown.read_text().split() == ["/dev/null"] * 3


@pytest.mark.parametrize("words", ["--help", "--version"])
def test_a_reader_that_leaves_is_told_nothing(words: str) -> None:
    reading, writing = os.pipe()
    os.close(reading)

    done = run(OCI, words, stdout=writing, stderr=subprocess.PIPE, capture_output=False)

    os.close(writing)
    assert done.returncode == (141 if words == "--version" else 1)
    assert done.stderr == ""


def test_a_full_disk_is_an_error() -> None:
    with open("/dev/full", "w") as full:
        done = run(OCI, "--version", stdout=full, stderr=subprocess.PIPE, capture_output=False)

    assert done.returncode == 1
    assert done.stderr == "oci: write standard output: no space left on device\n"


def test_a_fault_of_our_own_is_one_line(tmp_path: Path) -> None:
    shutil.copytree(TOP / "bin", tmp_path / "bin")
    shutil.copytree(TOP / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "lib/ocimk/runtime/list.py").write_text("def main(invocation):\n    return {}['no such key']\n")

    plain = run(tmp_path / "bin/oci", "list")
    debug = run(tmp_path / "bin/oci", "--debug", "--log", tmp_path / "log", "list")

    assert plain.returncode == debug.returncode == 1
    assert plain.stderr.count("\n") == 1
    assert plain.stderr.startswith("oci: internal error")
    assert "Traceback" not in plain.stderr + debug.stderr
    assert "no such key" in (tmp_path / "log").read_text()
    assert "Traceback" in (tmp_path / "log").read_text()


def test_wrong_usage_prints_help_on_standard_output_and_the_reason_elsewhere(tmp_path: Path) -> None:
    log = tmp_path / "log"

    done = run(OCI, "--log", log, "--log-format", "json", "create", "--bundel", "x", "ID")

    assert done.returncode == 1
    assert done.stdout.startswith("Incorrect Usage.\n\nUsage: oci create ")
    assert "--pid-file" in done.stdout
    assert done.stderr == "oci: flag provided but not defined: -bundel (did you mean --bundle?)\n"
    (line,) = log.read_text().splitlines()
    assert json.loads(line)["msg"] == "flag provided but not defined: -bundel (did you mean --bundle?)"
    assert json.loads(line)["level"] == "error"


def test_a_log_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    done = run(OCI, "--log", tmp_path / "no/log", "list")

    assert done.returncode == 1
    assert done.stderr == f"oci: open log file {tmp_path}/no/log: no such file or directory\n"


def test_the_version_is_what_dockers_daemon_parses() -> None:
    lines = run(OCI, "--version").stdout.splitlines()

    assert [line for line in lines if "version" in line] == lines[:1]
    name, _, version = lines[0].partition(" version ")
    assert name == "oci"
    assert version.count(".") == 2
    assert "spec: 1.3.0" in lines


def test_without_root_the_containers_are_in_the_runtime_directory(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("becomes another user: needs root")
    runtime = tmp_path / "runtime"
    runtime.mkdir()
    for place in (tmp_path, *list(tmp_path.parents)[:2]):
        place.chmod(place.stat().st_mode | 0o055)
    os.chown(runtime, 12345, 12345)

    done = run(OCI, "list", "-q", env={"XDG_RUNTIME_DIR": str(runtime)}, user=12345, group=12345, extra_groups=[])

    assert (done.returncode, done.stderr) == (0, "")
    made = (runtime / "oci").stat()
    assert (made.st_uid, made.st_mode & 0o7777) == (12345, 0o1700)


def test_root_ignores_the_runtime_directory(tmp_path: Path) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root")

    run(OCI, "list", env={"XDG_RUNTIME_DIR": str(tmp_path)})

    assert list(tmp_path.iterdir()) == []

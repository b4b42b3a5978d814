"""``oci NAME`` becomes the program oci-NAME that is found first, and says what was meant when there is none."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]
OCI = str(TOP / "bin/oci")


def program(folder: Path, name: str, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    path = folder / name
    path.write_text(text)
    path.chmod(0o755)
    return path


def oci(*words: object, env: dict[str, str] | None = None, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [OCI, *map(str, words)]
    return subprocess.run(command, env=env or {}, cwd=cwd, capture_output=True, text=True, timeout=30, check=False)


SHOW = '#!/bin/sh\necho "$0" "$OCI_ROOT" "$OCI_EXEC_PATH" "$@"\nexit 42\n'


def test_it_becomes_the_program_with_arguments_and_folders(tmp_path: Path) -> None:
    path = program(tmp_path / "a", "oci-hello", SHOW)

    done = oci("--root", "/r/x/..", "--exec-path", "a", "hello", "-x", "--root=1", "--", cwd=tmp_path)

    assert done.stdout == f"{path} /r {tmp_path}/a -x --root=1 --\n"
    assert done.returncode == 42


def test_the_option_comes_before_the_variable_and_both_before_the_stock_stages(tmp_path: Path) -> None:
    first = program(tmp_path / "a", "oci-hooks", SHOW)
    second = program(tmp_path / "b", "oci-hooks", SHOW)
    variable = {"OCI_EXEC_PATH": str(tmp_path / "b")}

    assert oci("--exec-path", tmp_path / "a", "hooks", env=variable).stdout.startswith(f"{first} ")
    assert oci("hooks", env=variable).stdout.startswith(f"{second} ")
    assert oci("hooks", "--help").stdout.startswith("Usage: oci-hooks ")


def test_path_is_not_searched(tmp_path: Path) -> None:
    program(tmp_path / "a", "oci-hello", SHOW)

    done = oci("hello", env={"PATH": str(tmp_path / "a")})

    assert done.returncode == 3


def test_commands_of_the_table_come_first(tmp_path: Path) -> None:
    program(tmp_path / "a", "oci-state", SHOW)

    done = oci("--exec-path", tmp_path / "a", "--root", tmp_path, "state", "nobody")

    assert "container does not exist" in done.stderr


@pytest.mark.parametrize(
    ("word", "hint"),
    [("stat", "did you mean state?"), ("moun", "did you mean mount?"), ("qqqqq", "oci --help lists them")],
)
def test_an_unknown_command_is_told_with_the_nearest_one(word: str, hint: str) -> None:
    done = oci(word)

    assert done.returncode == 3
    assert done.stdout == ""
    assert done.stderr == f'oci: "{word}" is not a command ({hint})\n'


def test_a_name_with_a_slash_is_no_command(tmp_path: Path) -> None:
    (tmp_path / "a" / "oci-x").mkdir(parents=True)
    program(tmp_path / "a" / "oci-x", "y", SHOW)

    assert oci("--exec-path", tmp_path / "a", "x/y").returncode == 3


def test_help_of_another_program_is_its_own() -> None:
    assert oci("help", "mount").stdout.startswith("Usage: oci-mount ")


def test_a_program_that_cannot_be_executed_is_told(tmp_path: Path) -> None:
    program(tmp_path / "a", "oci-hello", "#!/no/such/interpreter\n")

    done = oci("--exec-path", tmp_path / "a", "hello")

    assert done.returncode == 126
    assert done.stderr == f"oci: execute {tmp_path}/a/oci-hello: no such file or directory\n"


def test_signals_are_as_a_shell_leaves_them(tmp_path: Path) -> None:
    """Python ignores SIGPIPE and SIGXFSZ; what we become must not inherit that."""
    program(tmp_path / "a", "oci-hello", "#!/bin/sh\ngrep SigIgn /proc/self/status\n")

    done = oci("--exec-path", tmp_path / "a", "hello")

    assert int(done.stdout.split()[1], 16) & (1 << 12 | 1 << 24) == 0

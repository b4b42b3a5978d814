"""The completion scripts, run by the shells themselves."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from ocimk.cli import completion, table

DRIVER = """
source "$1"
shift
COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
_oci
printf '%s\\n' "${COMPREPLY[@]}"
"""


def complete(*words: str, script: Path) -> list[str]:
    command = ["bash", "--norc", "-c", DRIVER, "bash", str(script), *words]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
    assert done.stderr == ""
    return done.stdout.split()


@pytest.fixture(scope="module")
def bash(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "oci"
    path.write_text(completion.bash())
    return path


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["oci", ""], list(table.COMMANDS)),
        (["oci", "sta"], ["start", "state"]),
        (["oci", "--debug", "--log", "run", "sta"], ["start", "state"]),
        (["oci", "--log-f"], ["--log-format"]),
        (["oci", "--log-format", ""], ["text", "json"]),
        (["oci", "list", "--format", "j"], ["json"]),
        (["oci", "list", "-f", ""], ["table", "json"]),
        (["oci", "create", "--pid"], ["--pidfd-socket", "--pid-file"]),
        (["oci", "delete", "-"], ["--force", "-f", "--regex", "-r", "--help", "-h"]),
        (["oci", "create", ""], []),
    ],
)
def test_bash(words: list[str], expected: list[str], bash: Path) -> None:
    assert complete(*words, script=bash) == expected


def test_bash_asks_for_the_containers(bash: Path, tmp_path: Path) -> None:
    fake = tmp_path / "oci"
    fake.write_text('#!/bin/sh\n[ "$*" = "--root /r list --quiet" ] && echo alpha && echo beta\n')
    fake.chmod(0o755)

    assert complete(str(fake), "--root", "/r", "kill", "a", script=bash) == ["alpha"]


def test_bash_completes_folders(bash: Path, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()

    assert complete("oci", "create", "--bundle", f"{tmp_path}/f", script=bash) == [f"{tmp_path}/folder"]
    assert len(complete("oci", "create", "--pid-file", f"{tmp_path}/f", script=bash)) == 2


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_every_shell_is_told_everything(shell: str) -> None:
    text = completion.script(shell)

    for command in ("", *table.COMMANDS):
        assert command in text
        for row in table.rows(command):
            dashed = f"-l {row[0]} " if shell == "fish" else f"--{row[0]}"
            assert (dashed in text) or not row[4], row[0]
    assert "@" not in text.replace("$@", "").replace("[@]", "")


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_scripts_are_well_formed(shell: str, tmp_path: Path) -> None:
    if not shutil.which(shell):
        pytest.skip(f"{shell} is not installed")
    path = tmp_path / "script"
    path.write_text(completion.script(shell))

    subprocess.run([shell, "-n", str(path)], check=True, timeout=20)


def test_an_unknown_shell_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert completion.main(["tcsh"]) == 2
    assert capsys.readouterr().err == "usage: completion bash|zsh|fish\n"

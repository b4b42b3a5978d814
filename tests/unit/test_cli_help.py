"""Help in both forms has every command and option of the table; the typer application understands what we do."""

from __future__ import annotations

import pytest
import typer

from ocimk.cli import face, fast, table, usage
from ocimk.cli.invocation import Invocation

LINES = [
    "--root /r list",
    "--root=/r --debug --log-format json list -f json -q",
    "--root /r create --bundle B --preserve-fds 3 --no-pivot ID",
    "--root /r create -b B --break oci-mount --dry-run ID",
    "--root /r run -d --keep --pid-file F --no-subreaper ID",
    "--root /r kill ID",
    "--root /r kill -a ID SIGKILL",
    "--root /r delete --force ID",
    "--root /r ps -f json ID -o pid --sort=rss",
    "--root /r update --memory -1 --pids-limit 5 ID",
    "--root /r --cgroup-manager systemd state ID",
    "--root /r spec --rootless -b B",
]


@pytest.mark.parametrize("line", LINES)
def test_both_parsers_understand_the_same(line: str) -> None:
    seen: list[Invocation] = []

    def record(invocation: Invocation) -> int:
        seen.append(invocation)
        return 7

    command = typer.main.get_command(face.application(record))
    status = command.main(line.split(), prog_name="oci", standalone_mode=False)

    (invocation,) = seen
    expected = fast.understand(line.split())
    assert status == 7
    for name in ("command", "options", "args", "root", "globals"):
        assert getattr(invocation, name) == getattr(expected, name), name


@pytest.mark.parametrize("command", ["", *table.COMMANDS])
@pytest.mark.parametrize("form", ["typer", "plain"])
def test_help_shows_the_whole_table(command: str, form: str, capsys: pytest.CaptureFixture[str]) -> None:
    if form == "typer":
        face.show_help(command)
        text = capsys.readouterr().out
    else:
        text = usage.plain(command)

    words = text.split()
    for long, short, _, metavar, about in table.rows(command):
        assert (f"--{long}" in words) == bool(about), long
        assert not about or not metavar or metavar in words
        assert not about or not short or f"-{short}," in words
    if not command:
        assert set(table.COMMANDS) <= set(words)
        assert "--version" in words
    assert "--help" in words
    assert all(len(line) <= 80 for line in text.splitlines()) or form == "plain"


def test_help_is_plain_without_typer(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(usage.sys.modules, "typer", None)

    assert usage.answer("help create") == 0

    assert capsys.readouterr().out == usage.plain("create")


def test_help_keeps_the_case_of_what_is_named() -> None:
    assert "(default: SIGTERM)." in usage.plain("kill")

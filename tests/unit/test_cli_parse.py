"""The fast parser understands a command line as runc does (urfave/cli v3), and says what is wrong with it."""

from __future__ import annotations

import pytest

from ocimk.cli import fast, table
from ocimk.cli.fast import Asked, WrongUsage
from ocimk.errors import Error

ROOT = ["--root", "/r"]


def understood(*words: str) -> fast.Invocation:
    return fast.understand([*ROOT, *words])


@pytest.mark.parametrize(
    ("words", "options", "args"),
    [
        ("create ID", {}, ["ID"]),
        ("create --bundle B ID", {"bundle": "B"}, ["ID"]),
        ("create --bundle=B ID", {"bundle": "B"}, ["ID"]),
        ("create --bundle= ID", {"bundle": ""}, ["ID"]),
        ("create --bundle=a=b ID", {"bundle": "a=b"}, ["ID"]),
        ("create -b B ID", {"bundle": "B"}, ["ID"]),
        ("create -b=B ID", {"bundle": "B"}, ["ID"]),
        ("create -bundle B ID", {"bundle": "B"}, ["ID"]),
        ("create --b B ID", {"bundle": "B"}, ["ID"]),
        ("create ID --bundle B", {"bundle": "B"}, ["ID"]),
        ("create -b A -b B ID", {"bundle": "B"}, ["ID"]),
        ("create --bundle -- ID", {"bundle": "--"}, ["ID"]),
        ("create -- --bundle", {}, ["--bundle"]),
        ("create -", {}, ["-"]),
        ("create --preserve-fds 3 ID", {"preserve-fds": "3"}, ["ID"]),
        ("create --preserve-fds=0x10 ID", {"preserve-fds": "0x10"}, ["ID"]),
        ("run -no-subreaper -d ID", {"no-subreaper": True, "detach": True}, ["ID"]),
        ("run --detach=true --keep=1 ID", {"detach": True, "keep": True}, ["ID"]),
        ("run --detach=false --keep=F ID", {"detach": False, "keep": False}, ["ID"]),
        ("run --detach= ID", {"detach": True}, ["ID"]),
        ("delete ID -f", {"force": True}, ["ID"]),
        ("kill ID -9", {}, ["ID", "-9"]),
        ("kill ID --all", {}, ["ID", "--all"]),
        ("kill --all ID 9", {"all": True}, ["ID", "9"]),
        ("kill -a ID KILL", {"all": True}, ["ID", "KILL"]),
        ("list", {}, []),
        ("list -f json -q", {"format": "json", "quiet": True}, []),
        ("spec --rootless", {"rootless": True}, []),
    ],
)
def test_options_and_arguments(words: str, options: dict[str, object], args: list[str]) -> None:
    found = understood(*words.split())

    assert (found.command, found.options, found.args) == (words.split()[0], options, args)


def test_global_options_may_follow_the_command() -> None:
    found = understood("state", "ID", "--systemd-cgroup", "--root=/other/../x")

    assert found.globals["systemd-cgroup"] is True
    assert found.root == "/x"
    assert found.cgroup_manager == "systemd"


def test_an_option_of_the_command_hides_the_global_one_of_the_same_name() -> None:
    found = fast.understand(["--rootless", "false", "spec", "--rootless"])

    assert found.options == {"rootless": True}
    assert found.globals["rootless"] == "false"


def test_a_repeatable_option_keeps_all_values_unsplit() -> None:
    values: dict[str, object] = {}
    rows = fast.known((("env", "e", table.LIST, "K=V", "x"),), values, {})  # type: ignore[arg-type]

    args = fast.parse(["--env", "A=1,2", "-e=B=", "ID", "--", "sh", "-c", "--env"], rows, 1)

    assert values == {"env": ["A=1,2", "B="]}
    assert args == ["ID", "sh", "-c", "--env"]


@pytest.mark.parametrize(
    ("words", "text"),
    [
        ("create", '"create" requires exactly 1 argument(s)'),
        ("create A B", '"create" requires exactly 1 argument(s)'),
        ("kill", '"kill" requires a minimum of 1 argument(s)'),
        ("kill A B C", '"kill" requires a maximum of 2 argument(s)'),
        ("list A", '"list" requires exactly 0 argument(s)'),
        ("create --nope ID", "flag provided but not defined: -nope"),
        ("create -x ID", "flag provided but not defined: -x"),
        ("run -dk ID", "flag provided but not defined: -dk"),
        ("create ID --bundle", "flag needs an argument: --bundle"),
        ("run --detach=maybe ID", 'invalid value "maybe" for flag -detach (true or false)'),
        ("create --preserve-fds x ID", 'invalid value "x" for flag -preserve-fds (a whole number)'),
        ("--cgroup-manager x list", 'invalid value "x" for flag -cgroup-manager (systemd, cgroupfs, disabled)'),
    ],
)
def test_wrong_usage(words: str, text: str) -> None:
    with pytest.raises(WrongUsage) as caught:
        understood(*words.split())

    assert str(caught.value) == text


@pytest.mark.parametrize(
    ("words", "what"),
    [
        ("", "help"),
        ("-h", "help"),
        ("--help create", "help"),
        ("help", "help"),
        ("help create", "help create"),
        ("h create", "help create"),
        ("create -h", "help create"),
        ("create ID --help", "help create"),
        ("-v", "version"),
        ("-V", "version"),
        ("--version", "version"),
    ],
)
def test_help_and_version_are_asked_for(words: str, what: str) -> None:
    with pytest.raises(Asked) as caught:
        understood(*words.split())

    assert caught.value.what == what


def test_help_after_the_arguments_of_kill_is_no_option() -> None:
    assert understood("kill", "ID", "-h").args == ["ID", "-h"]


@pytest.mark.parametrize("root", ["/", "", ".", "../../..", "//"])
def test_the_root_of_the_file_system_is_refused(root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")

    with pytest.raises(Error, match="Option --root argument should not be set to /"):
        fast.understand(["--root", root, "list"])


def test_a_relative_root_is_made_absolute(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/usr")

    found = fast.understand(["--root", "lib/../x/", "list"])

    assert found.root == "/usr/x"
    assert found.root_given


@pytest.mark.parametrize("given", ["a:/b::c", "a:/b:"])
def test_the_exec_path_is_absolute(given: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/tmp")
    monkeypatch.setitem(fast.posix.environ, b"OCI_EXEC_PATH", b"/inherited")

    places = fast.search_path({"exec-path": given})

    assert places == ["/tmp/a", "/b", *(["/tmp/c"] if "c" in given else []), "/inherited"]


def test_every_row_of_the_table_is_whole() -> None:
    kinds = {table.FLAG, table.TEXT, table.INT, table.LIST, table.CHOICE}
    reserved = {"help", "h", "version", "v"}
    for command in ("", *table.COMMANDS):
        names = [name for row in table.rows(command) for name in row[:2] if name]
        assert len(names) == len(set(names)), command
        assert not reserved & set(names), command
        for _, _, kind, metavar, _ in table.rows(command):
            assert kind in kinds
            assert bool(metavar) == (kind != table.FLAG)


def test_every_handler_is_there() -> None:
    for row in table.COMMANDS.values():
        module, _, function = row[0].partition(":")
        assert callable(getattr(__import__(module, fromlist=[function]), function))

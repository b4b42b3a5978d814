"""What a person gets wrong: exit status 1, one line that says what and where, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import CLEAN, Bundle, Runtime, alive, cgroups_of, mount_points, processes

Change = Callable[[dict[str, Any]], object]


def _set(path: str, value: object) -> Change:
    """A change of one property: ``linux.namespaces.2.type``."""

    def change(config: dict[str, Any]) -> None:
        *places, last = path.split(".")
        found: Any = config
        for place in places:
            found = found[int(place)] if isinstance(found, list) else found.setdefault(place, {})
        found[int(last) if isinstance(found, list) else last] = value

    return change


def _drop(path: str) -> Change:
    def change(config: dict[str, Any]) -> None:
        *places, last = path.split(".")
        found: Any = config
        for place in places:
            found = found[place]
        del found[last]

    return change


CONFIGS: list[tuple[str, Change, tuple[str, ...]]] = [
    ("type of a namespace", _set("linux.namespaces.2.type", 5), ("linux.namespaces[2].type", "string")),
    ("unknown namespace", _set("linux.namespaces.1.type", "netz"), ("linux.namespaces[1].type", "netz")),
    ("namespace twice", _set("linux.namespaces.1.type", "pid"), ("linux.namespaces", "pid")),
    ("namespaces no array", _set("linux.namespaces", {}), ("linux.namespaces", "array")),
    ("args of numbers", _set("process.args", ["a", 7]), ("process.args[1]", "string")),
    ("args empty", _set("process.args", []), ("process.args",)),
    ("cwd relative", _set("process.cwd", "here"), ("process.cwd", "here")),
    ("cwd missing", _drop("process.cwd"), ("process.cwd",)),
    ("env without =", _set("process.env", ["A"]), ("process.env[0]",)),
    ("uid negative", _set("process.user.uid", -1), ("process.user.uid",)),
    ("uid a string", _set("process.user.uid", "0"), ("process.user.uid",)),
    ("unknown rlimit", _set("process.rlimits.0.type", "RLIMIT_X"), ("process.rlimits[0].type", "RLIMIT_X")),
    ("soft above hard", _set("process.rlimits.0.soft", 4096), ("process.rlimits[0]", "hard")),
    ("no version", _drop("ociVersion"), ("ociVersion",)),
    ("bad version", _set("ociVersion", "one"), ("ociVersion", "one")),
    ("future version", _set("ociVersion", "2.0.0"), ("ociVersion", "2.0.0")),
    ("no root", _drop("root"), ("root",)),
    ("rootfs missing", _set("root.path", "nowhere"), ("root.path", "nowhere")),
    ("rootfs a file", _set("root.path", "config.json"), ("root.path", "config.json")),
    ("root no object", _set("root", "rootfs"), ("root",)),
    ("mount without place", _set("mounts.0", {"type": "proc"}), ("mounts[0].destination",)),
    ("mount of no file system", _set("mounts.3.type", "nofs"), ("mounts[3]", "nofs")),
    ("mount options no list", _set("mounts.1.options", "ro"), ("mounts[1].options",)),
    ("hook relative", _set("hooks", {"poststart": [{"path": "x"}]}), ("hooks.poststart[0].path",)),
    ("hook timeout zero", _set("hooks", {"poststop": [{"path": "/x", "timeout": 0}]}), ("hooks.poststop[0].timeout",)),
    ("unknown action", _set("linux.seccomp", {"defaultAction": "NO"}), ("linux.seccomp.defaultAction",)),
    ("memory negative", _set("linux.resources.memory", {"limit": -5}), ("linux.resources.memory.limit",)),
    ("device type", _set("linux.devices", [{"path": "/dev/x", "type": "q"}]), ("linux.devices[0].type",)),
    (
        "mapping of nothing",
        _set("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 0}]),
        ("linux.uidMappings",),
    ),
    ("cgroupsPath a number", _set("linux.cgroupsPath", 4), ("linux.cgroupsPath", "string")),
    ("propagation", _set("linux.rootfsPropagation", "sometimes"), ("linux.rootfsPropagation", "sometimes")),
    ("hostname in the host's", lambda c: c["linux"]["namespaces"].pop(3), ("hostname",)),
]


@pytest.mark.parametrize(("change", "words"), [row[1:] for row in CONFIGS], ids=[row[0] for row in CONFIGS])
def test_wrong_configuration(oci: Runtime, bundle: Bundle, change: Change, words: tuple[str, ...]) -> None:
    before = mount_points()
    change(bundle.config)
    oci("create", "--bundle", bundle.save(), oci.id()).refused(*words)
    _nothing_left(oci, before)


def _nothing_left(oci: Runtime, mounts_before: list[str]) -> None:
    assert oci.names() == []
    assert mount_points() == mounts_before
    assert cgroups_of(oci.ids) == []
    assert list(processes(oci)) == []


TEXTS = [
    ("truncated", b'{\n "ociVersion": "1.0.2",\n "process"', ("line 3", "column")),
    ("comma", b'{"a": 1,,}', ("line 1, column 9",)),
    ("bare word", b"{\n\n  nonsense\n}", ("line 3, column 3",)),
    ("empty", b"", ("config.json",)),
    ("array", b"[]", ("config.json", "object")),
    ("not text", b"\xff\xfe{}", ("config.json",)),
    ("NaN", b'{"ociVersion": NaN}', ("config.json",)),
    ("trailing", b"{} {}", ("line 1, column 4",)),
    ("deep", b'{"a":' * 100000, ("config.json",)),
    ("number", b"1", ("config.json", "object")),
]


@pytest.mark.parametrize(("text", "words"), [row[1:] for row in TEXTS], ids=[row[0] for row in TEXTS])
def test_broken_json(oci: Runtime, bundle: Bundle, text: bytes, words: tuple[str, ...]) -> None:
    bundle.save()
    (bundle.path / "config.json").write_bytes(text)
    oci("create", "--bundle", bundle.path, oci.id()).refused(*words)
    assert oci.names() == []


# ---- bundles and IDs -------------------------------------------------------------------------------------------------


def test_no_bundle(oci: Runtime, bundle: Bundle) -> None:
    oci("create", "--bundle", "/no/bundle", oci.id()).refused("/no/bundle", "no such file or directory")
    oci("create", "--bundle", "/etc/passwd", oci.id()).refused("/etc/passwd", "not a directory")
    oci("create", "--bundle", bundle.path, oci.id()).refused("JSON specification file config.json not found")
    oci("create", oci.id(), cwd=bundle.path).refused("config.json", "no such file or directory")
    assert oci.names() == []


@pytest.mark.parametrize("name", ["a b", "a/b", "../x", ".", "..", "ä", "x" * 300, "a\nb", "a*"])
def test_bad_ids(oci: Runtime, bundle: Bundle, name: str) -> None:
    oci("create", "--bundle", bundle.save(), name).refused("invalid container ID")
    assert oci.names() == []
    for command in ("state", "start", "kill", "delete"):
        oci(command, name).refused("invalid container ID")


def test_an_empty_id(oci_called: Runtime, bundle: Bundle) -> None:
    oci_called("create", "--bundle", bundle.save(), "").refused("container id cannot be empty")


@pytest.mark.parametrize("name", ["a", "A.b-c_d+e", "0", "-leading", ".hidden", "x" * 255])
def test_good_ids(oci_called: Runtime, bundle: Bundle, name: str) -> None:
    oci_called.ids.append(name)
    assert oci_called("run", "--bundle", bundle.args("echo", "fine").save(), "--", name).ok().out == "fine\n"


def test_an_id_that_is_taken(oci: Runtime, bundle: Bundle) -> None:
    """The container that has it is not touched and can be started."""
    name = oci.create(bundle.script("echo fine > /tmp/mark; exec sleep 1000").writable())
    before = {path.name: path.read_bytes() for path in (oci.root / name).iterdir() if path.is_file()}
    for command in (["create"], ["run"], ["run", "-d"]):
        oci.quiet(*command, "--bundle", bundle.path, name).refused(name, "already exists")
    assert {path.name: path.read_bytes() for path in (oci.root / name).iterdir() if path.is_file()} == before
    oci("start", name).ok()
    assert oci.state(name)["status"] == "running"
    oci.quiet("create", "--bundle", bundle.path, name).refused("already exists")
    assert oci.state(name)["status"] == "running"


# ---- commands in the wrong state -------------------------------------------------------------------------------------


def test_what_is_not_there(oci: Runtime) -> None:
    oci.root.mkdir()
    for command in (["state"], ["start"], ["kill"], ["kill", "--all"], ["delete"]):
        oci(*command, "nothing").refused("nothing", "container does not exist")
    result = oci("delete", "--force", "nothing").ok()
    assert (result.out, result.err) == ("", "")


def test_a_root_that_is_not_there(oci: Runtime) -> None:
    oci("state", "nothing").refused("container does not exist")
    oci("delete", "nothing").refused("container does not exist")
    oci("delete", "--force", "nothing").ok()
    assert not oci.root.exists()


@pytest.mark.parametrize("word", ["FOO", "99", "-1", "SIGSIG", "KILL9", "1e1", "RTMIN+99"])
def test_unknown_signals(oci_called: Runtime, bundle: Bundle, word: str) -> None:
    name = oci_called.create(bundle)
    oci_called("kill", name, word).refused("unknown signal")
    assert oci_called.state(name)["status"] == "created"


def test_delete_while_it_runs(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.args("sleep", "1000"))
    oci("delete", name).refused(name, "not stopped", "running")
    assert oci.state(name)["status"] == "running"


def test_kill_after_its_end(oci: Runtime, bundle: Bundle) -> None:
    name = oci.id()
    oci.run(bundle.script("true"), "--keep", name=name).ok()
    oci("kill", name).refused("container not running")
    oci("kill", name, "KILL").refused("container not running")
    oci("kill", "--all", name, "KILL").ok()
    oci("delete", name).ok()


def test_wrong_use(oci_called: Runtime) -> None:
    for words in (["create"], ["state"], ["state", "a", "b"], ["list", "x"], ["create", "--nope", "x"], ["frobnicate"]):
        result = oci_called(*words)
        assert result.status == (3 if words == ["frobnicate"] else 1) and result.err, result
        assert "Traceback" not in result.err


# ---- the log ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["create", "run"])
def test_a_json_log_of_one_object(oci: Runtime, bundle: Bundle, command: str) -> None:
    log = oci.place / "log.json"
    bundle.args('no"such\\thing')
    words = ["--log", log, "--log-format", "json", command, "--bundle", bundle.save(), oci.id()]
    told = oci(*words).refused("executable file not found")
    text = log.read_text()
    assert text.count("\n") == 1
    row = json.loads(text)
    assert row["level"] == "error"
    assert f"oci: {row['msg']}\n" == told
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", row["time"])


def test_a_json_log_of_an_error_deep_inside(oci: Runtime, bundle: Bundle) -> None:
    """Of a stage on the container's side, with a hook's own words in it."""
    log = oci.place / "log.json"
    bundle.hook("createContainer", "printf 'one\\ntwo \\033[31m \"three\"' >&2; exit 1")
    oci("--log", log, "--log-format", "json", "create", "--bundle", bundle.save(), oci.id()).refused("two")
    (line,) = log.read_text().splitlines()
    assert '"three"' in json.loads(line)["msg"]


def test_no_log_where_all_is_well(oci: Runtime, bundle: Bundle) -> None:
    log = oci.place / "log.json"
    oci("--log", log, "--log-format", "json", "run", "--bundle", bundle.script("true").save(), oci.id()).ok()
    assert log.read_bytes() == b""


def test_a_warning_goes_to_the_log(oci: Runtime, bundle: Bundle) -> None:
    """And to standard error only where there is no log: callers parse that."""
    log = oci.place / "log.json"
    bundle.hook("poststop", "exit 1")
    result = oci("--log", log, "--log-format", "json", "run", "--bundle", bundle.script("true").save(), oci.id()).ok()
    assert result.err == ""
    (row,) = map(json.loads, log.read_text().splitlines())
    assert row["level"] == "warning" and "poststop hook #0" in row["msg"]


def test_a_warning_of_a_stage_goes_to_the_log(oci: Runtime, bundle: Bundle) -> None:
    log = oci.place / "log.json"
    bundle.config["mounts"].append({"destination": "relative", "type": "tmpfs", "source": "tmpfs"})
    bundle.writable()
    result = oci("--log", log, "--log-format", "json", "run", "--bundle", bundle.script("true").save(), oci.id()).ok()
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    assert result.err == ""
    assert [row["level"] for row in rows] == ["warning"] and "mounts[7]" in rows[0]["msg"]


def test_a_log_that_cannot_be_written(oci_called: Runtime, bundle: Bundle) -> None:
    oci_called("--log", "/no/such/log", "create", "--bundle", bundle.save(), oci_called.id()).refused("/no/such/log")
    assert oci_called.names() == []
    # A full one does not keep a container from its work.
    words = ["--log", "/dev/full", "run", "--bundle", bundle.script("echo fine").save(), oci_called.id()]
    assert oci_called(*words).ok().out == "fine\n"


# ---- folders that are not as we left them ----------------------------------------------------------------------------

BROKEN = [
    ("truncated", b'{"ociVersion": "1.0.2", "id'),
    ("empty", b""),
    ("foreign", b'{"ociVersion": "1.0.2", "id": "x", "init_process_pid": 1, "bundle": "/x"}'),
    ("newer", b'{"ociVersion": "1.0.2", "id": "x", "status": "running", "pid": 1, "ocimk": {"version": 99}}'),
    ("array", b"[]"),
    ("strange members", b'{"id": 5, "status": [], "pid": "x", "bundle": 7, "ocimk": {"version": 1, "startTime": "y"}}'),
]


@pytest.mark.parametrize("text", [row[1] for row in BROKEN], ids=[row[0] for row in BROKEN])
def test_a_broken_state(oci: Runtime, bundle: Bundle, text: bytes) -> None:
    good = oci.create(bundle)
    bad = oci.create(bundle)
    pid = oci.pid(bad)
    (oci.root / bad / "state.json").write_bytes(text)
    state = oci("state", bad)
    listed = oci("list", "--quiet")
    assert good in listed.ok().lines
    if b"strange" not in text and b'"version": 1,' not in text:
        state.refused("state.json")
        assert listed.lines == [good]
        assert bad in listed.err and listed.err.count("\n") == 1
        for command in ("start", "kill", "delete"):
            oci(command, bad).refused("state.json")
    assert "Traceback" not in state.err and "internal" not in state.err
    result = oci("delete", "--force", bad).ok()
    assert "Traceback" not in result.err and "internal" not in result.err
    assert oci.names() == [good]
    assert not alive(pid)
    assert cgroups_of([bad]) == []


def test_a_working_directory_that_is_gone(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """Only what is relative to it is missed."""
    here = tmp_path / "here"
    here.mkdir()
    words = [*oci.argv("run", "--bundle", bundle.args("echo", "fine").save(), oci.id())]
    script = 'rmdir "$PWD"; "$@" && "$1" spec; "$1" --root relative list; "$1" create x'
    result = subprocess.run(
        ["sh", "-c", script, "sh", *words], cwd=here, env=CLEAN, capture_output=True, text=True, check=False
    )
    assert result.stdout == "fine\n"
    assert [line.partition(" (")[0] for line in result.stderr.splitlines()] == ["oci: getwd: no such file or directory"] * 3


def test_what_is_no_folder(oci: Runtime, bundle: Bundle) -> None:
    """A file where a container's folder, or the root, would be; a directory where its state would be."""
    (oci.root / "dir/state.json").mkdir(parents=True)
    (oci.root / "file").touch()
    for command in ("state", "start", "kill", "ps"):
        oci(command, "file").refused("file/state.json", "not a directory")
        oci(command, "dir").refused("dir/state.json", "is a directory")
    oci("delete", "dir").refused("is a directory")
    assert "is a directory" in oci("delete", "--force", "dir").ok().err
    (oci.root / "file").unlink()
    oci.root.rmdir()
    oci.root.touch()
    oci("create", "--bundle", bundle.save(), oci.id()).refused(str(oci.root), "a file is there")
    for command in ("state", "list"):
        oci(command, *["x"][: command == "state"]).refused(str(oci.root), "not a directory")
    oci.root.unlink()


def test_a_folder_without_state(oci: Runtime, bundle: Bundle) -> None:
    name = oci.id()
    (oci.root / name).mkdir(parents=True)
    oci("state", name).refused("container does not exist", "delete --force")
    listed = oci("list", "-q").ok()
    assert listed.lines == [] and name in listed.err
    oci.quiet("create", "--bundle", bundle.save(), name).refused("already exists", "delete --force")
    oci("delete", "--force", name).ok()
    assert oci.names() == []


def test_a_folder_of_another_runtime(oci: Runtime, bundle: Bundle) -> None:
    """runc's, for example: told of, not touched by list, removed when that is asked for."""
    name = oci.id()
    (oci.root / name / "deep").mkdir(parents=True)
    (oci.root / name / "state.json").write_text('{"id": "x", "init_process_pid": 1}')
    (oci.root / name / "deep/file").write_text("x")
    (oci.root / name / "link").symlink_to("/etc")
    oci("state", name).refused("not a state of ocimk")
    oci("delete", name).refused("not a state of ocimk")
    oci("delete", "--force", name).ok()
    assert oci.names() == []
    assert os.path.exists("/etc/passwd")


def test_a_folder_whose_ledger_is_broken(oci: Runtime, bundle: Bundle) -> None:
    """Lines that cannot be understood are told of, and the folder can be removed all the same."""
    name = oci.create(bundle)
    with open(oci.root / name / "ledger", "a") as ledger:
        ledger.write("oci-nothing thing value\nnonsense\n\ncut of")
    oci("delete", name).refused("no such program")
    result = oci("delete", "--force", name).ok()
    assert "oci-nothing: no such stage: thing value: left as it is" in result.err
    assert oci.names() == []
    assert list(processes(oci)) == []


def test_a_process_id_in_other_hands(oci: Runtime, bundle: Bundle) -> None:
    """The recorded pid is by now somebody else's: by its start time we know that it is not ours to kill."""
    name = oci.create(bundle)
    other = subprocess.Popen(["sleep", "1000"])
    try:
        folder = oci.root / name
        os.kill(oci.pid(name), 9)
        oci.wait_stopped(name)
        state = json.loads((folder / "state.json").read_bytes())
        ledger = (folder / "ledger").read_text()
        (folder / "ledger").write_text(ledger.replace(str(state["pid"]), str(other.pid)))
        state["pid"] = other.pid
        (folder / "state.json").write_text(json.dumps(state))
        assert oci.state(name)["status"] == "stopped"
        oci("kill", name, "KILL").refused("not running")
        oci("delete", "--force", name).ok()
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_environment_does_not_lead_us_astray(oci: Runtime, bundle: Bundle) -> None:
    env = {**CLEAN, "OCI_FDS": "sync=1 root=2 state.json=0 x=", "PYTHONPATH": "/nonexistent", "PYTHONSTARTUP": "/x"}
    assert oci.run(bundle.script("echo fine"), env=env).ok().out == "fine\n"

"""What callers parse, beside what runc prints for the same container: same keys in the same order, same types, same form."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from kit import CLEAN, Bundle, Result, Runtime, fresh_id

pytestmark = pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed")

Both = list[Callable[..., Result]]


@pytest.fixture
def both(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> Iterator[Both]:
    """Calls of oci and of runc, each with a root of its own; ID stands for a container created from one bundle."""
    told = subprocess.run(["runc", "--version"], capture_output=True, text=True, check=True).stdout
    version = re.findall(r"^spec: (.*)$", told, re.M)[0]  # what it states, whatever the bundle says
    bundle.args("sleep", "1000").config |= {"ociVersion": version, "annotations": {"b": "x<y>&\u2028", "a": "b"}}
    name = fresh_id()
    oci_called.ids.append(name)
    place = tmp_path / "runc"
    place.mkdir()

    def runc(*words: object, **more: Any) -> Result:
        argv = ["runc", "--root", str(place / "run"), *map(str, words)]
        with open(place / "out", "w+b") as out, open(place / "err", "w+b") as err:
            done = subprocess.run(
                argv, env=CLEAN, stdin=subprocess.DEVNULL, stdout=out, stderr=err, check=False, timeout=30, **more
            )
            out.seek(0)
            err.seek(0)
            return Result(argv, done.returncode, out.read(), err.read())

    calls: Both = [oci_called.quiet, runc]
    try:
        for call in calls:
            bundle.linux["cgroupsPath"] = f"/{name}-{call.__name__}"
            call("create", "--bundle", bundle.save(), "--pid-file", tmp_path / f"pid-{call.__name__}", name).ok()
        yield [lambda *words, call=call: call(*(name if word == "ID" else word for word in words)) for call in calls]
    finally:
        runc("delete", "--force", name)


def shape(text: str) -> str:
    """The text with what differs between two containers made equal."""
    text = re.sub(r"\d{4}-\d\d-\d\dT[\d:]{8}\.\d{1,9}Z", "MOMENT", text)
    return re.sub(r"(MOMENT|CREATED) *", r"\1 ", re.sub(r"\b[1-9]\d+ *\b", "PID ", text))


def same(both: Both, *words: str) -> list[Result]:
    """Both print the same and end with the same status."""
    ours, theirs = (call(*words) for call in both)
    assert (ours.status, shape(ours.out)) == (theirs.status, shape(theirs.out)), (ours, theirs)
    return [ours, theirs]


def test_state_and_list_through_a_life(both: Both) -> None:
    def look(status: str) -> None:
        assert same(both, "state", "ID")[0].json["status"] == status
        for words in ([], ["--format", "json"], ["-q"]):
            same(both, "list", *words)

    look("created")
    same(both, "start", "ID")
    look("running")
    same(both, "kill", "ID", "KILL")
    for call in both:
        while call("state", "ID").json["status"] != "stopped":
            pass
    look("stopped")
    same(both, "kill", "--all", "ID")
    same(both, "delete", "ID")
    assert same(both, "list", "-f", "json")[0].out == "null\n"
    same(both, "list", "-q")
    same(both, "delete", "--force", "ID")


WRONG = [
    ("state nobody", "container does not exist"),
    ("start nobody", "container does not exist"),
    ("kill nobody", "container does not exist"),
    ("delete nobody", "container does not exist"),
    ("create ID", "container with given ID already exists"),
    ("run ID", "container with given ID already exists"),
    ("kill ID FOO", 'unknown signal "FOO"'),
    ("kill nobody FOO", "container does not exist"),
    ("list -f yaml", "invalid format option"),
    ("ps -f yaml ID", "invalid format option"),
    ("ps -f yaml nobody", "container does not exist"),
    ("--log-format xml list", "invalid log-format: xml"),
    ("create a/b", "invalid container ID format"),
    ("state", '"state" requires exactly 1 argument(s)'),
    ("kill", '"kill" requires a minimum of 1 argument(s)'),
    ("features x", '"features" requires exactly 0 argument(s)'),
    ("frobnicate", "frobnicate"),
]


@pytest.mark.parametrize(("words", "text"), WRONG, ids=[words for words, _ in WRONG])
def test_what_goes_wrong_is_told_with_the_same_words(both: Both, words: str, text: str, bundle: Bundle) -> None:
    more = ["--bundle", str(bundle.path)] if words.startswith(("create", "run")) else []
    command, *args = words.split()
    ours, theirs = (call(command, *more, *args) for call in both)
    assert ours.status == theirs.status
    assert text in ours.err
    assert text in theirs.err.replace('\\"', '"')
    assert ours.out.startswith("Incorrect Usage.") == theirs.out.startswith("Incorrect Usage.")
    assert both[0]("state", "ID").json["status"] == "created"


def test_states_that_do_not_fit(both: Both) -> None:
    for call in both:
        call("start", "ID").ok()
    for words, text in (
        ("start ID", "cannot start an already running container"),
        ("delete ID", "that is not stopped: running"),
    ):
        for result in same(both, *words.split()):
            assert (result.status, text in result.err) == (1, True), result
    for call in both:
        call("kill", "ID", "KILL").ok()
        while call("state", "ID").json["status"] != "stopped":
            pass
    for words, text in (
        ("start ID", "cannot start a container that has stopped"),
        ("kill ID", "container not running"),
    ):
        for result in same(both, *words.split()):
            assert (result.status, text in result.err) == (1, True), result


def test_the_json_log(both: Both, tmp_path: Path) -> None:
    found = []
    for at, call in enumerate(both):
        log = tmp_path / f"log-{at}"
        call("--log", str(log), "--log-format", "json", "state", "nobody")
        found.append(json.loads(log.read_bytes()))
    assert [list(row) for row in found] == [["level", "msg", "time"]] * 2
    assert found[0]["level"] == found[1]["level"] == "error"


def test_pid_files(both: Both, tmp_path: Path) -> None:
    ours, theirs = (tmp_path / f"pid-{name}" for name in ("quiet", "runc"))
    assert ours.read_text() == str(both[0]("state", "ID").json["pid"])
    assert theirs.read_text() == str(both[1]("state", "ID").json["pid"])


def test_spec_writes_the_same_but_for_what_the_specification_has_since_changed(both: Both, tmp_path: Path) -> None:
    configs = []
    for at, call in enumerate(both):
        (tmp_path / str(at)).mkdir()
        call("spec", "--bundle", tmp_path / str(at)).ok()
        assert call("spec", "--bundle", tmp_path / str(at)).status == 1
        text = (tmp_path / str(at) / "config.json").read_text()
        assert text.startswith('{\n\t"ociVersion": ') and text.endswith("}")
        configs.append(json.loads(text))
    ours, theirs = configs
    del ours["ociVersion"], theirs["ociVersion"]
    theirs["process"]["capabilities"].pop("ambient", None)
    assert json.dumps(ours) == json.dumps(theirs)

"""Where lines of the log go, and in which form."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit import CLEAN, OCI, Bundle, Runtime, await_true


def rows(log: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def warned(bundle: Bundle) -> Bundle:
    """A bundle that is warned of, on the host's side and on the container's."""
    bundle.config["mounts"].append({"destination": "relative", "type": "tmpfs", "source": "tmpfs"})
    bundle.config["mounts"].append({"destination": "/x", "source": "/no/such", "options": ["rbind", "nofail"]})
    return bundle.writable()


def test_a_failure_is_one_object_in_which_the_warnings_are(oci: Runtime, bundle: Bundle) -> None:
    log = oci.place / "log.json"
    bundle = warned(bundle).args("no-such-program")
    oci("--log", log, "--log-format", "json", "create", "--bundle", bundle.save(), oci.id()).refused("no-such-program")
    row = json.loads(log.read_bytes())  # as Podman reads it: the whole file
    assert row["level"] == "error"
    assert [re.findall(r"mounts\[\d\]", text) for text in row["warnings"]] == [["mounts[7]"], ["mounts[8]"]]


def test_warnings_of_a_success_come_before_the_program_ends(oci: Runtime, bundle: Bundle) -> None:
    log = oci.place / "log.json"
    bundle = warned(bundle).script("read x")
    process = oci.begin(
        "--log", log, "--log-format", "json", "run", "--bundle", bundle.save(), oci.id(), stdin=subprocess.PIPE
    )
    assert process.stdin
    await_true(lambda: log.exists() and len(rows(log)) == 2, "two warnings in the log")
    assert process.poll() is None
    process.stdin.write(b"\n")
    process.stdin.flush()
    assert process.wait(10) == 0
    assert [row["level"] for row in rows(log)] == ["warning", "warning"]


def test_without_a_file_json_goes_to_standard_error(oci_called: Runtime) -> None:
    (row,) = map(json.loads, oci_called("--log-format", "json", "state", "nobody").err.splitlines())
    assert row["level"] == "error" and "container does not exist" in row["msg"]


def test_the_level_leaves_out_what_is_below_it(oci: Runtime, bundle: Bundle) -> None:
    bundle = warned(bundle).script("true")
    assert "mounts[7]" in oci.run(bundle).ok().err
    oci.ids.append(name := "quiet" + oci.id())
    quiet = oci("--log-level", "error", "run", "--bundle", bundle.save(), name).ok()
    assert quiet.err == ""


@pytest.mark.parametrize("form", ["json", "text"])
def test_debug_says_where_from(oci: Runtime, bundle: Bundle, form: str) -> None:
    log = oci.place / "log"
    bundle.hook("createRuntime", "true").hook("createContainer", "true").args("no-such-program")
    oci("--log", log, "--debug", "--log-format", form, "create", "--bundle", bundle.save(), oci.id())
    text = log.read_text()
    assert "hook_process.py:" in text and "carry_out" in text
    if form == "json":
        assert {"debug", "error"} <= {row["level"] for row in rows(log)}
        assert all(row["func"].startswith("ocimk.") and ".py:" in row["file"] for row in rows(log))


def test_a_file_may_be_named_as_one(oci_called: Runtime) -> None:
    log = oci_called.place / "log"
    oci_called("--log", f"file:{log}", "state", "nobody").refused()
    assert 'level=error msg="container nobody: container does not exist"' in log.read_text()


LISTEN = """
mount -t tmpfs none /run && mkdir -p /run/systemd/journal && mount -t tmpfs none /dev && mknod -m 666 /dev/null c 1 3
exec "$@"
"""


def heard(place: Path, target: str, *words: str) -> list[bytes]:
    """The datagrams that a logger bound in a mount namespace of ours gets."""
    script = """
import os, socket, subprocess, sys
path, out, *argv = sys.argv[1:]
logger = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
logger.bind(path)
subprocess.run(argv)
logger.setblocking(False)
with open(out, "wb") as file:
    try:
        while True:
            file.write(logger.recv(65536) + b"\\0")
    except BlockingIOError:
        pass
"""
    path = "/dev/log" if target.startswith("syslog") else "/run/systemd/journal/socket"
    inner = ["python3", "-c", script, path, str(place / "heard"), OCI, "--log", target, *words]
    argv = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", LISTEN, "sh", *inner]
    subprocess.run(argv, check=True, env=CLEAN, capture_output=True, timeout=30)
    return (place / "heard").read_bytes().split(b"\0")[:-1]


def test_the_journal(tmp_path: Path) -> None:
    (told,) = heard(tmp_path, "journald:web 1", "--root", str(tmp_path), "state", "nobody")
    fields = dict(line.split("=", 1) for line in told.decode().splitlines())
    assert fields == {
        "PRIORITY": "3",
        "MESSAGE": "container nobody: container does not exist",
        "SYSLOG_IDENTIFIER": "oci",
        "ID": "web 1",
    }


def test_the_systems_log(tmp_path: Path) -> None:
    (told,) = heard(tmp_path, "syslog:web", "--root", str(tmp_path), "state", "nobody")
    assert re.fullmatch(rb"<11>web\[\d+\]: container nobody: container does not exist", told)


def test_stages_that_are_executed_tell_the_journal_too(tmp_path: Path, bundle: Bundle) -> None:
    bundle.hook("createRuntime", "true").args("no-such-program")
    words = ["--root", str(tmp_path / "run"), "--debug", "--exec-stages", "create", "--bundle", str(bundle.save()), "x"]
    told = heard(tmp_path, "journald:x", *words)
    assert any(b"PRIORITY=3" in row for row in told)
    assert any(b"PRIORITY=7" in row and b"CODE_FILE=stages/hook_process.py" in row for row in told), told


def test_a_logger_that_is_not_there(oci_called: Runtime) -> None:
    if Path("/run/systemd/journal/socket").exists():
        pytest.skip("a journal runs here")
    oci_called("--log", "journald:x", "list").refused("--log journald:x: connect to /run/systemd/journal/socket")


def test_a_logger_that_does_not_read_keeps_nobody(tmp_path: Path) -> None:
    from ocimk import logs

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as deaf:
        deaf.bind(str(tmp_path / "log"))
        logs._SYSLOG, before = str(tmp_path / "log"), logs._SYSLOG
        try:
            ours = socket.socket(fileno=logs.connect("syslog:x"))
        finally:
            logs._SYSLOG = before
        with ours, pytest.raises(BlockingIOError):
            while True:
                ours.send(b"x" * 4096)

"""checkpoint and restore by a CRIU that works, which takes a kernel that it knows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from kit import Bundle, Runtime, alive, await_true

pytestmark = [pytest.mark.vm, pytest.mark.skipif(not shutil.which("criu"), reason="criu is not installed")]

PATIENCE = 120
"""Seconds for a machine that is translated."""

COUNT = 'i=0; while true; do i=$((i+1)); echo "$i" > /data/count; sleep 0.1; done'


@pytest.fixture
def counting(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> tuple[Runtime, str, Path]:
    """A running container that counts, in a file of the host's."""
    return oci_called, begin_counting(oci_called, bundle, tmp_path), tmp_path


def begin_counting(oci: Runtime, bundle: Bundle, place: Path) -> str:
    (place / "data").mkdir()
    bundle.bind(place / "data", "/data").namespace("cgroup").script(COUNT)
    name = oci.id()
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    assert oci.begin("run", "--detach", "--bundle", bundle.save(), name, **streams).wait(PATIENCE) == 0
    await_true(lambda: count(place) > 3, "it counts", PATIENCE)
    return name


def count(place: Path) -> int:
    text = (place / "data/count").read_text() if (place / "data/count").exists() else ""
    return int(text) if text.strip() else 0


def restore(oci: Runtime, name: str, place: Path, *options: str) -> None:
    oci.ids.append(name) if name not in oci.ids else None
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = ("--image-path", place / "images", "--work-path", place / "work", "--detach", "--bundle", place / "bundle")
    process = oci.begin("restore", *words, *options, name, **streams)
    assert process.wait(PATIENCE) == 0, process.stderr and process.stderr.read()


def checkpoint(oci: Runtime, name: str, place: Path, *options: str) -> None:
    oci("checkpoint", "--image-path", place / "images", "--work-path", place / "work", *options, name, timeout=PATIENCE).ok()


def test_there_and_back(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    checkpoint(oci, name, place)
    assert oci.names() == []
    before = count(place)
    restore(oci, name, place, "--pid-file", str(place / "pid"))
    state = oci.state(name)
    assert state["status"] == "running"
    assert (place / "pid").read_text() == str(state["pid"])
    await_true(lambda: count(place) > before + 3, "it goes on counting from where it was", PATIENCE)
    assert not (oci.root / name / "criu-root").exists()
    pids = oci("ps", "--format", "json", name).ok().json
    assert state["pid"] in pids
    oci("kill", name, "KILL").ok()
    oci.wait_stopped(name)
    oci("delete", name).ok()


def test_what_was_added_to_it_and_its_limits_come_along(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    (place / "more").mkdir()
    (place / "more/file").write_text("more")
    (place / "mounts.json").write_text(json.dumps([{"destination": "/dev/more", "source": str(place / "more"), "options": ["bind"]}]))
    oci("mounts", "add", name, place / "mounts.json").ok()
    checkpoint(oci, name, place)
    config = json.loads((place / "bundle/config.json").read_text())
    config["linux"]["resources"] = {**config["linux"].get("resources", {}), "pids": {"limit": 77}}
    (place / "bundle/config.json").write_text(json.dumps(config))
    restore(oci, name, place)
    inside = subprocess.run(
        ["nsenter", "-t", str(oci.pid(name)), "-m", "/bin/busybox", "cat", "/dev/more/file"], capture_output=True, text=True
    )
    assert inside.stdout == "more", inside
    group = json.loads((oci.root / name / "cgroup.json").read_bytes())["paths"][""]
    assert Path(group, "pids.max").read_text() == "77\n"


def test_it_goes_on_when_it_is_to(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    checkpoint(oci, name, place, "--leave-running")
    before = count(place)
    await_true(lambda: count(place) > before, "it goes on", PATIENCE)
    assert oci.state(name)["status"] == "running"


def test_memory_first(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    oci("checkpoint", "--pre-dump", "--image-path", place / "first", name, timeout=PATIENCE).ok()
    assert oci.state(name)["status"] == "running"
    checkpoint(oci, name, place, "--parent-path", "../first")
    restore(oci, name, place)
    assert oci.state(name)["status"] == "running"


def test_in_the_foreground(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    checkpoint(oci, name, place)
    streams: Any = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    words = ("--image-path", place / "images", "--bundle", place / "bundle")
    process = oci.begin("restore", *words, name, **streams)
    before = count(place)
    await_true(lambda: count(place) > before, "it counts again", PATIENCE)
    pid = oci.pid(name)
    oci("kill", name, "KILL").ok()
    assert process.wait(PATIENCE) == 128 + 9
    assert oci.names() == []
    assert not alive(pid)


def test_a_bundle_that_is_another_is_an_error_that_leaves_nothing(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    checkpoint(oci, name, place)
    config = json.loads((place / "bundle/config.json").read_text())
    config["mounts"] = [mount for mount in config["mounts"] if mount["destination"] != "/data"]
    (place / "bundle/config.json").write_text(json.dumps(config))
    words = ("--image-path", place / "images", "--bundle", place / "bundle", "--detach")
    oci("restore", *words, name, timeout=PATIENCE).refused("criu failed", "restore.log")
    assert oci.names() == []
    assert os.listdir(place / "images")

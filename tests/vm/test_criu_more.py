"""What checkpoint and restore do besides (test_criu.py): terminals, scopes of systemd, memory that comes over a network,
and Podman's own commands for it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path

import pytest
from test_criu import PATIENCE, begin_counting, checkpoint, count, counting, restore
from test_podman_systemd import Podman, podman
from test_systemd import loaded, scopes

from conftest import Groups
from kit import Bundle, Runtime, await_true
from terminal_kit import master_of, read_until, receiver

__all__ = ["counting", "podman", "scopes"]
pytestmark = [pytest.mark.vm, pytest.mark.skipif(not shutil.which("criu"), reason="criu is not installed")]

PORT = "12345"


def test_a_terminal(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["terminal"] = True
    bundle.namespace("cgroup").script("while read line; do echo got:$line; done")
    name = oci_called.id()
    with receiver(oci_called) as (path, server):
        oci_called.quiet("run", "--detach", "--bundle", bundle.save(), "--console-socket", path, name, timeout=PATIENCE).ok()
        _, master = master_of(server)
    os.write(master, b"before\n")
    read_until(master, b"got:before", PATIENCE)
    checkpoint(oci_called, name, tmp_path)
    os.close(master)
    with receiver(oci_called) as (path, server):
        restore(oci_called, name, tmp_path, "--console-socket", path)
        _, master = master_of(server)
    os.write(master, b"after\n")
    read_until(master, b"got:after", PATIENCE)
    os.close(master)


def test_in_a_scope(scopes: Groups, bundle: Bundle, tmp_path: Path) -> None:
    name = begin_counting(scopes, bundle, tmp_path)
    checkpoint(scopes, name, tmp_path)
    unit = f"oci-{name}.scope"
    await_true(lambda: not loaded(unit), "the scope is gone", PATIENCE)
    before = count(tmp_path)
    restore(scopes, name, tmp_path)
    await_true(lambda: count(tmp_path) > before, "it goes on", PATIENCE)
    assert loaded(unit) and str(scopes.pid(name)) in (scopes.group(name) / "cgroup.procs").read_text().split()
    scopes("delete", "--force", name).ok()
    assert not loaded(unit)


def test_memory_over_a_network(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    (place / "images").mkdir()
    server = subprocess.Popen(["criu", "page-server", "--images-dir", place / "images", "--port", PORT])
    time.sleep(3)
    checkpoint(oci, name, place, "--page-server", f"127.0.0.1:{PORT}")
    assert server.wait(PATIENCE) == 0
    before = count(place)
    restore(oci, name, place)
    await_true(lambda: count(place) > before, "it goes on", PATIENCE)


def test_memory_that_comes_when_it_is_needed(counting: tuple[Runtime, str, Path]) -> None:
    oci, name, place = counting
    read, write = os.pipe()
    words = ("--image-path", place / "images", "--lazy-pages", "--page-server", f"127.0.0.1:{PORT}", "--status-fd", str(write))
    source = oci.begin("checkpoint", *words, name, pass_fds=(write,))
    os.close(write)
    assert os.read(read, 1) == b"\0", source.communicate(timeout=PATIENCE)
    os.close(read)
    before = count(place)
    words = ("--images-dir", place / "images", "--work-dir", place / "images")
    pages = subprocess.Popen(["criu", "lazy-pages", "--page-server", "--address", "127.0.0.1", "--port", PORT, *words])
    await_true(lambda: (place / "images/lazy-pages.socket").exists(), "criu serves pages", PATIENCE)
    other = Runtime(place / "other")
    (place / "other").mkdir()
    config = json.loads((place / "bundle/config.json").read_text())
    config["linux"]["cgroupsPath"] = f"/{name}-other"  # it is elsewhere, in earnest
    (place / "bundle/config.json").write_text(json.dumps(config))
    try:
        restore(other, name, place, "--lazy-pages", "--work-path", str(place / "images"))
        await_true(lambda: count(place) > before, "it goes on", PATIENCE)
        assert pages.wait(PATIENCE) == 0
        assert source.wait(PATIENCE) == 0
        assert oci.names() == []
    finally:
        pages.kill()
        other.clean()


def test_by_podman(podman: Podman) -> None:
    words = ("run", "--detach", "--network", "none", "--name", "web", "--security-opt", "seccomp=unconfined")
    podman(*words, "bb", "busybox", "sh", "-c", "i=0; while true; do i=$((i+1)); echo $i; busybox sleep 1; done")
    await_true(lambda: len(podman("logs", "web")) > 2, "it counts", PATIENCE)
    podman("container", "checkpoint", "web")
    assert podman("inspect", "--format", "{{.State.Status}}", "web") == ["exited"]
    before = len(podman("logs", "web"))
    podman("container", "restore", "web")
    await_true(lambda: len(podman("logs", "web")) > before, "it goes on", PATIENCE)
    numbers = [int(line) for line in podman("logs", "web")]
    assert numbers == list(range(1, 1 + len(numbers)))

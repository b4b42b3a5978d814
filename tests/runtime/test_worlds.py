"""What is done with a living container where there is v1 alone, and where there is cgroup v2 alone: made by mounts, each
command in a mount namespace of its own. On v2 there may be no controllers then, which none of this needs."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from properties_kit import PYTHON, with_python
from test_live import BOMB, COUNT, progress
from test_nesting import PURE

from kit import Bundle, Runtime, await_true, wait_gone
from ocimk.linux import cgroup

pytestmark = pytest.mark.skipif(cgroup.mode() != "hybrid", reason="this host is one of the worlds itself")

WORLDS = {"v1": 'umount /sys/fs/cgroup/unified && exec "$@"', "v2": PURE}


class Elsewhere(Runtime):
    """The runtime in one of the worlds."""

    world = ""

    def argv(self, *words: object) -> list[str]:
        return ["unshare", "-m", "--propagation", "private", "sh", "-c", WORLDS[self.world], "sh", *super().argv(*words)]


@pytest.fixture(params=WORLDS)
def oci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    before = cgroup.controllers(cgroup.UNIFIED, "cgroup.subtree_control")
    runtime = Elsewhere(tmp_path)
    runtime.world = request.param
    yield runtime
    left = runtime.clean()
    for name in set(cgroup.controllers(cgroup.UNIFIED, "cgroup.subtree_control")) - set(before):
        Path(f"{cgroup.UNIFIED}/cgroup.subtree_control").write_text(f"-{name}")
    assert not left, f"left behind: {left}"


def test_paused_and_resumed(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.script(COUNT).writable())
    await_true(lambda: progress(bundle.rootfs), "it counts")
    oci("pause", name).ok()
    assert oci.state(name)["status"] == "paused"
    before = progress(bundle.rootfs)
    time.sleep(0.2)
    assert progress(bundle.rootfs) == before
    oci("resume", name).ok()
    await_true(lambda: progress(bundle.rootfs) != before, "it counts on")
    oci("pause", name).ok()
    pid = oci.pid(name)
    oci("kill", name, "KILL").ok()
    wait_gone(pid)
    oci("delete", name).ok()


def test_a_paused_container_is_deleted_by_force(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.without("pid").script("sleep 1000 & sleep 1000 & wait"))
    pids = oci("ps", "-f", "json", name).ok().json
    oci("pause", name).ok()
    oci("delete", "--force", name).ok()
    for pid in pids:
        wait_gone(pid)


def test_a_bomb_is_killed(oci: Runtime, bundle: Bundle) -> None:
    """The container's users may have so many processes: on v2 there may be no controller that counts them."""
    bundle.process["user"] = {"uid": 12345, "gid": 12345}
    bundle.process["rlimits"] = [{"type": "RLIMIT_NPROC", "soft": 60, "hard": 60}]
    name = oci.detached(with_python(bundle.without("pid")).args(PYTHON, "-ISc", BOMB))
    await_true(lambda: len(oci("ps", "-f", "json", name).json or ()) >= 20, "it has multiplied")
    oci("kill", "--all", name, "KILL").ok()
    await_true(lambda: oci("ps", "-f", "json", name).json is None, "all are gone")


def test_measured_until_the_end(oci: Runtime, bundle: Bundle) -> None:
    os.mkfifo(oci.place / "go")
    name = oci.detached(bundle.bind(oci.place, "/in").script("read x < /in/go"))
    events = oci.begin("events", "--interval", "100ms", name)
    assert events.stdout
    event = json.loads(events.stdout.readline())
    assert (event["type"], event["id"]) == ("stats", name) and event["data"]["cpu"]["usage"]["total"] > 0
    (oci.place / "go").write_text("1\n")
    oci.wait_stopped(name)
    oci("delete", name).ok()
    assert events.wait(10) == 0

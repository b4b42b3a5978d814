"""A living container where the cgroup2 has every controller: other limits, pausing, killing, what it uses."""

from __future__ import annotations

import json
import os
import time
from typing import Any

import pytest

import kit
from conftest import Groups

pytestmark = pytest.mark.vm

MIB = 1 << 20


def test_every_option_of_update_is_in_its_file(groups: Groups, bundle: kit.Bundle) -> None:
    name = groups.detached(bundle.args("sleep", "1000"))
    words = (
        "--memory 64m --memory-swap 96m --memory-reservation 32m --pids-limit 77 --cpu-share 512 --cpu-quota 50000 "
        "--cpu-period 200000 --cpu-burst 10000 --cpuset-cpus 1 --cpuset-mems 0 --blkio-weight 200"
    )
    groups("update", *words.split(), name, timeout=60).ok()
    weight = "io.bfq.weight" if (groups.group(name) / "io.bfq.weight").exists() else "io.weight"
    expected = {
        "memory.max": str(64 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.low": str(32 * MIB),
        "pids.max": "77",
        "cpu.weight": "59",
        "cpu.max": "50000 200000",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "1",
        "cpuset.mems": "0",
        weight: "default 200" if "bfq" in weight else "default 1920",
    }
    assert groups.files(name, *expected) == expected
    groups("update", "--memory", "-1", "--cpu-quota", "-1", "--pids-limit", "-1", name, timeout=60).ok()
    lifted = {"memory.max": "max", "memory.swap.max": "max", "cpu.max": "max 200000", "pids.max": "max"}
    assert groups.files(name, *lifted) == lifted


def test_a_limit_below_what_is_used_is_refused_when_asked_to_look(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.mount("/big", "tmpfs").script("dd if=/dev/zero of=/big/file bs=1M count=16; exec sleep 1000")
    name = groups.detached(bundle)
    kit.await_true(lambda: int(groups.files(name, "memory.current").popitem()[1]) > 16 * MIB, "it is used", 60)
    wanted = json.dumps({"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}})
    groups("update", "-r", "-", name, stdin=wanted.encode(), timeout=60).refused("memory.limit: rejecting", "in use")
    assert groups.files(name, "memory.max") == {"memory.max": "max"}


def test_a_paused_container_makes_no_progress(groups: Groups, bundle: kit.Bundle) -> None:
    name = groups.detached(bundle.script("while :; do :; done"))

    def used() -> int:
        return int(groups.files(name, "cpu.stat")["cpu.stat"].split()[1])

    kit.await_true(lambda: used() > 100000, "it runs", 60)
    groups("pause", name, timeout=60).ok()
    assert groups.files(name, "cgroup.freeze") == {"cgroup.freeze": "1"} and groups.state(name)["status"] == "paused"
    before = used()
    time.sleep(1)
    assert used() == before
    groups("resume", name, timeout=60).ok()
    kit.await_true(lambda: used() > before, "it runs on", 60)


def test_what_it_uses_in_runcs_words(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"] |= {"memory": {"limit": 64 * MIB, "swap": 96 * MIB}, "pids": {"limit": 9}}
    name = groups.detached(bundle.script("dd if=/dev/zero of=/tmp/file bs=64k count=16; exec sleep 1000").writable())
    data: dict[str, Any] = groups("events", "--stats", name, timeout=60).ok().json["data"]
    assert data["memory"]["usage"]["limit"] == 64 * MIB and data["memory"]["swap"]["limit"] == 96 * MIB
    assert {"usage", "swap", "raw"} <= set(data["memory"]) and data["memory"]["raw"]["anon"] > 0
    assert data["pids"]["limit"] == 9 and data["cpu"]["usage"]["total"] > 0
    assert "2MB" in data["hugetlb"]
    if os.path.exists("/proc/pressure"):
        assert set(data["memory"]["psi"]) <= {"some", "full"}


def test_running_out_of_memory_is_told_until_the_end(groups: Groups, bundle: kit.Bundle) -> None:
    os.mkfifo(groups.place / "go")
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    bundle.bind(groups.place, "/in").script("while read x; do tail /dev/zero; done < /in/go")
    name = groups.detached(bundle)
    events = groups.begin("events", "--interval", "1h", name)
    assert events.stdout
    with open(groups.place / "go", "w") as go:
        kit.await_true(lambda: kit.of_status(events.pid, "State")[0] == "S", "it listens", 60)
        time.sleep(2)
        go.write("1\n")
        go.flush()
        assert json.loads(events.stdout.readline()) == {"type": "oom", "id": name}
    assert events.wait(60) == 0


def test_a_container_that_is_killed_as_a_whole_is_one_event(groups: Groups, bundle: kit.Bundle) -> None:
    os.mkfifo(groups.place / "go")
    bundle.linux["resources"] |= {"memory": {"limit": 24 * MIB, "swap": 24 * MIB}, "unified": {"memory.oom.group": "1"}}
    bundle.bind(groups.place, "/in").script("sleep 1000 & sleep 1000 & read x < /in/go; tail /dev/zero")
    name = groups.detached(bundle)
    events = groups.begin("events", "--interval", "1h", name)
    assert events.stdout
    kit.await_true(lambda: kit.of_status(events.pid, "State")[0] == "S", "it listens", 60)
    time.sleep(2)
    (groups.place / "go").write_text("1\n")
    assert events.wait(60) == 0
    assert [json.loads(line) for line in events.stdout] == [{"type": "oom", "id": name}]


def test_no_process_of_a_fork_bomb_survives(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 30}
    name = groups.detached(bundle.without("pid").script("bomb() { bomb | bomb & }; bomb; while :; do (sleep 1 &); done"))
    kit.await_true(lambda: "max 0" not in groups.files(name, "pids.events")["pids.events"], "the limit is met", 60)
    groups("kill", "--all", name, "KILL", timeout=60).ok()
    kit.await_true(lambda: "populated 0" in groups.files(name, "cgroup.events")["cgroup.events"], "all are gone", 60)


def test_controllers_are_on_down_to_the_container_and_no_further(groups: Groups, bundle: kit.Bundle) -> None:
    name = groups.create(bundle)
    assert groups.files(name, "cgroup.subtree_control") == {"cgroup.subtree_control": ""}
    assert {"cpu", "memory", "pids", "io"} <= set(groups.files(name, "cgroup.controllers")["cgroup.controllers"].split())


def test_a_container_with_children_of_its_own_is_limited_killed_and_removed(groups: Groups, bundle: kit.Bundle) -> None:
    """What an init such as systemd does: its processes go into sub-cgroups that have controllers of their own."""
    for entry in bundle.config["mounts"]:
        if entry["destination"] == "/sys/fs/cgroup":
            entry["options"].remove("ro")
    bundle.namespace("cgroup").user_namespace()
    script = (
        "cd /sys/fs/cgroup && mkdir init && echo 0 > init/cgroup.procs && echo +pids +memory > cgroup.subtree_control &&"
        "mkdir app && echo 7 > app/pids.max && touch /tmp/made; exec sleep 1000"
    )
    bundle.rootfs.joinpath("tmp").chmod(0o777)
    name = groups.detached(bundle.script(script).writable())
    kit.await_true((bundle.rootfs / "tmp/made").exists, "it made its own", 60)
    groups("update", "--pids-limit", "50", name, timeout=60).ok()
    assert groups.files(name, "pids.max", "app/pids.max") == {"pids.max": "50", "app/pids.max": "7"}
    place = groups.group(name)
    groups("delete", "--force", name, timeout=60).ok()
    assert not place.exists()

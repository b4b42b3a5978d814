"""linux.resources where the cgroup2 has every controller: each limit in the kernel's file, and what it does."""

from __future__ import annotations

import time

import pytest

import kit
from conftest import Groups

pytestmark = pytest.mark.vm

MIB = 1 << 20


def test_every_limit_is_in_its_file(groups: Groups, bundle: kit.Bundle, spare: tuple[int, int]) -> None:
    major, minor = spare
    device = {"major": major, "minor": minor}
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
        "cpu": {"shares": 512, "quota": 50000, "period": 200000, "burst": 10000, "cpus": "1", "mems": "0"},
        "pids": {"limit": 100},
        "blockIO": {
            "weight": 200,
            "throttleReadBpsDevice": [device | {"rate": MIB}],
            "throttleWriteIOPSDevice": [device | {"rate": 120}],
        },
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
        "unified": {"memory.high": str(60 * MIB), "memory.oom.group": "1"},
    }
    name = groups.create(bundle)
    expected = {
        "memory.max": str(64 * MIB),
        "memory.low": str(32 * MIB),
        "memory.swap.max": str(32 * MIB),
        "memory.high": str(60 * MIB),
        "memory.oom.group": "1",
        "cpu.weight": "59",
        "cpu.max": "50000 200000",
        "cpu.max.burst": "10000",
        "cpuset.cpus": "1",
        "cpuset.mems": "0",
        "pids.max": "100",
        "io.max": f"{major}:{minor} rbps={MIB} wbps=max riops=max wiops=120",
        "hugetlb.2MB.max": str(4 * MIB),
        "hugetlb.2MB.rsvd.max": str(4 * MIB),
    }

    assert groups.files(name, *expected) == expected


def test_idle_is_a_class_of_its_own(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["cpu"] = {"idle": 1}

    assert groups.files(groups.create(bundle), "cpu.idle", "cpu.weight") == {"cpu.idle": "1", "cpu.weight": "0"}


def test_too_much_memory_is_fatal(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    done = groups.run(bundle.script("echo $(tail -c 64M /dev/zero | wc -c); tail /dev/zero; exit $?"), timeout=120)

    assert done.status == 137, done


def test_a_fork_bomb_stops_at_the_limit(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 20}
    name = groups.detached(bundle.script("bomb() { bomb | bomb & }; bomb; sleep 1000"))
    kit.await_true(lambda: "max 0" not in groups.files(name, "pids.events")["pids.events"], "the limit is met", 30)

    assert groups.files(name, "pids.peak" if (groups.group(name) / "pids.peak").exists() else "pids.max").popitem()[1] == "20"


def test_the_quota_holds(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["cpu"] = {"quota": 20000, "period": 100000}
    name = groups.detached(bundle.script("while :; do :; done"))

    def used() -> float:
        words = groups.files(name, "cpu.stat")["cpu.stat"].split()
        return int(words[words.index("usage_usec") + 1]) / 1e6

    before, began = used(), time.monotonic()
    time.sleep(3)
    share = (used() - before) / (time.monotonic() - began)

    assert 0.17 < share < 0.23


def test_reading_is_throttled(groups: Groups, bundle: kit.Bundle, spare: tuple[int, int]) -> None:
    major, minor = spare
    device = {"major": major, "minor": minor}
    bundle.linux["devices"] = [{"path": "/dev/spare", "type": "b"} | device]
    bundle.linux["resources"]["devices"].append({"allow": True, "type": "b", "access": "rwm"} | device)
    bundle.linux["resources"]["blockIO"] = {"throttleReadBpsDevice": [device | {"rate": MIB}]}
    began = time.monotonic()
    groups.tell(bundle, "dd if=/dev/spare of=/dev/null bs=64k count=64", timeout=60)

    assert time.monotonic() - began > 3


def test_a_cpu_is_all_it_gets(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["cpu"] = {"cpus": "1"}
    told = kit.status_words(groups.tell(bundle, "cat /proc/self/status").out)

    assert told["Cpus_allowed_list"] == "1"


def test_huge_pages_end_at_the_limit(groups: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4 * MIB}]
    bundle.mount("/huge", "hugetlbfs", "pagesize=2M")
    bundle.writable()
    told = groups.tell(bundle, "busybox fallocate -l 4M /huge/a && echo a; busybox fallocate -l 2M /huge/b || echo no b")

    assert told.lines == ["a", "no b"]


def test_a_device_is_for_those_who_may(groups: Groups, bundle: kit.Bundle, spare: tuple[int, int]) -> None:
    major, minor = spare
    bundle.linux["devices"] = [{"path": "/dev/spare", "type": "b", "major": major, "minor": minor}]
    script = "dd if=/dev/spare of=/dev/null bs=512 count=1 && echo read; : >/dev/null && echo null"
    assert groups.tell(bundle, script).lines == ["null"]
    rule = {"allow": True, "type": "b", "major": major, "minor": minor, "access": "r"}
    bundle.linux["resources"]["devices"].append(rule)

    assert groups.tell(bundle, script).lines == ["read", "null"]

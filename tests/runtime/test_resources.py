"""linux.resources of real containers on v1 and hybrid hosts: each limit in the kernel's file, and what it does. Where
the cgroup2 has all controllers, tests/vm does the same."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_live import MIB, eater, file, group

from kit import Bundle, Runtime, await_true
from ocimk.linux import cgroup

pytestmark = pytest.mark.skipif(cgroup.mode() not in ("v1", "hybrid"), reason="needs v1 hierarchies")

Limits = dict[str, Any]


def disk() -> tuple[int, int]:
    """The numbers of some disk of this host."""
    for place in sorted(Path("/sys/block").iterdir()):
        if not place.name.startswith(("loop", "ram", "zram")):
            major, minor = (place / "dev").read_text().split(":")
            return int(major), int(minor)
    pytest.skip("no disk")


@pytest.fixture
def loop(tmp_path: Path) -> Iterator[tuple[int, int]]:
    """The numbers of a disk that nobody else uses."""
    (tmp_path / "disk").write_bytes(bytes(8 * MIB))
    done = subprocess.run(["losetup", "--find", "--show", tmp_path / "disk"], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"no loop device: {done.stderr}")
    place = done.stdout.strip()
    scheduler = Path(f"/sys/block/{place.rpartition('/')[2]}/queue/scheduler")
    before = scheduler.read_text().partition("[")[2].partition("]")[0]
    number = os.stat(place).st_rdev
    try:
        yield os.major(number), os.minor(number)
    finally:
        scheduler.write_text(before)
        subprocess.run(["losetup", "--detach", place], check=True)


FILES: list[tuple[Limits, str, str]] = [
    ({"memory": {"limit": 64 * MIB}}, "memory.limit_in_bytes", str(64 * MIB)),
    ({"memory": {"limit": -1}}, "memory.limit_in_bytes", "9223372036854771712"),
    ({"memory": {"limit": MIB, "swap": 2 * MIB}}, "memory.memsw.limit_in_bytes", str(2 * MIB)),
    ({"memory": {"limit": MIB, "swap": MIB}}, "memory.memsw.limit_in_bytes", str(MIB)),
    ({"memory": {"limit": MIB, "swap": -1}}, "memory.memsw.limit_in_bytes", "9223372036854771712"),
    ({"memory": {"reservation": MIB}}, "memory.soft_limit_in_bytes", str(MIB)),
    ({"memory": {"swappiness": 13}}, "memory.swappiness", "13"),
    ({"memory": {"swappiness": 0}}, "memory.swappiness", "0"),
    ({"memory": {"useHierarchy": True}}, "memory.use_hierarchy", "1"),
    ({"memory": {"limit": 64 * MIB, "checkBeforeUpdate": True}}, "memory.limit_in_bytes", str(64 * MIB)),
    ({"cpu": {"shares": 77}}, "cpu.shares", "77"),
    ({"cpu": {"quota": 20000}}, "cpu.cfs_quota_us", "20000"),
    ({"cpu": {"quota": -1}}, "cpu.cfs_quota_us", "-1"),
    ({"cpu": {"quota": 20000, "period": 50000}}, "cpu.cfs_period_us", "50000"),
    ({"cpu": {"quota": 20000, "burst": 10000}}, "cpu.cfs_burst_us", "10000"),
    ({"cpu": {"idle": 1}}, "cpu.idle", "1"),
    ({"cpu": {"cpus": "0"}}, "cpuset.cpus", "0"),
    ({"cpu": {"mems": "0"}}, "cpuset.mems", "0"),
    ({"cpu": {"realtimePeriod": 500000, "realtimeRuntime": 5000}}, "cpu.rt_period_us", "500000"),
    ({"cpu": {"realtimePeriod": 500000, "realtimeRuntime": 5000}}, "cpu.rt_runtime_us", "5000"),
    ({"pids": {"limit": 50}}, "pids.max", "50"),
    ({"pids": {"limit": 0}}, "pids.max", "0"),
    ({"pids": {"limit": -1}}, "pids.max", "max"),
    ({"blockIO": {"weight": 333}}, "blkio.bfq.weight", "333"),
]


@pytest.mark.parametrize(("limits", "path", "value"), FILES)
def test_a_limit_is_in_the_kernels_file(oci_called: Runtime, bundle: Bundle, limits: Limits, path: str, value: str) -> None:
    bundle.linux["resources"] |= limits
    name = oci_called.create(bundle)
    if path.startswith(("cpu.rt_", "blkio.bfq")) and not (group(oci_called, name, path.partition(".")[0]) / path).exists():
        pytest.skip(f"this kernel has no {path}")
    assert file(oci_called, name, path) == value


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("throttleReadBpsDevice", "read_bps"),
        ("throttleWriteBpsDevice", "write_bps"),
        ("throttleReadIOPSDevice", "read_iops"),
        ("throttleWriteIOPSDevice", "write_iops"),
    ],
)
def test_throttles_are_in_their_files(oci_called: Runtime, bundle: Bundle, kind: str, path: str) -> None:
    major, minor = disk()
    bundle.linux["resources"]["blockIO"] = {kind: [{"major": major, "minor": minor, "rate": 98765}]}
    name = oci_called.create(bundle)
    assert file(oci_called, name, f"blkio.throttle.{path}_device") == f"{major}:{minor} 98765"


def test_the_weight_of_a_device_needs_bfq(oci_called: Runtime, bundle: Bundle, loop: tuple[int, int]) -> None:
    major, minor = loop
    scheduler = Path(f"/sys/dev/block/{major}:{minor}/queue/scheduler")
    bundle.linux["resources"]["blockIO"] = {"weightDevice": [{"major": major, "minor": minor, "weight": 50}]}
    scheduler.write_text("none")
    oci_called.run(bundle).refused("linux.resources.blockIO.weightDevice[0].weight", f"'{major}:{minor} 50'", "BFQ")
    if "bfq" not in scheduler.read_text():
        pytest.skip("this kernel has no BFQ")
    scheduler.write_text("bfq")
    name = oci_called.create(bundle)
    assert file(oci_called, name, "blkio.bfq.weight_device").splitlines() == ["default 100", f"{major}:{minor} 50"]
    scheduler.write_text("none")


def test_the_leaf_weight_of_older_kernels_is_an_error_that_names_it(oci_called: Runtime, bundle: Bundle) -> None:
    if list(Path("/sys/fs/cgroup/blkio").glob("blkio.leaf_weight")):
        pytest.skip("this kernel has CFQ")
    bundle.linux["resources"]["blockIO"] = {"leafWeight": 50}
    oci_called.run(bundle).refused("linux.resources.blockIO.leafWeight", "this kernel has no blkio.leaf_weight")


def test_huge_pages_where_the_cgroup2_counts_them(oci_called: Runtime, bundle: Bundle) -> None:
    if "hugetlb" not in cgroup.controllers(cgroup.UNIFIED):
        pytest.skip("hugetlb is not the cgroup2's")
    bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 4 * MIB}]
    name = oci_called.create(bundle)
    place = group(oci_called, name, "")
    assert {(place / f"hugetlb.2MB.{kind}").read_text() for kind in ("max", "rsvd.max")} == {f"{4 * MIB}\n"}
    oci_called("update", "-r", "-", name, stdin=b'{"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}').ok()
    assert (place / "hugetlb.2MB.max").read_text() == "0\n"


def test_files_of_the_cgroup2_by_name(oci_called: Runtime, bundle: Bundle) -> None:
    if cgroup.mode() != "hybrid":
        pytest.skip("no cgroup2 here")
    bundle.linux["resources"]["unified"] = {"cgroup.max.depth": "3"}
    name = oci_called.create(bundle)
    assert (group(oci_called, name, "") / "cgroup.max.depth").read_text() == "3\n"
    bundle.linux["resources"]["unified"] = {"cgroup.no.such": "3"}
    told = oci_called.run(bundle).refused("linux.resources.unified['cgroup.no.such']", "no such file or directory")
    assert "cgroup.no.such" in told


def test_kernel_memory_is_ignored_with_a_warning(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"kernel": MIB, "kernelTCP": MIB}
    told = oci_called.run(bundle.args("true")).ok().err
    assert "memory.kernel is ignored" in told and "memory.kernelTCP is ignored" in told


# ---- felt ------------------------------------------------------------------------------------------------------------


def test_who_takes_too_much_memory_is_killed(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    assert oci.run(bundle.args("dd", "if=/dev/zero", "of=/dev/null", "bs=100M", "count=1")).status == 128 + 9


def test_without_the_oom_killer_it_waits_for_memory(oci_called: Runtime, bundle: Bundle) -> None:
    os.mkfifo(oci_called.place / "go")
    bundle = eater(bundle).bind(oci_called.place, "/in")
    # One that writes to its memory itself: read(2) would fail where no memory comes.
    bundle.script("read x < /in/go; awk 'BEGIN { s = \"x\"; while (1) s = s s }'")
    bundle.linux["resources"]["memory"]["disableOOMKiller"] = True
    name = oci_called.detached(bundle)
    events = oci_called.begin("events", "--interval", "1h", name)
    assert events.stdout
    with open(oci_called.place / "go", "w") as go:
        go.write("1\n")
        go.flush()
        assert json.loads(events.stdout.readline())["type"] == "oom"
        told = file(oci_called, name, "memory.oom_control").splitlines()
        assert {"oom_kill_disable 1", "under_oom 1", "oom_kill 0"} <= set(told)
    oci_called("delete", "--force", name).ok()


def test_a_limit_below_what_is_used_is_refused_when_asked_to_look(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 64 * MIB}
    bundle.mount("/big", "tmpfs").script("dd if=/dev/zero of=/big/file bs=1M count=16; exec sleep 1000")
    name = oci_called.detached(bundle)
    await_true(lambda: int(file(oci_called, name, "memory.usage_in_bytes")) > 16 * MIB, "it is used")
    wanted = json.dumps({"memory": {"limit": 8 * MIB, "checkBeforeUpdate": True}})
    oci_called("update", "-r", "-", name, stdin=wanted.encode()).refused("memory.limit: rejecting", "in use")
    assert file(oci_called, name, "memory.limit_in_bytes") == str(64 * MIB)


def test_a_quota_holds_within_15_percent(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["cpu"] = {"quota": 20000, "period": 100000}
    name = oci_called.detached(bundle.script("while :; do :; done"))

    def used() -> float:
        return int((group(oci_called, name, "cpuacct") / "cpuacct.usage").read_text()) / 1e9

    await_true(lambda: used() > 0.1, "it runs")
    before, began = used(), time.monotonic()
    time.sleep(3)
    share = (used() - before) / (time.monotonic() - began)
    assert 0.17 <= share <= 0.23


def test_idle_gives_way(oci_called: Runtime, bundle: Bundle) -> None:
    """On one CPU the container that is idle gets next to nothing beside one that is not."""
    bundle.script("while :; do :; done")
    names = []
    for limits in ({"cpus": "0"}, {"cpus": "0", "idle": 1}):
        bundle.linux["resources"]["cpu"] = limits
        names.append(oci_called.detached(bundle))

    def used() -> list[int]:
        return [int((group(oci_called, name, "cpuacct") / "cpuacct.usage").read_text()) for name in names]

    before = used()
    time.sleep(1)
    busy, idle = (now - then for now, then in zip(used(), before, strict=True))
    assert idle < busy / 10


def test_a_cpuset_is_all_the_container_may_use(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["cpu"] = {"cpus": "0", "mems": "0"}
    told = oci_called.tell(bundle, "grep -E '(Cpus|Mems)_allowed_list' /proc/self/status").out
    assert told.split() == ["Cpus_allowed_list:", "0", "Mems_allowed_list:", "0"]


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (None, "denied denied"),
        ({"access": "r"}, "allowed denied"),
        ({"access": "rw", "minor": -1}, "allowed allowed"),
        ({"access": "w"}, "denied allowed"),
    ],
)
def test_a_device_opens_for_who_may(oci_called: Runtime, bundle: Bundle, rule: Limits | None, told: str) -> None:
    """Its node is there in any case; c 1:11 is the kernel's log."""
    node = {"type": "c", "major": 1, "minor": 11}
    bundle.linux["devices"] = [{"path": "/dev/log-of-the-kernel", "fileMode": 0o666, **node}]
    if rule:
        bundle.linux["resources"]["devices"].append({"allow": True, **node, **rule})
    for kind in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][kind].append("CAP_SYSLOG")
    look = "(: {} /dev/log-of-the-kernel) 2>/dev/null && echo allowed || echo denied"
    assert oci_called.tell(bundle, f"{look.format('<')}; {look.format('>')}; : > /dev/null").out.split() == told.split()


def test_reading_is_throttled(oci_called: Runtime, bundle: Bundle, loop: tuple[int, int]) -> None:
    node = {"type": "b", "major": loop[0], "minor": loop[1]}
    bundle.linux["devices"] = [{"path": "/dev/disk", **node}]
    bundle.linux["resources"]["devices"].append({"allow": True, "access": "r", **node})
    bundle.linux["resources"]["blockIO"] = {"throttleReadBpsDevice": [{"major": loop[0], "minor": loop[1], "rate": MIB}]}
    began = time.monotonic()
    oci_called.run(bundle.script("dd if=/dev/disk of=/dev/null bs=256k count=8 iflag=direct"), timeout=60).ok()
    assert time.monotonic() - began > 1.5

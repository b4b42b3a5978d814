"""Limits of oci-cgroup on v1 and hybrid: read back from the kernel's files, and felt by a process."""

from __future__ import annotations

import errno
import mmap
import os
import signal

import pytest
from cgroup_world import (
    DENY_ALL,
    apart,
    applied,
    await_true,
    controllers_as_before,
    make_folder,
    mount,
    needs_hybrid,
    needs_root,
    openable,
    paths_of,
    read,
    result,
    umount,
)

from ocimk.errors import Error
from ocimk.linux import cgroup
from ocimk.stages import cgroup as stage
from ocimk.stages import cgroups
from ocimk.stages.cgroups import live, resources

pytestmark = [pytest.mark.root, needs_root, needs_hybrid]

MIB = 1 << 20


def a_disk() -> str:
    """The numbers of some block device of this host."""
    for name in sorted(os.listdir("/sys/block")):
        if not name.startswith(("loop", "ram", "zram")):
            with open(f"/sys/block/{name}/dev") as file:
                return file.read().strip()
    pytest.skip("no block device")


# ---- read back ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "resources, controller, file, expected",
    [
        ({"memory": {"limit": 64 * MIB}}, "memory", "memory.limit_in_bytes", str(64 * MIB)),
        ({"memory": {"limit": MIB, "swap": 2 * MIB}}, "memory", "memory.memsw.limit_in_bytes", str(2 * MIB)),
        ({"memory": {"reservation": MIB}}, "memory", "memory.soft_limit_in_bytes", str(MIB)),
        ({"memory": {"swappiness": 13}}, "memory", "memory.swappiness", "13"),
        ({"memory": {"useHierarchy": True}}, "memory", "memory.use_hierarchy", "1"),
        ({"pids": {"limit": 0}}, "pids", "pids.max", "0"),
        ({"pids": {"limit": -1}}, "pids", "pids.max", "max"),
        ({"cpu": {"shares": 77}}, "cpu", "cpu.shares", "77"),
        ({"cpu": {"quota": 20000, "period": 50000}}, "cpu", "cpu.cfs_quota_us", "20000"),
        ({"cpu": {"quota": 20000, "period": 50000}}, "cpu", "cpu.cfs_period_us", "50000"),
        ({"cpu": {"quota": 20000, "burst": 10000}}, "cpu", "cpu.cfs_burst_us", "10000"),
        ({"cpu": {"idle": 1}}, "cpu", "cpu.idle", "1"),
        ({"cpu": {"cpus": "0", "mems": "0"}}, "cpuset", "cpuset.cpus", "0"),
    ],
)
def test_what_was_asked_for_is_in_the_file(tmp_path, resources, controller, file, expected):
    with applied(tmp_path, resources) as folder:
        assert read(folder, controller, file) == expected


def test_the_oom_killer_can_be_disabled(tmp_path):
    with applied(tmp_path, {"memory": {"limit": MIB, "disableOOMKiller": True}}) as folder:
        assert "oom_kill_disable 1" in read(folder, "memory", "memory.oom_control")


def test_cpuset_is_the_parents_where_nothing_is_asked(tmp_path):
    with applied(tmp_path) as folder:
        for name in ("cpuset.cpus", "cpuset.mems"):
            assert (
                read(folder, "cpuset", name)
                == cgroup.read_file(f"/sys/fs/cgroup/cpuset/{name}").strip()
                != ""
            )


def test_cpuset_of_nested_cgroups_is_handed_down(tmp_path):
    folder = make_folder(tmp_path)
    with applied(tmp_path, path=f"/{folder.id}/a/b") as deep:
        assert read(deep, "cpuset", "cpuset.mems") != ""


def test_cpuset_of_a_cgroup_that_was_there_is_kept(tmp_path):
    with (
        applied(tmp_path, {"cpu": {"cpus": "0"}}) as folder,
        applied(tmp_path, path=f"/{folder.id}") as second,
    ):
        assert read(second, "cpuset", "cpuset.cpus") == "0"


def test_throttling_of_a_disk(tmp_path):
    major, minor = a_disk().split(":")
    device = {"major": int(major), "minor": int(minor), "rate": 123456}
    kinds = (
        "throttleReadBpsDevice",
        "throttleWriteBpsDevice",
        "throttleReadIOPSDevice",
        "throttleWriteIOPSDevice",
    )
    with applied(tmp_path, {"blockIO": {kind: [device] for kind in kinds}}) as folder:
        for name in ("read_bps", "write_bps", "read_iops", "write_iops"):
            assert read(folder, "blkio", f"blkio.throttle.{name}_device") == f"{major}:{minor} 123456"


def test_huge_pages_are_limited_by_the_cgroup2_where_it_has_them(tmp_path):
    if "hugetlb" not in cgroup.controllers(cgroup.UNIFIED):
        pytest.skip("hugetlb is not the cgroup2's")
    wanted = {"hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}]}
    with controllers_as_before(cgroup.UNIFIED), applied(tmp_path, wanted) as folder:
        assert read(folder, "", "hugetlb.2MB.rsvd.max") == read(folder, "", "hugetlb.2MB.max") == str(4 * MIB)
        assert live.stats(folder)["hugetlb"]["2MB"] == {"failcnt": 0}


def test_a_container_without_limits_leaves_the_root_of_the_cgroup2_alone(tmp_path):
    before = cgroup.controllers(cgroup.UNIFIED, "cgroup.subtree_control")
    with applied(tmp_path):
        assert cgroup.controllers(cgroup.UNIFIED, "cgroup.subtree_control") == before


def test_network_classes(tmp_path):
    """In a mount namespace of our own that has the controllers, which this host may not have mounted."""

    def inside():
        names = ("net_cls", "net_prio")
        for name in names:
            os.mkdir(f"/sys/fs/cgroup/{name}")
            mount("none", f"/sys/fs/cgroup/{name}", "cgroup", name)
        try:
            wanted = {"classID": 0x100001, "priorities": [{"name": "lo", "priority": 5}]}
            with applied(tmp_path, {"network": wanted}) as folder:
                assert read(folder, "net_cls", "net_cls.classid") == str(0x100001)
                assert "lo 5" in read(folder, "net_prio", "net_prio.ifpriomap").splitlines()
        finally:
            for name in names:
                forget(name)

    if os.path.exists("/sys/fs/cgroup/net_cls") or "net_cls" in cgroup.memberships():
        pytest.skip("net_cls is in use on this host")
    apart(inside)


def forget(name: str) -> None:
    """Unmount a hierarchy so that the kernel drops it: that happens only at an unmount, and only when the
    last cgroup in it has quite gone, which takes a moment. So it is mounted and unmounted until it has."""
    point = f"/sys/fs/cgroup/{name}"
    umount(point)

    def gone() -> bool:
        if name not in cgroup.memberships():
            return True
        mount("none", point, "cgroup", name)
        umount(point)
        return False

    await_true(gone)
    os.rmdir(point)


def test_what_an_old_kernel_lacks_and_nobody_misses(tmp_path):
    wanted = {"cpu": {"burst": 0}}
    with applied(tmp_path, wanted) as folder:
        (tmp_path / "cpu").mkdir()
        layout = cgroups.Layout("v1", {"cpu": f"{tmp_path}/cpu"})
        resources.apply(layout, wanted, resources.PARTS)
        with pytest.raises(Error, match="this kernel has no cpu.cfs_burst_us"):
            resources.apply(layout, {"cpu": {"burst": 5}}, resources.PARTS)
        assert read(folder, "cpu", "cpu.cfs_burst_us") == "0"


def test_shares_and_realtime_that_the_kernel_would_refuse(tmp_path):
    folder = make_folder(tmp_path, {"cpu": {"realtimePeriod": 1000000, "realtimeRuntime": 2000000}})

    with pytest.raises(
        Error, match=r"linux\.resources\.cpu\.realtime.*: write .* to .*/cpu\.rt_.*: invalid argument"
    ):
        stage.apply(folder, {}, [])


def test_an_unknown_size_of_huge_pages_is_told(tmp_path):
    folder = make_folder(tmp_path, {"hugepageLimits": [{"pageSize": "3MB", "limit": 1}]})

    with controllers_as_before(cgroup.UNIFIED):
        with pytest.raises(Error, match=r"hugepageLimits\[0\]: write '1' to .*3MB.*"):
            stage.apply(folder, {}, [])


# ---- felt --------------------------------------------------------------------------------------------------


def test_forks_stop_at_the_limit_of_pids(tmp_path):
    def fork_three() -> int:
        made = 0
        try:
            for _ in range(3):
                if os.fork() == 0:
                    signal.pause()
                made += 1
        except OSError as problem:
            assert problem.errno == errno.EAGAIN
        return made

    with applied(tmp_path, {"pids": {"limit": 3}}) as folder:
        assert result(folder, fork_three) == 2
        live.kill_all(folder, signal.SIGKILL)


def test_too_much_memory_is_a_kill_that_is_counted(tmp_path):
    def eat() -> None:
        memory = mmap.mmap(-1, 64 * MIB)
        for at in range(0, 64 * MIB, 4096):
            memory[at] = 1

    with applied(tmp_path, {"memory": {"limit": 16 * MIB, "swap": 16 * MIB}}) as folder:
        assert live.oom_kills(folder) == 0 and live.oom_hint(folder) == ""
        assert result(folder, eat) == -signal.SIGKILL
        assert live.oom_kills(folder) == 1
        assert f"memory.limit is {16 * MIB}, " in live.oom_hint(folder)


def test_devices_are_denied_but_the_common_ones(tmp_path):
    def look() -> int:
        common = all(
            openable(f"/dev/{name}", os.O_RDWR) for name in ("null", "zero", "full", "random", "ptmx")
        )
        return (common << 0) | (openable("/dev/kmsg", os.O_RDONLY) << 1) | (mknod(f"{tmp_path}/made") << 2)

    with applied(tmp_path) as folder:
        assert result(folder, look) == 0b101


def mknod(path: str) -> bool:
    os.mknod(path, 0o20600, os.makedev(1, 11))
    return not openable(path, os.O_RDONLY)


def test_a_device_may_be_allowed_for_reading_only(tmp_path):
    rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}

    def look() -> int:
        return openable("/dev/kmsg", os.O_RDONLY) | (openable("/dev/kmsg", os.O_WRONLY) << 1)

    with applied(tmp_path, {"devices": [DENY_ALL, rule]}) as folder:
        assert result(folder, look) == 0b01
        assert "c 1:11 r" in read(folder, "devices", "devices.list").splitlines()


def test_a_deny_list(tmp_path):
    rules = [
        {"allow": True, "access": "rwm"},
        {"allow": False, "type": "c", "major": 1, "minor": 11, "access": "rwm"},
    ]

    def look() -> int:
        return openable("/dev/kmsg", os.O_RDONLY) | (openable("/dev/mem", os.O_RDONLY) << 1)

    if not os.path.exists("/dev/mem"):
        os.mknod("/dev/mem", 0o20600, os.makedev(1, 1))
    with applied(tmp_path, {"devices": rules}) as folder:
        assert result(folder, look) == 0b10


def test_few_writes_for_the_usual_rules(tmp_path, monkeypatch):
    counted = []
    real = cgroup.Group.write_all

    def count(group, pairs):
        counted.extend(pairs)
        real(group, pairs)

    monkeypatch.setattr(cgroup.Group, "write_all", count)
    with applied(tmp_path) as folder:
        assert len([pair for pair in counted if pair[0].startswith("devices.")]) == 12
        counted.clear()
        stage.apply(folder, {}, ["limits"])
        assert counted == []


def test_rules_that_a_parent_forbids_are_told(tmp_path):
    with applied(tmp_path) as folder:
        rule = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}
        below = make_folder(tmp_path, {"devices": [DENY_ALL, rule]}, path=f"/{folder.id}/below")

        with pytest.raises(
            Error, match=r"linux\.resources\.devices: write 'c 1:11 r' to .*: operation not permitted"
        ):
            stage.apply(below, {}, [])
        assert "below" not in os.listdir(paths_of(folder)["devices"])


def test_a_quota_slows_down(tmp_path):
    def burn() -> None:
        start = os.times().user
        while os.times().user - start < 0.1:
            pass

    with applied(tmp_path, {"cpu": {"quota": 10000, "period": 50000}}) as folder:
        result(folder, burn)
        assert live.stats(folder)["cpu"]["throttling"]["throttledPeriods"] > 0


def test_a_cpuset_holds(tmp_path):
    with applied(tmp_path, {"cpu": {"cpus": "0"}}) as folder:
        assert result(folder, lambda: len(os.sched_getaffinity(0))) == 1

"""A living container's cgroups: frozen, killed, measured, updated. On hybrid, on v1 alone, and on v2
alone."""

from __future__ import annotations

import mmap
import os
import signal

import pytest
from cgroup_world import (
    Counter,
    applied,
    await_true,
    fork_bomb,
    in_v2,
    needs_hybrid,
    needs_root,
    paths_of,
    read,
    reap,
    spawn,
)

from ocimk.errors import Error
from ocimk.linux import cgroup_procs
from ocimk.stages import cgroups
from ocimk.stages.cgroups import create, live, update

pytestmark = [pytest.mark.root, needs_root, needs_hybrid]

MIB = 1 << 20


def as_v1_only(folder) -> None:
    """Let the folder forget its cgroup2: what follows is done as on a host without one."""
    layout = cgroups.load(folder)
    layout.paths.pop("", None)
    layout.mode = "v1"
    cgroups.save(folder, layout)


def each_world(tmp_path, check, resources=None) -> None:
    """Run *check* on this host, on it without its cgroup2, and where there is nothing but a cgroup2."""

    def everywhere(*change):
        with applied(tmp_path, resources) as folder:
            for one in change:
                one(folder)
            check(folder)

    everywhere()
    everywhere(as_v1_only)
    in_v2(everywhere)


def blocked() -> None:
    signal.pause()


# ---- freezing ----------------------------------------------------------------------------------------------


def test_freezing_stops_progress(tmp_path):
    def check(folder):
        counter = Counter()
        spawn(folder, counter.run)
        counter.await_more()
        assert not live.frozen(folder)
        live.freeze(folder)
        assert live.frozen(folder) and counter.stands()
        live.freeze(folder)
        live.thaw(folder)
        assert not live.frozen(folder)
        counter.await_more()
        live.thaw(folder)

    each_world(tmp_path, check)


def test_a_bomb_freezes(tmp_path):
    def check(folder):
        spawn(folder, fork_bomb)
        await_true(lambda: len(live.pids(folder)) > 2)
        live.freeze(folder)
        assert live.pids(folder) == live.pids(folder)
        live.thaw(folder)

    with applied(tmp_path, {"pids": {"limit": 30}}) as folder:
        check(folder)
    with applied(tmp_path, {"pids": {"limit": 30}}) as folder:
        as_v1_only(folder)
        check(folder)


def test_a_freezer_of_v1_that_others_used_counts_too(tmp_path):
    with applied(tmp_path) as folder:
        cgroup_procs.freeze(paths_of(folder)["freezer"])
        assert live.frozen(folder)
        live.thaw(folder)
        assert not live.frozen(folder)


def test_a_frozen_ancestor_is_not_our_pause(tmp_path):
    with applied(tmp_path) as above, applied(tmp_path, path=f"/{above.id}/below") as folder:
        live.freeze(above)
        assert not live.frozen(folder)
        assert cgroup_procs.standing(paths_of(folder)[""])
        live.thaw(above)


# ---- killing -----------------------------------------------------------------------------------------------


def test_a_bomb_is_killed(tmp_path):
    for change in (lambda folder: None, as_v1_only) * 3:
        with applied(tmp_path, {"pids": {"limit": 50}}) as folder:
            change(folder)
            spawn(folder, fork_bomb)
            await_true(lambda folder=folder: len(live.pids(folder)) > 5)
            live.kill_all(folder, signal.SIGKILL)
            reap_until_empty(folder)


def reap_until_empty(folder) -> None:
    def empty() -> bool:
        reap()
        return not live.pids(folder)

    await_true(empty)
    assert live.await_empty(folder)


def test_a_bomb_is_killed_by_the_freezer_where_there_is_no_pids_controller(tmp_path):
    with applied(tmp_path, {"pids": {"limit": 20}}) as folder:
        layout = cgroups.load(folder)
        spawn(folder, fork_bomb)
        await_true(lambda: len(live.pids(folder)) > 5)
        live.kill_layout(cgroups.Layout("v1", {"freezer": layout.paths["freezer"]}))
        reap_until_empty(folder)


def test_the_limit_of_pids_is_as_before_after_a_kill(tmp_path):
    with applied(tmp_path, {"pids": {"limit": 20}}) as folder:
        as_v1_only(folder)
        spawn(folder, blocked)
        live.kill_all(folder, signal.SIGKILL)
        reap_until_empty(folder)
        assert read(folder, "pids", "pids.max") == "20"


def test_a_signal_reaches_all_also_in_sub_cgroups(tmp_path):
    def check(folder):
        reader, writer = os.pipe()

        def report() -> None:
            signal.signal(signal.SIGUSR1, lambda *_: os.write(writer, b"x"))
            os.write(writer, b"r")
            while True:
                signal.pause()

        first, second = spawn(folder, report), spawn(folder, report)
        assert os.read(reader, 1) + os.read(reader, 1) == b"rr"
        for path in cgroups.load(folder).every():
            os.mkdir(f"{path}/sub")
            if os.path.exists(f"{path}/cpuset.cpus"):
                create.fill_cpuset(f"{path}/sub", True)
            with open(f"{path}/sub/cgroup.procs", "w") as file:
                file.write(str(second))
        assert live.pids(folder) == sorted([first, second])
        live.kill_all(folder, signal.SIGUSR1)
        assert os.read(reader, 1) + os.read(reader, 1) == b"xx"
        live.kill_all(folder, signal.SIGKILL)
        reap_until_empty(folder)

    each_world(tmp_path, check)


def test_a_signal_leaves_a_pause_a_kill_ends_it(tmp_path):
    def check(folder):
        reader, writer = os.pipe()

        def report() -> None:
            # Without a handler the signal is fatal, and for that the freezer of v2 makes way.
            signal.signal(signal.SIGTERM, lambda *_: os._exit(3))
            os.write(writer, b"r")
            while True:
                signal.pause()

        pid = spawn(folder, report)
        os.read(reader, 1)
        live.freeze(folder)
        live.kill_all(folder, signal.SIGTERM)
        assert live.frozen(folder) and live.pids(folder) == [pid]
        live.kill_all(folder, signal.SIGKILL)
        reap_until_empty(folder)

    each_world(tmp_path, check)


def test_gone_cgroups_have_no_processes(tmp_path):
    with applied(tmp_path) as folder:
        for path in paths_of(folder).values():
            os.rmdir(path)
        assert live.pids(folder) == [] and not live.frozen(folder)
        live.kill_all(folder, signal.SIGKILL)
        assert live.await_empty(folder, 0.1)
        assert live.oom_kills(folder) == 0
        with pytest.raises(Error, match="container not running"):
            live.stats(folder)


def test_without_cgroups(tmp_path):
    with applied(tmp_path, options={"--manager": "disabled"}) as folder:
        assert not live.frozen(folder) and live.oom_kills(folder) == 0
        for call in (live.pids, live.freeze, live.thaw, live.stats):
            with pytest.raises(Error, match="cgroup"):
                call(folder)
        with pytest.raises(Error, match="linux.resources.pids: the container has no cgroup"):
            live.update(folder, {"pids": {"limit": 1}})


# ---- measuring ---------------------------------------------------------------------------------------------


def test_what_is_used_is_told_in_runcs_shape(tmp_path):
    def use() -> None:
        memory = mmap.mmap(-1, 8 * MIB)
        for at in range(0, 8 * MIB, 4096):
            memory[at] = 1
        start = os.times().user
        while os.times().user - start < 0.05:
            pass
        os.write(writer, b"x")
        signal.pause()

    reader, writer = os.pipe()
    with applied(tmp_path, {"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}}) as folder:
        spawn(folder, use)
        os.read(reader, 1)
        found = live.stats(folder)

    assert set(found) == {
        "cpu",
        "cpuset",
        "memory",
        "pids",
        "blkio",
        "hugetlb",
        "intel_rdt",
        "network_interfaces",
    }
    assert found["pids"] == {"current": 1, "limit": 9}
    assert found["memory"]["usage"]["limit"] == 64 * MIB and found["memory"]["usage"]["usage"] > 8 * MIB
    assert set(found["memory"]) <= {"cache", "usage", "swap", "kernel", "kernelTCP", "raw"}
    assert found["memory"]["raw"]["cache"] >= 8 * MIB
    usage = found["cpu"]["usage"]
    assert usage["total"] > 40_000_000 and len(usage["percpu"]) >= os.cpu_count()
    assert set(usage) == {"total", "percpu", "percpu_kernel", "percpu_user", "kernel", "user"}
    assert found["cpuset"]["cpus"] and found["cpuset"]["sched_relax_domain_level"] == -1
    assert found["network_interfaces"] is None and found["intel_rdt"] == {}


def test_no_limit_of_pids_counts_as_none(tmp_path):
    with applied(tmp_path) as folder:
        assert live.stats(folder)["pids"] == {}


def test_on_v2_too(tmp_path):
    def check():
        with applied(tmp_path) as folder:
            spawn(folder, blocked)
            found = live.stats(folder)
            assert found["pids"] == {"current": 1}
            assert set(found["cpuset"]) == {
                "cpu_exclusive", "mem_hardwall", "mem_exclusive", "memory_migrate", "memory_spread_page",
                "memory_spread_slab", "memory_pressure", "sched_load_balance", "sched_relax_domain_level",
            }  # fmt: skip
            assert not set(found["cpu"]) - {"usage", "throttling", "psi"}

    in_v2(check)


# ---- updating ----------------------------------------------------------------------------------------------


def test_new_limits_hold_and_the_others_stay(tmp_path):
    with applied(
        tmp_path, {"memory": {"limit": 32 * MIB, "swap": 64 * MIB}, "cpu": {"shares": 512}}
    ) as folder:
        live.update(folder, {"memory": {"limit": 16 * MIB}, "pids": {"limit": 12}})

        assert read(folder, "memory", "memory.limit_in_bytes") == str(16 * MIB)
        assert read(folder, "memory", "memory.memsw.limit_in_bytes") == str(64 * MIB)
        assert (read(folder, "pids", "pids.max"), read(folder, "cpu", "cpu.shares")) == ("12", "512")

        live.update(folder, {"memory": {"limit": 128 * MIB, "swap": 256 * MIB}})
        assert read(folder, "memory", "memory.memsw.limit_in_bytes") == str(256 * MIB)
        assert read(folder, "memory", "memory.limit_in_bytes") == str(128 * MIB)
        live.update(folder, {"memory": {"limit": 8 * MIB, "swap": 8 * MIB}})
        assert read(folder, "memory", "memory.memsw.limit_in_bytes") == str(8 * MIB)
        live.update(folder, {"memory": {"limit": -1}})
        for file in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
            assert int(read(folder, "memory", file)) > 1 << 60


def test_quota_and_period_one_at_a_time(tmp_path):
    with applied(tmp_path, {"cpu": {"quota": 50000, "period": 100000}}) as folder:
        live.update(folder, {"cpu": {"period": 20000}})
        assert (read(folder, "cpu", "cpu.cfs_quota_us"), read(folder, "cpu", "cpu.cfs_period_us")) == (
            "50000",
            "20000",
        )
        live.update(folder, {"cpu": {"quota": 10000}})
        assert (read(folder, "cpu", "cpu.cfs_quota_us"), read(folder, "cpu", "cpu.cfs_period_us")) == (
            "10000",
            "20000",
        )
        live.update(folder, {"cpu": {"quota": -1}})
        assert read(folder, "cpu", "cpu.cfs_quota_us") == "-1"


def test_a_refused_update_changes_nothing(tmp_path):
    wanted = {"pids": {"limit": 5}, "cpu": {"shares": 512, "quota": 50000}, "memory": {"limit": 64 * MIB}}
    with applied(tmp_path, wanted) as folder:
        new = {
            "cpu": {"shares": 99, "quota": 90000},
            "pids": {"limit": 6},
            "memory": {"limit": 32 * MIB, "swap": MIB},
        }
        with pytest.raises(
            Error, match=r"linux\.resources\.memory\.(limit|swap): write .*: invalid argument"
        ):
            live.update(folder, new)

        assert (read(folder, "cpu", "cpu.shares"), read(folder, "cpu", "cpu.cfs_quota_us")) == (
            "512",
            "50000",
        )
        assert (read(folder, "pids", "pids.max"), read(folder, "memory", "memory.limit_in_bytes")) == (
            "5",
            str(64 * MIB),
        )
        assert update.current(folder)["cpu"]["shares"] == 512


def test_a_limit_below_what_is_used_is_told_with_numbers(tmp_path):
    def eat() -> None:
        memory = mmap.mmap(-1, 32 * MIB)
        for at in range(0, 32 * MIB, 4096):
            memory[at] = 1
        os.write(writer, b"x")
        signal.pause()

    reader, writer = os.pipe()
    with applied(tmp_path, {"memory": {"limit": 64 * MIB}}) as folder:
        spawn(folder, eat)
        os.read(reader, 1)
        with pytest.raises(Error, match=r"device or resource busy \(current usage: \d+, peak usage: \d+\)"):
            live.update(folder, {"memory": {"limit": MIB}})


def test_device_rules_are_left_as_they_are(tmp_path):
    with applied(tmp_path) as folder:
        before = read(folder, "devices", "devices.list")
        live.update(folder, {"devices": [{"allow": True, "access": "rwm"}], "pids": {"limit": 3}})
        assert read(folder, "devices", "devices.list") == before


def test_an_update_while_paused(tmp_path):
    with applied(tmp_path) as folder:
        live.freeze(folder)
        live.update(folder, {"pids": {"limit": 3}})
        assert read(folder, "pids", "pids.max") == "3" and live.frozen(folder)


MERGES = [
    ({"memory": {"limit": 5, "swap": 6}}, {"memory": {"limit": -1}}, {"memory": {"limit": -1, "swap": 0}}),
    ({"memory": {"limit": 5}}, {"memory": {"swap": 9}}, {"memory": {"limit": 5, "swap": 9}}),
    ({"cpu": {"shares": 9}}, {"cpu": {"idle": 1}}, {"cpu": {"idle": 1}}),
    ({"cpu": {"cpus": "0", "burst": 3, "idle": 1}}, {"cpu": {"shares": 2}}, {"cpu": {"shares": 2}}),
    ({"cpu": {"quota": 1, "period": 2}}, {"cpu": {"period": 3}}, {"cpu": {"quota": 1, "period": 3}}),
    ({"cpu": {"quota": 1, "period": 2}}, {"cpu": {"shares": 3}}, {"cpu": {"shares": 3}}),
    (
        {"cpu": {"quota": 1, "period": 2}},
        {"cpu": {"quota": 0, "period": 4}},
        {"cpu": {"quota": 1, "period": 4}},
    ),
    ({"pids": {"limit": 1}}, {"memory": {"limit": 2}}, {"pids": {"limit": 1}, "memory": {"limit": 2}}),
    ({"devices": ["old"]}, {"devices": ["new"]}, {"devices": ["old"]}),
    (
        {"blockIO": {"weight": 1, "weightDevice": [{"major": 8, "minor": 0, "weight": 5, "leafWeight": 6}]}},
        {
            "blockIO": {
                "weightDevice": [{"major": 8, "minor": 0, "weight": 7}, {"major": 8, "minor": 1, "weight": 8}]
            }
        },
        {
            "blockIO": {
                "weight": 1,
                "weightDevice": [
                    {"major": 8, "minor": 0, "weight": 7, "leafWeight": 6},
                    {"major": 8, "minor": 1, "weight": 8},
                ],
            }
        },
    ),
]


@pytest.mark.parametrize("old, given, new", MERGES)
def test_merging(old, given, new):
    assert update.merge(old, given) == new

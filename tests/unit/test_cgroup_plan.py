"""linux.resources as files: what each version's planners want written, without a cgroup in sight."""

from __future__ import annotations

import pytest

from ocimk.errors import Error
from ocimk.stages.cgroups import Layout, blockio, cpu, memory, rare, resources


def everything(_: str) -> bool:
    return True


def nothing(_: str) -> bool:
    return False


def pairs(writes):
    return [(file, value) for _, file, value, _ in writes]


# ---- memory ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "section, expected",
    [
        ({}, []),
        ({"limit": 0, "swap": 0}, []),
        ({"limit": 1 << 20}, [("memory.limit_in_bytes", "1048576")]),
        (
            {"limit": -1},
            [("memory.limit_in_bytes", "-1"), ("memory.memsw.limit_in_bytes", "-1")],
        ),
        (
            {"limit": 100, "swap": 200, "reservation": 50},
            [
                ("memory.limit_in_bytes", "100"),
                ("memory.memsw.limit_in_bytes", "200"),
                ("memory.soft_limit_in_bytes", "50"),
            ],
        ),
        (
            {"disableOOMKiller": True, "swappiness": 0},
            [("memory.oom_control", "1"), ("memory.swappiness", "0")],
        ),
        ({"disableOOMKiller": False, "swappiness": 2**64 - 1}, []),
        ({"useHierarchy": True}, [("memory.use_hierarchy", "1")]),
    ],
)
def test_memory_of_v1(section, expected):
    assert pairs(memory.v1(section, everything)) == expected


def test_memory_without_swap_accounting_has_no_swap_to_lift():
    assert pairs(memory.v1({"limit": -1}, nothing)) == [("memory.limit_in_bytes", "-1")]


@pytest.mark.parametrize(
    "section, expected",
    [
        ({"limit": 100, "swap": 300}, [("memory.swap.max", "200"), ("memory.max", "100")]),
        ({"limit": 100, "swap": 100}, [("memory.swap.max", "0"), ("memory.max", "100")]),
        ({"limit": 100, "swap": -1}, [("memory.swap.max", "max"), ("memory.max", "100")]),
        ({"limit": -1}, [("memory.swap.max", "max"), ("memory.max", "max")]),
        ({"limit": -1, "swap": 300}, [("memory.swap.max", "300"), ("memory.max", "max")]),
        ({"limit": 100, "reservation": 50}, [("memory.max", "100"), ("memory.low", "50")]),
        ({"reservation": -1}, [("memory.low", "max")]),
    ],
)
def test_memory_of_v2_counts_swap_by_itself(section, expected):
    assert pairs(memory.v2(section, everything)) == expected


def test_swap_is_optional_only_where_its_absence_changes_nothing():
    by_file = {w[1]: w[3] for w in memory.v2({"limit": 100, "swap": 300}, everything)}

    assert by_file["memory.swap.max"] == ""
    for swap in (100, -1):
        by_file = {w[1]: w[3] for w in memory.v2({"limit": 100, "swap": swap}, everything)}
        assert by_file["memory.swap.max"] == "optional"


@pytest.mark.parametrize(
    "section, named",
    [
        ({"swap": 300}, "memory.swap"),
        ({"limit": 200, "swap": 100}, "memory.swap"),
        ({"disableOOMKiller": True}, "memory.disableOOMKiller"),
        ({"swappiness": 60}, "memory.swappiness"),
        ({"useHierarchy": False}, "memory.useHierarchy"),
    ],
)
def test_v2_refuses_what_it_cannot_do_by_name(section, named):
    with pytest.raises(Error, match=rf"linux\.resources\.{named}: "):
        memory.v2(section, everything)


def test_swappiness_has_a_range():
    with pytest.raises(Error, match="swappiness: 101 is not within"):
        memory.v1({"swappiness": 101}, everything)


def test_kernel_memory_is_ignored_with_a_warning(capfd):
    assert memory.v1({"kernel": 1, "kernelTCP": 2}, everything) == []

    told = capfd.readouterr().err
    assert "memory.kernel is ignored" in told and "memory.kernelTCP is ignored" in told


# ---- cpu ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shares, weight",
    # The ends and the default of both scales; 102 (a tenth of a CPU to Kubernetes) is the published example.
    [(0, 1), (1, 1), (2, 1), (102, 17), (1024, 100), (262144, 10000), (500000, 10000)],
)
def test_weight_for_shares(shares, weight):
    assert cpu.weight(shares) == weight


def test_weight_never_falls():
    weights = [cpu.weight(shares) for shares in range(2, 262145, 997)]

    assert weights == sorted(weights)


def test_cpu_of_v1_in_order():
    section = {"shares": 512, "period": 50000, "quota": 25000, "burst": 10000, "idle": 1}

    assert cpu.v1(section) == [
        ("cpu.shares", "cpu.shares", "512", ""),
        ("cpu.period", "cpu.cfs_period_us", "50000", "later"),
        ("cpu.burst", "cpu.cfs_burst_us", "10000", "later"),
        ("cpu.quota", "cpu.cfs_quota_us", "25000", "later"),
        ("cpu.idle", "cpu.idle", "1", ""),
    ]


@pytest.mark.parametrize("shares, word", [(1, "minimum"), (262145, "maximum")])
def test_shares_out_of_range(shares, word):
    with pytest.raises(Error, match=f"cpu.shares: the {word} allowed"):
        cpu.v1({"shares": shares})


def test_realtime():
    assert pairs(cpu.realtime({"realtimePeriod": 1000000, "realtimeRuntime": 950000})) == [
        ("cpu.rt_period_us", "1000000"),
        ("cpu.rt_runtime_us", "950000"),
    ]


@pytest.mark.parametrize(
    "section, expected",
    [
        ({"quota": 50000}, [("cpu.max", "50000 100000")]),
        ({"period": 20000}, [("cpu.max", "max 20000")]),
        ({"quota": -1, "period": 20000}, [("cpu.max", "max 20000")]),
        ({"quota": 50000, "burst": 0}, [("cpu.max.burst", "0"), ("cpu.max", "50000 100000")]),
        ({"idle": 1, "shares": 0}, [("cpu.idle", "1")]),
        ({"idle": 0, "shares": 1024}, [("cpu.idle", "0"), ("cpu.weight", "100")]),
    ],
)
def test_cpu_of_v2(section, expected):
    assert pairs(cpu.v2(section)) == expected


def test_burst_above_quota():
    with pytest.raises(Error, match="cpu.burst: 2 is larger than cpu.quota 1"):
        cpu.v1({"quota": 1, "burst": 2})


# ---- block I/O ---------------------------------------------------------------------------------------------

BLOCKIO = {
    "weight": 500,
    "weightDevice": [{"major": 8, "minor": 0, "weight": 100}],
    "throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 600}],
    "throttleWriteBpsDevice": [{"major": 8, "minor": 0, "rate": 0}],
    "throttleReadIOPSDevice": [{"major": 8, "minor": 16, "rate": 7}],
    "throttleWriteIOPSDevice": [{"major": 8, "minor": 16, "rate": 8}],
}


def test_blockio_of_v1():
    section = {**BLOCKIO, "leafWeight": 20}

    assert pairs(blockio.v1(section, everything)) == [
        ("blkio.weight", "500"),
        ("blkio.leaf_weight", "20"),
        ("blkio.weight_device", "8:0 100"),
        ("blkio.throttle.read_bps_device", "8:0 600"),
        ("blkio.throttle.write_bps_device", "8:0 0"),
        ("blkio.throttle.read_iops_device", "8:16 7"),
        ("blkio.throttle.write_iops_device", "8:16 8"),
    ]
    assert pairs(blockio.v1({"weight": 500}, nothing)) == [("blkio.bfq.weight", "500")]


def test_blockio_of_v2_with_bfq():
    assert pairs(blockio.v2(BLOCKIO, everything)) == [
        ("io.bfq.weight", "500"),
        ("io.bfq.weight", "8:0 100"),
        ("io.max", "8:0 rbps=600"),
        ("io.max", "8:0 wbps=max"),
        ("io.max", "8:16 riops=7"),
        ("io.max", "8:16 wiops=8"),
    ]


@pytest.mark.parametrize("weight, expected", [(10, 1), (500, 4950), (1000, 10000)])
def test_blockio_of_v2_without_bfq_is_rescaled(weight, expected):
    assert pairs(blockio.v2({"weight": weight}, nothing)) == [("io.weight", str(expected))]


@pytest.mark.parametrize(
    "section, named",
    [
        ({"leafWeight": 10}, r"blockIO\.leafWeight"),
        (
            {"weightDevice": [{"major": 8, "minor": 0, "leafWeight": 10}]},
            r"blockIO\.weightDevice\[0\]\.leafWeight",
        ),
        ({"weightDevice": [{"major": 8, "minor": 0}]}, r"blockIO\.weightDevice\[0\]: weight or leafWeight"),
    ],
)
def test_blockio_of_v2_refuses(section, named):
    with pytest.raises(Error, match=named):
        blockio.v2(section, everything)


# ---- the rare ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", ["limit_in_bytes", "max"])
def test_huge_pages_reserved_first(suffix):
    writes = rare.hugetlb([{"pageSize": "2MB", "limit": 0}], suffix)

    assert [(w[1], w[2], w[3]) for w in writes] == [
        (f"hugetlb.2MB.rsvd.{suffix}", "0", "optional"),
        (f"hugetlb.2MB.{suffix}", "0", ""),
    ]


def test_network():
    section = {"classID": 1048577, "priorities": [{"name": "eth0", "priority": 500}]}

    assert pairs(rare.net_cls(section) + rare.net_prio(section)) == [
        ("net_cls.classid", "1048577"),
        ("net_prio.ifpriomap", "eth0 500"),
    ]


def test_rdma():
    section = {"mlx5_1": {"hcaHandles": 3, "hcaObjects": 10000}, "rxe3": {"hcaObjects": 0}}

    assert pairs(rare.rdma(section)) == [
        ("rdma.max", "mlx5_1 hca_handle=3 hca_object=10000"),
        ("rdma.max", "rxe3 hca_object=0"),
    ]
    with pytest.raises(Error, match="rdma.mlx4_0: hcaHandles or hcaObjects is required"):
        rare.rdma({"mlx4_0": {}})


@pytest.mark.parametrize("key", ["../x.max", "memory", ".max", "memory/x.max", ""])
def test_unified_key_must_be_a_file_of_a_controller(key):
    with pytest.raises(Error, match="CONTROLLER.PARAMETER"):
        rare.unified({key: "1"})


@pytest.mark.parametrize("limit, text", [(0, "0"), (-1, "max"), (-5, "max"), (7, "7")])
def test_pids_limit_of_nothing_is_a_limit(limit, text):
    assert pairs(resources.pids({"limit": limit})) == [("pids.max", text)]


def test_pids_without_limit():
    assert resources.pids({}) == [] == resources.pids({"limit": None})


# ---- where the sections go ---------------------------------------------------------------------------------

V1 = Layout("v1", {name: f"/none/{name}" for name in ("memory", "cpu", "cpuset", "pids", "blkio")})
V2 = Layout("v2", {"": "/none"})


def test_each_section_to_its_hierarchy():
    wanted = {"memory": {"limit": 1}, "cpu": {"shares": 2, "cpus": "0"}, "pids": {"limit": 3}}

    assert [path for path, _ in resources.plan(V1, wanted)] == [
        "/none/cpuset",
        "/none/cpu",
        "/none/pids",
        "/none/memory",
    ]
    assert {path for path, _ in resources.plan(V2, wanted)} == {"/none"}


def test_parts():
    wanted = {
        "memory": {"limit": 1},
        "cpu": {"shares": 2, "cpus": "0", "realtimePeriod": 5},
        "pids": {"limit": 3},
    }

    def files(*parts):
        return [file for _, writes in resources.plan(V1, wanted, parts) for file, _ in pairs(writes)]

    assert files("create") == ["cpuset.cpus", "cpu.rt_period_us"]
    assert files("limits") == ["cpu.shares"]
    assert files("tight") == ["pids.max", "memory.limit_in_bytes"]


@pytest.mark.parametrize(
    "layout, wanted, named, why",
    [
        (V1, {"rdma": {"x": {"hcaHandles": 1}}}, r"rdma\.x", "rdma controller is not mounted"),
        (V1, {"network": {"classID": 1}}, r"network\.classID", "net_cls controller is not mounted"),
        (V1, {"unified": {"memory.max": "1"}}, "unified", "no cgroup2"),
        (V2, {"network": {"classID": 1}}, r"network\.classID", "is a file of cgroup v1"),
        (V2, {"cpu": {"realtimeRuntime": 1}}, r"cpu\.realtimeRuntime", "is a file of cgroup v1"),
        (Layout("none", {}), {"pids": {"limit": 1}}, r"pids\.limit", "no cgroup to set it in"),
    ],
)
def test_a_missing_controller_is_told(layout, wanted, named, why):
    with pytest.raises(Error, match=rf"linux\.resources\.{named}.*{why}"):
        resources.plan(layout, wanted)


def test_an_empty_wish_needs_no_controller():
    wanted = {
        "rdma": {},
        "network": {"classID": 0, "priorities": []},
        "cpu": {"realtimeRuntime": 0},
        "pids": {},
    }

    assert resources.plan(Layout("none", {}), wanted) == []


def test_controllers_that_are_asked_for():
    wanted = {
        "cpu": {"cpus": "0"},
        "blockIO": {"weight": 1},
        "unified": {"misc.max": "x 1", "hugetlb.2MB.max": "0"},
    }

    assert resources.asked(wanted) == {"cpu", "cpuset", "io", "misc", "hugetlb"}
    assert resources.asked({"cpu": {"shares": 1}}) == {"cpu"}

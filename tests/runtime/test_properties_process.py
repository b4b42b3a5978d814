"""What config.json says of the process, read from inside the container."""

from __future__ import annotations

import os
import resource
from pathlib import Path
from typing import Any

import pytest
from properties_kit import ask

from kit import Bundle, Runtime, status_words
from ocimk.linux import rlimit
from ocimk.native._native import NR
from ocimk.spec import tables
from ocimk.stages import lsm

MILLISECOND = 1000000

# ---- scheduler -------------------------------------------------------------------------------------------------------

SCHED_GETATTR = f"""
import struct
data = ctypes.create_string_buffer(56)
syscall({NR["sched_getattr"]}, 0, data, 56, 0)
print(json.dumps(struct.unpack("=IIQiIQQQ", data.raw[:48])[1:]))
"""
DEADLINE = {"runtime": 2 * MILLISECOND, "deadline": 10 * MILLISECOND, "period": 20 * MILLISECOND}
SCHEDULERS: list[tuple[dict[str, Any], tuple[int, ...]]] = [
    ({"policy": "SCHED_OTHER", "nice": 7}, (0, 0, 7, 0)),
    ({"policy": "SCHED_BATCH", "nice": -3}, (3, 0, -3, 0)),
    ({"policy": "SCHED_IDLE"}, (5, 0, 0, 0)),
    ({"policy": "SCHED_FIFO", "priority": 11}, (1, 0, 0, 11)),
    ({"policy": "SCHED_RR", "priority": 22}, (2, 0, 0, 22)),
    ({"policy": "SCHED_RR", "priority": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}, (2, 1, 0, 1)),
]


REAL_TIME = {"realtimeRuntime": 5000, "realtimePeriod": 1000000}
GROUPED = any(Path("/sys/fs/cgroup").glob("*/cpu.rt_runtime_us"))
"""Whether a v1 hierarchy gives each cgroup its share of real time (CONFIG_RT_GROUP_SCHED), and none at first."""


@pytest.mark.parametrize(
    ("wanted", "found"), SCHEDULERS, ids=lambda value: "" if type(value) is tuple else value["policy"]
)
def test_scheduler(oci_called: Runtime, bundle: Bundle, wanted: dict[str, Any], found: tuple[int, ...]) -> None:
    bundle.process["scheduler"] = wanted
    if GROUPED and "priority" in wanted:
        bundle.linux["resources"]["cpu"] = REAL_TIME
    assert tuple(ask(oci_called, bundle, SCHED_GETATTR)[:4]) == found


def test_scheduler_with_deadlines(oci_called: Runtime, bundle: Bundle) -> None:
    """A process with a deadline may not fork, so what is asked is the program itself."""
    flags = ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"]
    bundle.process["scheduler"] = {"policy": "SCHED_DEADLINE", "flags": flags, **DEADLINE}
    policy, flag, _, _, *times = ask(oci_called, bundle, SCHED_GETATTR)
    assert (policy, flag & 6, times) == (6, 6, list(DEADLINE.values()))


@pytest.mark.skipif(not GROUPED, reason="real time is not shared out by cgroups here")
def test_real_time_that_the_cgroup_has_not(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_FIFO", "priority": 1}
    oci_called.run(bundle).refused("process.scheduler SCHED_FIFO", "linux.resources.cpu.realtimeRuntime")


def test_scheduler_that_the_kernel_does_not_have(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["scheduler"] = {"policy": "SCHED_ISO"}
    oci_called.run(bundle).refused("process.scheduler SCHED_ISO", "invalid argument")


# ---- I/O priority, limits --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "level", "number"),
    [("IOPRIO_CLASS_RT", 3, 1), ("IOPRIO_CLASS_BE", 6, 2), ("IOPRIO_CLASS_IDLE", 0, 3)],
)
def test_io_priority(oci_called: Runtime, bundle: Bundle, kind: str, level: int, number: int) -> None:
    bundle.process["ioPriority"] = {"class": kind, "priority": level}
    assert ask(oci_called, bundle, f"print(syscall({NR['ioprio_get']}, 1, 0))") == number << 13 | level


WISHES = {name: (100 + at, 200 + at) for at, name in enumerate(tables.RLIMITS)}
WISHES |= {
    "RLIMIT_AS": (1 << 40, 1 << 41),
    "RLIMIT_CPU": (1000, 2000),
    "RLIMIT_DATA": (1 << 40, 1 << 41),
    "RLIMIT_FSIZE": (1 << 30, 1 << 31),
    "RLIMIT_STACK": (1 << 23, 1 << 24),
    "RLIMIT_RTTIME": (10**9, 2**64 - 1),
    "RLIMIT_NPROC": (1000, 2000),
}
HARD = {name: rlimit.get(name)[1] for name in tables.RLIMITS}
LIMITS = {name: (min(soft, HARD[name]), min(hard, HARD[name])) for name, (soft, hard) in WISHES.items()}
"""What can be had without CAP_SYS_RESOURCE, too."""


@pytest.mark.parametrize("own", [False, True], ids=["host", "user-namespace"])
def test_rlimits(oci_called: Runtime, bundle: Bundle, own: bool) -> None:
    """All sixteen; the numbers are those of this architecture."""
    if own:
        bundle.user_namespace()
    limits = [{"type": name, "soft": soft, "hard": hard} for name, (soft, hard) in LIMITS.items()]
    bundle.process["rlimits"] = limits
    lines = oci_called.tell(bundle, "cat /proc/self/limits").lines[1:]
    found = {line[:26].strip(): tuple(line[26:].split()[:2]) for line in lines}
    titles = dict(
        zip(
            tables.RLIMITS,
            "cpu time,file size,data size,stack size,core file size,resident set,processes,open files,locked memory,"
            "address space,file locks,pending signals,msgqueue size,nice priority,realtime priority,"
            "realtime timeout".split(","),
            strict=True,
        )
    )
    wanted = {f"Max {titles[name]}": tuple(map(_limit, pair)) for name, pair in LIMITS.items()}
    assert found == wanted


def _limit(value: int) -> str:
    return "unlimited" if value == 2**64 - 1 else str(value)


def test_rlimits_that_are_not_set_are_the_callers(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["rlimits"] = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert oci_called.tell(bundle, "ulimit -Sn; ulimit -Hn").lines == [str(soft), str(hard)]


# ---- the user --------------------------------------------------------------------------------------------------------


def test_user_and_groups(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1001, "additionalGids": [5, 2000000000, 7]}
    told = status_words(oci_called.tell(bundle, "cat /proc/self/status").out)
    assert told["Uid"].split() == ["1000"] * 4
    assert told["Gid"].split() == ["1001"] * 4
    assert told["Groups"].split() == ["5", "7", "2000000000"]


def test_groups_of_the_caller_are_not_kept(oci_called: Runtime, bundle: Bundle) -> None:
    assert status_words(oci_called.tell(bundle, "cat /proc/self/status").out)["Groups"] == ""


@pytest.mark.parametrize(("umask", "found"), [(None, "0022"), (0o27, "0027"), (0, "0000")])
def test_umask(oci_called: Runtime, bundle: Bundle, umask: int | None, found: str) -> None:
    if umask is not None:
        bundle.process["user"]["umask"] = umask
    assert oci_called.tell(bundle, "umask").out == f"{found}\n"


# ---- privileges ------------------------------------------------------------------------------------------------------

SETS = {
    "inheritable": "CapInh",
    "permitted": "CapPrm",
    "effective": "CapEff",
    "bounding": "CapBnd",
    "ambient": "CapAmb",
}


def bits(*names: str) -> int:
    return sum(1 << tables.CAPABILITIES.index(name) for name in names)


@pytest.mark.parametrize("uid", [0, 1000])
def test_capabilities(oci_called: Runtime, bundle: Bundle, uid: int) -> None:
    """Root gains permitted what is inheritable or bounding by the exec itself (capabilities(7)); a user has what is
    ambient."""
    common = ["CAP_KILL", "CAP_CHOWN"]
    bundle.process["user"] = {"uid": uid, "gid": 0}
    bundle.process["noNewPrivileges"] = False
    bundle.process["capabilities"] = {
        "bounding": [*common, "CAP_NET_RAW"],
        "permitted": common,
        "effective": common,
        "inheritable": ["CAP_KILL"],
        "ambient": ["CAP_KILL"],
    }
    told = status_words(oci_called.tell(bundle, "cat /proc/self/status").out)
    found = {name: int(told[key], 16) for name, key in SETS.items()}
    assert found["bounding"] == bits(*common, "CAP_NET_RAW")
    assert found["inheritable"] == bits("CAP_KILL")
    assert found["ambient"] == bits("CAP_KILL")
    gained = bits("CAP_KILL") if uid else bits(*common, "CAP_NET_RAW")
    assert (found["permitted"], found["effective"]) == (gained, gained)


def test_a_capability_that_cannot_be_had_is_a_warning(oci_called: Runtime, bundle: Bundle) -> None:
    for names in bundle.process["capabilities"].values():
        names.append("CAP_NONSENSE")
    done = oci_called.tell(bundle, "echo runs")
    assert done.out == "runs\n"
    assert "CAP_NONSENSE" in done.err
    assert "warning" in done.err


@pytest.mark.parametrize("value", [False, True])
def test_no_new_privileges(oci_called: Runtime, bundle: Bundle, value: bool) -> None:
    bundle.process["noNewPrivileges"] = value
    assert status_words(oci_called.tell(bundle, "cat /proc/self/status").out)["NoNewPrivs"] == str(int(value))


@pytest.mark.parametrize(
    ("name", "there", "told"),
    [
        ("apparmorProfile", lsm.apparmor, "AppArmor is not enabled on this host"),
        ("selinuxLabel", lsm.selinux, "SELinux is not enabled on this host"),
    ],
)
def test_labels_where_no_module_gives_them(oci: Runtime, bundle: Bundle, name: str, there: Any, told: str) -> None:
    """Where there is one, the kernel knows no label of this name."""
    bundle.process[name] = "ocimk-no-such-label"
    refused = oci.run(bundle).refused(f"process.{name}")
    if not there():
        assert told in refused
        checked = oci("exec-fifo", "check", bundle.path)
        assert checked.status == 1
        assert told in checked.out


# ---- the rest --------------------------------------------------------------------------------------------------------


def worse() -> None:
    """Be killed earlier than others: a value of the caller's own."""
    Path("/proc/self/oom_score_adj").write_text("123")


@pytest.mark.parametrize("value", [0, 321, 1000])
def test_oom_score(oci_called: Runtime, bundle: Bundle, value: int) -> None:
    """Also when it is 0, and the caller's own is another."""
    bundle.process["oomScoreAdj"] = value
    assert oci_called.tell(bundle, "cat /proc/self/oom_score_adj", preexec_fn=worse).out == f"{value}\n"


def test_oom_score_that_is_not_set_is_the_callers(oci_called: Runtime, bundle: Bundle) -> None:
    """It MUST NOT be changed then."""
    bundle.process.pop("oomScoreAdj", None)
    assert oci_called.tell(bundle, "cat /proc/self/oom_score_adj", preexec_fn=worse).out == "123\n"


def test_cwd(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["cwd"] = "/tmp"
    assert oci_called.tell(bundle, "pwd; readlink /proc/self/cwd").lines == ["/tmp", "/tmp"]


def test_cwd_that_is_not_there_is_made(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.writable().process["cwd"] = "/srv/new"
    assert oci_called.tell(bundle, "pwd").out == "/srv/new\n"


def test_env_and_args(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["env"] = ["PATH=/bin", "A=b c", "EMPTY="]
    bundle.args("sh", "-c", 'echo "$0|$1|$A|$EMPTY|"; env', "zero", "one two")
    told = oci_called.run(bundle).ok()
    assert told.lines[0] == "zero|one two|b c||"
    assert {"A=b c", "EMPTY=", "PATH=/bin"} <= set(told.lines)


def test_console_size_without_a_terminal_is_ignored(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["consoleSize"] = {"height": 70000, "width": 12}
    assert oci_called.tell(bundle, "tty || echo none").lines[-1] == "none"


def test_cpu_affinity_of_exec_is_not_for_the_first_process(oci_called: Runtime, bundle: Bundle) -> None:
    if len(os.sched_getaffinity(0)) < 2:
        pytest.skip("one processor only")
    bundle.process["execCPUAffinity"] = {"initial": "0", "final": "0"}
    assert set(ask(oci_called, bundle, "print(json.dumps(sorted(os.sched_getaffinity(0))))")) == os.sched_getaffinity(0)

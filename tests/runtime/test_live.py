"""What is done with a living container: listed, held still, given other limits, measured, killed as a whole."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from properties_kit import PYTHON, with_python

from kit import CLEAN, Bundle, Runtime, alive, await_true, cgroups_of, of_status, wait_gone

MIB = 1 << 20
COUNT = "i=0; while :; do i=$((i+1)); echo $i > /tmp/count; done"
"""A script that shows by a file that it makes progress."""
BOMB = """
import os, signal
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
while True:
    try:
        os.fork()
    except OSError:
        pass
"""


def group(runtime: Runtime, name: str, controller: str) -> Path:
    """The container's cgroup of a controller, "" for the cgroup2."""
    return Path(json.loads((runtime.root / name / "cgroup.json").read_text())["paths"][controller])


def file(runtime: Runtime, name: str, path: str) -> str:
    """What a file of the container's cgroup holds: memory.max_usage_in_bytes is the controller memory's."""
    controller = "cpuset" if path.startswith("cpuset.") else path.partition(".")[0]
    return (group(runtime, name, controller) / path).read_text().strip()


def progress(place: Path) -> str:
    return (place / "tmp/count").read_text() if (place / "tmp/count").exists() else ""


# ---- pause and resume ------------------------------------------------------------------------------------------------


def test_a_paused_container_makes_no_progress(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.script(COUNT).writable())
    await_true(lambda: progress(bundle.rootfs), "it counts")
    oci("pause", name).ok()
    assert oci.state(name)["status"] == "paused"
    before = progress(bundle.rootfs)
    time.sleep(0.3)
    assert progress(bundle.rootfs) == before
    oci("resume", name).ok()
    assert oci.state(name)["status"] == "running"
    await_true(lambda: progress(bundle.rootfs) != before, "it counts on")


def test_what_cannot_be_paused_or_resumed_says_so(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.args("sleep", "1000"))
    oci_called("resume", name).refused("container not paused")
    oci_called("pause", name).ok()
    oci_called("pause", name).refused("container not running", "it is paused already")
    oci_called("start", name).refused("cannot start a container in the paused state")
    oci_called("delete", name).refused("that is not stopped")
    oci_called("kill", name, "KILL").ok()
    oci_called.wait_stopped(name)
    for verb in ("pause", "resume"):
        oci_called(verb, name).refused("container not ")
        oci_called(verb, "nobody").refused("container does not exist")


def test_a_created_container_can_be_paused(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.create(bundle.args("sleep", "1000"))
    oci_called("pause", name).ok()
    assert oci_called.state(name)["status"] == "paused"
    oci_called("resume", name).ok()
    assert oci_called.state(name)["status"] == "created"
    oci_called("start", name).ok()


@pytest.mark.parametrize("words", [("kill", "KILL"), ("kill", "--all", "KILL"), ("delete", "--force")])
def test_a_paused_container_can_be_killed(oci_called: Runtime, bundle: Bundle, words: tuple[str, ...]) -> None:
    name = oci_called.detached(bundle.script("sleep 1000 & wait"))
    pid = oci_called.pid(name)
    oci_called("pause", name).ok()
    verb, *rest = words
    options = [word for word in rest if word.startswith("-")]
    oci_called(verb, *options, name, *(word for word in rest if word not in options)).ok()
    wait_gone(pid)


def test_who_watches_is_told_of_pausing(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.args("sleep", "1000"))
    root = ("--root", str(oci_called.root))
    wait = subprocess.Popen(["libexec/oci-state", "wait", name, "paused", *root, "--timeout", "10"], env=CLEAN)
    oci_called("pause", name).ok()
    assert wait.wait(15) == 0


# ---- ps --------------------------------------------------------------------------------------------------------------


def test_ps_shows_the_processes_of_the_container_and_no_others(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.script("sleep 1001 & sleep 1002 & wait"))
    found = await_true(lambda: len(pids := oci("ps", "--format", "json", name).ok().json) == 3 and pids, "all are there")
    assert found == sorted(found) and oci.pid(name) in found

    header, *lines = oci("ps", name).ok().lines
    assert header.split()[:2] == ["UID", "PID"]
    assert sorted(int(line.split()[1]) for line in lines) == found

    lines = oci("ps", name, "-o", "args,pid").ok().lines
    assert lines[0].split() == ["COMMAND", "PID"]
    assert {line.rsplit(maxsplit=1)[0].strip() for line in lines[1:]} >= {"sleep 1001", "sleep 1002"}


def test_ps_refuses_what_it_cannot_show(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.args("sleep", "1000"))
    oci_called("ps", name, "-o", "comm").refused("couldn't find PID field in ps output")
    oci_called("ps", name, "--no-such-option").refused("exit status 1")
    oci_called("ps", name, env={"PATH": "/none"}).refused('exec: "ps": executable file not found in $PATH')
    oci_called("kill", name, "KILL").ok()
    oci_called.wait_stopped(name)
    assert oci_called("ps", "-f", "json", name).ok().out == "null\n"
    assert len(oci_called("ps", name).ok().lines) == 1


# ---- update ----------------------------------------------------------------------------------------------------------


def test_every_option_of_update_is_in_a_file(oci: Runtime, bundle: Bundle) -> None:
    name = oci.create(bundle.args("sleep", "1000"))
    given: dict[str, tuple[str, str, str]] = {
        "--cpu-period": ("40000", "cpu.cfs_period_us", "40000"),
        "--cpu-quota": ("20000", "cpu.cfs_quota_us", "20000"),
        "--cpu-burst": ("10000", "cpu.cfs_burst_us", "10000"),
        "--cpu-share": ("77", "cpu.shares", "77"),
        "--cpuset-cpus": ("0", "cpuset.cpus", "0"),
        "--cpuset-mems": ("0", "cpuset.mems", "0"),
        "--memory": ("32m", "memory.limit_in_bytes", str(32 * MIB)),
        "--memory-swap": ("1.5GiB", "memory.memsw.limit_in_bytes", str(1536 * MIB)),
        "--memory-reservation": ("16777216", "memory.soft_limit_in_bytes", str(16 * MIB)),
        "--pids-limit": ("9", "pids.max", "9"),
    }
    options = [word for option, (value, _, _) in given.items() for word in (option, value)]
    oci("update", *options, name).ok()
    assert {path: file(oci, name, path) for _, path, _ in given.values()} == {p: v for _, p, v in given.values()}

    oci("update", "--cpu-idle", "1", name).ok()
    assert file(oci, name, "cpu.idle") == "1"
    oci("update", "--memory", "-1", "--pids-limit", "-1", name).ok()
    assert file(oci, name, "pids.max") == "max"
    for path in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"):
        assert int(file(oci, name, path)) > 1 << 60


@pytest.mark.parametrize("source", ["-", "file"])
def test_update_reads_resources(oci: Runtime, bundle: Bundle, source: str) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 64 * MIB}
    name = oci.detached(bundle.args("sleep", "1000"))
    wanted = json.dumps({"cpu": {"quota": 30000, "shares": None}, "pids": {"limit": 8}, "unknown": {}})
    place = oci.place / "resources"
    place.write_text(wanted)
    done = oci("update", "-r", "-" if source == "-" else place, "--memory", "1m", name, stdin=wanted.encode()).ok()
    assert "--memory is ignored" in done.err
    assert (file(oci, name, "cpu.cfs_quota_us"), file(oci, name, "pids.max")) == ("30000", "8")
    assert file(oci, name, "memory.limit_in_bytes") == str(64 * MIB)
    oci("update", "-r", "-", name, stdin=b"null").ok()
    oci("pause", name).ok()
    oci("update", "--pids-limit", "7", name).ok()
    assert file(oci, name, "pids.max") == "7"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--cpu-quota", "1s"), 'invalid value for cpu-quota: "1s"'),
        (("--cpu-share", "-1"), 'invalid value for cpu-share: "-1"'),
        (("--memory", "12x"), 'invalid value for memory: "12x" (as in 512m'),
        (("--cpuset-cpus", "1-x"), 'cpu.cpus: found "1-x"'),
        (("--memory", "8m", "--memory-swap", "4m"), "resources.memory.swap: found 4194304"),
        (("--l3-cache-schema", "L3:0=1"), "l3 cache schema is not enabled"),
        (("--mem-bw-schema", "MB:0=1"), "memory bandwidth schema is not enabled"),
        (("--resources", "/nowhere"), "read resources from /nowhere: no such file or directory"),
        (("--resources", "-"), "standard input: line 1, column 1: a value was expected"),
    ],
)
def test_a_refused_update_says_why(oci_called: Runtime, bundle: Bundle, words: tuple[str, ...], told: str) -> None:
    if "schema" in told and "resctrl" in Path("/proc/mounts").read_text():
        pytest.skip("resctrl is mounted here")
    name = oci_called.create(bundle.args("sleep", "1000"))
    oci_called("update", *words, name).refused(told)


def test_a_stopped_container_has_no_limits_to_change(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.create(bundle.args("true"))
    oci_called("start", name).ok()
    oci_called.wait_stopped(name)
    oci_called("update", "--pids-limit", "3", name).refused("container not running")


def test_kernel_memory_is_ignored_with_a_warning(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.create(bundle.args("sleep", "1000"))
    told = oci_called("update", "--kernel-memory", "1m", "--kernel-memory-tcp", "1m", name).ok().err
    assert "memory.kernel is ignored" in told and "memory.kernelTCP is ignored" in told
    assert oci_called("update", "--memory", "64m", name).ok().err == ""


def test_updates_follow_each_other(oci_called: Runtime, bundle: Bundle) -> None:
    """What one update has set is what the next one is merged with."""
    name = oci_called.create(bundle.args("sleep", "1000"))
    oci_called("update", "--cpu-quota", "50000", "--cpu-period", "100000", name).ok()
    oci_called("update", "--cpu-period", "50000", name).ok()
    assert file(oci_called, name, "cpu.cfs_quota_us") == "50000"
    kept = json.loads((oci_called.root / name / "resources.json").read_text())
    assert kept["cpu"] == {"quota": 50000, "period": 50000}


# ---- events ----------------------------------------------------------------------------------------------------------


def test_one_sample(oci: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"] |= {"memory": {"limit": 64 * MIB}, "pids": {"limit": 9}}
    name = oci.detached(bundle.args("sleep", "1000"))
    (line,) = oci("events", "--stats", name).ok().lines
    event = json.loads(line)
    assert list(event) == ["type", "id", "data"] and (event["type"], event["id"]) == ("stats", name)
    data: dict[str, Any] = event["data"]
    members = ["cpu", "cpuset", "memory", "pids", "blkio", "hugetlb", "intel_rdt", "network_interfaces"]
    assert list(data) == members
    assert data["pids"] == {"current": 1, "limit": 9}
    assert data["memory"]["usage"]["limit"] == 64 * MIB
    assert list(data["memory"]["raw"]) == sorted(data["memory"]["raw"])
    assert list(data["cpuset"])[:4] == ["cpus", "cpu_exclusive", "mems", "mem_hardwall"]


def eater(bundle: Bundle) -> Bundle:
    """Each line that it is sent makes a child of it run out of memory; it ends at the end of its input."""
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB, "swap": 24 * MIB}
    return bundle.script("while read x; do dd if=/dev/zero of=/dev/null bs=100M count=1; done").writable()


def test_running_out_of_memory_is_told_until_the_end(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.create(eater(bundle).bind(oci_called.place, "/in"))
    os.mkfifo(oci_called.place / "go")
    bundle.process["args"][-1] = f"{bundle.process['args'][-1]} < /in/go"
    oci_called("delete", name).ok()
    name = oci_called.detached(bundle)
    events = oci_called.begin("events", "--interval", "100ms", name)
    assert events.stdout
    with open(oci_called.place / "go", "w") as go:
        assert json.loads(events.stdout.readline())["type"] == "stats"
        go.write("1\n")
        go.flush()
        await_true(lambda: json.loads(events.stdout.readline()) == {"type": "oom", "id": name}, "an oom event")
    assert events.wait(10) == 0, "it ends with the container"
    oci_called.wait_stopped(name)
    oci_called("events", name).refused(f"container with id {name} is not running")


def test_events_end_when_nobody_reads(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.args("sleep", "1000"))
    events = oci_called.begin("events", "--interval", "1h", name)
    assert events.stdout and events.stderr
    await_true(lambda: of_status(events.pid, "State")[0] == "S", "it waits")
    events.stdout.close()
    assert events.wait(10) == 141
    assert events.stderr.read() == b""


@pytest.mark.parametrize(
    ("interval", "told"),
    [("0", "duration interval must be greater than 0"), ("-1s", "must be greater"), ("5", 'invalid value "5"'), ("1d", '"1d"')],
)
def test_intervals_that_are_none(oci_called: Runtime, bundle: Bundle, interval: str, told: str) -> None:
    name = oci_called.create(bundle.args("sleep", "1000"))
    oci_called("events", f"--interval={interval}", name).refused(told)


# ---- kill all, and by regular expression -----------------------------------------------------------------------------


def test_kill_all_reaches_every_process(oci: Runtime, bundle: Bundle) -> None:
    bundle.script("for i in 1 2 3; do (trap 'echo $$ >> /tmp/got' USR1; while :; do sleep 0.01; done) & done; trap : USR1; while :; do sleep 0.01; done")
    name = oci.detached(bundle.writable())
    await_true(lambda: len(oci("ps", "-f", "json", name).json) >= 8, "all are there")
    oci("kill", "--all", name, "USR1").ok()
    await_true(lambda: len((bundle.rootfs / "tmp/got").read_text().split()) == 3, "all were told")


def test_kill_all_ends_what_the_first_process_left_behind(oci: Runtime, bundle: Bundle) -> None:
    name = oci.detached(bundle.without("pid").script("setsid sleep 1000 & setsid sleep 1001 & exit 0"))
    oci.wait_stopped(name)
    left = oci("ps", "-f", "json", name).ok().json
    assert left
    oci("kill", name, "KILL").refused("container not running")
    oci("kill", "--all", name, "KILL").ok()
    for pid in left:
        wait_gone(pid)


def test_no_process_of_a_fork_bomb_survives(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 40}
    name = oci_called.detached(with_python(bundle.without("pid")).args(PYTHON, "-ISc", BOMB))
    await_true(lambda: len(oci_called("ps", "-f", "json", name).json or ()) >= 20, "it has multiplied")
    assert int(file(oci_called, name, "pids.current")) <= 40
    oci_called("kill", "--all", name, "KILL").ok()
    await_true(lambda: oci_called("ps", "-f", "json", name).json is None, "all are gone")
    oci_called("delete", name).ok()
    assert cgroups_of([name]) == []


def test_containers_by_regular_expression(oci_called: Runtime, bundle: Bundle) -> None:
    names = [oci_called.detached(bundle.args("sleep", "1000")) for _ in range(3)]
    first, second, third = names
    pattern = f"^({first}|{second})$"
    oci_called("kill", "--regex", pattern, "KILL").ok()
    for name in (first, second):
        oci_called.wait_stopped(name)
    assert alive(oci_called.pid(third))
    told = oci_called("kill", "-r", pattern.replace("$", "[[:digit:]]*$"), "KILL")
    assert told.status == 1 and "container not running" in told.err and "failed for 2 of 2" in told.err
    told = oci_called("delete", "-r", ".*")
    assert "failed for 1 of 3" in told.err and oci_called.names() == [third]
    oci_called("delete", "--regex", "--force", third[:5]).ok()
    assert oci_called.names() == []
    oci_called("delete", "--regex", "nothing-like-it").ok()
    oci_called("kill", "--regex", "(").refused("invalid regular expression (: ")


# ---- the same as runc ------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed")
def test_one_sample_has_what_runcs_has(oci_called: Runtime, bundle: Bundle) -> None:
    """Every member that runc prints of such a container is there, with a value of the same kind."""
    bundle.linux["resources"]["memory"] = {"limit": 64 * MIB}
    name = oci_called.detached(bundle.args("sleep", "1000"))
    ours = oci_called("events", "--stats", name).ok().json["data"]
    theirs = f"{name}-runc"
    runc = ["runc", "--root", str(oci_called.place / "runc")]
    subprocess.run([*runc, "run", "-d", "--bundle", bundle.path, theirs], check=True, stdin=-3, stdout=-3, stderr=-3)
    try:
        told = subprocess.run([*runc, "events", "--stats", theirs], check=True, capture_output=True)
    finally:
        subprocess.run([*runc, "delete", "--force", theirs], check=True)
    assert lacking(json.loads(told.stdout)["data"], ours, "") == []


def lacking(theirs: Any, ours: Any, at: str) -> list[str]:
    """The members of theirs that ours lacks, zeroes and empty ones aside: newer runc leaves those out."""
    if isinstance(theirs, dict) and isinstance(ours, dict):
        return [told for key in theirs for told in lacking(theirs[key], ours.get(key), f"{at}.{key}")]
    empty = not theirs or (isinstance(theirs, dict) and not any(theirs.values()))
    return [] if type(theirs) is type(ours) or empty else [f"{at}: {theirs} and {ours}"]



"""oci-resctrl: which files are written, in which order, what is made and what is removed.

No machine that these tests are made for has the processor for it, so the resctrl here is a folder of plain files, and a
group gets its files from the fixture below instead of from the kernel. That proves what we do, not that the kernel is
content with it: no schemata is checked by a processor, no task is really moved, and a plain file shows only what was
written to it last.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import LIBEXEC
from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.linux import resctrl as fs
from ocimk.stages import resctrl, resctrl_stats

PID = 4242
SCHEMATA = "    MB:0=100;1=100\n    L3:0=7ff;1=7ff\n"
Make = Callable[..., Folder]


def group_files(path: Path) -> None:
    """What the kernel puts into a new group."""
    path.mkdir(exist_ok=True)
    (path / "tasks").write_text("")
    (path / "schemata").write_text(SCHEMATA)
    if path.parent.name != "mon_groups":
        (path / "mon_groups").mkdir()


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that looks like a mounted resctrl."""
    place = tmp_path / "resctrl"
    group_files(place)
    (place / "info").mkdir()
    (place / "info/last_cmd_status").write_text("ok\n")
    mkdir = os.mkdir

    def make(path: str, mode: int = 0o777) -> None:
        mkdir(path, mode)
        group_files(Path(path))

    monkeypatch.setattr(fs.posix, "mkdir", make)
    monkeypatch.setattr(fs.posix, "rmdir", shutil.rmtree)
    return place


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A folder of a container that is being created with this linux.intelRdt."""

    def folder(rdt: Any, name: str = "web", status: str = "creating") -> Folder:
        place = tmp_path / "run" / name
        place.mkdir(parents=True)
        linux = {"intelRdt": rdt}
        (place / "config.json").write_text(json.dumps({"ociVersion": "1.3.0", "linux": linux}))
        state = {"id": name, "status": status, "pid": PID, "bundle": str(tmp_path), "ocimk": {"version": 1}}
        (place / "state.json").write_text(json.dumps(state))
        return Folder.open(str(place))

    return folder


def apply(folder: Folder, root: Path) -> None:
    resctrl.apply(folder, {}, [], str(root))


def refused(folder: Folder, root: Path) -> str:
    with pytest.raises(Error) as caught:
        apply(folder, root)
    return str(caught.value)


# ---- apply -----------------------------------------------------------------------------------------------------------


def test_without_the_property_nothing_is_touched(root: Path, make: Make) -> None:
    before = sorted(root.rglob("*"))
    apply(make(None), root)
    assert sorted(root.rglob("*")) == before


def test_an_empty_object_makes_a_group_of_the_containers_name(root: Path, make: Make) -> None:
    folder = make({})
    apply(folder, root)
    assert (root / "web/tasks").read_text() == str(PID)
    assert (root / "web/schemata").read_text() == SCHEMATA
    assert folder.records() == [("oci-resctrl", "group", str(root / "web"))]


def test_cache_then_bandwidth_then_schemata_in_one_write(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, str]] = []
    write = fs.write
    monkeypatch.setattr(fs, "write", lambda r, path, text: (told.append((path, text)), write(r, path, text)))
    rdt = {"schemata": ["L2:0=f", "L3:0=1"], "memBwSchema": "MB:0=20", "l3CacheSchema": "L3:0=7f0"}
    apply(make({**rdt, "closID": "gold"}), root)
    assert told == [
        (f"{root}/gold/tasks", str(PID)),
        (f"{root}/gold/schemata", "L3:0=7f0\nMB:0=20\nL2:0=f\nL3:0=1\n"),
    ]


def test_the_root_is_the_default_class(root: Path, make: Make) -> None:
    folder = make({"closID": "/"})
    apply(folder, root)
    assert (root / "tasks").read_text() == str(PID)
    assert folder.records() == []


def test_a_class_without_schemata_must_be_there(root: Path, make: Make) -> None:
    assert "linux.intelRdt.closID: gold" in refused(make({"closID": "gold"}), root)
    assert not (root / "gold").exists()
    group_files(root / "gold")
    folder = make({"closID": "gold"}, "other")
    apply(folder, root)
    assert (root / "gold/tasks").read_text() == str(PID)
    assert folder.records() == []


@pytest.mark.parametrize("line", ["L3:0=7ff;1=7ff", "L3:1=07ff", "L3: 0 = 7FF"])
def test_a_class_that_is_there_and_agrees_is_taken(root: Path, make: Make, line: str) -> None:
    """The numbers are compared: the kernel pads and orders them as it likes."""
    group_files(root / "gold")
    folder = make({"closID": "gold", "l3CacheSchema": line, "memBwSchema": "MB:0=100"})
    apply(folder, root)
    assert (root / "gold/tasks").read_text() == str(PID)
    assert folder.records() == []


@pytest.mark.parametrize(
    ("name", "line"),
    [("l3CacheSchema", "L3:0=7fe"), ("l3CacheSchema", "L3:2=7ff"), ("memBwSchema", "MB:0=10"), ("l3CacheSchema", "x")],
)
@pytest.mark.parametrize("closid", ["gold", "/"])
def test_a_class_that_is_there_and_differs_is_an_error(
    root: Path, make: Make, name: str, line: str, closid: str
) -> None:
    group_files(root / "gold") if closid == "gold" else None
    told = refused(make({"closID": closid, name: line}), root)
    assert told.startswith(f"linux.intelRdt.{name}: {line}")
    assert "L3:0=7ff;1=7ff" in told
    assert (root / closid.lstrip("/") / "tasks").read_text() == ""


def test_what_is_no_group_is_not_joined(root: Path, make: Make) -> None:
    assert "is no group of resctrl" in refused(make({}, "info"), root)
    assert "is not there" in refused(make({"closID": "info"}), root)


def test_monitoring_has_a_group_of_its_own(root: Path, make: Make) -> None:
    folder = make({"closID": "/", "enableMonitoring": True})
    apply(folder, root)
    assert (root / "mon_groups/web/tasks").read_text() == str(PID)
    assert (root / "tasks").read_text() == str(PID)
    assert folder.records() == [("oci-resctrl", "monitor", str(root / "mon_groups/web"))]


def test_a_monitoring_group_that_is_there_is_an_error(root: Path, make: Make) -> None:
    group_files(root / "mon_groups/web")
    assert "linux.intelRdt.enableMonitoring: make" in refused(make({"closID": "/", "enableMonitoring": True}), root)


def test_what_the_kernel_says_is_told(root: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    (root / "info/last_cmd_status").write_text("mask out of range\n")
    monkeypatch.setattr(fs.posix, "write", lambda fd, data: (_ for _ in ()).throw(OSError(22, "Invalid argument")))
    told = refused(make({"closID": "/", "schemata": ["L3:0=ffffff"]}), root)
    assert "invalid argument: mask out of range" in told


def test_the_ledger_is_written_before_the_group_is_made(
    root: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fs.posix, "mkdir", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    folder = make({"closID": "gold", "schemata": ["L3:0=1"]})
    told = refused(folder, root)
    assert "linux.intelRdt.closID: make" in told
    assert "no more groups" in told
    assert folder.records() == [("oci-resctrl", "class", str(root / "gold"))]
    resctrl.undo(folder)
    assert folder.records() == []


# ---- undo ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["creating", "running"])
def test_a_group_of_the_containers_name_goes_with_it(root: Path, make: Make, status: str) -> None:
    folder = make({"enableMonitoring": True}, status=status)
    apply(folder, root)
    for _ in range(2):
        resctrl.undo(folder)
        assert not (root / "web").exists()
        assert folder.records() == []


def test_a_group_that_was_there_stays(root: Path, make: Make) -> None:
    group_files(root / "web")
    folder = make({})
    apply(folder, root)
    resctrl.undo(folder)
    assert (root / "web").exists()


def test_a_class_stays_and_its_monitoring_group_goes(root: Path, make: Make) -> None:
    folder = make({"closID": "gold", "schemata": ["L3:0=1"], "enableMonitoring": True}, status="running")
    apply(folder, root)
    resctrl.undo(folder)
    assert (root / "gold").exists()
    assert list((root / "gold/mon_groups").iterdir()) == []


@pytest.mark.parametrize(("tasks", "stays"), [("4242\n", False), ("4242\n17\n", True)])
def test_a_creation_that_fails_takes_its_class_back(root: Path, make: Make, tasks: str, stays: bool) -> None:
    """Unless somebody else has joined it meanwhile."""
    folder = make({"closID": "gold", "schemata": ["L3:0=1"]})
    apply(folder, root)
    (root / "gold/tasks").write_text(tasks)
    resctrl.undo(folder)
    assert (root / "gold").exists() is stays


# ---- explain, check, and where it is mounted -------------------------------------------------------------------------


def test_explain_prints_commands_that_do_the_same(root: Path, make: Make) -> None:
    folder = make({"closID": "gold", "l3CacheSchema": "L3:0=7f0;1=1f", "enableMonitoring": True})
    script = "\n".join(resctrl.explain(folder, {}, [], str(root)))
    before = sorted(root.rglob("*"))
    (root / "gold/mon_groups").mkdir(parents=True)  # the kernel's part
    assert len(before) == 5
    subprocess.run(["sh", "-eu", "-c", script], check=True)
    assert (root / "gold/schemata").read_text() == "L3:0=7f0;1=1f\n"
    assert (root / "gold/tasks").read_text() == (root / "gold/mon_groups/web/tasks").read_text() == f"{PID}\n"


def test_check_tells_what_the_host_lacks(root: Path, make: Make) -> None:
    shutil.rmtree(root / "mon_groups")
    folder = make({"closID": "gold", "enableMonitoring": True})
    assert resctrl.check(folder, str(root)) == [
        f"linux.intelRdt.closID: {root}/gold is not there (without schemata it must be)",
        f"linux.intelRdt.enableMonitoring: this host's resctrl has no monitoring groups (see {root}/info)",
    ]
    folder = make({"schemata": ["L2:0=1", "MB:0=20"]}, "other")
    assert resctrl.check(folder, str(root)) == ["linux.intelRdt: L2:0=1: this host has no L2 (it has MB, L3)"]


def test_where_it_is_mounted() -> None:
    other = b"28 24 0:25 / /sys/fs/cgroup rw,nosuid shared:4 - tmpfs tmpfs rw\n"
    line = rb"99 24 0:88 / /mnt/a\040b rw,relatime shared:77 - resctrl resctrl rw" + b"\n"
    assert fs.mounted(other + line) == "/mnt/a b"
    assert fs.mounted(other) == ""


@pytest.mark.skipif(bool(resctrl.mount_point()), reason="resctrl is mounted here")
def test_where_it_is_not_mounted_that_is_the_error(tmp_path: Path, make: Make) -> None:
    folder = make({})
    said = "linux.intelRdt: resctrl is not mounted on this host (mount -t resctrl resctrl /sys/fs/resctrl; "
    with pytest.raises(Error) as caught:
        resctrl.apply(folder, {}, [])
    assert str(caught.value).startswith(said)
    done = subprocess.run([f"{LIBEXEC}/oci-resctrl", "check", folder.path], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout.startswith(said)


# ---- changing the shares of a living container -----------------------------------------------------------------------


def test_a_change_writes_the_lines_and_tells_the_old_ones(root: Path, make: Make) -> None:
    folder = make({"l3CacheSchema": "L3:0=1"})
    apply(folder, root)
    written = root / "web/schemata"

    there = written.read_text()

    before = resctrl.change(folder, "L3:0=3", "MB:0=50", str(root))

    assert written.read_text().startswith("L3:0=3\nMB:0=50\n")
    assert before == there
    resctrl.put_back(folder, before, str(root))
    assert written.read_text() == there


@pytest.mark.parametrize(
    ("rdt", "lines", "told"),
    [
        (None, ("L3:0=1", ""), "updating a non-existent Intel RDT configuration is not supported"),
        ({}, ("", "MB:0=50"), "Intel RDT/MBA: memory bandwidth schema is not enabled"),
    ],
)
def test_a_change_that_cannot_be(root: Path, make: Make, rdt: Any, lines: tuple[str, str], told: str) -> None:
    if lines[1]:
        (root / "schemata").write_text("L3:0=7ff\n")
    with pytest.raises(Error, match=told):
        resctrl.change(make(rdt), *lines, str(root))


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_statistics_in_runcs_words(root: Path, make: Make) -> None:
    folder = make({"l3CacheSchema": "L3:0=1", "enableMonitoring": True})
    apply(folder, root)
    files = {
        "info/L3/cbm_mask": "7ff", "info/L3/min_cbm_bits": "1", "info/L3/num_closids": "16",
        "info/MB/bandwidth_gran": "10", "info/MB/delay_linear": "1", "info/MB/min_bandwidth": "10", "info/MB/num_closids": "8",
        "info/L3_MON/mon_features": "llc_occupancy\nmbm_total_bytes",
        "web/mon_groups/web/mon_data/mon_L3_00/mbm_total_bytes": "1234",
        "web/mon_groups/web/mon_data/mon_L3_00/llc_occupancy": "Unavailable",
        "web/schemata": "MB:0=100\n    L3:0=1",
    }  # fmt: skip
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(f"{text}\n")

    assert resctrl_stats.stats(folder, str(root)) == {
        "l3_cache_info": {"cbm_mask": "7ff", "min_cbm_bits": 1, "num_closids": 16},
        "l3_cache_schema_root": "L3:0=7ff;1=7ff",
        "l3_cache_schema": "L3:0=1",
        "mem_bw_info": {"bandwidth_gran": 10, "delay_linear": 1, "min_bandwidth": 10, "num_closids": 8},
        "mem_bw_schema_root": "MB:0=100;1=100",
        "mem_bw_schema": "MB:0=100",
        "schemata": ["MB:0=100", "    L3:0=1"],
        "mbm_stats": [{"mbm_total_bytes": 1234, "mbm_local_bytes": 0}],
        "cmt_stats": [{"llc_occupancy": 0}],
    }
    assert resctrl_stats.stats(make(None, "other"), str(root)) == {}

"""The systemd cgroup manager: what systemd knows of a container, and what is left when it is gone."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit
from conftest import Groups, runtime

pytestmark = pytest.mark.vm

MIB = 1 << 20


@pytest.fixture
def scopes(tmp_path: Path) -> Iterator[Groups]:
    yield from runtime(tmp_path, "--systemd-cgroup")


def show(unit: str, *names: str) -> dict[str, str]:
    """Properties of a unit, as systemctl shows them."""
    command = ["systemctl", "show", unit, *(f"--property={name}" for name in names)]
    lines = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    return dict(line.split("=", 1) for line in lines)


def loaded(unit: str) -> bool:
    return show(unit, "LoadState")["LoadState"] == "loaded"


def test_the_slice_the_prefix_and_the_name(scopes: Groups, bundle: kit.Bundle) -> None:
    name = scopes.id()
    bundle.linux["cgroupsPath"] = f"ocimkvm-inner.slice:pre:{name}"
    unit = f"pre-{name}.scope"
    scopes.quiet("create", "--bundle", bundle.save(), name).ok()
    shown = show(unit, "Slice", "Delegate", "ControlGroup", "ActiveState", "TasksCurrent")

    assert shown == {
        "Slice": "ocimkvm-inner.slice",
        "Delegate": "yes",
        "ControlGroup": f"/ocimkvm.slice/ocimkvm-inner.slice/{unit}",
        "ActiveState": "active",
        "TasksCurrent": "1",
    }
    assert str(scopes.group(name)) == f"/sys/fs/cgroup{shown['ControlGroup']}"
    scopes("delete", "--force", name).ok()
    assert not loaded(unit) and not scopes.group_path(unit)


def test_limits_are_systemd_s_too_and_outlive_its_reload(scopes: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MIB, "reservation": 32 * MIB, "swap": 96 * MIB},
        "cpu": {"shares": 512, "quota": 12345, "period": 50000, "cpus": "1", "mems": "0"},
        "pids": {"limit": 100},
        "unified": {"memory.high": "60M"},
    }
    name = scopes.detached(bundle.args("sleep", "1000"))
    files = {
        "memory.max": str(64 * MIB),
        "memory.high": str(60 * MIB),
        "memory.low": str(32 * MIB),
        "memory.swap.max": str(32 * MIB),
        "cpu.weight": "59",
        "cpu.max": "12500 50000",
        "cpuset.cpus": "1",
        "pids.max": "100",
    }
    known = {
        "MemoryMax": str(64 * MIB),
        "MemoryHigh": str(60 * MIB),
        "MemoryLow": str(32 * MIB),
        "MemorySwapMax": str(32 * MIB),
        "CPUWeight": "59",
        "CPUQuotaPerSecUSec": "250ms",
        "CPUQuotaPeriodUSec": "50ms",
        "AllowedCPUs": "1",
        "AllowedMemoryNodes": "0",
        "TasksMax": "100",
    }

    assert show(f"oci-{name}.scope", *known) == known
    assert scopes.files(name, *files) == files
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert scopes.files(name, *files) == files


def test_an_update_reaches_both(scopes: Groups, bundle: kit.Bundle) -> None:
    name = scopes.detached(bundle.args("sleep", "1000"))
    scopes("update", "--memory", str(48 * MIB), "--pids-limit", "77", "--cpu-quota", "20000", name).ok()

    assert scopes.files(name, "memory.max", "pids.max", "cpu.max") == {
        "memory.max": str(48 * MIB),
        "pids.max": "77",
        "cpu.max": "20000 100000",
    }
    wanted = {"MemoryMax": str(48 * MIB), "TasksMax": "77", "CPUQuotaPerSecUSec": "200ms"}
    assert show(f"oci-{name}.scope", *wanted) == wanted


def test_it_can_be_paused(scopes: Groups, bundle: kit.Bundle) -> None:
    name = scopes.detached(bundle.args("sleep", "1000"))
    scopes("pause", name).ok()
    assert scopes.state(name)["status"] == "paused"
    scopes("resume", name).ok()

    assert scopes.state(name)["status"] == "running"


def test_annotations_set_properties(scopes: Groups, bundle: kit.Bundle) -> None:
    bundle.config["annotations"] = {
        "org.systemd.property.TimeoutStopSec": "uint64 7",
        "org.systemd.property.CollectMode": "'inactive-or-failed'",
        "org.systemd.property.Documentation": "['man:oci(1)', 'man:runc(8)']",
    }
    name = scopes.create(bundle)

    assert show(f"oci-{name}.scope", "TimeoutStopUSec", "CollectMode", "Documentation") == {
        "TimeoutStopUSec": "7s",
        "CollectMode": "inactive-or-failed",
        "Documentation": '"man:oci(1)" "man:runc(8)"',
    }


@pytest.mark.parametrize(
    ("key", "text", "told"),
    [
        ("ExecStart", "'x'", "may not have systemd execute programs"),
        ("TimeoutStopSec", "7 or so", "value parse error"),
        ("NoSuchThing", "true", "unable to start unit"),
    ],
)
def test_a_bad_annotation_is_told(scopes: Groups, bundle: kit.Bundle, key: str, text: str, told: str) -> None:
    bundle.config["annotations"] = {f"org.systemd.property.{key}": text}

    scopes.run(bundle.script("true")).refused(told, key)
    assert scopes.names() == []


def test_what_is_left_of_a_failed_one_is_swept_away(scopes: Groups, bundle: kit.Bundle) -> None:
    name = scopes.id()
    unit = f"oci-{name}.scope"
    subprocess.run(
        ["systemd-run", "-q", "--scope", f"--unit={unit}", "--property=RuntimeMaxSec=1", "sleep", "60"], check=False
    )
    kit.await_true(lambda: show(unit, "ActiveState")["ActiveState"] == "failed", "the unit has failed", 30)
    scopes.quiet("create", "--bundle", bundle.save(), name).ok()

    assert show(unit, "ActiveState")["ActiveState"] == "active"


def test_another_s_unit_is_left_alone(scopes: Groups, bundle: kit.Bundle) -> None:
    name = scopes.id()
    unit = f"oci-{name}.scope"
    with subprocess.Popen(["systemd-run", "-q", "--scope", f"--unit={unit}", "sleep", "600"]) as other:
        try:
            kit.await_true(lambda: show(unit, "ActiveState")["ActiveState"] == "active", "it is there", 30)
            scopes.run(bundle.script("true"), name=name).refused("unable to start unit", unit)
            assert show(unit, "ActiveState")["ActiveState"] == "active" and other.poll() is None
        finally:
            other.terminate()


def test_each_stage_a_program(tmp_path: Path, bundle: kit.Bundle) -> None:
    for groups in runtime(tmp_path, "--systemd-cgroup", "--exec-stages"):
        bundle.linux["resources"]["pids"] = {"limit": 33}
        name = groups.create(bundle.args("sleep", "1000"))
        groups("start", name).ok()

        assert groups.files(name, "pids.max")["pids.max"] == "33"


@pytest.mark.parametrize("wait", ["unit ", "holder ", "cgroup ", "process "])
def test_killed_while_it_is_made_it_leaves_nothing(scopes: Groups, bundle: kit.Bundle, wait: str) -> None:
    name = scopes.id()
    making = scopes.begin("create", "--bundle", bundle.save(), name)
    ledger = scopes.root / name / "ledger"
    kit.await_true(lambda: ledger.exists() and f" {wait}" in ledger.read_text(), f"{wait}is noted", 60)
    making.kill()
    making.wait()
    scopes("delete", "--force", name).ok()

    assert not loaded(f"oci-{name}.scope") and not scopes.group_path(f"oci-{name}.scope")


def test_by_hand_and_undone_by_hand(tmp_path: Path, bundle: kit.Bundle) -> None:
    """The stage alone: the scope stands, with a process that keeps it, until it is undone."""
    folder = tmp_path / "run" / "ocimkvmhand"
    folder.parent.mkdir()
    done = kit.shell(
        f"oci-validate apply {folder} --bundle {bundle.save()} && oci-cgroup apply {folder} --manager systemd"
    ).ok()
    path = json.loads((folder / "cgroup.json").read_bytes())["paths"][""]
    assert len(Path(path, "cgroup.procs").read_text().split()) == 1, done
    assert "StartTransientUnit" in kit.shell(f"oci-cgroup explain {folder} --manager systemd").ok().out
    kit.shell(f"oci-cgroup undo {folder}").ok()

    assert not Path(path).exists() and not loaded(Path(path).name)


def test_the_explained_calls_do_the_same(tmp_path: Path, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["pids"] = {"limit": 21}
    told = kit.shell(f"oci-cgroup explain {bundle.save()} --manager systemd").ok().out
    calls = "\n".join(line for line in told.splitlines() if line.startswith("busctl"))
    seen = kit.shell(f"{calls}\nsystemctl show oci-CONTAINER.scope -p TasksMax -p DevicePolicy -p Delegate").ok()

    assert set(seen.lines[-3:]) == {"TasksMax=21", "DevicePolicy=strict", "Delegate=yes"}


def test_the_manager_s_private_socket_does_as_well() -> None:
    from ocimk.stages.cgroups import bus

    began = time.monotonic()
    with bus.connect(["unix:path=/run/systemd/private"]) as manager:
        assert manager.private and manager.version() > 200
    assert time.monotonic() - began < 10


def test_a_sub_cgroup_of_its_own_keeps_the_limits_above(scopes: Groups, bundle: kit.Bundle) -> None:
    """An annotation of crun's, which switches controllers on in the scope: nothing may be left in it but sub-cgroups."""
    bundle.config["annotations"] = {"run.oci.delegate-cgroup": "/inner"}
    bundle.linux["resources"]["pids"] = {"limit": 44}
    name = scopes.detached(bundle.args("sleep", "1000"))

    assert scopes.files(name, "pids.max", "cgroup.procs", "inner/pids.max") == {
        "pids.max": "44",
        "cgroup.procs": "",
        "inner/pids.max": "max",
    }
    assert scopes.files(name, "inner/cgroup.procs")["inner/cgroup.procs"] == str(scopes.pid(name))


def test_many_at_once(scopes: Groups, bundle: kit.Bundle) -> None:
    place = bundle.args("sleep", "1000").save()
    names = [scopes.id() for _ in range(6)]
    making = [scopes.begin("run", "--detach", "--bundle", place, name, stdout=None, stderr=None) for name in names]

    assert [process.wait(timeout=300) for process in making] == [0] * 6
    units = [f"oci-{name}.scope" for name in names]
    assert {show(unit, "ActiveState")["ActiveState"] for unit in units} == {"active"}
    for name in names:
        scopes("delete", "--force", name).ok()
    assert not [unit for unit in units if loaded(unit)]

"""The systemd cgroup manager where systemd keeps to cgroup v1 or mixes both: lane.py --append
systemd.unified_cgroup_hierarchy=0 boots such a machine."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit
from conftest import Groups, runtime
from ocimk.linux import cgroup

pytestmark = [pytest.mark.vm, pytest.mark.skipif(cgroup.mode() == "v2", reason="cgroup v2 alone")]

MIB = 1 << 20


@pytest.fixture
def scopes(tmp_path: Path) -> Iterator[Groups]:
    yield from runtime(tmp_path, "--systemd-cgroup")


def paths(scopes: Groups, name: str) -> dict[str, Path]:
    found = json.loads((scopes.root / name / "cgroup.json").read_bytes())["paths"]
    return {key: Path(path) for key, path in found.items()}


def test_every_hierarchy_has_the_scope(scopes: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"] |= {
        "memory": {"limit": 64 * MIB},
        "cpu": {"shares": 512, "quota": 50000, "period": 100000, "cpus": "1"},
        "pids": {"limit": 100},
        "hugepageLimits": [{"pageSize": "2MB", "limit": 4 * MIB}],
    }
    name = scopes.detached(bundle.args("sleep", "1000"))
    found = paths(scopes, name)
    files = {
        "memory": ("memory.limit_in_bytes", str(64 * MIB)),
        "cpu": ("cpu.shares", "512"),
        "cpuset": ("cpuset.cpus", "1"),
        "pids": ("pids.max", "100"),
        "hugetlb": ("hugetlb.2MB.limit_in_bytes", str(4 * MIB)),
    }

    def held() -> dict[str, tuple[str, str]]:
        return {key: (file, (found[key] / file).read_text().strip()) for key, (file, _) in files.items()}

    assert held() == files
    for path in found.values():
        assert path.name == f"oci-{name}.scope"
        assert str(scopes.pid(name)) in (path / "cgroup.procs").read_text().split(), path
    before = (found["devices"] / "devices.list").read_text()
    subprocess.run(["systemctl", "daemon-reload"], check=True)
    assert held() == files
    assert sorted((found["devices"] / "devices.list").read_text().splitlines()) == sorted(before.splitlines())
    scopes("pause", name).ok()
    assert scopes.state(name)["status"] == "paused"
    scopes("resume", name).ok()
    scopes("update", "--memory", str(48 * MIB), name).ok()
    assert (found["memory"] / "memory.limit_in_bytes").read_text() == f"{48 * MIB}\n"
    scopes("delete", "--force", name).ok()
    assert not [path for path in found.values() if path.exists()]


def test_too_much_memory_is_fatal(scopes: Groups, bundle: kit.Bundle) -> None:
    bundle.linux["resources"]["memory"] = {"limit": 24 * MIB}

    assert scopes.run(bundle.args("tail", "/dev/zero")).status == 137


def test_without_root_it_is_told(scopes: Groups, bundle: kit.Bundle) -> None:
    scopes.options = (*scopes.options, "--rootless", "true")

    scopes.run(bundle.args("true")).refused("cannot use rootless systemd cgroups manager on cgroup v1")

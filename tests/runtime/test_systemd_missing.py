"""The systemd cgroup manager on a host without systemd; what it does where there is one, tests/vm shows."""

from __future__ import annotations

from pathlib import Path

import pytest

import kit

NOT_HERE = "systemd cgroup flag passed, but systemd support for managing cgroups is not available"

pytestmark = pytest.mark.skipif(Path("/run/systemd/system").is_dir(), reason="systemd runs here")


@pytest.mark.parametrize("words", [("--systemd-cgroup",), ("--cgroup-manager", "systemd")])
def test_no_systemd_is_told(oci: kit.Runtime, bundle: kit.Bundle, words: tuple[str, ...]) -> None:
    oci.options = (*oci.options, *words)

    oci.run(bundle.script("true")).refused(NOT_HERE, "/run/systemd/system is missing", "--cgroup-manager cgroupfs")
    assert oci.names() == []


def test_a_path_that_is_no_unit_is_told_before(oci_called: kit.Runtime, bundle: kit.Bundle) -> None:
    oci_called.options = ("--systemd-cgroup",)
    bundle.linux["cgroupsPath"] = "/web"

    oci_called.run(bundle.script("true")).refused('expected cgroupsPath to be of format "slice:prefix:name"', '"/web"')


def test_it_explains_and_checks_all_the_same(bundle: kit.Bundle) -> None:
    bundle.linux["cgroupsPath"] = "a-b.slice:oci:web"
    bundle.linux["resources"]["pids"] = {"limit": 5}
    place = bundle.save()
    told = kit.shell(f"oci-cgroup explain {place} --manager systemd").ok()

    assert NOT_HERE in told.lines[0]
    assert "StartTransientUnit" in told.lines[1] and " oci-web.scope replace " in told.lines[1]
    assert "TasksMax t 5" in told.lines[2]
    assert any(line.startswith("echo '5' > ") and "/a.slice/a-b.slice/oci-web.scope/" in line for line in told.lines)
    assert "no systemd is running here" in kit.shell(f"oci-cgroup check {place} || true").out

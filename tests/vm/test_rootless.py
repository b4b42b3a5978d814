"""A user with a cgroup of his own: limits hold without root, by systemd's manager of the user or by hand."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit
from conftest import Groups

pytestmark = pytest.mark.vm

RUN = "/run/user/1000"
AS_ANN = ["runuser", "-u", "ann", "--", "env", f"XDG_RUNTIME_DIR={RUN}"]


class Rootless(Groups):
    """A runtime that ann calls, through *before*."""

    before: list[str] = []

    def argv(self, *words: object) -> list[str]:
        return [*self.before, *super().argv(*words)]


@pytest.fixture
def home(busybox: Path) -> Iterator[Path]:
    place = Path("/home/ann/vm")
    (place / "bundle").mkdir(parents=True)
    shutil.chown(place, "ann", "ann")
    yield place
    shutil.rmtree(place)


@pytest.fixture
def ann(request: pytest.FixtureRequest, home: Path) -> Iterator[Rootless]:
    made = Rootless(home, "--cgroup-manager", request.param)
    made.before = AS_ANN
    yield made
    left = made.clean() + made.group_path(*(f"oci-{name}.scope" for name in made.ids))
    assert not left, f"left behind: {left}"


@pytest.fixture
def bundle(home: Path, busybox: Path) -> kit.Bundle:
    made = subprocess.run([kit.OCI, "spec", "--rootless", "--bundle", home], check=True, env=kit.CLEAN)
    assert made.returncode == 0
    (home / "bundle").rmdir()
    found = kit.Bundle(home / "bundle", (home / "config.json").read_text(), busybox)
    found.linux["resources"] = {"pids": {"limit": 25}, "memory": {"limit": 32 << 20}}
    for entry in found.linux["uidMappings"] + found.linux["gidMappings"]:
        entry["hostID"] = 1000
    subprocess.run(["chown", "-R", "ann:ann", home], check=True)
    return found


@pytest.mark.parametrize("ann", ["systemd"], indirect=True)
def test_the_user_s_systemd_makes_the_scope(ann: Rootless, bundle: kit.Bundle) -> None:
    """Called from outside of all that is the user's, as from a login session: nobody but systemd may move processes."""
    name = ann.detached(bundle.args("sleep", "1000"))
    path = ann.group(name)

    assert str(path) == f"/sys/fs/cgroup/user.slice/user-1000.slice/user@1000.service/user.slice/oci-{name}.scope"
    assert ann.files(name, "pids.max", "memory.max") == {"pids.max": "25", "memory.max": str(32 << 20)}
    assert str(ann.pid(name)) in ann.files(name, "cgroup.procs")["cgroup.procs"].split()
    entered = ann("exec", "--cgroup", "/", name, "cat", "/proc/self/cgroup").ok()
    assert entered.lines == ["0::/"]
    ann("delete", "--force", name).ok()
    assert not path.exists()


@pytest.mark.parametrize("ann", ["systemd"], indirect=True)
def test_the_manager_is_found_without_the_environment_s_help(ann: Rootless, bundle: kit.Bundle) -> None:
    ann.before = ["runuser", "-u", "ann", "--", "env", "-u", "XDG_RUNTIME_DIR", "-u", "DBUS_SESSION_BUS_ADDRESS"]

    assert ann.tell(bundle, "echo here").lines == ["here"]


def test_without_a_manager_of_the_user_it_is_told(oci_called: kit.Runtime, bundle: kit.Bundle) -> None:
    oci_called.options = ("--systemd-cgroup", "--rootless", "true")

    oci_called.run(bundle).refused("/run/user/0/bus", "is the user's systemd running?")


@pytest.mark.parametrize("ann", ["cgroupfs"], indirect=True)
def test_a_delegated_subtree_is_used_by_hand(ann: Rootless, bundle: kit.Bundle) -> None:
    ann.before = [*AS_ANN, *"systemd-run --user --quiet --pipe --wait --collect -p Delegate=yes --".split()]
    script = "cat /sys/fs/cgroup/pids.max /proc/self/cgroup; exit 7"
    bundle.mount("/sys/fs/cgroup", "cgroup", "ro")
    done = ann.run(bundle.script(script))

    assert done.status == 7, done
    assert done.lines == ["25", "0::/"]


@pytest.mark.parametrize("ann", ["cgroupfs"], indirect=True)
def test_limits_that_cannot_be_had_are_an_error(ann: Rootless, bundle: kit.Bundle) -> None:
    ann.run(bundle.script("true")).refused("linux.resources")
    bundle.linux["resources"] = {}

    ann.run(bundle.script("true")).ok()

"""Podman as Debian has it, with systemd for a cgroup manager, and ocimk as its runtime."""

from __future__ import annotations

import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit

pytestmark = pytest.mark.vm


class Podman:
    def __init__(self, place: Path) -> None:
        self.words = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--tmpdir", f"{place}/tmp"]
        self.words += ["--storage-driver", "vfs", "--cgroup-manager", "systemd", "--events-backend", "file"]
        self.words += ["--runtime", kit.OCI]

    def __call__(self, *words: str) -> list[str]:
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done
        return done.stdout.split()


@pytest.fixture
def podman() -> Iterator[Podman]:
    # Podman takes no runroot of a long name.
    with tempfile.TemporaryDirectory(prefix="vm", dir="/tmp") as name:
        place = Path(name)
        (place / "rootfs/bin").mkdir(parents=True)
        for applet in ("busybox", "sleep", "cat"):
            shutil.copy(shutil.which("busybox") or "", place / "rootfs/bin" / applet)
        with tarfile.open(place / "image.tar", "w") as archive:
            archive.add(place / "rootfs", ".")
        made = Podman(place)
        made("import", "--quiet", str(place / "image.tar"), "bb")
        yield made
        made("rm", "--force", "--all", "--time", "0")
        subprocess.run(["umount", "-R", place / "root"], stderr=subprocess.DEVNULL, check=False)


def test_a_container_in_a_scope_of_its_own(podman: Podman) -> None:
    words = ("run", "--detach", "--network", "none", "--memory", "64m", "--pids-limit", "50", "--name", "web")
    (name,) = podman(*words, "bb", "sleep", "1000")
    group = Path(f"/sys/fs/cgroup/machine.slice/libpod-{name}.scope")
    assert [(group / file).read_text().strip() for file in ("memory.max", "pids.max")] == [str(64 << 20), "50"]
    assert podman("exec", "web", "cat", "/sys/fs/cgroup/memory.max") == [str(64 << 20)]
    podman("pause", "web")
    assert (group / "cgroup.freeze").read_text() == "1\n"
    podman("unpause", "web")
    assert podman("top", "web", "pid", "comm")[2:] == ["1", "sleep"]
    podman("rm", "--force", "--time", "0", "web")

    assert not group.exists()
    listed = subprocess.run(["systemctl", "list-units", "--all", "--plain", f"libpod-{name}*"], capture_output=True, text=True, check=True)
    assert name not in listed.stdout

"""kill -9 of the creating program at many instants: delete --force then leaves nothing (intent before action)."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from kit import cgroups_of

OCI = Path(__file__).resolve().parents[2] / "bin/oci"

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="makes containers: needs root")


def traces(name: str) -> list[str]:
    """Cgroups of the container, and processes that wait for it or were left making it."""
    found = cgroups_of([name])
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = file.read_bytes().split(b"\0")
        except OSError:
            continue
        if name.encode() in words:
            found.append(f"{file}: {words}")
    return found


@pytest.mark.parametrize("mode", [(), ("--exec-stages",)], ids=["called", "executed"])
def test_delete_leaves_nothing_whenever_create_was_killed(tmp_path: Path, mode: tuple[str, ...]) -> None:
    busybox = shutil.which("busybox")
    assert busybox
    (tmp_path / "b/rootfs/bin").mkdir(parents=True)
    shutil.copy(busybox, tmp_path / "b/rootfs/bin/busybox")
    subprocess.run([OCI, "spec", "--bundle", tmp_path / "b"], check=True)
    config = json.loads((tmp_path / "b/config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/bin/busybox", "sleep", "100"]}
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    mounts = Path("/proc/self/mountinfo").read_text().count(str(tmp_path))
    command = [OCI, *mode, "--root", str(tmp_path / "run")]
    rounds, longest = 30, 0.0
    for number in range(-1, rounds):
        name = f"killed-{os.getpid()}-{number}"
        create = [*command, "create", "--bundle", str(tmp_path / "b"), name]
        began = time.monotonic()
        with subprocess.Popen(create, stdin=-3, stdout=-3, stderr=-3) as made:
            if number < 0:
                made.wait()
                longest = (time.monotonic() - began) * 1.2
            time.sleep(max(0, longest * number / rounds))
            made.send_signal(signal.SIGKILL)
        done = subprocess.run([*command, "delete", "--force", name], capture_output=True, text=True, timeout=60)

        assert done.returncode == 0, done.stderr
        deadline = time.monotonic() + 5
        while left := traces(name):
            assert time.monotonic() < deadline, left
            time.sleep(0.02)  # the kernel takes a killed process apart in its own time
    assert [entry for entry in os.listdir(tmp_path / "run") if not entry.startswith(".")] == []
    assert Path("/proc/self/mountinfo").read_text().count(str(tmp_path)) == mounts

"""The container made by hand: the stages as programs in a shell, one becoming the next (ocimk-stage(7))."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(os.getuid() != 0, reason="makes a container: needs root")

HOST = "oci-validate apply $DIR --bundle $BUNDLE && oci-cgroup apply $DIR && "
CHAIN = "oci-unshare apply $DIR -- oci-mount apply $DIR"
REST = " -- oci-hooks apply $DIR createContainer -- oci-exec-fifo apply $DIR"


@pytest.fixture
def place(tmp_path: Path) -> Path:
    busybox = shutil.which("busybox")
    assert busybox
    (tmp_path / "b/rootfs/bin").mkdir(parents=True)
    shutil.copy(busybox, tmp_path / "b/rootfs/bin/busybox")
    (tmp_path / "b/rootfs/bin/sh").symlink_to("busybox")
    subprocess.run([TOP / "bin/oci", "spec", "--bundle", tmp_path / "b"], check=True)
    config = json.loads((tmp_path / "b/config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["sh", "-c", "echo $$ >/dev/shm/pid; exec busybox sleep 100"]}
    (tmp_path / "b/config.json").write_text(json.dumps(config))
    return tmp_path


def sh(place: Path, script: str) -> tuple[int, str]:
    name = f"hand-{os.getpid()}"
    env = {"PATH": f"{TOP}/libexec:{TOP}/bin:/usr/sbin:/usr/bin:/sbin:/bin", "R": f"{place}/run"}
    env |= {"DIR": f"{place}/run/{name}", "BUNDLE": f"{place}/b", "ID": name}
    with (place / "out").open("w+") as out:
        status = subprocess.run(["sh", "-c", script], env=env, stdin=-3, stdout=out, stderr=out, timeout=60).returncode
        out.seek(0)
        return status, out.read()


def test_the_pipeline_makes_a_container_that_starts(place: Path) -> None:
    try:
        status, said = sh(place, HOST + CHAIN + REST + " && oci --root $R state $ID")
        assert status == 0, said
        assert json.loads(said)["status"] == "created"
        status, said = sh(place, "oci --root $R start $ID && oci --root $R state $ID")
        assert json.loads(said)["status"] == "running", said
    finally:
        status, said = sh(place, "oci --root $R delete --force $ID; ls $R")
    assert (status, said) == (0, "")


def test_a_shell_as_the_tail_looks_around_at_that_point(place: Path) -> None:
    try:
        status, said = sh(place, HOST + CHAIN + " -- sh -c 'grep -c b/rootfs/dev /proc/self/mountinfo; exit 3'")
        assert status == 3, said
        assert int(said) >= 4
        status, said = sh(place, CHAIN + " --enter -- sh -c 'busybox ls -d /etc/debian_version /bin/busybox'")
        assert "/bin/busybox" in said
        assert "No such file" in said
    finally:
        status, said = sh(place, "oci --root $R delete --force $ID; ls $R")
    assert (status, said) == (0, "")

"""Folders and stages that somebody else has prepared, or could, are not used."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from kit import Bundle, Runtime, program

COMMANDS = ("state", "start", "kill", "delete", "delete --force")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("trick", ["another's", "everybody's", "a group's", "a link"])
def test_a_folder_that_another_prepared(oci_called: Runtime, bundle: Bundle, tmp_path: Path, trick: str, command: str) -> None:
    """It says what to kill and what to remove."""
    name = oci_called.create(bundle.args("true"))
    folder = oci_called.root / name
    fake = oci_called.root / "fake"
    shutil.copytree(folder, fake, ignore=shutil.ignore_patterns("exec.*"))
    victim = tmp_path / "victim"
    victim.mkdir()
    (fake / "ledger").write_text(f"oci-cgroup cgroup {victim}\noci-unshare process {os.getpid()} 1\n")
    if trick == "another's":
        os.chown(fake, 1000, 1000)
    elif trick == "everybody's":
        fake.chmod(0o777)
    elif trick == "a group's":
        os.chown(fake, 0, 1000)
        fake.chmod(0o770)
    else:
        fake.rename(tmp_path / "elsewhere")
        fake.symlink_to(tmp_path / "elsewhere")
    try:
        oci_called(*command.split(" "), "fake").refused(f"container folder {fake}")
        assert victim.exists() and fake.exists()
        assert "fake" not in oci_called("list", "--quiet").ok().lines
    finally:
        fake.unlink() if fake.is_symlink() else shutil.rmtree(fake)


@pytest.mark.parametrize("owner", [0, 1000])
def test_a_root_where_others_can_write(oci_called: Runtime, bundle: Bundle, owner: int) -> None:
    oci_called.root.mkdir()
    os.chown(oci_called.root, owner, 0)
    oci_called.root.chmod(0o700 if owner else 0o777)
    oci_called.run(bundle.args("true")).refused(f"container root {oci_called.root}")
    assert oci_called.names() == []


def test_a_root_below_a_place_where_others_can_write(oci_called: Runtime, bundle: Bundle) -> None:
    above = oci_called.place / "above"
    above.mkdir()
    above.chmod(0o777)
    oci_called.root = above / "root"
    oci_called.run(bundle.args("true")).refused(f"{above}: everybody may write to it")
    above.chmod(0o1777)
    oci_called.run(bundle.args("true")).ok()


@pytest.mark.parametrize("trick", ["the folder", "sticky", "its owner", "a stage", "above"])
def test_stages_that_others_can_write(oci_called: Runtime, bundle: Bundle, tmp_path: Path, trick: str) -> None:
    stages = tmp_path / "above/stages"
    evil = program(stages / "oci-sysctl", f"#!/bin/sh\ntouch {tmp_path}/called\nexit 1\n")
    oci_called("--exec-path", stages, "run", "--bundle", bundle.args("true").save(), oci_called.id()).refused("exit status 1")
    (tmp_path / "called").unlink()
    if trick == "sticky":
        stages.chmod(0o1777)
    elif trick == "its owner":
        os.chown(stages, 1000, 0)
    else:
        {"the folder": stages, "a stage": evil, "above": stages.parent}[trick].chmod(0o777)

    done = oci_called("--exec-path", stages, "run", "--bundle", bundle.save(), oci_called.id())

    done.refused(f"exec path {stages}")
    assert not (tmp_path / "called").exists()
    oci_called("state", oci_called.ids[-1], env={"OCI_EXEC_PATH": str(stages), "PATH": "/bin"}).refused(f"exec path {stages}")

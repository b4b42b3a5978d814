"""oci features: the structure as callers read it. The rules are features-schema.json and features-linux.json of the
specification, written out by hand."""

from __future__ import annotations

import json
import os
import re
import subprocess
from typing import Any

import pytest

from kit import CLEAN, OCI, Bundle, Runtime
from ocimk.spec import tables

ENUMS = {
    "namespaces": "cgroup ipc mount network pid time user uts",
    "actions": "ALLOW ERRNO KILL KILL_PROCESS KILL_THREAD LOG NOTIFY TRACE TRAP",
    "operators": "EQ GE GT LE LT MASKED_EQ NE",
    "flags": "LOG SPEC_ALLOW TSYNC WAIT_KILLABLE_RECV",
}


@pytest.fixture(scope="module")
def said() -> Any:
    done = subprocess.run([OCI, "features"], capture_output=True, check=True, env=CLEAN, text=True)
    assert done.stderr == ""
    return done.stdout


@pytest.fixture(scope="module")
def found(said: str) -> Any:
    return json.loads(said)


def words(name: str, prefix: str = "") -> list[str]:
    return [prefix + word for word in ENUMS[name].split()]


def test_it_is_indented_by_four_and_nothing_else_is_said(said: str, found: Any) -> None:
    assert said == json.dumps(found, indent=4, ensure_ascii=False) + "\n"


def test_the_top_of_the_structure(found: Any) -> None:
    assert set(found) == {
        *("ociVersionMin", "ociVersionMax", "hooks", "mountOptions", "linux", "annotations"),
        "potentiallyUnsafeConfigAnnotations",
    }
    for name in ("ociVersionMin", "ociVersionMax"):
        assert re.fullmatch(r"\d+\.\d+\.\d+", found[name])
    assert (found["ociVersionMin"], found["ociVersionMax"]) == ("1.0.0", "1.3.0")
    assert found["hooks"] == list(tables.HOOKS)
    for name in ("hooks", "mountOptions", "potentiallyUnsafeConfigAnnotations"):
        assert all(type(word) is str and word for word in found[name])
        assert len(set(found[name])) == len(found[name])
    assert all(type(value) is str for value in found["annotations"].values())


def test_linux_has_every_member_that_1_3_0_knows(found: Any) -> None:
    linux = found["linux"]
    assert set(linux) == {
        *("namespaces", "capabilities", "cgroup", "seccomp", "apparmor", "selinux", "memoryPolicy", "intelRdt"),
        *("mountExtensions", "netDevices"),
    }
    assert linux["namespaces"] == words("namespaces")
    assert all(re.fullmatch("CAP_[A-Z_]+", name) for name in linux["capabilities"])
    assert set(linux["cgroup"]) == {"v1", "v2", "systemd", "systemdUser", "rdma"}
    assert all(type(value) is bool for value in linux["cgroup"].values())
    for name in ("apparmor", "selinux", "netDevices"):
        assert linux[name] == {"enabled": True}
    assert linux["intelRdt"] == {"enabled": True, "schemata": True, "monitoring": True}
    assert linux["mountExtensions"] == {"idmap": {"enabled": True}}
    assert set(linux["memoryPolicy"]) == {"modes", "flags"}
    assert len(linux["memoryPolicy"]["modes"]) == 7
    assert len(linux["memoryPolicy"]["flags"]) == 3


def test_seccomp(found: Any) -> None:
    seccomp = found["linux"]["seccomp"]
    assert set(seccomp) == {"enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"}
    assert seccomp["enabled"] is True
    assert sorted(seccomp["actions"]) == words("actions", "SCMP_ACT_")
    assert sorted(seccomp["operators"]) == words("operators", "SCMP_CMP_")
    assert sorted(seccomp["knownFlags"]) == words("flags", "SECCOMP_FILTER_FLAG_")
    assert set(seccomp["supportedFlags"]) <= set(seccomp["knownFlags"])
    assert "SECCOMP_FILTER_FLAG_LOG" in seccomp["supportedFlags"]
    assert all(name.startswith("SCMP_ARCH_") for name in seccomp["archs"])
    assert "SCMP_ARCH_X86_64" in seccomp["archs"]


def test_the_annotations_that_callers_read(found: Any) -> None:
    """Docker's ``info`` shows them all; libseccomp's and the checkpoint's are named as runc names them."""
    told = found["annotations"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", told["io.github.seccomp.libseccomp.version"])
    version = subprocess.run([OCI, "--version"], capture_output=True, text=True, check=True).stdout
    assert version.splitlines()[0] == f"oci version {told['org.ocimk.version']}"
    assert f"commit: {told['org.ocimk.commit']}" in version.splitlines()
    commands = subprocess.run([OCI, "--help"], capture_output=True, text=True, check=True).stdout
    assert ("org.opencontainers.runc.checkpoint.enabled" in told) == (" checkpoint" in commands)


def test_it_needs_neither_root_nor_a_home() -> None:
    def drop() -> None:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)

    done = subprocess.run([OCI, "features"], capture_output=True, env={}, cwd="/", preexec_fn=drop, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout)["linux"]["seccomp"]["enabled"] is True


def test_arguments_are_refused() -> None:
    assert subprocess.run([OCI, "features", "more"], capture_output=True, check=False).returncode == 1


def test_the_versions_and_every_mount_option_are_taken(oci_called: Runtime, bundle: Bundle, found: Any) -> None:
    """features.md: both versions and every word listed MUST be recognised in a config.json."""
    options = [word for word in found["mountOptions"] if word not in ("idmap", "ridmap", "remount", *tables.MOUNT_LINKS.split())]
    bundle.mount("/mnt", "tmpfs", *(word for word in options if "bind" not in word or word in ("unbindable",)))
    bundle.writable()
    for version in (found["ociVersionMin"], found["ociVersionMax"]):
        bundle.config["ociVersion"] = version
        checked = subprocess.run([OCI, "validate", "check", bundle.save()], capture_output=True, text=True)
        assert (checked.returncode, checked.stdout) == (0, "")
        assert oci_called.tell(bundle, "grep -c ' /mnt tmpfs ' /proc/mounts").out == "1\n"

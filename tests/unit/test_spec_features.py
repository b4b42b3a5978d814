"""ocimk.spec.features: the structure's shape, and that nothing is claimed which is not there."""

from __future__ import annotations

import json

import pytest
from spec_full import DATA

from ocimk.spec import features, seccomp, supported, tables
from ocimk.spec.version import version_at_least

HOST = {"version": "0.1.0", "libseccomp": "2.5.4", "supportedFlags": ["SECCOMP_FILTER_FLAG_LOG"]}


def test_its_order_and_versions():
    found = features.features({})
    assert list(found) == [
        "ociVersionMin",
        "ociVersionMax",
        "hooks",
        "mountOptions",
        "linux",
        "annotations",
        "potentiallyUnsafeConfigAnnotations",
    ]
    assert version_at_least(found["ociVersionMax"], found["ociVersionMin"])
    assert found["hooks"][0] == "prestart" and len(found["hooks"]) == 6


def test_the_words_of_runc_are_all_known():
    """Read from the specification's example of a features structure, and its list of namespaces."""
    found = features.features({})
    words = set(found["mountOptions"])
    assert words >= set("bind rbind ro rro tmpcopyup idmap ridmap rnosymfollow private runbindable".split())
    assert not words & {"acl", "size=1", ""}
    assert found["mountOptions"] == sorted(words) and len(words) == 65
    assert len(found["linux"]["capabilities"]) == 41
    assert found["linux"]["namespaces"] == ["cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts"]


def test_seccomp_comes_from_its_tables():
    found = features.features(HOST)["linux"]["seccomp"]
    assert list(found) == ["enabled", "actions", "operators", "archs", "knownFlags", "supportedFlags"]
    assert set(found["actions"]) == set(seccomp.ACTIONS) and len(found["actions"]) == 9
    assert len(found["operators"]) == 7 and len(found["archs"]) == 23 and len(found["knownFlags"]) == 4
    assert found["supportedFlags"] == ["SECCOMP_FILTER_FLAG_LOG"]


def test_what_the_host_does_not_say_is_left_out():
    found = features.features({})
    assert "supportedFlags" not in found["linux"]["seccomp"]
    assert found["annotations"] == {"org.opencontainers.runc.checkpoint.enabled": "true"}
    assert features.features({"supportedFlags": []})["linux"]["seccomp"]["supportedFlags"] == []
    assert features.features({"archs": ["SCMP_ARCH_X86_64"]})["linux"]["seccomp"]["archs"] == [
        "SCMP_ARCH_X86_64"
    ]


def test_the_annotations_that_callers_look_for():
    assert features.features(HOST)["annotations"] == {
        "io.github.seccomp.libseccomp.version": "2.5.4",
        "org.ocimk.version": "0.1.0",
        "org.opencontainers.runc.checkpoint.enabled": "true",
    }


CLAIMS = [
    ("cgroup.systemd", ["linux", "cgroup", "systemd"]),
    ("cgroup.systemdUser", ["linux", "cgroup", "systemdUser"]),
    ("cgroup.rdma", ["linux", "cgroup", "rdma"]),
    ("cgroup.v1", ["linux", "cgroup", "v1"]),
    ("cgroup.v2", ["linux", "cgroup", "v2"]),
    ("seccomp", ["linux", "seccomp", "enabled"]),
    ("apparmor", ["linux", "apparmor", "enabled"]),
    ("selinux", ["linux", "selinux", "enabled"]),
    ("intelRdt", ["linux", "intelRdt", "enabled"]),
    ("intelRdt.schemata", ["linux", "intelRdt", "schemata"]),
    ("intelRdt.monitoring", ["linux", "intelRdt", "monitoring"]),
    ("idmap", ["linux", "mountExtensions", "idmap", "enabled"]),
    ("netDevices", ["linux", "netDevices", "enabled"]),
]


@pytest.mark.parametrize("value", [False, True])
@pytest.mark.parametrize(("name", "way"), CLAIMS)
def test_a_claim_follows_the_one_table(monkeypatch, name, way, value):
    monkeypatch.setitem(features.IMPLEMENTED, name, value)
    place = features.features({})
    for step in way:
        place = place[step]
    assert place is value


def test_memory_policies_and_checkpoints_are_told_when_they_are_there(monkeypatch):
    for value in (True, False):
        monkeypatch.setitem(features.IMPLEMENTED, "memoryPolicy", value)
        monkeypatch.setitem(features.IMPLEMENTED, "checkpoint", value)
        monkeypatch.setitem(features.IMPLEMENTED, "cgroup.systemd", value)
        found = features.features({})
        assert ("memoryPolicy" in found["linux"]) is value
        assert (features.CHECKPOINT in found["annotations"]) is value
        unsafe = ["org.systemd.property.", "org.criu.config"] if value else []
        assert [n for n in found["potentiallyUnsafeConfigAnnotations"] if n in unsafe] == unsafe
    monkeypatch.setitem(features.IMPLEMENTED, "memoryPolicy", True)
    policy = features.features({})["linux"]["memoryPolicy"]
    assert set(policy["modes"]) == set(tables.MEMORY_POLICY_MODES)
    assert set(policy["flags"]) == set(tables.MEMORY_POLICY_FLAGS)


@pytest.mark.parametrize("path", supported.MISSING)
def test_what_is_refused_is_not_claimed(path):
    assert not features.IMPLEMENTED.get(path.rpartition(".")[2], False)


def test_every_word_of_the_full_configuration_is_told():
    """What the validation lets pass, the structure names."""
    config = json.loads((DATA / "config-full.json").read_text())
    found = features.features({})
    assert {e["type"] for e in config["linux"]["namespaces"]} <= set(found["linux"]["namespaces"])
    assert set(config["hooks"]) == set(found["hooks"])

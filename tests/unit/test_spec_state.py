"""ocimk.spec.state and version: what hooks and callers are told, and how versions compare."""

from __future__ import annotations

import pytest

from ocimk.spec import state
from ocimk.spec.version import parse_version, version_at_least


def test_the_state_in_the_order_of_the_specification():
    told = state.state_json("1.3.0", "box", "running", 42, "/b", {"k": "v"})
    assert list(told.items()) == [
        ("ociVersion", "1.3.0"),
        ("id", "box"),
        ("status", "running"),
        ("pid", 42),
        ("bundle", "/b"),
        ("annotations", {"k": "v"}),
    ]


@pytest.mark.parametrize("status", ["creating", "created", "running", "paused"])
def test_a_pid_is_told_when_there_is_one(status):
    assert state.state_json("1.3.0", "box", status, 42, "/b")["pid"] == 42
    assert "pid" not in state.state_json("1.3.0", "box", status, 0, "/b")


def test_what_there_is_not_is_left_out():
    told = state.state_json("1.3.0", "box", "stopped", 42, "/b", {})
    assert told == {"ociVersion": "1.3.0", "id": "box", "status": "stopped", "bundle": "/b"}


def test_the_state_as_runc_prints_it():
    told = state.runc_state(
        state.state_json("1.0.2", "box", "stopped", 0, "/b"), "/b/rootfs", "2026-01-01T00:00:00Z"
    )
    assert list(told) == ["ociVersion", "id", "pid", "status", "bundle", "rootfs", "created", "owner"]
    assert (told["pid"], told["owner"], told["rootfs"]) == (0, "", "/b/rootfs")
    more = state.runc_state(
        state.state_json("1.0.2", "box", "running", 7, "/b", {"k": "v"}), "/r", "now", "root"
    )
    assert list(more) == [*list(told)[:-1], "annotations", "owner"]
    assert (more["pid"], more["owner"], more["annotations"]) == (7, "root", {"k": "v"})


def test_what_a_seccomp_agent_gets():
    inner = state.state_json("1.3.0", "box", "creating", 42, "/b")
    told = state.container_process_state(inner, 42, "some")
    assert told == {
        "ociVersion": "1.3.0",
        "fds": ["seccompFd"],
        "pid": 42,
        "metadata": "some",
        "state": inner,
    }
    assert "metadata" not in state.container_process_state(inner, 42)


# In ascending order; semver.org's own examples among them.
ORDER = [
    "0.5.0-dev",
    "0.9.9",
    "1.0.0-alpha",
    "1.0.0-alpha.1",
    "1.0.0-alpha.beta",
    "1.0.0-beta",
    "1.0.0-beta.2",
    "1.0.0-beta.11",
    "1.0.0-rc.1",
    "1.0.0",
    "1.0.2-dev",
    "1.0.2",
    "1.0.10",
    "1.2.1",
    "1.3.0-rc.1",
    "1.3.0",
    "1.3.1-0",
    "1.10.0",
    "2.0.0",
]


def test_versions_have_an_order():
    for at, left in enumerate(ORDER):
        for other, right in enumerate(ORDER):
            assert version_at_least(left, right) == (at >= other), (left, right)


def test_build_metadata_says_nothing_about_order():
    assert version_at_least("1.3.0+dev", "1.3.0")
    assert version_at_least("1.3.0", "1.3.0+dev.7-x")


BAD = [
    "",
    "1",
    "1.0",
    "1.0.0.0",
    "v1.0.0",
    "01.0.0",
    "1.00.0",
    "1.0.0-",
    "1.0.0-a..b",
    "1.0.0-01",
    "1.0.0+",
    "1.0.0+a+b",
]
BAD += ["1.0.x", " 1.0.0", "1.0.0 ", "1.0.0-ü", "١.0.0", "1.-0.0", "1.0.0-a_b", "1." + "9" * 30 + ".0"]


@pytest.mark.parametrize("text", BAD)
def test_what_is_no_version(text):
    assert parse_version(text) is None
    assert not version_at_least(text, "0.0.0")
    assert not version_at_least("1.0.0", text)


@pytest.mark.parametrize("text", ["1.0.0-0a", "1.0.0--", "1.0.0+001", "1.0.0-x-y-z.--", "0.0.0"])
def test_what_is_one(text):
    assert parse_version(text) is not None


def test_a_poststart_hook_must_succeed_since_1_3_0():
    assert [
        state.poststart_must_succeed(v) for v in ("1.0.2-dev", "1.3.0-rc.1", "1.3.0", "1.3.0+dev", "1.4.0")
    ] == [
        False,
        False,
        True,
        True,
        True,
    ]

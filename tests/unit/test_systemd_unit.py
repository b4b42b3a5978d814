"""What systemd is told of a container: names, properties, values from annotations; no systemd is asked."""

from __future__ import annotations

import pytest

from ocimk.errors import Error
from ocimk.stages.cgroups import Layout, resources, unit, variant


@pytest.mark.parametrize(
    "text, expected",
    [
        ("true", ("b", True)),
        ("42", ("i", 42)),
        ("uint64 123456789", ("t", 123456789)),
        ("@t 0x10", ("t", 16)),
        ("-1.5e3", ("d", -1500.0)),
        ("double 2", ("d", 2.0)),
        ("byte 7", ("y", 7)),
        ("'a \\'b\\' \\u00e4'", ("s", "a 'b' ä")),
        ('"x"', ("s", "x")),
        ("objectpath '/a'", ("o", "/a")),
        ("b'hi'", ("ay", [104, 105, 0])),
        ("['a', 'b']", ("as", ["a", "b"])),
        ("@as []", ("as", [])),
        ("[uint64 1, 2]", ("at", [1, 2])),
        ("('/dev/null', 'rw')", ("(ss)", ("/dev/null", "rw"))),
        ("@a(st) [('/dev/sda', 5)]", ("a(st)", [("/dev/sda", 5)])),
        ("{'k': <1>}", ("a{sv}", {"k": ("i", 1)})),
        ("[[1], []]", ("aai", [[1], []])),
        ("()", ("()", ())),
    ],
)
def test_values_as_glib_writes_them(text, expected):
    assert variant.parse(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "", "yes", "'open", "[1, 'a']", "[]", "1 2", "byte 256", "-5000000000", "uint64 -1", "uint64 1.5", "(1", "{1}",
        "@as [1]", "uint64 'a'", "uint64", "<1", "$", "[" * 100 + "]" * 100,
    ],
)  # fmt: skip
def test_no_values(text):
    with pytest.raises(ValueError):
        variant.parse(text)


@pytest.mark.parametrize(
    "text, user, expected",
    [
        ("", False, ("system.slice", "oci-web.scope")),
        ("", True, ("user.slice", "oci-web.scope")),
        ("machine.slice:libpod:1234", False, ("machine.slice", "libpod-1234.scope")),
        ("::x", True, ("user.slice", "-x.scope")),
    ],
)
def test_the_name(text, user, expected):
    assert unit.named({"linux": {"cgroupsPath": text}}, "web", user) == expected


@pytest.mark.parametrize("text", ["/web", "a:b", "a:b:c:d", "a.slice:b:c.slice", "a--b.slice:b:c", "a:b:c", "a.slice:b:c/d"])
def test_no_name(text):
    with pytest.raises(Error, match="linux.cgroupsPath"):
        unit.named({"linux": {"cgroupsPath": text}}, "web", False)


def test_slices_are_in_one_another():
    assert unit.expand("a-b-c.slice") == "/a.slice/a-b.slice/a-b-c.slice"
    assert unit.expand("-.slice") == ""


def limits(layout, wanted):
    return dict(unit.limits(resources.plan(layout, unit.rounded(wanted))))


def test_limits_of_v2_as_properties():
    wanted = {
        "memory": {"limit": 64, "swap": -1},
        "cpu": {"shares": 1024, "quota": 1, "cpus": "0,9", "idle": 0},
        "pids": {"limit": 0},
        "unified": {"memory.high": "1M", "cpuset.mems": "0-1", "misc.max": "x 1"},
    }

    assert limits(Layout("v2", {"": "/nowhere"}), wanted) == {
        "MemoryMax": ("t", 64),
        "MemorySwapMax": ("t", unit.INFINITY),
        "MemoryHigh": ("t", 1 << 20),
        "CPUWeight": ("t", 100),
        "CPUQuotaPerSecUSec": ("t", 10000),
        "CPUQuotaPeriodUSec": ("t", 100000),
        "AllowedCPUs": ("ay", [1, 2]),
        "AllowedMemoryNodes": ("ay", [3]),
        "TasksMax": ("t", 1),
    }


def test_limits_of_v1_as_properties():
    names = ("memory", "cpu", "pids", "cpuset")
    layout = Layout("v1", {name: f"/nowhere/{name}" for name in names})
    wanted = {"memory": {"limit": 64}, "cpu": {"shares": 7, "quota": 5000, "period": 10000}, "pids": {"limit": -1}}

    assert limits(layout, wanted) == {
        "MemoryLimit": ("t", 64),
        "CPUShares": ("t", 7),
        "CPUQuotaPerSecUSec": ("t", 500000),
        "CPUQuotaPeriodUSec": ("t", 10000),
        "TasksMax": ("t", unit.INFINITY),
    }


def test_an_idle_cgroup_has_no_weight():
    assert limits(Layout("v2", {"": "/nowhere"}), {"cpu": {"idle": 1, "shares": 500}}) == {"CPUWeight": ("t", 0)}


def test_a_quota_becomes_whole_percents_in_the_file_too():
    assert unit.rounded({"cpu": {"quota": 12345, "period": 50000}})["cpu"]["quota"] == 12500
    assert unit.rounded({"cpu": {"quota": -1}}) == {"cpu": {"quota": -1}}


@pytest.mark.parametrize("file, value", [("memory.max", "lots"), ("cpuset.cpus", "3-1"), ("pids.max", "-2")])
def test_what_systemd_cannot_be_told(file, value):
    with pytest.raises(Error, match=f"unified.*{file}"):
        limits(Layout("v2", {"": "/nowhere"}), {"unified": {file: value}})


DENY = {"allow": False, "access": "rwm"}


def allowed(*rules, mode="v2"):
    return dict(unit.devices({"linux": {"resources": {"devices": list(rules)}}}, mode))


def test_device_rules_as_properties():
    found = allowed(DENY, {"allow": True, "type": "b", "major": 8, "minor": 1, "access": "r"})

    assert found["DevicePolicy"] == ("s", "strict")
    for entry in (("/dev/block/8:1", "r"), ("char-*", "m"), ("char-136", "rwm"), ("/dev/char/1:3", "rwm")):
        assert entry in found["DeviceAllow"][1]


@pytest.mark.parametrize("rule", [{"allow": True, "access": "rwm"}, {"allow": True, "type": "c", "minor": 3, "access": "r"}])
def test_rules_that_are_no_list_are_left_to_our_own_program(rule):
    assert allowed(DENY, rule) == {"DeviceAllow": ("a(ss)", []), "DevicePolicy": ("s", "auto")}


def test_on_v1_what_is_no_list_is_cut_down_to_one():
    found = allowed(DENY, {"allow": True, "type": "c", "minor": 77, "access": "r"}, mode="v1")

    assert found["DevicePolicy"] == ("s", "strict")
    assert not [entry for entry in found["DeviceAllow"][1] if "77" in entry[0]]


def test_seconds_are_microseconds():
    config = {"annotations": {"org.systemd.property.TimeoutStopSec": "1.5", "org.systemd.property.InSec": "'x'"}}
    with pytest.raises(Error, match="InSec='x' value parse error: not a number"):
        unit.annotated(config)
    del config["annotations"]["org.systemd.property.InSec"]

    assert unit.annotated(config) == [("TimeoutStopUSec", ("t", 1500000))]


@pytest.mark.parametrize("name", ["ExecStop", "a", "Two Words", "CPUWeight2"])
def test_properties_that_cannot_be_asked_for(name):
    with pytest.raises(Error, match=f"annotation org.systemd.property.{name}"):
        unit.annotated({"annotations": {f"org.systemd.property.{name}": "true"}})

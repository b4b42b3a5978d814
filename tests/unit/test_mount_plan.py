"""What oci-mount reads out of config.json before it looks at the host."""

from __future__ import annotations

import os
import stat
from typing import Any

import pytest

from ocimk.errors import Error
from ocimk.stages.rootfs import plan


def one(**raw: Any) -> plan.Entry:
    return plan.entries({"mounts": [{"destination": "/x", "type": "tmpfs", **raw}]}, "/bundle")[0]


@pytest.mark.parametrize(
    ("destination", "path"),
    [("/a/b/", b"/a/b"), ("a//b", b"/a/b"), ("/../a", b"/a"), ("/a/../../b/.", b"/b"), ("/\udc80", b"/\x80")],
)
def test_destinations(destination: str, path: bytes) -> None:
    assert one(destination=destination).path == path


@pytest.mark.parametrize(
    ("source", "want"), [("/abs/../x", "/abs/../x"), ("rel", "/bundle/rel"), ("./a/b", "/bundle/./a/b")]
)
def test_sources_of_bind_mounts(source: str, want: str) -> None:
    made = one(type="whatever", source=source, options=["rbind"])
    assert (made.kind, made.source) == ("bind", want)


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ({"destination": ""}, "mounts[0].destination: required"),
        ({"type": ""}, "mounts[0] /x: type: required (or the option bind or rbind)"),
        ({"options": ["bind"]}, "mounts[0] /x: source: required for a bind mount"),
        ({"type": "proc", "options": ["tmpcopyup"]}, "mounts[0] /x: options: tmpcopyup is for a tmpfs only"),
        ({"options": ["idmap"]}, "mounts[0] /x: idmap: only bind mounts can be id-mapped"),
        ({"uidMappings": [{}]}, "mounts[0] /x: uidMappings: only bind mounts can be id-mapped"),
        ({"destination": "\ud800"}, "mounts[0].destination: "),
    ],
)
def test_what_makes_no_sense(raw: dict[str, Any], want: str) -> None:
    with pytest.raises(Error) as caught:
        one(**raw)
    assert str(caught.value).startswith(want)


@pytest.mark.parametrize(
    ("raw", "ours"),
    [
        ({"destination": "/dev", "options": ["rbind"], "source": "/dev"}, False),
        ({"destination": "dev/", "options": ["bind"], "source": "/dev"}, False),
        ({"destination": "/dev/x", "options": ["bind"], "source": "/dev"}, True),
        ({"destination": "/dev"}, True),
    ],
)
def test_whose_dev_it_is(raw: dict[str, Any], ours: bool) -> None:
    assert plan.needs_dev([one(**raw)]) is ours


@pytest.mark.parametrize(
    ("raw", "late"),
    [
        ({"options": ["ro"]}, True),
        ({"options": ["ro", "rw"]}, False),
        ({"type": "sysfs", "options": ["ro"]}, False),
        ({"destination": "/dev", "type": "devtmpfs", "options": ["ro"]}, True),
        ({"destination": "/dev", "source": "/dev", "options": ["rbind", "ro"]}, False),
    ],
)
def test_what_becomes_readonly_in_the_end(raw: dict[str, Any], late: bool) -> None:
    assert one(**raw).late_readonly is late


def test_devices_of_the_configuration_replace_the_default_ones() -> None:
    listed = [
        {"path": "/dev/./null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o100600},
        {"path": "/dev/ptmx", "type": "c", "major": 5, "minor": 2},
    ]
    made = {device.path: device for device in plan.devices({"linux": {"devices": listed}})}
    assert len(made) == len(plan.DEFAULT_DEVICES)
    assert made[b"/dev/null"].mode == 0o600
    assert made[b"/dev/zero"].number == os.makedev(1, 5)
    assert made[b"/dev/zero"].type == stat.S_IFCHR

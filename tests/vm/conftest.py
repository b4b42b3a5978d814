"""Fixtures of the VM lane: a runtime by either cgroup manager, on a host that has every controller in its cgroup2."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import kit
from ocimk.linux import cgroup

SECONDS = 180
"""For one command, on a machine that may be translated by a busy one."""


class Groups(kit.Runtime):
    """A runtime whose containers' cgroup2 can be looked into."""

    def __call__(self, *words: object, **more: Any) -> kit.Result:
        return super().__call__(*words, **{"timeout": SECONDS, **more})

    def quiet(self, *words: object, **more: Any) -> kit.Result:
        return super().quiet(*words, **{"timeout": SECONDS, **more})

    def group(self, name: str) -> Path:
        """The container's cgroup2 directory."""
        return Path(json.loads((self.root / name / "cgroup.json").read_bytes())["paths"][""])

    def files(self, name: str, *wanted: str) -> dict[str, str]:
        return {file: (self.group(name) / file).read_text().strip() for file in wanted}

    @staticmethod
    def group_path(*names: str) -> list[str]:
        """The cgroups that are called so."""
        return kit.cgroups_of(names)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if cgroup.mode() == "v2" or not os.environ.get("OCIMK_VM"):
        return
    for item in items:
        if item.path.parent == Path(__file__).parent and item.path.name not in ("test_v1.py", "test_apparmor.py"):
            item.add_marker(pytest.mark.skip(reason="needs cgroup v2 alone"))


def runtime(place: Path, *options: str) -> Iterator[Groups]:
    made = Groups(place, *options)
    yield made
    left = made.clean() + made.group_path(*(f"oci-{name}.scope" for name in made.ids))
    assert not left, f"left behind: {left}"


@pytest.fixture(params=["cgroupfs", "systemd"])
def groups(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Groups]:
    yield from runtime(tmp_path, "--cgroup-manager", request.param)


@pytest.fixture
def spare() -> tuple[int, int]:
    """The numbers of a disk that nobody uses."""
    number = os.stat("/dev/vdc").st_rdev
    return os.major(number), os.minor(number)

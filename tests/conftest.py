"""Fixtures for the tests with real containers. Everything they make is gone after each test, also after a failure; what
a deletion leaves behind fails the test."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit

REAL = {"runtime", "faults", "security"}
"""The folders whose tests need root."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.get_closest_marker("vm") and not os.environ.get("OCIMK_VM"):
            item.add_marker(pytest.mark.skip(reason="make check-vm runs it"))
        if os.geteuid() != 0 and item.path.parent.name in REAL:
            item.add_marker(pytest.mark.skip(reason="real containers need root"))


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of busybox that bundles link to."""
    found = shutil.which("busybox")
    if not found:
        pytest.skip("busybox-static is not installed")
    place = tmp_path_factory.mktemp("image") / "busybox"
    shutil.copy(found, place)
    return place


@pytest.fixture(scope="session")
def default_config(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What ``oci spec`` writes."""
    place = tmp_path_factory.mktemp("spec")
    subprocess.run([kit.OCI, "spec", "--bundle", place], check=True, env=kit.CLEAN)
    return (place / "config.json").read_text()


@pytest.fixture
def bundle(tmp_path: Path, default_config: str, busybox: Path) -> kit.Bundle:
    """A bundle of the default configuration without a terminal."""
    return kit.Bundle(tmp_path / "bundle", default_config, busybox)


@pytest.fixture(params=["called", "executed"])
def oci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[kit.Runtime]:
    """The runtime, its stages called in one process and executed each."""
    yield from _runtime(tmp_path, *(["--exec-stages"] if request.param == "executed" else []))


@pytest.fixture
def oci_called(tmp_path: Path) -> Iterator[kit.Runtime]:
    """The runtime as it is used, for what does not depend on how stages are run."""
    yield from _runtime(tmp_path)


def _runtime(place: Path, *options: str) -> Iterator[kit.Runtime]:
    runtime = kit.Runtime(place, *options)
    yield runtime
    left = runtime.clean()
    assert not left, f"left behind: {left}"


@pytest.fixture
def oci_holder(tmp_path: Path) -> Iterator[kit.Runtime]:
    """Another runtime, for containers that the one under test is to find there."""
    place = tmp_path / "holder"
    place.mkdir()
    yield from _runtime(place)

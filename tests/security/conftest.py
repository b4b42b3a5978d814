"""Fixtures of the security tests: the attacker's program, and a siege of the runtime as it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import siege

import kit


@pytest.fixture(scope="session")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The attacker's program."""
    return siege.build(tmp_path_factory.mktemp("attacker"))


@pytest.fixture
def besiege(
    tmp_path: Path, default_config: str, busybox: Path, attacker: Path, oci_holder: kit.Runtime
) -> Iterator[Callable[[kit.Runtime], siege.Siege]]:
    """What lays siege to a runtime; nothing of its containers may be left in the end."""
    besieged: list[kit.Runtime] = []

    def begin(runtime: kit.Runtime) -> siege.Siege:
        besieged.append(runtime)
        runtime.place.mkdir(exist_ok=True)
        return siege.Siege(runtime, lambda path: kit.Bundle(path, default_config, busybox), attacker, oci_holder)

    yield begin
    left = [told for runtime in besieged for told in runtime.clean()]
    assert not left, f"left behind: {left}"


@pytest.fixture(params=["called", "executed"])
def lab(request: pytest.FixtureRequest, tmp_path: Path, besiege: Callable[[kit.Runtime], siege.Siege]) -> siege.Siege:
    """The runtime as it is."""
    options = ["--exec-stages"] if request.param == "executed" else []
    return besiege(kit.Runtime(tmp_path / "besieged", *options))

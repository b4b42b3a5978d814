"""process.apparmorProfile where the kernel has AppArmor."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import kit

pytestmark = pytest.mark.vm

PROFILE = """
profile ocimk-vm flags=(attach_disconnected,mediate_deleted) {
  file,
  deny /tmp/closed w,
}
"""


@pytest.fixture
def profile(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "profile"
    file.write_text(PROFILE)
    subprocess.run(["apparmor_parser", "-r", file], check=True)
    yield "ocimk-vm"
    subprocess.run(["apparmor_parser", "-R", file], check=True)


def test_the_profile_confines(oci: kit.Runtime, bundle: kit.Bundle, profile: str) -> None:
    bundle.process["apparmorProfile"] = profile
    script = "cat /proc/self/attr/current; echo x >/tmp/open && echo open; echo x >/tmp/closed || echo closed"

    assert oci.tell(bundle.writable(), script).lines == ["ocimk-vm (enforce)", "open", "closed"]


def test_an_unknown_profile_is_an_error(oci_called: kit.Runtime, bundle: kit.Bundle) -> None:
    bundle.process["apparmorProfile"] = "ocimk-nowhere"

    oci_called.run(bundle.script("true")).refused("ocimk-nowhere")

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


def test_exec_is_confined_too(oci_called: kit.Runtime, bundle: kit.Bundle, profile: str) -> None:
    """By the container's profile, or by the one that it is given; one that is unknown is an error."""
    name = oci_called.detached(bundle.args("sleep", "100000"))
    own = ("exec", name, "cat", "/proc/self/attr/current")
    given = ("exec", "--apparmor", profile, name, "cat", "/proc/self/attr/current")
    assert oci_called(*own).ok().out == "unconfined\n"
    assert oci_called(*given).ok().out == "ocimk-vm (enforce)\n"
    unknown = oci_called("exec", "--apparmor", "ocimk-nowhere", name, "true")
    assert (unknown.status, "ocimk-nowhere" in unknown.err) == (255, True), unknown
    bundle.process["apparmorProfile"] = profile
    confined = oci_called.detached(bundle)
    assert oci_called("exec", confined, "cat", "/proc/self/attr/current").ok().out == "ocimk-vm (enforce)\n"

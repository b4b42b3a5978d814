"""The runtime inside a chroot(2), as in a rescue system or a builder's: the mount namespace has another root than it."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import Bundle, Runtime

SHELL = ["unshare", "-m", "--propagation", "shared", "sh", "-ec"]
MOUNT = 'mkdir -p $0; mount --rbind / $0; exec chroot $0 "$@"'
FOLDER = """mkdir -p $0
for each in /*; do
    if [ -h $each ]; then [ -h $0$each ] || cp -P $each $0
    elif [ -d $each ]; then mkdir -p $0$each; mount --rbind $each $0$each; fi
done
exec chroot $0 "$@"
"""


class Inside(Runtime):
    """The runtime in a root that is the host's, seen from elsewhere."""

    script = ""

    def argv(self, *words: object) -> list[str]:
        return [*SHELL, self.script, str(self.place / "top"), *super().argv(*words)]


@pytest.fixture(params=[MOUNT, FOLDER], ids=["mount", "folder"])
def oci(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    runtime = Inside(tmp_path)
    runtime.script = request.param
    yield runtime
    assert not runtime.clean()


@pytest.mark.parametrize("options", [(), ("--no-pivot",)], ids=["pivot", "no-pivot"])
def test_all_who_enter_are_in_the_containers_root(oci: Runtime, bundle: Bundle, options: tuple[str, ...]) -> None:
    name = oci.detached(bundle.args("sleep", "1000"), *options)
    inside = sorted(os.listdir(bundle.rootfs))
    assert oci("exec", name, "ls", "/").ok().lines == inside
    entered = ["nsenter", "--mount", "--target", str(oci.pid(name)), "ls", "/"]
    assert subprocess.run(entered, capture_output=True, text=True, check=True).stdout.split() == inside


def test_the_hosts_mounts_stay(oci: Runtime, bundle: Bundle) -> None:
    before = Path("/proc/self/mountinfo").read_text()
    assert oci.tell(bundle, "cut -d ' ' -f 5 /proc/self/mountinfo").lines[0] == "/"
    assert Path("/proc/self/mountinfo").read_text() == before

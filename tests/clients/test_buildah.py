"""Buildah builds with ocimk as its runtime (--isolation oci), in a storage of the test's own: `make check-buildah`."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from image import OCI, PATIENCE, Client, lane, make_archive, on_terminal, traces

pytestmark = lane("buildah", "buildah")

LOW = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")
"""Limits that no capability is needed for."""


class Buildah(Client):
    """Buildah on a root of its own."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.command = ["buildah", "--root", f"{place}/root", "--runroot", f"{place}/run", "--storage-driver", "vfs"]
        archive = make_archive(place)
        (place / "Containerfile").write_text(f"FROM scratch\nADD {archive.name} /\nENV PATH=/bin\n")
        self.ok("build", *LOW, "--tag", "bb", str(place))

    def build(self, text: str, place: Path, *options: str) -> subprocess.CompletedProcess[str]:
        """``buildah build`` of a file; its run steps are containers of ours."""
        (place / "Containerfile").write_text(text)
        words = ("--isolation", "oci", "--runtime", OCI, "--network", "none", "--pull-never", *LOW)
        return self("build", *words, *options, "--tag", "made", str(place))

    def line(self, *words: str) -> list[str]:
        return ["run", "--isolation", "oci", "--runtime", OCI, "--network", "none", *words]


@pytest.fixture(scope="module")
def buildah(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Buildah]:
    before = traces("buildah-*", "buildah-.*")
    buildah = Buildah(tmp_path_factory.mktemp("buildah"))
    yield buildah
    buildah("rm", "--all")
    buildah("rmi", "--all", "--force")
    subprocess.run(["umount", "-R", f"{buildah.place}/root"], stderr=subprocess.DEVNULL, check=False)
    assert {kind: found - before[kind] for kind, found in traces("buildah-*", "buildah-.*").items()} == {
        "mounts": set(), "cgroups": set(), "waiting": set()
    }
    assert not list(Path("/run/oci").glob("buildah-*"))


@pytest.fixture
def working(buildah: Buildah) -> Iterator[str]:
    name = buildah.ok("from", *LOW, "--pull-never", "bb").strip()
    yield name
    buildah("rm", name)


def test_run_steps(buildah: Buildah, tmp_path: Path) -> None:
    text = "FROM bb\nRUN echo built > /built && id -u > /who\nUSER user\nWORKDIR /tmp\nRUN id -u > who && pwd >> who\n"
    done = buildah.build(text, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    name = buildah.ok("from", "--pull-never", "made").strip()
    told = buildah.ok(*buildah.line(name, "cat", "/built", "/who", "/tmp/who"))
    buildah.ok("rm", name)
    assert told.split() == ["built", "0", "1000", "/tmp"]


def test_a_step_that_fails(buildah: Buildah, tmp_path: Path) -> None:
    done = buildah.build("FROM bb\nRUN echo before; exit 9\n", tmp_path)
    assert done.returncode != 0
    assert "before" in done.stdout and "9" in done.stderr


def test_a_step_with_a_shell_that_is_missing(buildah: Buildah, tmp_path: Path) -> None:
    done = buildah.build('FROM bb\nRUN ["nope"]\n', tmp_path)
    assert done.returncode != 0
    assert "nope" in done.stderr and "executable file not found in $PATH" in done.stderr


def test_limits_volumes_and_secrets(buildah: Buildah, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("hello")
    (tmp_path / "word").write_text("open sesame")
    text = "FROM bb\nRUN --mount=type=secret,id=word cat /run/secrets/word && cat /v/file && touch /v/x || echo ro\n"
    options = ("--memory", "64m", "--volume", f"{tmp_path}:/v:ro", "--secret", f"id=word,src={tmp_path}/word", "--shm-size", "1m")
    done = buildah.build(text, tmp_path, *options)
    assert done.returncode == 0, done.stderr
    assert "open sesame" in done.stdout and "hello" in done.stdout and "ro\n" in done.stdout


def test_output_status_and_user(buildah: Buildah, working: str) -> None:
    done = buildah(*buildah.line("--user", "user", "--env", "A=b", working, "sh", "-c", "id -u; echo $A >&2; exit 7"))
    assert (done.stdout, done.stderr.splitlines()[0], done.returncode) == ("1000\n", "b", 7)


def test_capabilities(buildah: Buildah, working: str) -> None:
    words = ("--cap-drop", "CAP_CHOWN", "--cap-add", "CAP_SYS_ADMIN", working, "grep", "CapEff", "/proc/self/status")
    held = int(buildah.ok(*buildah.line(*words)).split()[1], 16)
    assert (held & 1, held >> 21 & 1) == (0, 1)


def test_a_terminal(buildah: Buildah, working: str) -> None:
    argv = [*buildah.command, *buildah.line("--terminal", working, "sh")]
    status, shown = on_terminal(argv, b"test -t 0 && echo 'term'inal; exit 5\n", until=b"#")
    assert status == 5, shown
    assert "terminal" in shown


def test_ten_at_once(buildah: Buildah) -> None:
    names = [buildah.ok("from", *LOW, "--pull-never", "bb").strip() for _ in range(10)]
    running = [
        subprocess.Popen([*buildah.command, *buildah.line(name, "sh", "-c", f"exit {number}")], stderr=subprocess.DEVNULL)
        for number, name in enumerate(names)
    ]
    assert [process.wait(120 * PATIENCE) for process in running] == list(range(10))
    buildah.ok("rm", *names)
    assert not os.path.exists("/run/oci") or not [name for name in os.listdir("/run/oci") if name.startswith("buildah")]

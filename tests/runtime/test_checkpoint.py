"""checkpoint and restore where CRIU is missing, too old, or does not work; tests/vm/test_criu.py has the rest."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from kit import CLEAN, Bundle, Runtime, program
from ocimk.linux import criu

FAKE = """#!{python}
import socket, sys
sys.path.insert(0, {library!r})
from ocimk.linux import criu
end = socket.socket(fileno=int(sys.argv[2]))
while data := end.recv(65536):
    kind = criu.number_of(criu.decode(data), 1)
    end.send(criu.encode({answer}))
"""
"""A criu that answers as it is told to: the real one works on few kernels."""

OLD = "[(1, kind), (2, 1), (10, [(1, 2), (2, 12)])]"
BROKEN = "[(1, kind), (2, 1), (10, [(1, 4), (2, 0)])] if kind == criu.VERSION else [(1, kind), (2, 0), (7, 38)]"


def with_criu(place: Path, answer: str) -> dict[str, str]:
    """An environment that has only this criu."""
    library = str(Path(criu.__file__).parents[2])
    program(place / "criu", FAKE.format(python=sys.executable, library=library, answer=answer))
    return {**CLEAN, "PATH": str(place)}


@pytest.fixture
def running(oci_called: Runtime, bundle: Bundle) -> str:
    return oci_called.detached(bundle.args("sleep", "1000"))


def checkpoint(oci: Runtime, name: str, place: Path, *options: str, **more: Any) -> Any:
    return oci("checkpoint", "--image-path", place / "images", *options, name, **more)


CASES = [
    ("missing", "", 'exec: "criu": executable file not found in $PATH'),
    ("old", OLD, "CRIU version 21200 must be 30000 or higher"),
    ("broken", BROKEN, "criu failed"),
]


@pytest.mark.parametrize(("kind", "answer", "words"), CASES, ids=[kind for kind, _, _ in CASES])
def test_a_container_that_cannot_be_written_goes_on(
    oci_called: Runtime, running: str, tmp_path: Path, kind: str, answer: str, words: str
) -> None:
    env = with_criu(tmp_path / "bin", answer) if answer else {**CLEAN, "PATH": str(tmp_path)}
    checkpoint(oci_called, running, tmp_path, env=env).refused(f"checkpoint container {running}", words)
    assert oci_called.state(running)["status"] == "running"


@pytest.mark.parametrize(("kind", "answer", "words"), CASES, ids=[kind for kind, _, _ in CASES])
def test_a_container_that_cannot_be_made_leaves_nothing(
    oci_called: Runtime, bundle: Bundle, tmp_path: Path, kind: str, answer: str, words: str
) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images/descriptors.json").write_text('["/dev/null", "pipe:[1]", "/dev/null"]')
    env = with_criu(tmp_path / "bin", answer) if answer else {**CLEAN, "PATH": str(tmp_path)}
    name = oci_called.id()
    bundle.bind(tmp_path / "images", "/new/place")
    found = oci_called("restore", "--image-path", tmp_path / "images", "--bundle", bundle.save(), "-d", name, env=env)
    found.refused(f"restore container {name}", words)
    assert oci_called.names() == []


def test_states_that_do_not_fit(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    name = oci_called.create(bundle.args("sleep", "1000"))
    checkpoint(oci_called, name, tmp_path).refused("cannot be checkpointed in created state")
    oci_called("start", name).ok()
    oci_called("kill", name, "KILL").ok()
    oci_called.wait_stopped(name)
    checkpoint(oci_called, name, tmp_path).refused("cannot be checkpointed in stopped state")
    assert not (tmp_path / "images").exists()
    oci_called("checkpoint", "nobody").refused("container does not exist")
    oci_called("restore", "--image-path", tmp_path, "--bundle", bundle.path, name, env=with_criu(tmp_path, BROKEN)).refused(
        "already exists"
    )


WRONG = [
    (("--parent-path", "/abs"), "--parent-path must be relative"),
    (("--parent-path", "../no"), "invalid --parent-path"),
    (("--status-fd", "77"), "invalid --status-fd argument 77"),
    (("--page-server", "nobody"), "Use --page-server ADDRESS:PORT"),
    (("--page-server", "host:port"), "Invalid port number"),
    (("--empty-ns", "mount"), 'namespace "mount" is not supported'),
]


@pytest.mark.parametrize(("options", "words"), WRONG, ids=[words for _, words in WRONG])
def test_wrong_options(
    oci_called: Runtime, running: str, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    checkpoint(oci_called, running, tmp_path, *options, env=with_criu(tmp_path / "bin", BROKEN)).refused(words)


def test_an_option_with_a_list_of_values(oci_called: Runtime, running: str) -> None:
    found = oci_called("checkpoint", "--manage-cgroups-mode", "hard", running)
    assert found.status == 1 and found.out.startswith("Incorrect Usage.")


def test_images_that_are_not_there(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    words = ("restore", "--image-path", tmp_path / "no", "--bundle", bundle.save(), oci_called.id())
    oci_called(*words).refused("--image-path", "no such directory")


def test_what_is_mounted_in_the_folder_is_not_removed_with_it(oci_called: Runtime, running: str, tmp_path: Path) -> None:
    """restore mounts the root filesystem there; whatever happens, what is in it stays."""
    (tmp_path / "rootfs").mkdir()
    (tmp_path / "rootfs/precious").touch()
    place = oci_called.root / running / "criu-root"
    place.mkdir()
    subprocess.run(["mount", "--bind", tmp_path / "rootfs", place], check=True)
    try:
        oci_called("delete", "--force", running).refused("criu-root", "something is mounted there")
        assert (tmp_path / "rootfs/precious").exists()
    finally:
        subprocess.run(["umount", place], check=True)
    oci_called("delete", "--force", running).ok()


def test_messages_come_back_as_they_went() -> None:
    fields: list[Any] = [(1, 300), (2, "ä"), (3, -1), (4, [(1, True), (27, b"\0" * 200)])]
    found = criu.decode(criu.encode(fields))
    assert (criu.number_of(found, 1), criu.text_of(found, 2), criu.number_of(found, 3)) == (300, "ä", -1)
    assert criu.inner(found, 4) == {1: [1], 27: [b"\0" * 200]}
    with pytest.raises(criu.CriuError):
        criu.decode(b"\x08\xff")

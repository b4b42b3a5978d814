"""Files below a hostile root: nothing is found or made outside of it."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from ocimk.linux import openat2

O = openat2  # noqa: E741


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "root").mkdir()
    (tmp_path / "outside").mkdir()
    yield tmp_path / "root"
    assert os.listdir(tmp_path / "outside") == [], "something was made outside of the root"


@pytest.fixture
def root(place: Path) -> Iterator[int]:
    fd = os.open(place, os.O_PATH)
    yield fd
    os.close(fd)


def where(fd: int) -> str:
    with O.Held(fd):
        return os.readlink(f"/proc/self/fd/{fd}")


@pytest.mark.parametrize("link", ["../outside", "/outside/../../outside", "../../../../../../{}/outside"])
def test_links_and_dots_stay_inside(place: Path, root: int, link: str) -> None:
    (place / "link").symlink_to(link.format(place.parent))
    inside = place / "outside"
    inside.mkdir()
    if "{}" in link:
        with pytest.raises(FileNotFoundError):
            O.find(root, b"/link")
    else:
        assert where(O.find(root, b"/link")) == str(inside)
    assert where(O.find(root, b"../../..")) == str(place)
    assert where(O.find(root, b"/")) == str(place)


def test_descriptors_are_paths_only_and_not_inherited(root: int) -> None:
    with O.Held(O.find(root, b".")) as fd:
        assert not os.get_inheritable(fd)
        with pytest.raises(OSError):
            os.listdir(fd)


def test_magic_links_are_refused() -> None:
    fd = os.open("/", os.O_PATH)
    with O.Held(fd), pytest.raises(OSError) as caught:
        O.find(fd, b"/proc/self/root")
    assert caught.value.errno == errno.ELOOP


def test_directories_are_made(place: Path, root: int) -> None:
    umask = os.umask(0)
    try:
        assert where(O.make_directories(root, b"/a//b/./c/", 0o751)) == str(place / "a/b/c")
    finally:
        os.umask(umask)
    assert (place / "a").stat().st_mode & 0o7777 == 0o751
    assert where(O.make_directories(root, b"a/b/c")) == str(place / "a/b/c")


@pytest.mark.parametrize(
    ("link", "target", "path", "want"),
    [
        ("run", "/var/run", "/run/x", "var/run/x"),
        ("run", "var/run", "/run/x", "var/run/x"),
        ("run", "../../outside/x", "/run/y", "outside/x/y"),
        ("run", "/../outside", "/run/y", "outside/y"),
        ("run", "a/../b", "/run/c", "b/c"),
        ("run", "/srv", "/run", "srv"),
        ("deep/run", "/srv", "/deep/run/x", "srv/x"),
        ("deep/run", "srv", "/deep/run/x", "deep/srv/x"),
    ],
)
def test_links_that_lead_nowhere_are_made_to_lead(
    place: Path, root: int, link: str, target: str, path: str, want: str
) -> None:
    (place / "deep").mkdir()
    (place / link).symlink_to(target)
    assert where(O.make_directories(root, path.encode())) == str(place / want)
    assert (place / link).is_symlink()


def test_a_chain_of_links(place: Path, root: int) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("/c/d")
    (place / "c").symlink_to("../e")
    assert where(O.make_directories(root, b"/a/f")) == str(place / "e/d/f")


def test_a_circle_of_links(place: Path, root: int) -> None:
    (place / "a").symlink_to("b")
    (place / "b").symlink_to("a")
    for make in (O.make_directories, O.make_file):
        with pytest.raises(OSError) as caught:
            make(root, b"/a/x")
        assert caught.value.errno == errno.ELOOP


def test_a_link_that_grows(place: Path, root: int) -> None:
    (place / "a").symlink_to("b/a")
    (place / "b").symlink_to("a/b")
    with pytest.raises(OSError) as caught:
        O.make_directories(root, b"/a")
    assert caught.value.errno == errno.ELOOP


def test_files_are_made(place: Path, root: int) -> None:
    umask = os.umask(0)
    try:
        assert where(O.make_file(root, b"/a/b/file", 0o640)) == str(place / "a/b/file")
    finally:
        os.umask(umask)
    assert (place / "a/b/file").stat().st_mode & 0o7777 == 0o640
    (place / "a/b/file").write_text("kept")
    os.close(O.make_file(root, b"/a/b/file"))
    assert (place / "a/b/file").read_text() == "kept"


def test_a_file_by_a_link_that_leads_nowhere(place: Path, root: int) -> None:
    (place / "etc").mkdir()
    (place / "etc/resolv.conf").symlink_to("../run/resolve/stub.conf")
    assert where(O.make_file(root, b"/etc/resolv.conf")) == str(place / "run/resolve/stub.conf")


def test_a_directory_below_a_file(place: Path, root: int) -> None:
    (place / "file").touch()
    with pytest.raises(NotADirectoryError):
        O.make_directories(root, b"/file/x")


def test_create_follows_no_link(place: Path, root: int) -> None:
    (place / "name").symlink_to("../outside/made")
    with pytest.raises(FileExistsError):
        O.create(root, b"name", 0o600)


def test_symlink_replaces_nothing(place: Path, root: int) -> None:
    (place / "name").write_text("x")
    O.symlink(root, b"name", b"other")
    O.symlink(root, b"new", b"other")
    assert (place / "name").read_text() == "x"
    assert os.readlink(place / "new") == "other"


@pytest.mark.parametrize("path", [b"/", b"", b"..", b"/a/.."])
def test_the_root_has_no_parent(root: int, path: bytes) -> None:
    with pytest.raises(OSError) as caught:
        O.parent(root, path)
    assert caught.value.errno == errno.EINVAL


def test_parent(place: Path, root: int) -> None:
    fd, name = O.parent(root, b"/a/b/c/")
    assert (where(fd), name) == (str(place / "a/b"), b"c")


def test_no_descriptor_leaks(place: Path, root: int) -> None:
    (place / "loop").symlink_to("loop")
    (place / "link").symlink_to("/far/away")
    (place / "file").touch()
    before = os.listdir("/proc/self/fd")
    os.close(O.make_directories(root, b"/link/x/y"))
    os.close(O.make_file(root, b"/link/x/z"))
    for path in (b"/loop/x", b"/file/x/y"):
        with pytest.raises(OSError):
            O.make_directories(root, path)
    assert os.listdir("/proc/self/fd") == before


def test_a_walk_upwards_that_a_rename_disturbs_is_tried_again(place: Path, root: int) -> None:
    (place / "d").mkdir()
    path = b"d/../" * 30 + b"d"
    pid = os.fork()
    if pid == 0:
        (place.parent / "x").mkdir()
        while True:
            os.rename(place.parent / "x", place.parent / "y")
            os.rename(place.parent / "y", place.parent / "x")
    try:
        for _ in range(1000):
            os.close(O.find(root, path))
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def test_a_directory_that_is_swapped_all_the_while(place: Path, root: int) -> None:
    """CVE-2024-45310."""
    (place / "a").mkdir()
    (place / "b").symlink_to("../../../../../../.." + str(place.parent / "outside"))
    pid = os.fork()
    if pid == 0:
        libc = ctypes.CDLL(None)
        one, two = str(place / "a").encode(), str(place / "b").encode()
        while True:
            libc.renameat2(-100, one, -100, two, 2)
    try:
        made = 0
        for number in range(1500):
            try:
                os.close(O.make_directories(root, b"/a/%d/x" % number))
                made += 1
            except OSError as problem:
                assert problem.errno in (errno.ENOENT, errno.EEXIST, errno.ENOTDIR, errno.ELOOP, errno.EAGAIN)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert made

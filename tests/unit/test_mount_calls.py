"""The mount system calls as they are wrapped, on detached mounts that nobody sees."""

from __future__ import annotations

import errno
import os

import pytest

from ocimk.linux import mount as m
from ocimk.linux.openat2 import Held

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")


@needs_root
def test_a_new_filesystem() -> None:
    told: list[tuple[bytes, bytes | None]] = [(b"mode", b"0711"), (b"size", b"1m"), (b"ro", None)]
    with Held(m.new_filesystem(b"tmpfs", told, m.ATTR_NODEV | m.ATTR_NOATIME)) as fd:
        assert m.magic(fd) == m.TMPFS
        assert os.fstat(fd).st_mode & 0o7777 == 0o711
        flags = os.fstatvfs(fd).f_flag
        assert flags & os.ST_NODEV and flags & os.ST_NOATIME and flags & os.ST_RDONLY
        assert not os.get_inheritable(fd)


@needs_root
@pytest.mark.parametrize(
    ("kind", "told", "number", "detail"),
    [
        (b"nosuchfs", [], errno.ENODEV, ""),
        (b"tmpfs", [(b"size", b"much")], errno.EINVAL, "tmpfs: Bad value for 'size'"),
        (b"tmpfs", [(b"what", None)], errno.EINVAL, "tmpfs: Unknown parameter 'what'"),
        (b"ext4", [(b"source", b"/no/such/device")], errno.ENOENT, "Can't lookup blockdev"),
    ],
)
def test_the_kernels_words(kind: bytes, told: list[tuple[bytes, bytes | None]], number: int, detail: str) -> None:
    before = os.listdir("/proc/self/fd")
    with pytest.raises(m.FilesystemError) as caught:
        m.new_filesystem(kind, told, 0)
    assert caught.value.errno == number
    assert detail in caught.value.detail
    assert os.listdir("/proc/self/fd") == before


@needs_root
def test_attributes_and_a_copy() -> None:
    with Held(m.open_tree(m.AT_FDCWD, b"/")) as copy:
        here = os.statvfs("/").f_flag
        m.mount_setattr(copy, m.ATTR_RDONLY | m.ATTR_NOEXEC)
        assert os.fstatvfs(copy).f_flag & (os.ST_RDONLY | os.ST_NOEXEC) == os.ST_RDONLY | os.ST_NOEXEC
        m.mount_setattr(copy, 0, m.ATTR_RDONLY)
        assert not os.fstatvfs(copy).f_flag & os.ST_RDONLY
        assert os.statvfs("/").f_flag == here


@needs_root
def test_mounts_have_an_identity() -> None:
    with Held(m.open_tree(m.AT_FDCWD, b"/")) as one, Held(m.open_tree(m.AT_FDCWD, b"/")) as two:
        with Held(os.open("/", os.O_PATH)) as root:
            assert len({m.mount_id(one), m.mount_id(two), m.mount_id(root)}) == 3
            assert m.mount_id(one) == m.mount_id(one) != 0


def test_filesystems_are_told_apart() -> None:
    for path, want in (("/proc", m.PROC), ("/sys", m.SYSFS)):
        with Held(os.open(path, os.O_PATH)) as fd:
            assert m.magic(fd) == want


def test_failures_are_errors_of_the_system() -> None:
    with pytest.raises(OSError) as caught:
        m.umount(b"/no/such/place")
    assert caught.value.errno in (errno.ENOENT, errno.EPERM)

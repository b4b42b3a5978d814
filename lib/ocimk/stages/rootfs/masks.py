"""linux.readonlyPaths and linux.maskedPaths."""

from __future__ import annotations

import _stat as st
import errno
import posix

from ...errors import Error
from ...linux import mount as m
from ...linux.openat2 import O_PATH, Held, find
from . import plan
from .work import change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .work import Work

_NULL = posix.makedev(1, 3)
_MASK = m.ATTR_RDONLY | m.ATTR_NOSUID | m.ATTR_NOEXEC


def readonly(work: Work) -> None:
    """Make each of linux.readonlyPaths that exists read-only. Raises Error."""
    for index, path in enumerate(work.linux.get("readonlyPaths") or ()):
        where = f"linux.readonlyPaths[{index}] {path}"
        spot = plan.place(path, where)
        if spot == b"/":
            work.late.append((where, posix.dup(work.root)))
            continue
        fd = _existing(work, spot, where)
        if fd < 0:
            continue
        try:
            with Held(fd), Held(m.open_tree(fd, b"", recursive=True)) as copy:
                m.move_mount(copy, fd)
                # The path itself only, as in runc: what is mounted below keeps what its own entry says.
                change(copy, m.ATTR_RDONLY)
        except OSError as problem:
            raise Error(where, problem) from None


def masked(work: Work) -> None:
    """Hide each of linux.maskedPaths that exists: files behind /dev/null, directories behind an empty one.
    Raises Error."""
    cover = Cover(work)
    done: set[bytes] = set()
    try:
        for index, path in enumerate(work.linux.get("maskedPaths") or ()):
            where = f"linux.maskedPaths[{index}] {path}"
            spot = plan.place(path, where)
            if spot == b"/":
                raise Error(where, "the root cannot be masked")
            if spot in done:
                continue
            done.add(spot)
            fd = _existing(work, spot, where)
            if fd >= 0:
                with Held(fd):
                    cover.put(fd, where)
    finally:
        cover.close()


def _existing(work: Work, path: bytes, where: str) -> int:
    """The file, or -1 when there is none. Raises Error."""
    try:
        return find(work.root, path)
    except (FileNotFoundError, NotADirectoryError):
        return -1
    except OSError as problem:
        raise Error(where, problem) from None


class Cover:
    """What is put over masked paths: made once, copied for every further path."""

    __slots__ = ("directory", "file", "work")

    def __init__(self, work: Work) -> None:
        self.work = work
        self.file = -1
        """The first mount of the host's /dev/null, -1 before there is one"""
        self.directory = -1

    def put(self, target: int, where: str) -> None:
        """Cover *target*. Raises Error."""
        try:
            if st.S_ISDIR(posix.fstat(target).st_mode):
                self.directory = self._put(self.directory, target, self._empty)
            else:
                self.file = self._put(self.file, target, self._null)
        except OSError as problem:
            raise Error(where, problem) from None

    def _put(self, first: int, target: int, make: Callable[[], int]) -> int:
        """Mount a copy of *first* onto *target*, or what *make* makes when there is none; returns the
        first."""
        if first >= 0:
            with Held(m.open_tree(first, b"")) as copy:
                m.move_mount(copy, target)
            return first
        made = make()
        try:
            m.move_mount(made, target)
            change(made, _MASK, propagation=m.MS_PRIVATE)
        except BaseException:
            posix.close(made)
            raise
        return made

    def _null(self) -> int:
        """The host's null device: the container's may be anything (CVE-2025-31133). Raises Error."""
        with Held(posix.open("/dev/null", O_PATH | posix.O_NOFOLLOW)) as null:
            status = posix.fstat(null)
            if not st.S_ISCHR(status.st_mode) or status.st_rdev != _NULL:
                raise Error("/dev/null of the host", "is not the null device")
            return m.open_tree(null, b"")

    def _empty(self) -> int:
        return empty_filesystem(self.work)

    def close(self) -> None:
        """Close the descriptors; the mounts stay."""
        for fd in (self.file, self.directory):
            if fd >= 0:
                posix.close(fd)


def empty_filesystem(work: Work) -> int:
    """A read-only tmpfs that holds nothing and never can. Raises OSError."""
    told: list[m.Parameter] = [
        (b"source", b"tmpfs"),
        (b"ro", None),
        (b"nr_blocks", b"1"),
        (b"nr_inodes", b"1"),
    ]
    if work.label:
        told.append((b"context", plan.encode(work.label, "linux.mountLabel")))
    try:
        return m.new_filesystem(b"tmpfs", told, _MASK | m.ATTR_NODEV)
    except m.FilesystemError as problem:
        if problem.errno != errno.EINVAL:
            raise
        # A kernel with a stricter limit of its own: the root directory takes one, and one must be left.
        told[3] = (b"nr_inodes", b"2")
        return m.new_filesystem(b"tmpfs", told, _MASK | m.ATTR_NODEV)


def empty(work: Work, target: int, doing: str) -> None:
    """Hide the directory *target*. Raises Error."""
    try:
        with Held(empty_filesystem(work)) as made:
            m.move_mount(made, target)
    except OSError as problem:
        raise Error(doing, problem) from None

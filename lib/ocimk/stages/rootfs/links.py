"""copy-symlink: a bind source that is a symbolic link is made anew inside the root. See crun(1)."""

from __future__ import annotations

import errno
import posix

from ...errors import Error, reason
from ...linux.openat2 import Held, parent
from . import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Entry
    from .work import Work


def target_of(entry: Entry) -> bytes | None:
    """Where the source leads that is to be made anew; None when it is no link, or not to be. Raises OSError."""
    if not entry.options.copy_link:
        return None
    try:
        return posix.readlink(plan.encode(entry.source, f"{entry.where}.source"))
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        return None


def make(work: Work, entry: Entry) -> None:
    """Make the link at the destination; one that says the same may be there already. Raises Error."""
    target = work.links[entry.index]
    doing = f"{entry.where} {entry.destination}: make the link to {target.decode('utf-8', 'replace')}"
    try:
        above, name = parent(work.root, entry.path)
        with Held(above) as directory:
            if work.path_of(directory).split(b"/", 2)[1] == b"proc":
                raise Error(doing, "cannot be made because it is inside /proc")
            put(directory, name, target, doing)
    except OSError as problem:
        raise Error(doing, reason(problem)) from None


def put(directory: int, name: bytes, target: bytes, doing: str) -> None:
    """A link of that name in the directory, if it is not there. Raises OSError, Error."""
    try:
        posix.symlink(target, name, dir_fd=directory)
    except FileExistsError:
        _same(directory, name, target, doing)


def _same(directory: int, name: bytes, target: bytes, doing: str) -> None:
    try:
        there = posix.readlink(name, dir_fd=directory)
    except OSError as problem:
        if problem.errno != errno.EINVAL:
            raise
        raise Error(doing, "something else is there") from None
    if there != target:
        raise Error(doing, f"a link to {there.decode('utf-8', 'replace')} is there")

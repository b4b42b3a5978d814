"""--no-pivot: the root mount is moved over the old root, which stays below. For hosts whose root is an
initramfs."""

from __future__ import annotations

import errno
import posix

from ...linux import mount as m
from ...linux.openat2 import DIRECTORY, Held
from .cgroups import mountinfo


def move(root: int) -> None:
    """Move the root mount over "/". Raises OSError.

    The host's proc and sysfs would stay reachable for the kernel's rule that a new proc may be mounted
    where a full one is visible; so they are taken away, or covered where that is not allowed, first.
    """
    prefix = posix.readlink(m.of_descriptor(root)).rstrip(b"/")
    for part, point, kind, _ in mountinfo():
        if part != b"/" or kind not in (b"proc", b"sysfs") or (point + b"/").startswith(prefix + b"/"):
            continue
        try:
            m.mount(None, point, None, m.MS_SLAVE | m.MS_REC)
            _remove(point)
        except FileNotFoundError:
            # It was below one that is gone already.
            continue
    with Held(posix.open("/", DIRECTORY)) as old:
        m.move_mount(root, old)


def _remove(point: bytes) -> None:
    try:
        m.umount(point, m.MNT_DETACH)
    except OSError as problem:
        if problem.errno not in (errno.EINVAL, errno.EPERM):
            raise
        m.mount(b"tmpfs", point, b"tmpfs", m.MS_RDONLY)

"""Namespaces: the kernel's flags and files. See namespaces(7), clone(2), setns(2)."""

from __future__ import annotations

import posix

from ..native import _native

NEWTIME = 0x80
NEWNS = 0x20000
NEWCGROUP = 0x2000000
NEWUTS = 0x4000000
NEWIPC = 0x8000000
NEWUSER = 0x10000000
NEWPID = 0x20000000
NEWNET = 0x40000000
CLONE_PARENT = 0x8000

FLAGS = {
    "user": NEWUSER,
    "pid": NEWPID,
    "network": NEWNET,
    "ipc": NEWIPC,
    "uts": NEWUTS,
    "mount": NEWNS,
    "cgroup": NEWCGROUP,
    "time": NEWTIME,
}
"""The spec's names of the namespaces and the kernel's flags."""

FILES = {
    "user": "user",
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "mount": "mnt",
    "cgroup": "cgroup",
    "time": "time",
}
"""The spec's names and those of the files below /proc/PID/ns."""


def setns(fd: int, flag: int) -> None:
    """Enter the namespace that *fd* names; the kernel refuses another kind than *flag*. Raises OSError."""
    _native.syscall(_native.NR["setns"], fd, flag)


def leave_chroot() -> None:
    """Take the root of our mount namespace for our root and working directory: in a chroot(2) it is another, and all
    above would go unseen into what we make of the namespace. Raises OSError. See setns(2)."""
    own = _native.syscall(_native.NR["pidfd_open"], posix.getpid(), 0)
    try:
        setns(own, NEWNS)
    finally:
        posix.close(own)


def unshare(flags: int) -> None:
    """Give the caller namespaces of its own. Raises OSError."""
    _native.syscall(_native.NR["unshare"], flags)


def same(first: str, second: str) -> bool:
    """Whether two namespace files name one namespace. Raises OSError."""
    a, b = posix.stat(first), posix.stat(second)
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)

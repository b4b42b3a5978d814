"""What the parts of oci-mount share while they build one root filesystem."""

from __future__ import annotations

import posix

from ...errors import Error
from ...linux import mount as m
from . import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder


class Work:
    """One root filesystem being built."""

    __slots__ = ("cgroup", "config", "folder", "label", "late", "links", "mounts", "real", "root", "sources", "userns")

    def __init__(self, folder: Folder) -> None:
        self.folder = folder
        self.config: dict[str, Any] = folder.config
        self.mounts = plan.entries(folder.config, folder.bundle)
        self.root = -1
        """The root mount"""
        self.real = b""
        """Where the root mount is, as the kernel says"""
        self.userns = posix.geteuid() != 0 or plan.namespace(folder.config, "user") is not None
        """Whether we are root of a user namespace only: no mknod, locked flags"""
        self.sources: dict[int, int] = {}
        """Bind sources opened in advance: index in mounts[] to detached mount"""
        self.links: dict[int, bytes] = {}
        """Bind sources that are links to be made anew: index in mounts[] to where they lead"""
        self.late: list[tuple[str, int]] = []
        """Mounts to be made read-only at the end: (doing, mount)"""
        self.cgroup = b""
        """The container's cgroup of v2 on the host, when it was looked up in advance"""
        self.label = str(self.linux.get("mountLabel") or "")

    @property
    def linux(self) -> dict[str, Any]:
        return self.config.get("linux") or {}

    @property
    def in_userns(self) -> bool:
        """Whether we lack the host's own powers, asked of the kernel; for explaining failures."""
        return self.userns or inside_userns()

    def close(self) -> None:
        """Close what is still held, but for the root."""
        for fd in [*self.sources.values(), *(fd for _, fd in self.late)]:
            posix.close(fd)
        self.sources.clear()
        self.late.clear()

    def path_of(self, fd: int) -> bytes:
        """Where a file is, inside the root. Raises Error when it is not inside: something was moved under
        us."""
        real = posix.readlink(m.of_descriptor(fd))
        if real == self.real:
            return b"/"
        prefix = self.real.rstrip(b"/") + b"/"
        if not real.startswith(prefix):
            raise Error(f"{real.decode('utf-8', 'replace')} is outside of the root", "it was moved meanwhile")
        return real[len(prefix) - 1 :]


def inside_userns() -> bool:
    """Whether this process is in a user namespace other than the first: not every id is mapped to itself."""
    fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 4096).split() != [b"0", b"0", b"4294967295"]
    finally:
        posix.close(fd)


def change(fd: int, add: int = 0, clear: int = 0, propagation: int = 0, recursive: bool = False) -> None:
    """mount_setattr(2) on an attached mount; with mount(2) where the kernel (before 5.12) lacks it. Raises
    OSError."""
    try:
        m.mount_setattr(fd, add, clear, propagation, recursive)
    except OSError as problem:
        from . import classic

        if not classic.missing(problem):
            raise
        classic.change(fd, add, clear, propagation, recursive)

"""Control groups as the kernel shows them: where the hierarchies are, and their files read and written.

Knows nothing of OCI. A cgroup is opened as a directory once and its files are reached through the descriptor,
by plain names. See cgroups(7), Documentation/admin-guide/cgroup-v1 and cgroup-v2.rst.
"""

from __future__ import annotations

import errno
import posix

from ..native import _native

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NamedTuple

    class Mount(NamedTuple):
        """One line of mountinfo: where a hierarchy is mounted, which cgroup of it is the mount's root,
        what it holds."""

        point: str
        root: str
        version: int
        names: frozenset[str]


ROOT = "/sys/fs/cgroup"
UNIFIED = f"{ROOT}/unified"

MAGIC_V1 = 0x27E0EB
MAGIC_V2 = 0x63677270

CONTROLLERS = (
    "cpuset", "devices", "memory", "cpu", "cpuacct", "pids", "blkio", "hugetlb", "net_cls", "net_prio",
    "perf_event", "freezer", "rdma", "name=systemd", "misc",
)  # fmt: skip
"""The v1 hierarchies that a container joins, those that runc joins; other named ones belong to somebody
else."""

_DIRECTORY = posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC
_MODE = 0o755


class Group:
    """One cgroup, held by descriptor so that all reads and writes meet the same directory."""

    __slots__ = ("fd", "path")

    def __init__(self, path: str) -> None:
        """Open the directory. Raises OSError."""
        self.path = path
        self.fd = posix.open(path, _DIRECTORY)

    def __enter__(self) -> Group:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give the descriptor back."""
        posix.close(self.fd)

    def open(self, name: str, flags: int = posix.O_RDONLY) -> int:
        """Open one of the cgroup's files. Raises OSError; EINVAL when *name* is no plain name."""
        if "/" in name or name in ("", ".", ".."):
            raise OSError(errno.EINVAL, posix.strerror(errno.EINVAL))
        return posix.open(name, flags | posix.O_CLOEXEC | posix.O_NOFOLLOW, dir_fd=self.fd)

    def read(self, name: str) -> str:
        """The whole text of a file. Raises OSError."""
        fd = self.open(name)
        try:
            return read_all(fd)
        finally:
            posix.close(fd)

    def write(self, name: str, value: str) -> None:
        """Write *value* in one write(2), which is how the kernel takes it. Raises OSError."""
        fd = self.open(name, posix.O_WRONLY)
        try:
            posix.write(fd, value.encode())
        finally:
            posix.close(fd)

    def write_all(self, pairs: list[tuple[str, str]]) -> None:
        """Many writes ``(file, value)`` in order, each file opened once. Raises OSError; ``filename`` and
        ``filename2`` of it are the file and the value that failed."""
        opened: dict[str, int] = {}
        try:
            for name, value in pairs:
                try:
                    if name not in opened:
                        opened[name] = self.open(name, posix.O_WRONLY)
                    posix.write(opened[name], value.encode())
                except OSError as problem:
                    raise OSError(problem.errno, problem.strerror, name, None, value) from None
        finally:
            for fd in opened.values():
                posix.close(fd)

    def has(self, name: str) -> bool:
        """Whether there is such a file."""
        try:
            posix.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        return True

    def number(self, name: str, absent: int = -1) -> int:
        """The number in a file; ``max`` is 2**64-1; *absent* when there is no such file. Raises OSError,
        ValueError."""
        try:
            text = self.read(name).strip()
        except FileNotFoundError:
            return absent
        return (1 << 64) - 1 if text == "max" else int(text)

    def keyed(self, name: str) -> dict[str, int]:
        """A file of ``KEY VALUE`` lines. Raises OSError; other lines are passed over."""
        pairs = (line.split(" ") for line in self.read(name).splitlines())
        return {p[0]: int(p[1]) for p in pairs if len(p) == 2 and p[1].lstrip("-").isdigit()}


def read_all(fd: int) -> str:
    """All of an open cgroup or /proc file. Raises OSError."""
    parts = []
    while part := posix.read(fd, 65536):
        parts.append(part)
    return b"".join(parts).decode("utf-8", "surrogateescape")


def read_file(path: str) -> str:
    """All of a file by path. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return read_all(fd)
    finally:
        posix.close(fd)


def magic(path: str) -> int:
    """The type of the file system at *path* (statfs(2)); 0 when there is nothing."""
    found = bytearray(256)
    try:
        _native.syscall(_native.NR["statfs"], path.encode("utf-8", "surrogateescape") + b"\0", found)
    except OSError:
        return 0
    # f_type is the first member, a long; the magic numbers fit in 32 bits, which sign extension must not
    # spoil.
    import sys

    return int.from_bytes(found[:8], sys.byteorder) & 0xFFFFFFFF


def mode() -> str:
    """``v2`` (one hierarchy), ``hybrid`` (v1 with a cgroup2 beside them), ``v1``, or ``none`` (nothing
    mounted)."""
    at_root = magic(ROOT)
    if at_root == MAGIC_V2:
        return "v2"
    if not at_root or not memberships():
        return "none"
    return "hybrid" if magic(UNIFIED) == MAGIC_V2 else "v1"


def memberships(process: str = "self") -> dict[str, str]:
    """The cgroup a process is in, per controller; "" is the cgroup2. Lines of /proc/PID/cgroup, see
    cgroups(7)."""
    try:
        lines = read_file(f"/proc/{process}/cgroup").splitlines()
    except OSError:
        return {}
    found = {}
    for line in lines:
        _, names, path = line.split(":", 2)
        for name in names.split(","):
            found[name] = path
    return found


def mounts() -> list[Mount]:
    """All mounted hierarchies, from /proc/self/mountinfo. Raises OSError."""
    found = []
    for line in read_file("/proc/self/mountinfo").splitlines():
        head, _, tail = line.partition(" - cgroup")
        if not tail:
            continue
        fields = head.split(" ")
        version = 2 if tail.startswith("2 ") else 1
        names = frozenset(tail.split(" ")[-1].split(",")) if version == 1 else frozenset(("",))
        found.append((unescape(fields[4]), unescape(fields[3]), version, names))
    # Plain tuples: a NamedTuple would cost an import of collections.
    return found  # type: ignore[return-value]


def unescape(text: str) -> str:
    """A path of mountinfo, where blanks and backslashes are written in octal."""
    if "\\" not in text:
        return text
    first, *rest = text.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] for part in rest)


def make(path: str) -> bool:
    """Make one cgroup; False when it is there already. Raises OSError."""
    try:
        posix.mkdir(path, _MODE)
    except FileExistsError:
        return False
    return True


def children(path: str) -> list[str]:
    """The paths of the sub-cgroups. Raises OSError."""
    with posix.scandir(path) as entries:
        return [f"{path}/{entry.name}" for entry in entries if entry.is_dir(follow_symlinks=False)]


def controllers(path: str, name: str = "cgroup.controllers") -> list[str]:
    """The controllers that a cgroup2 directory offers (or, by *name*, has switched on); [] when it cannot
    be read."""
    try:
        return read_file(f"{path}/{name}").split()
    except OSError:
        return []

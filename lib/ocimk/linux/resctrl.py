"""The resctrl file system: groups of processes with their share of caches and memory bandwidth.

Nothing here knows where it is mounted: each function takes a path. See Documentation/filesystems/resctrl.rst of the
kernel.
"""

from __future__ import annotations

import errno
import posix

from . import path as paths

_KINDS_HEX = ("L3", "L2", "L3CODE", "L3DATA", "L2CODE", "L2DATA")


class Refused(OSError):
    """What the kernel refused; ``told`` is what info/last_cmd_status says about it."""

    told = ""


def mounted(mountinfo: bytes) -> str:
    """Where resctrl is mounted according to a mountinfo file (proc_pid_mountinfo(5)); "" when it is not."""
    for line in mountinfo.split(b"\n"):
        front, _, back = line.partition(b" - ")
        if back.split(b" ")[0] == b"resctrl":
            return _unescape(front.split(b" ")[4]).decode("utf-8", "surrogateescape")
    return ""


def _unescape(field: bytes) -> bytes:
    """Spaces and the like are written as a backslash and three octal digits."""
    first, *rest = field.split(b"\\")
    return first + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in rest)


def make_group(root: str, path: str) -> bool:
    """Make the group; False when it exists. Raises Refused: ENOSPC when the processor has no more of them."""
    try:
        posix.mkdir(path, 0o755)
    except FileExistsError:
        return False
    except OSError as problem:
        raise explained(root, problem) from None
    return True


def remove_group(path: str) -> None:
    """Remove the group with the monitoring groups in it, if it is there; its tasks go to the default one. Raises
    OSError."""
    try:
        posix.rmdir(path)
    except FileNotFoundError:
        pass


def is_group(path: str) -> bool:
    """Whether it is a group: one has a file of tasks, and ``info`` and ``mon_groups`` have none."""
    return paths.exists(f"{path}/tasks")


def read(path: str) -> str:
    """A whole file. Raises OSError."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        parts = []
        while part := posix.read(fd, 1 << 16):
            parts.append(part)
    finally:
        posix.close(fd)
    return b"".join(parts).decode("utf-8", "replace")


def write(root: str, path: str, text: str) -> None:
    """Write a file of a group in one write(2), as the kernel wants it. Raises Refused."""
    try:
        fd = posix.open(path, posix.O_WRONLY | posix.O_CLOEXEC)
        try:
            data = text.encode()
            if posix.write(fd, data) != len(data):
                raise OSError(errno.EIO, posix.strerror(errno.EIO))
        finally:
            posix.close(fd)
    except OSError as problem:
        raise explained(root, problem) from None


def explained(root: str, problem: OSError) -> Refused:
    """The failure with what the kernel says about it."""
    refused = Refused(problem.errno, problem.strerror)
    try:
        told = read(f"{root}/info/last_cmd_status").strip()
    except OSError:
        told = ""
    refused.told = "" if told == "ok" else told
    return refused


# ---- schemata --------------------------------------------------------------------------------------------------------


def parse_line(line: str) -> tuple[str, dict[str, int]]:
    """A line of a schemata file, ``L3:0=7f0;1=1f`` or ``MB:0=20;1=70``, as its kind and its numbers by domain.

    Cache masks are hexadecimal, bandwidth is decimal; blanks are the kernel's alignment. Raises ValueError.
    """
    kind, colon, rest = line.strip().partition(":")
    if not colon:
        raise ValueError(line)
    base = 16 if kind.strip() in _KINDS_HEX else 10
    numbers = {}
    for part in rest.split(";"):
        domain, equals, value = part.strip().partition("=")
        if not equals:
            raise ValueError(line)
        numbers[str(int(domain))] = int(value, base)
    return kind.strip(), numbers


def parse(text: str) -> dict[str, dict[str, int]]:
    """A whole schemata file; lines that are not understood are left out."""
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        try:
            kind, numbers = parse_line(line)
        except ValueError:
            continue
        found[kind] = numbers
    return found


def agrees(line: str, text: str) -> bool:
    """Whether a schemata file says what the line asks for, domain by domain."""
    try:
        kind, numbers = parse_line(line)
    except ValueError:
        return False
    there = parse(text).get(kind, {})
    return all(there.get(domain) == number for domain, number in numbers.items())

"""oci-sysctl: the kernel's settings that belong to the container's namespaces: linux.sysctl, hostname,
domainname.

Reads   config.json
Writes  nothing in the folder; the settings live and end with the namespaces

Runs in the container's namespaces before the root is changed: what it opens below /proc/sys is the host's
procfs, in which the kernel shows each process the settings of its own network, IPC, UTS and user namespaces.
Everything is opened by descriptor, through no link and no mount, and the file system is verified: a file that
looks like a sysctl but was put there by someone else is not written to (CVE-2025-52881)."""

from __future__ import annotations

import _struct
import errno
import posix

from ..errors import Error, Usage
from ..linux import openat2
from ..native._native import NR, syscall

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..container.folder import Folder

    Options = dict[str, str]

NAME = "oci-sysctl"
SUMMARY = "set hostname, domainname and linux.sysctl in the container's namespaces"
OPTIONS: tuple[tuple[str, str, str], ...] = ()
VALUES = ""
CHAINS = True

PROC_SUPER_MAGIC = 0x9FA0

_STRAIGHT = openat2.RESOLVE_BENEATH | openat2.RESOLVE_NO_MAGICLINKS | openat2.RESOLVE_NO_SYMLINKS
_STRAIGHT |= openat2.RESOLVE_NO_XDEV
_PROC_FLAGS = posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC

_NAMES = (("hostname", "sethostname"), ("domainname", "setdomainname"))

_REMEDIES = {
    errno.ENOENT: "no such setting in this kernel or namespace: is its module loaded, is the name right?",
    errno.EINVAL: "the kernel does not accept this value",
    errno.ERANGE: "the kernel does not accept this value",
    errno.EACCES: "the setting cannot be changed from this user namespace",
    errno.EPERM: "the setting cannot be changed from this user namespace",
    errno.EROFS: "/proc/sys is mounted read-only here",
    errno.EXDEV: "something is mounted over it in /proc/sys",
    errno.EISDIR: "this names a group of settings, not one",
}


def apply(folder: Folder, options: Options, operands: list[str]) -> None:
    """Set the names, then the sysctls in the order of the configuration. Raises Error naming the property."""
    if operands:
        raise Usage(f"unexpected operand {operands[0]}")
    for key, call in _NAMES:
        name = _name(folder.config, key)
        if name:
            _set_name(key, call, name)
    settings = _settings(folder.config)
    if settings:
        _write_all(settings)


def undo(folder: Folder) -> None:
    """Nothing: the settings end with the namespaces."""


def explain(folder: Folder, options: Options, operands: list[str]) -> list[str]:
    """The commands that would set the same from a shell in the container's namespaces."""
    lines = [f"{key} {quote(name)}" for key, _ in _NAMES if (name := _name(folder.config, key))]
    return lines + [
        f"echo {quote(value)} > {quote('/proc/sys/' + path)}" for _, path, value in _settings(folder.config)
    ]


def check(folder: Folder) -> list[str]:
    """The settings that this kernel does not have. One for an interface that is yet to come is looked for as
    "default"."""
    problems = []
    try:
        settings = _settings(folder.config)
    except Error as problem:
        return [str(problem)]
    for key, path, _ in settings:
        if not any(_there(candidate) for candidate in (path, _of_default(path))):
            problems.append(
                f"{where(key)}: no /proc/sys/{path} on this host (is its module loaded, is it spelled well?)"
            )
    return problems


# ---- reading -----------------------------------------------------------------------------------------------


def where(key: str) -> str:
    """How a setting is called in messages."""
    return f'linux.sysctl["{key}"]'


def path_of(key: str) -> str:
    """The file below /proc/sys: ``net.ipv4.ip_forward`` is net/ipv4/ip_forward.

    When the first separator is a slash, slashes separate and dots belong to names; else dots separate and a
    slash stands for a dot in a name: ``net.ipv4.conf.eth0/100.forwarding`` and
    ``net/ipv4/conf/eth0.100/forwarding`` are the same (sysctl(8), sysctl.d(5)). Raises Error for a key that
    names no file below /proc/sys."""
    dot, slash = key.find("."), key.find("/")
    if slash < 0 or 0 <= dot < slash:
        path = key.translate({ord("."): "/", ord("/"): "."})
    else:
        path = key
    if any(part in ("", ".", "..") for part in path.split("/")):
        raise Error(where(key), "not the name of a setting", "like net.ipv4.ip_forward")
    return path


def _settings(config: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(key, path, value) for each entry of linux.sysctl."""
    settings = (config.get("linux") or {}).get("sysctl") or {}
    if not isinstance(settings, dict):
        raise Error("linux.sysctl", "an object is required")
    for key, value in settings.items():
        if not isinstance(value, str):
            raise Error(where(key), f"{value!r} is not a string", f'write it as "{value}"')
    return [(key, path_of(key), value) for key, value in settings.items()]


def _name(config: dict[str, Any], key: str) -> str:
    name = config.get(key) or ""
    if not isinstance(name, str):
        raise Error(key, f"{name!r} is not a string")
    return name


def _of_default(path: str) -> str:
    """The setting of "default" for one of an interface: net/ipv4/conf/eth0/forwarding,
    net/ipv6/neigh/eth0/..."""
    parts = path.split("/")
    if len(parts) > 4 and parts[0] == "net" and parts[2] in ("conf", "neigh"):
        parts[3] = "default"
    return "/".join(parts)


def _there(path: str) -> bool:
    try:
        posix.stat(f"/proc/sys/{path}")
    except OSError:
        return False
    return True


def quote(text: str) -> str:
    """The text as one word of a shell."""
    plain = text and all(c.isalnum() or c in "_-./:=@%+," for c in text) and text.isascii()
    return text if plain else "'" + text.replace("'", "'\\''") + "'"


# ---- setting -----------------------------------------------------------------------------------------------


def _set_name(key: str, call: str, name: str) -> None:
    data = name.encode("utf-8", "surrogateescape")
    try:
        syscall(NR[call], data, len(data))
    except OSError as problem:
        hints = {errno.EINVAL: "at most 64 bytes", errno.EPERM: "needs a UTS namespace of its own"}
        raise Error(f"{key}: set to {name!r}", problem, hints.get(problem.errno or 0, "")) from None


def _write_all(settings: list[tuple[str, str, str]]) -> None:
    """Write through the procfs at /proc; what is covered or read-only there, through a fresh one that nothing
    covers."""
    with openat2.Held(open_proc("linux.sysctl")) as proc:
        fresh = -1
        try:
            for key, path, value in settings:
                try:
                    _write(proc, path, value)
                except OSError as problem:
                    if problem.errno not in (errno.EXDEV, errno.EROFS, errno.ELOOP):
                        raise _failed(key, value, problem) from None
                    fresh = fresh if fresh >= 0 else _fresh_proc(key, value, problem)
                    _write_fresh(fresh, key, path, value)
        finally:
            if fresh >= 0:
                posix.close(fresh)


def _write_fresh(proc: int, key: str, path: str, value: str) -> None:
    try:
        _write(proc, path, value)
    except OSError as problem:
        raise _failed(key, value, problem) from None


def _write(proc: int, path: str, value: str) -> None:
    """Open the file and give it the value in one write, as the kernel wants it. Raises OSError."""
    data = value.encode("utf-8", "surrogateescape") or b"\n"  # a write of nothing would change nothing
    fd = openat2.openat2(proc, b"sys/" + path.encode("utf-8", "surrogateescape"), _WRITE, 0, _STRAIGHT)
    try:
        if posix.write(fd, data) != len(data):
            raise OSError(errno.EINVAL, posix.strerror(errno.EINVAL))
    finally:
        posix.close(fd)


_WRITE = posix.O_WRONLY | posix.O_CLOEXEC | posix.O_NOCTTY


def _failed(key: str, value: str, problem: OSError) -> Error:
    return Error(f"{where(key)}: write {value!r}", problem, _REMEDIES.get(problem.errno or 0, ""))


def open_proc(doing: str) -> int:
    """The procfs at /proc. Raises Error when what is there is something else."""
    try:
        fd = posix.open("/proc", _PROC_FLAGS)
    except OSError as problem:
        raise Error(f"{doing}: open /proc", problem) from None
    held = bytearray(256)
    syscall(NR["fstatfs"], fd, held)
    # struct statfs begins with f_type, a long; procfs gives its root the inode number 1 (PROC_ROOT_INO).
    if _struct.unpack_from("@l", held)[0] != PROC_SUPER_MAGIC or posix.fstat(fd).st_ino != 1:
        posix.close(fd)
        raise Error(f"{doing}: open /proc", "it is not the root of a procfs", "mount proc there")
    return fd


def _fresh_proc(key: str, value: str, problem: OSError) -> int:
    """A procfs of our own, mounted nowhere. Raises Error with the reason why one was needed when it cannot be
    had."""
    from ..linux import mount

    try:
        return mount.new_filesystem(b"proc", [], mount.ATTR_NOSUID | mount.ATTR_NODEV | mount.ATTR_NOEXEC)
    except OSError:
        raise _failed(key, value, problem) from None

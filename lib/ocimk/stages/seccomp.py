"""oci-seccomp: compile linux.seccomp into a filter the kernel can load.

Reads   config.json Writes  seccomp.bpf (an array of struct sock_filter) and seccomp.json (flags, whether an
agent is asked, what was
        ignored); nothing when linux.seccomp is absent
Keeps   <root>/.cache/seccomp/HASH.bpf and HASH.json, so that a profile is compiled once for a kernel and a
libseccomp

The filter is installed much later, by the process that becomes the user's program.
"""

from __future__ import annotations

import posix
import sys

from .. import __version__, errors, jsonio
from ..container import names
from ..errors import Error
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..container.folder import Folder

    Options = dict[str, str]

NAME = "oci-seccomp"
SUMMARY = "compile linux.seccomp into a BPF filter (seccomp.bpf, seccomp.json)"
OPTIONS = (("--no-cache", "", "compile anew, and keep nothing for the next container"),)
VALUES = "[SYSCALL [VALUE...]]"
CHAINS = True

PROGRAM = "seccomp.bpf"
INFO = "seccomp.json"

_KEPT = 64
"""Profiles in the cache; each new one beyond that puts out the one that was made first."""

_DIRECTORY = posix.O_RDONLY | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_FILE = posix.O_RDONLY | posix.O_NOFOLLOW | posix.O_CLOEXEC
_MAX_FILE = 1 << 20


def apply(folder: Folder, options: Options, operands: list[str]) -> None:
    """Write the filter, from the cache if it has it. Raises Error naming the property that is wrong or cannot
    be had."""
    if operands:
        raise errors.Usage(f"unexpected operand {operands[0]}", hint="only explain asks about a system call")
    given = _given(folder)
    if given:
        _take_given(given, folder)
        return
    profile = _profile(folder)
    if profile is None:
        return
    place = "" if "--no-cache" in options else cache_place(folder)
    if not place or not _take_cached(place, profile, folder):
        _compile(place, profile, folder)


def undo(folder: Folder) -> None:
    """Remove the two files; the cache stays, it belongs to no container."""
    for name in (PROGRAM, INFO):
        folder.remove(name)


def explain(folder: Folder, options: Options, operands: list[str]) -> list[str]:
    """The rules in words, as comments of a shell; or, for a system call and its arguments, which rule
    decides."""
    given = _given(folder)
    if given:
        if operands:
            raise Error(f"annotations.{_GIVEN}", "instructions have no rules that could be asked")
        return [f"# annotations.{_GIVEN}: {len(given) // 8} instructions, loaded as they are"]
    profile = _profile(folder)
    if profile is None:
        return ["# linux.seccomp is absent: every system call is allowed"]
    from . import seccomp_words

    if operands:
        return seccomp_words.verdict(profile, operands[0], operands[1:])
    return [f"# {line}" for line in seccomp_words.describe(profile)]


def check(folder: Folder) -> list[str]:
    """What of linux.seccomp cannot be had here: syntax, libseccomp, this kernel's actions and flags, unknown
    names."""
    profile = _profile(folder)
    if profile is None:
        return []
    from . import seccomp_words

    return seccomp_words.problems(profile)


def _info(folder: Folder) -> dict[str, Any] | None:
    """seccomp.json, None without one. Raises Error when it is not what apply writes."""
    try:
        info = jsonio.loads(folder.read(INFO), INFO)
    except FileNotFoundError:
        return None
    known = isinstance(info, dict) and isinstance(info.get("flags"), list)
    if not known or not all(type(flag) is int for flag in info["flags"]):
        raise Error(f"{folder.path}/{INFO}", "not what oci-seccomp writes")
    if info.get("notify") and not all(isinstance(info.get(key), str) for key in ("listenerPath", "listenerMetadata")):
        raise Error(f"{folder.path}/{INFO}", "not what oci-seccomp writes")
    return dict(info)


def load_info(folder: Folder) -> tuple[bytes, int] | None:
    """The filter and the flags for seccomp(2), as apply left them; None when there is no filter.

    With FLAG_NEW_LISTENER (8) among the flags the call returns a descriptor that belongs to the agent
    (`listener`). Raises Error."""
    info = _info(folder)
    return None if info is None else (folder.read(PROGRAM), sum(info["flags"]))


def listener(folder: Folder) -> tuple[str, str] | None:
    """(path of the agent's socket, metadata for it) when a rule asks an agent, else None. Raises Error."""
    info = _info(folder)
    return (info["listenerPath"], info["listenerMetadata"]) if info is not None and info.get("notify") else None


def _profile(folder: Folder) -> dict[str, Any] | None:
    """linux.seccomp; None when it is absent, or empty, which callers mean as "off" (as runc takes it)."""
    seccomp = (folder.config.get("linux") or {}).get("seccomp")
    if seccomp is None:
        return None
    if not isinstance(seccomp, dict):
        raise Error("linux.seccomp", "an object is required")
    return seccomp if seccomp.get("defaultAction") or seccomp.get("syscalls") else None


_GIVEN = "run.oci.seccomp_bpf_data"


def _given(folder: Folder) -> bytes:
    """A filter that an annotation of crun's gives as it is, in linux.seccomp's place; b"" without one. Raises Error."""
    value = (folder.config.get("annotations") or {}).get(_GIVEN)
    if value is None:
        return b""
    from ..spec.annotations import bpf

    found = bpf(value) if type(value) is str else b""
    if not found:
        raise Error(f"annotations.{_GIVEN}", "an array of struct sock_filter in base64 is required")
    return found


def _take_given(program: bytes, folder: Folder) -> None:
    from ..linux.seccomp import FLAG_SPEC_ALLOW, flag_available

    flags = [FLAG_SPEC_ALLOW] if flag_available(FLAG_SPEC_ALLOW) else []
    folder.write(PROGRAM, program)
    folder.write(INFO, jsonio.dumps({"flags": flags, "unknown": [], "warnings": []}).encode())


def _compile(place: str, profile: dict[str, Any], folder: Folder) -> None:
    from .seccomp_compile import compile_profile

    program, info = compile_profile(profile)
    _judge(folder, info)
    data = jsonio.dumps({**info, "sum": _sum(program)}).encode("utf-8", "surrogateescape")
    folder.write(PROGRAM, program)
    folder.write(INFO, data)
    try:
        keep(place, profile, program, data)
    except OSError as problem:
        errors.debug(f"{place}: {errors.reason(problem)}: the filter is not kept")


def _take_cached(place: str, profile: dict[str, Any], folder: Folder) -> bool:
    found = cached(place, profile)
    if found is None:
        return False
    program, data, info = found
    _judge(folder, info)
    folder.write(PROGRAM, program)
    folder.write(INFO, data)
    return True


_STRICT = "run.oci.seccomp_fail_unknown_syscall"


def _judge(folder: Folder, info: dict[str, Any]) -> None:
    """Tell what has fallen away. Raises Error when an annotation says that nothing may."""
    if info["unknown"] and _STRICT in (folder.config.get("annotations") or {}):
        names = ", ".join(info["unknown"])
        hint = f"the annotation {_STRICT} forbids them"
        raise Error("linux.seccomp.syscalls", f"unknown to libseccomp: {names}", hint)
    for text in info["warnings"]:
        errors.warn(text)


# ---- the cache ---------------------------------------------------------------------------------------------


def cache_place(folder: Folder) -> str:
    """The cache's directory: beside the containers' folders, so that it goes when they go."""
    return f"{paths.dirname(folder.path)}/{names.CACHE}/seccomp"


def library_file() -> tuple[str, int, int] | None:
    """(path, size, mtime in ns) of libseccomp in the usual places: another library, another name in the
    cache."""
    multiarch = getattr(sys.implementation, "_multiarch", "")
    for place in (f"/usr/lib/{multiarch}", "/usr/lib64", "/lib64", "/usr/lib", "/lib", "/usr/local/lib"):
        try:
            found = posix.stat(f"{place}/libseccomp.so.2")
        except OSError:
            continue
        return f"{place}/libseccomp.so.2", found.st_size, found.st_mtime_ns
    return None


def key(profile: dict[str, Any]) -> str:
    """The name of a compiled profile: everything that its filter depends on, hashed. "" when libseccomp is
    not found where it is looked for, for then a newer one would go unnoticed."""
    library = library_file()
    if library is None:
        return ""
    system = posix.uname()
    parts = (jsonio.dumps(profile), *map(str, library), system.release, system.machine, __version__)
    return _sum("\0".join(parts).encode("utf-8", "surrogateescape"))


def _sum(data: bytes) -> str:
    """A cryptographic hash in hex; from the interpreter itself, hashlib would load OpenSSL."""
    import _blake2

    return _blake2.blake2b(data, digest_size=20).hexdigest()


def cached(place: str, profile: dict[str, Any]) -> tuple[bytes, bytes, dict[str, Any]] | None:
    """(filter, info as bytes, info) that an earlier container left; None when there is none, when it was cut
    short, and when another user could have put it there."""
    name = key(profile)
    if not name:
        return None
    try:
        directory = _open_own_directory(place)
    except OSError:
        return None
    try:
        program = _read_own(directory, f"{name}.bpf")
        data = _read_own(directory, f"{name}.json")
        info = jsonio.loads(data, f"{place}/{name}.json")
    except (OSError, Error):
        return None
    finally:
        posix.close(directory)
    return (program, data, info) if info.get("sum") == _sum(program) else None


def keep(place: str, profile: dict[str, Any], program: bytes, data: bytes) -> None:
    """Put a compiled profile into the cache; nothing without a place. Raises OSError."""
    name = key(profile) if place else ""
    if not name:
        return
    for path in (paths.dirname(place), place):
        try:
            posix.mkdir(path, 0o700)
        except FileExistsError:
            pass
    directory = _open_own_directory(place)
    try:
        _make_room(directory)
        _write(directory, f"{name}.json", data)
        _write(directory, f"{name}.bpf", program)
    finally:
        posix.close(directory)


def _open_own_directory(place: str) -> int:
    """The cache's directory, opened step by step; PermissionError when another user could have put files
    there."""
    above = posix.open(paths.dirname(place), _DIRECTORY)
    try:
        _own(above)
        directory = posix.open(paths.basename(place), _DIRECTORY, dir_fd=above)
    finally:
        posix.close(above)
    try:
        _own(directory)
    except OSError:
        posix.close(directory)
        raise
    return directory


def _own(fd: int) -> posix.stat_result:
    """What fstat says, of a file that is ours and that nobody else may write."""
    found = posix.fstat(fd)
    if found.st_uid != posix.geteuid() or found.st_mode & 0o022:
        raise PermissionError(1, "not ours alone")
    return found


def _read_own(directory: int, name: str) -> bytes:
    fd = posix.open(name, _FILE, dir_fd=directory)
    try:
        found = _own(fd)
        if found.st_mode & 0o170000 != 0o100000 or found.st_size > _MAX_FILE:
            raise PermissionError(1, "not a file of the cache")
        return posix.read(fd, found.st_size)
    finally:
        posix.close(fd)


def _write(directory: int, name: str, data: bytes) -> None:
    """Make the file appear whole: two containers may compile the same profile at the same time."""
    temporary = f".{name}.{posix.getpid()}"
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_NOFOLLOW | posix.O_CLOEXEC
    fd = posix.open(temporary, flags, 0o600, dir_fd=directory)
    try:
        view = memoryview(data)
        while view:
            view = view[posix.write(fd, view) :]
    finally:
        posix.close(fd)
    posix.rename(temporary, name, src_dir_fd=directory, dst_dir_fd=directory)


def _make_room(directory: int) -> None:
    """Drop the oldest profiles, and what a killed process left half written."""
    names = posix.listdir(directory)
    aged = sorted((posix.stat(name, dir_fd=directory, follow_symlinks=False).st_mtime_ns, name) for name in names)
    surplus = aged[: max(0, len(aged) - 2 * (_KEPT - 1))]
    for _, name in surplus:
        try:
            posix.unlink(name, dir_fd=directory)
        except FileNotFoundError:
            pass

"""Whether a place is out of the reach of others: who can write to a directory can put anything of his there."""

from __future__ import annotations

import posix

from . import path as paths

_STICKY = 0o1000
_NOBODY = 65534
"""How the owner of a file looks who is not mapped into the user namespace that we are in. See user_namespaces(7)."""


def suspicion(path: str) -> str:
    """Why what is at *path* itself is not to be trusted, "" when it is: it must be ours or root's, and no one else may
    write to it. A link is not followed, it is suspicious itself. Raises OSError."""
    status = posix.lstat(path)
    if status.st_mode & 0o170000 == 0o120000:
        return "it is a link"
    if status.st_uid not in (0, posix.geteuid()):
        return f"it belongs to user {status.st_uid}"
    return _writers(status)


def suspicion_of_all(path: str, shared: bool = False) -> str:
    """The same for a directory or file and all directories above it, links followed; what is not there (yet) counts
    for nothing. A directory, like /tmp, may be everybody's when its sticky bit keeps what is in it apart; the last one
    only if *shared*, since anybody can still add to it."""
    at = _real(path)
    kept_apart = shared
    while True:
        why = _suspicion_above(at, kept_apart)
        if why:
            return why if at == path else f"{at}: {why}"
        if at == "/":
            return ""
        at, kept_apart = paths.dirname(at), True


def _suspicion_above(path: str, kept_apart: bool) -> str:
    try:
        status = posix.lstat(path)
    except FileNotFoundError:
        return ""
    if status.st_uid not in (0, posix.geteuid(), _NOBODY):
        return f"it belongs to user {status.st_uid}"
    return "" if kept_apart and status.st_mode & _STICKY else _writers(status)


def _writers(status: posix.stat_result) -> str:
    """A group counts for nobody else when it is root's or our own: many give each user one of his own."""
    if status.st_mode & 0o002:
        return "everybody may write to it"
    if status.st_mode & 0o020 and status.st_gid not in (0, posix.getegid()):
        return f"group {status.st_gid} may write to it"
    return ""


def _real(path: str) -> str:
    """The path without links, as far as it is there."""
    try:
        fd = posix.open(path, posix.O_PATH | posix.O_CLOEXEC)
    except OSError:
        above = paths.dirname(path)
        return path if above in ("", path) else paths.join(_real(above), paths.basename(path))
    try:
        return posix.readlink(f"/proc/self/fd/{fd}")
    finally:
        posix.close(fd)

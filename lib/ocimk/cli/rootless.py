"""Whether we are root for the whole machine, and where containers are kept by someone who is not."""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux import path as paths
from .fast import FALSE, TRUE

WHOLE = (b"0", b"0", b"4294967295")
"""The one line of /proc/self/uid_map outside any user namespace; see user_namespaces(7)."""


def in_user_namespace() -> bool:
    """Whether we run in a user namespace other than the first; False where /proc does not tell."""
    try:
        fd = posix.open("/proc/self/uid_map", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        return tuple(posix.read(fd, 4096).split()) != WHOLE
    finally:
        posix.close(fd)


def chosen(value: str) -> bool:
    """What ``--rootless VALUE`` comes to; ``auto`` means: unless we are root of the first user namespace."""
    if value.lower() in ("", "auto"):
        return posix.geteuid() != 0 or in_user_namespace()
    if value not in TRUE and value not in FALSE:
        raise Error(f'invalid value "{value}" for option --rootless', hint="true, false or auto")
    return value in TRUE


def default_root() -> str:
    """``$XDG_RUNTIME_DIR/oci``, made when it is missing; "" when that is not ours to use. Raises Error.

    Root of a user namespace counts as not root unless $USER says that it means it, as runc has it.
    """
    runtime = posix.environ.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape")
    if not runtime:
        return ""
    if posix.geteuid() == 0 and (posix.environ.get(b"USER") == b"root" or not in_user_namespace()):
        return ""
    root = paths.absolute(f"{runtime}/oci")
    try:
        paths.make_dirs(root, 0o700)
        # The sticky bit keeps it from being pruned with what is old in there (XDG base directory specification).
        posix.chmod(root, 0o1700)
    except OSError as problem:
        hint = "$XDG_RUNTIME_DIR must be writable; or name another place with --root"
        raise Error(f"make {root}", problem, hint) from None
    return root

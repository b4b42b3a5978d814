"""The program's environment: process.env, with what the runtime adds."""

from __future__ import annotations

import posix

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 1 << 20


def of(process: dict[str, Any], listen: int = 0) -> list[str]:
    """process.env without doubles (the last counts), LISTEN_FDS when descriptors are passed on, and HOME.

    Reads /etc/passwd of the container for HOME: to be called once the root is changed.
    """
    pairs = {str(pair).partition("=")[0]: str(pair) for pair in process.get("env") or []}
    if listen:
        pairs["LISTEN_FDS"] = f"LISTEN_FDS={listen}"
        pairs["LISTEN_PID"] = "LISTEN_PID=1"
    if not pairs.get("HOME", "").partition("=")[2]:
        uid = int((process.get("user") or {}).get("uid") or 0)
        pairs["HOME"] = f"HOME={home(uid)}"
    return list(pairs.values())


def home(uid: int) -> str:
    """The home directory that /etc/passwd gives the user, "/" when it gives none."""
    wanted = str(uid).encode()
    for line in _passwd().split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted:
            return fields[5].decode("utf-8", "surrogateescape") or "/"
    return "/"


def _passwd() -> bytes:
    """At most a MiB of /etc/passwd; it is the image's, so it may be anything: a FIFO, a device, endless."""
    try:
        fd = posix.open("/etc/passwd", posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NONBLOCK | posix.O_NOCTTY)
    except OSError:
        return b""
    try:
        if posix.fstat(fd).st_mode & 0o170000 != 0o100000:
            return b""
        return posix.read(fd, _LIMIT)
    except OSError:
        return b""
    finally:
        posix.close(fd)

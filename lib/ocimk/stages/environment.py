"""The program's environment: process.env, with what the runtime adds."""

from __future__ import annotations

import posix

from ..linux.openat2 import O_PATH, Held, find

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_LIMIT = 1 << 20


def of(process: dict[str, Any], listen: int = 0, root: int = -1) -> list[str]:
    """process.env without doubles (the last counts), LISTEN_FDS when descriptors are passed on, and HOME.

    root  a descriptor of the container's root, whose /etc/passwd tells HOME when process.env does not
    """
    pairs = {str(pair).partition("=")[0]: str(pair) for pair in process.get("env") or []}
    if listen:
        pairs["LISTEN_FDS"] = f"LISTEN_FDS={listen}"
        pairs["LISTEN_PID"] = "LISTEN_PID=1"
    if not pairs.get("HOME", "").partition("=")[2]:
        uid = int((process.get("user") or {}).get("uid") or 0)
        pairs["HOME"] = f"HOME={home(uid, root)}"
    return list(pairs.values())


def home(uid: int, root: int) -> str:
    """The home directory that /etc/passwd gives the user, "/" when it gives none."""
    wanted = str(uid).encode()
    for line in _passwd(root).split(b"\n"):
        fields = line.split(b":")
        if len(fields) >= 6 and fields[2] == wanted:
            return fields[5].decode("utf-8", "surrogateescape") or "/"
    return "/"


def _passwd(root: int) -> bytes:
    """At most a MiB of /etc/passwd; it is the image's, so it may be anything: a link, a FIFO, a device, endless."""
    if root < 0:
        return b""
    try:
        with Held(find(root, b"/etc/passwd", O_PATH)) as found:
            # Opened for reading only once it is known to be a plain file: opening a device or a FIFO can do harm.
            if posix.fstat(found).st_mode & 0o170000 != 0o100000:
                return b""
            with Held(posix.open(b"/proc/self/fd/%d" % found, posix.O_RDONLY | posix.O_CLOEXEC)) as fd:
                return posix.read(fd, _LIMIT)
    except OSError:
        return b""

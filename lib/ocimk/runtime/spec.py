"""oci spec: write a config.json to start from."""

from __future__ import annotations

import posix

from .. import jsonio
from ..container.folder import write_all
from ..container.names import CONFIG
from ..errors import Error
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """Write it into the bundle, 0666 less the umask. Raises Error when there is one; that one stays."""
    from ..spec.default import default_config

    place = paths.join(paths.absolute(invocation.text("bundle", ".")), CONFIG)
    config = default_config(invocation.flag("rootless"), unified(), posix.geteuid(), posix.getegid())
    try:
        fd = posix.open(place, posix.O_WRONLY | posix.O_CREAT | posix.O_EXCL | posix.O_CLOEXEC, 0o666)
    except FileExistsError:
        raise Error(f"File {CONFIG} exists. Remove it first", place) from None
    except OSError as problem:
        raise Error(f"write {place}", problem) from None
    try:
        write_all(fd, jsonio.dumps_indent(config, "\t").encode())
    except OSError as problem:
        posix.unlink(place)
        raise Error(f"write {place}", problem) from None
    finally:
        posix.close(fd)
    return 0


def unified() -> bool:
    """Whether the host has cgroup v2 alone: its file that no v1 hierarchy has is at the usual place."""
    return paths.exists("/sys/fs/cgroup/cgroup.controllers")

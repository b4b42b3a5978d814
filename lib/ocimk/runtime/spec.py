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
    """Write it into the bundle, 0666 less the umask. Raises Error when there is one; that one stays. A file that is
    named is written over, as crun has it."""
    from ..spec.default import default_config

    bundle = paths.real_dir(invocation.text("bundle"))
    place = paths.join(bundle, invocation.text("file") or CONFIG)
    config = default_config(invocation.flag("rootless"), unified(), posix.geteuid(), posix.getegid())
    try:
        how = posix.O_TRUNC if invocation.given("file") else posix.O_EXCL
        fd = posix.open(place, posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC | how, 0o666)
    except FileExistsError:
        raise Error(f"File {paths.basename(place)} exists. Remove it first", place) from None
    except OSError as problem:
        raise Error(f"write {place}", problem) from None
    try:
        write_all(fd, jsonio.dumps_indent(config, "\t").encode())
    except OSError as problem:
        if not invocation.given("file"):
            posix.unlink(place)
        raise Error(f"write {place}", problem) from None
    finally:
        posix.close(fd)
    return 0


def unified() -> bool:
    """Whether the host has cgroup v2 alone: its file that no v1 hierarchy has is at the usual place."""
    return paths.exists("/sys/fs/cgroup/cgroup.controllers")

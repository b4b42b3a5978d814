"""Id-mapped bind mounts: mount_setattr(2) with MOUNT_ATTR_IDMAP and a user namespace that holds the
mapping."""

from __future__ import annotations

import _signal
import errno
import posix

from ...errors import Error, reason
from ...linux import mount as m
from ...linux.openat2 import DIRECTORY, Held
from ...native import _native
from . import plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ...container.folder import Folder
    from .plan import Entry, Mapping
    from .work import Work

_CLONE_NEWUSER = 0x10000000


def prepare(folder: Folder) -> None:
    """On the host's side, before the container's user namespace is made: open the id-mapped sources and leave
    them in folder.fds as "mount0", "mount1", ... (by index in mounts[]).

    Only who may administer the source's filesystem can id-map it, and the container's side no longer may
    once it is in a user namespace. Without a user namespace there is nothing to prepare. Raises Error.
    """
    if plan.namespace(folder.config, "user") is None:
        return
    shared = "shared" in str((folder.config.get("linux") or {}).get("rootfsPropagation") or "")
    for entry in plan.entries(folder.config, folder.bundle):
        if not plan.id_mapped(entry):
            continue
        try:
            fd = mapped(folder.config, entry)
            if not shared:
                # What oci-mount does to every mount of the container's namespace; this one comes from the
                # host's.
                m.mount_setattr(fd, propagation=m.MS_SLAVE, recursive=True)
        except OSError as problem:
            raise Error(f"{entry.where}.source {entry.source}", problem) from None
        folder.fds[f"mount{entry.index}"] = fd


def source(work: Work, entry: Entry) -> int:
    """The id-mapped source of the entry: as prepared, else made now. Raises OSError, Error."""
    fd = work.folder.fds.pop(f"mount{entry.index}", -1)
    return fd if fd >= 0 else mapped(work.config, entry)


def mapped(config: dict[str, Any], entry: Entry) -> int:
    """A detached copy of the source with its mapping. Raises OSError (the source), Error."""
    doing = f"{entry.doing}: {entry.options.idmap or 'uidMappings'}"
    namespace = _namespace(config, entry, doing)
    with Held(namespace):
        path = plan.encode(entry.source, f"{entry.where}.source")
        deep = bool(entry.options.flags & m.MS_REC)
        fd = m.open_tree(m.AT_FDCWD, path, deep, nofollow=entry.options.source_itself)
        try:
            m.mount_setattr(fd, m.ATTR_IDMAP, recursive=entry.options.idmap == "ridmap", userns=namespace)
        except OSError as problem:
            posix.close(fd)
            raise Error(doing, reason(problem), _hint(entry, problem)) from None
    return fd


def _hint(entry: Entry, problem: OSError) -> str:
    if problem.errno == errno.EINVAL:
        return f"the filesystem of {entry.source} does not support id-mapped mounts on this kernel"
    if problem.errno == errno.EPERM:
        return "only who may administer the source's filesystem can map it, not a user namespace"
    return "id-mapped mounts need Linux 5.12" if problem.errno == errno.ENOSYS else ""


def _namespace(config: dict[str, Any], entry: Entry, doing: str) -> int:
    """A user namespace with the entry's mapping, or else the container's. Raises Error."""
    uids, gids = entry.uids, entry.gids
    if not uids:
        container = plan.namespace(config, "user")
        if container is None:
            hint = "give uidMappings and gidMappings, or use a user namespace"
            raise Error(doing, "there is no mapping", hint)
        linux = config.get("linux") or {}
        uids, gids = linux.get("uidMappings") or [], linux.get("gidMappings") or []
        if container.get("path"):
            try:
                return posix.open(container["path"], posix.O_RDONLY | posix.O_CLOEXEC)
            except OSError as problem:
                raise Error(f"linux.namespaces: user {container['path']}", problem) from None
    try:
        return make_namespace(uids, gids)
    except OSError as problem:
        raise Error(f"{doing}: make a user namespace", problem) from None


def make_namespace(uids: Mapping, gids: Mapping) -> int:
    """A descriptor of a new user namespace with these mappings; nobody lives in it. Raises OSError."""
    wait, go = posix.pipe2(posix.O_CLOEXEC)
    pid, pidfd = _native.clone3(_CLONE_NEWUSER, _signal.SIGCHLD, -1, True)
    if pid == 0:
        posix.close(go)
        posix.read(wait, 1)
        posix._exit(0)
    posix.close(wait)
    try:
        # /proc is still the host's and numbers processes otherwise than our own pid namespace does.
        with Held(posix.open(f"/proc/{_number(pidfd)}", DIRECTORY)) as process:
            _write(process, "uid_map", lines(uids))
            _write(process, "gid_map", lines(gids))
            return posix.open("ns/user", posix.O_RDONLY | posix.O_CLOEXEC, dir_fd=process)
    finally:
        posix.close(go)
        posix.close(pidfd)
        posix.waitpid(pid, 0)


def _number(pidfd: int) -> int:
    """The process's number as the mounted /proc has it. Raises OSError ESRCH when it is not to be seen
    there."""
    with Held(posix.open(f"/proc/self/fdinfo/{pidfd}", posix.O_RDONLY | posix.O_CLOEXEC)) as fd:
        for line in posix.read(fd, 4096).splitlines():
            name, _, value = line.partition(b":")
            if name == b"Pid" and int(value) > 0:
                return int(value)
    raise OSError(errno.ESRCH, posix.strerror(errno.ESRCH))


def lines(mapping: Mapping) -> bytes:
    """A mapping as the kernel takes it."""
    rows = (f"{row.get('containerID', 0)} {row.get('hostID', 0)} {row.get('size', 0)}\n" for row in mapping)
    return "".join(rows).encode()


def _write(process: int, name: str, data: bytes) -> None:
    with Held(posix.open(name, posix.O_WRONLY | posix.O_CLOEXEC, dir_fd=process)) as fd:
        posix.write(fd, data)

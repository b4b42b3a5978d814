"""The cgroup entry of mounts[]: what of the host's cgroup hierarchies the container sees."""

from __future__ import annotations

import errno
import posix

from ... import jsonio
from ...errors import Error
from ...linux import mount as m
from ...linux.openat2 import DIRECTORY, Held
from . import hints, masks, mounts, options, plan
from .work import change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Entry
    from .work import Work

TOP = b"/sys/fs/cgroup"
_SAFE = m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC


def apply(work: Work, entry: Entry) -> None:
    """Mount what the host has: the unified hierarchy, or one directory per hierarchy of cgroup v1. Raises
    Error."""
    with Held(mounts.destination(work, entry)[0]) as target:
        if unified():
            _unified(work, entry, target)
        else:
            _hierarchies(work, entry, target)


def unified() -> bool:
    """Whether the host has cgroup v2 only."""
    try:
        with Held(posix.open(TOP, DIRECTORY)) as top:
            return m.magic(top) == m.CGROUP2
    except FileNotFoundError:
        return False


# ---- cgroup v2 -------------------------------------------------------------------------------------------


def _unified(work: Work, entry: Entry, target: int) -> None:
    data = [plan.encode(word, f"{entry.where}.options") for word in entry.options.data]
    flags = entry.options.flags
    try:
        made = m.new_filesystem(b"cgroup2", mounts.parameters(entry, data, flags), options.attributes(flags))
        try:
            m.move_mount(made, target)
        except OSError:
            posix.close(made)
            raise
    except OSError as problem:
        # Without a cgroup namespace of our own in our user namespace, or where one is mounted already.
        if problem.errno not in (errno.EPERM, errno.EBUSY):
            raise hints.failed(entry, problem, work.in_userns) from None
        _instead(work, entry, target)
        return
    mounts.finish(work, entry, made)


def _instead(work: Work, entry: Entry, target: int) -> None:
    """Bind mounts of the host's hierarchy where a mount of our own is refused.

    With a cgroup namespace: the container's own cgroup, as if it were the top. Without: everything, but
    only the container's own cgroup may be writable (CVE-2023-25809).
    """
    namespaced = plan.namespace(work.config, "cgroup") is not None
    add = options.attributes(entry.options.flags) & ~m.ATTR_ATIME
    try:
        own = own_cgroup(work)
        if namespaced:
            made = _bound(own, target, add)
        else:
            made = _bound(TOP, target, add | m.ATTR_RDONLY)
            if not add & m.ATTR_RDONLY and own.startswith(TOP + b"/"):
                with Held(posix.open(own[len(TOP) + 1 :], DIRECTORY, dir_fd=made)) as below:
                    posix.close(_bound(own, below, add))
    except FileNotFoundError:
        # The container's cgroup is not visible from here: better nothing than someone else's.
        masks.empty(work, target, entry.doing)
        return
    except OSError as problem:
        raise hints.failed(entry, problem, work.in_userns) from None
    mounts.finish(work, entry, made)


def _bound(source: bytes, target: int, add: int) -> int:
    made = m.open_tree(m.AT_FDCWD, source)
    try:
        m.move_mount(made, target)
        change(made, add)
    except BaseException:
        posix.close(made)
        raise
    return made


def own_cgroup(work: Work) -> bytes:
    """The container's cgroup of v2 by its path on the host: what oci-cgroup wrote down, else what the kernel
    says. Raises FileNotFoundError where neither can tell: a cgroup namespace hides it from us."""
    if work.cgroup:
        return work.cgroup
    try:
        known = jsonio.loads(work.folder.read("cgroup.json"), "cgroup.json")
        path = (known.get("paths") or {}).get("", "")
        if path:
            return plan.encode(path, "cgroup.json")
    except OSError:
        pass
    if plan.namespace(work.config, "cgroup") is not None:
        raise FileNotFoundError(errno.ENOENT, posix.strerror(errno.ENOENT))
    return TOP + memberships().get(b"", b"/").rstrip(b"/")


def remember(work: Work) -> None:
    """Look up the container's cgroup while we still may read its folder: not after becoming root of a user
    namespace."""
    if any(entry.kind == "cgroup" for entry in work.mounts) and unified():
        try:
            work.cgroup = own_cgroup(work)
        except FileNotFoundError:
            pass


# ---- cgroup v1 -------------------------------------------------------------------------------------------


def _hierarchies(work: Work, entry: Entry, target: int) -> None:
    """A tmpfs with a directory per hierarchy and, for one of several controllers, links to it by their names.

    As in runc, the cgroup2 hierarchy of a hybrid host is not among them.
    """
    try:
        top = m.new_filesystem(b"tmpfs", [(b"source", b"tmpfs"), (b"mode", b"755")], options.attributes(_SAFE))
        m.move_mount(top, target)
    except OSError as problem:
        raise hints.failed(entry, problem, work.in_userns) from None
    namespaced = plan.namespace(work.config, "cgroup") is not None
    for name, controllers, source in hierarchies():
        _hierarchy(work, entry, top, name, controllers, b"" if namespaced else source)
        if b"," in name:
            for controller in name.split(b","):
                posix.symlink(name, controller, dir_fd=top)
    if entry.options.flags & m.MS_RDONLY:
        change(top, m.ATTR_RDONLY)
    mounts.finish(work, entry, top)


def _hierarchy(work: Work, entry: Entry, top: int, name: bytes, controllers: list[bytes], source: bytes) -> None:
    """One hierarchy at *name* below *top*: bound from *source*, or (cgroup namespace) mounted anew when
    that is empty."""
    add = options.attributes(entry.options.flags | (0 if source else _SAFE))
    try:
        posix.mkdir(name, 0o755, dir_fd=top)
        with Held(posix.open(name, DIRECTORY | posix.O_NOFOLLOW, dir_fd=top)) as place:
            if source:
                made = m.open_tree(m.AT_FDCWD, source, recursive=True)
            else:
                made = m.new_filesystem(b"cgroup", _controllers(controllers), add)
            with Held(made):
                m.move_mount(made, place)
                if source and entry.options.changes:
                    change(made, *options.bind_changes(entry.options))
                for flag in entry.options.propagation:
                    change(made, propagation=flag & ~m.MS_REC, recursive=bool(flag & m.MS_REC))
    except OSError as problem:
        error = hints.failed(entry, problem, work.in_userns)
        error.doing += f" {name.decode('utf-8', 'replace')}"
        raise error from None


def _controllers(names: list[bytes]) -> list[tuple[bytes, bytes | None]]:
    """What fsconfig(2) is told for a hierarchy: controllers as flags, or ``name=`` and its name."""
    told: list[tuple[bytes, bytes | None]] = [(b"source", b"cgroup")]
    for name in names:
        key, equals, value = name.partition(b"=")
        told.append((key, value if equals else None))
    return told


def hierarchies() -> list[tuple[bytes, list[bytes], bytes]]:
    """The hierarchies of cgroup v1: (name of the directory, controllers, our own cgroup on the host)."""
    ours = memberships()
    found = []
    seen: set[bytes] = set()
    for root, point, kind, superblock in mountinfo():
        controllers = [word for word in superblock.split(b",") if word and word in ours and word not in seen]
        if kind != b"cgroup" or not controllers:
            continue
        seen.update(controllers)
        found.append((point.rpartition(b"/")[2], controllers, point + _below(ours[controllers[0]], root)))
    return found


def _below(path: bytes, root: bytes) -> bytes:
    """Of our cgroup's path what lies below the mounted part of the hierarchy (another part in a nested
    container)."""
    if root == b"/":
        return path.rstrip(b"/")
    return path[len(root) :] if path.startswith(root + b"/") else b""


def memberships() -> dict[bytes, bytes]:
    """/proc/self/cgroup: controller (or name=NAME, or "" for cgroup v2) to path."""
    found = {}
    for line in _lines(b"/proc/self/cgroup"):
        _, names, path = line.split(b":", 2)
        for name in names.split(b","):
            found[name] = path
    return found


def mountinfo() -> list[tuple[bytes, bytes, bytes, bytes]]:
    """/proc/self/mountinfo: (root, mount point, type, superblock's options)."""
    found = []
    for line in _lines(b"/proc/self/mountinfo"):
        left, _, right = line.partition(b" - ")
        fields, tail = left.split(b" "), right.split(b" ")
        if len(fields) > 5 and len(tail) > 2:
            found.append((_plain(fields[3]), _plain(fields[4]), tail[0], tail[2]))
    return found


def _plain(text: bytes) -> bytes:
    """The text without the octal escapes of mountinfo."""
    for escaped, char in ((b"\\040", b" "), (b"\\011", b"\t"), (b"\\012", b"\n"), (b"\\134", b"\\")):
        text = text.replace(escaped, char)
    return text


def _lines(path: bytes) -> list[bytes]:
    parts = []
    try:
        with Held(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)) as fd:
            while part := posix.read(fd, 1 << 16):
                parts.append(part)
    except OSError as problem:
        raise Error(f"read {path.decode()}", problem) from None
    return b"".join(parts).splitlines()

"""One entry of mounts[]: the destination found or made inside the root, the mount made detached, then
moved there."""

from __future__ import annotations

import _stat as st
import errno
import posix

from ...errors import Error, warn
from ...linux import mount as m
from ...linux.openat2 import DIRECTORY, O_PATH, Held, find, make_directories, make_file
from . import hints, options, plan
from .work import change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .plan import Entry
    from .work import Work

PROC_FILES = frozenset(
    # lxcfs and checkpointing bind over these; anywhere else below /proc a mount could fake what we or others
    # read
    b"/proc/" + name
    for name in (
        b"cpuinfo", b"diskstats", b"meminfo", b"stat", b"swaps", b"uptime", b"loadavg", b"slabinfo",
        b"sys/kernel/ns_last_pid", b"sys/crypto/fips_enabled",
    )
)  # fmt: skip

_LABELLED = ("proc", "sysfs", "mqueue", "cgroup", "cgroup2", "bind")
"""Types that take no context= option."""


def apply(work: Work) -> None:
    """Mount every entry, in order. Raises Error."""
    for entry in work.mounts:
        if entry.kind == "bind":
            bind(work, entry)
        elif entry.options.flags & m.MS_REMOUNT:
            remount(work, entry)
        elif entry.kind == "cgroup":
            from . import cgroups

            cgroups.apply(work, entry)
        else:
            filesystem(work, entry)


# ---- destinations ----------------------------------------------------------------------------------------


def destination(work: Work, entry: Entry, is_file: bool = False) -> tuple[int, bool]:
    """The file to mount on, and whether it was there before. Raises Error."""
    there = True
    try:
        if entry.kind in ("proc", "sysfs"):
            return _plain_directory(work, entry), there
        try:
            fd = find(work.root, entry.path, finding(entry))
        except FileNotFoundError:
            there = False
            fd = (make_file if is_file else make_directories)(work.root, entry.path)
    except OSError as problem:
        raise hints.place(entry, problem, work.userns) from None
    check_proc(work, entry, fd)
    return fd, there


def finding(entry: Entry) -> int:
    """The flags by which the destination is opened."""
    return O_PATH | (posix.O_NOFOLLOW if entry.options.target_itself else 0)


def _plain_directory(work: Work, entry: Entry) -> int:
    """The directory for a proc or sysfs: one that is a link could be someone else's (CVE-2019-19921)."""
    above, _, name = entry.path.rpartition(b"/")
    with Held(make_directories(work.root, above)) as parent:
        try:
            posix.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            pass
        except OSError as problem:
            # A read-only filesystem says so before it looks whether the name is there.
            if problem.errno not in (errno.EROFS, errno.EACCES, errno.EPERM):
                raise
        try:
            fd = posix.open(name, DIRECTORY | posix.O_NOFOLLOW, dir_fd=parent)
        except NotADirectoryError:
            text = "must be mounted on a directory, not on a link or file"
            raise Error(entry.doing, text) from None
    check_proc(work, entry, fd)
    return fd


def check_proc(work: Work, entry: Entry, fd: int) -> None:
    """Refuse a mount that would fake /proc or a part of it (CVE-2019-16884, CVE-2019-19921). Raises Error."""
    where = work.path_of(fd)
    if where != b"/proc" and not where.startswith(b"/proc/"):
        return
    doing = f"mounts[{entry.index}] {entry.destination}"
    if where != b"/proc":
        if where not in PROC_FILES:
            raise Error(
                doing,
                "cannot be mounted because it is inside /proc",
                f"it is {where.decode('utf-8', 'replace')}",
            )
        return
    if entry.kind == "proc" or (entry.kind == "bind" and m.magic(work.sources[entry.index]) == m.PROC):
        return
    raise Error(doing, "cannot be mounted because it is not of type proc")


# ---- filesystems -----------------------------------------------------------------------------------------


def filesystem(work: Work, entry: Entry) -> None:
    """Mount a new filesystem. Raises Error."""
    fd, there = destination(work, entry)
    with Held(fd) as target:
        data = [plan.encode(word, f"{entry.where}.options") for word in entry.options.data]
        if there and entry.kind == "tmpfs":
            # The directory keeps its mode unless the options say another.
            data.insert(0, b"mode=%04o" % (posix.fstat(target).st_mode & 0o7777))
        if work.label and entry.kind not in _LABELLED:
            data.append(label_option(work.config, work.label))
        try:
            made = new(work, entry, target, data)
        except OSError as problem:
            made = _instead(work, entry, target, problem)
        finish(work, entry, made)


def label_option(config: dict[str, Any], label: str) -> bytes:
    """linux.mountLabel as an option of the filesystem; which one an annotation of crun's may say. See mount(8)."""
    kind = str((config.get("annotations") or {}).get("run.oci.mount_context_type") or "context")
    return plan.encode(f"{kind}={label}", "linux.mountLabel")


def new(work: Work, entry: Entry, target: int, data: list[bytes]) -> int:
    """A new filesystem on *target*; returns the mount. Raises OSError."""
    from_kernel = entry.options.flags
    flags = from_kernel & ~m.MS_RDONLY if entry.late_readonly else from_kernel
    classic = bool(from_kernel & m.MS_I_VERSION) or any(len(word) > m.STRING_LIMIT for word in data)
    if not classic:
        try:
            told = parameters(entry, data, flags)
            if entry.kind == "proc" and "pidns" in work.folder.fds:
                told.append((b"pidns", work.folder.fds["pidns"]))
            made = m.new_filesystem(_name(entry), told, options.attributes(flags))
        except m.FilesystemError as problem:
            # ENOSYS: no fsopen(2) here. EINVAL for nosymfollow: fsmount(2) knows it from Linux 5.14 on,
            # mount(2) from 5.10.
            if problem.errno != errno.ENOSYS and not (problem.errno == errno.EINVAL and flags & m.MS_NOSYMFOLLOW):
                raise
        else:
            return _attach(work, entry, made, target)
    from . import classic as old

    made = old.mount_filesystem(work, entry, target, data, flags)
    if entry.options.copyup:
        _copy_up(work, entry, made, target)
    return made


def _attach(work: Work, entry: Entry, made: int, target: int) -> int:
    try:
        if entry.options.copyup:
            _copy_up(work, entry, made, target)
        m.move_mount(made, target)
    except BaseException:
        posix.close(made)
        raise
    return made


def _name(entry: Entry) -> bytes:
    return plan.encode(entry.kind, f"{entry.where}.type")


def parameters(entry: Entry, data: list[bytes], flags: int) -> list[m.Parameter]:
    """What fsconfig(2) is told: the source, the flags that are the filesystem's, its own options."""
    told: list[m.Parameter] = []
    if entry.source:
        told.append((b"source", plan.encode(entry.source, f"{entry.where}.source")))
    if flags & m.MS_RDONLY:
        told.append((b"ro", None))
    told += [(name, None) for flag, name in options.SUPERBLOCK if flags & flag]
    for word in data:
        name, equals, value = word.partition(b"=")
        told.append((name, value if equals else None))
    return told


def _instead(work: Work, entry: Entry, target: int, problem: OSError) -> int:
    """What can be had where the filesystem itself is refused. Raises Error."""
    if entry.kind == "sysfs" and problem.errno == errno.EPERM and entry.options.flags & m.MS_RDONLY and work.in_userns:
        return _host_sys(entry, target, problem)
    if not st.S_ISDIR(posix.fstat(target).st_mode):
        raise Error(entry.doing, "not a directory", "the destination is a file") from None
    raise hints.failed(entry, problem, work.in_userns) from None


def _host_sys(entry: Entry, target: int, problem: OSError) -> int:
    """The caller's /sys, read-only throughout: all that a user namespace without its own network can have."""
    try:
        made = m.open_tree(m.AT_FDCWD, b"/sys", recursive=True)
        add = options.attributes(entry.options.flags) & ~m.ATTR_ATIME
        m.mount_setattr(made, m.ATTR_RDONLY, propagation=m.MS_PRIVATE, recursive=True)
        m.mount_setattr(made, add)
        m.move_mount(made, target)
    except OSError:
        raise hints.failed(entry, problem, True) from None
    return made


def _copy_up(work: Work, entry: Entry, made: int, target: int) -> None:
    from . import copyup

    try:
        copyup.copy(target, made, entry.options.data)
    except OSError as problem:
        raise Error(f"{entry.doing}: tmpcopyup", problem) from None


def finish(work: Work, entry: Entry, made: int) -> None:
    """Propagation, attributes of the whole tree, and what is to be read-only in the end; takes over
    *made*."""
    try:
        for flag in entry.options.propagation:
            change(made, propagation=flag & ~m.MS_REC, recursive=bool(flag & m.MS_REC))
        if entry.options.recursive:
            change(made, entry.options.rset, entry.options.rclear, recursive=True)
    except OSError as problem:
        posix.close(made)
        raise hints.failed(entry, problem, work.userns) from None
    if work.label and entry.kind == "mqueue":
        posix.setxattr(m.of_descriptor(made), "security.selinux", plan.encode(work.label, "linux.mountLabel"))
    if entry.late_readonly:
        work.late.append((entry.doing, made))
    else:
        posix.close(made)


# ---- bind mounts -----------------------------------------------------------------------------------------


def open_sources(work: Work) -> None:
    """Take a detached copy of every bind source, before the root is mounted and while we are who may see
    them.

    Raises Error. A source that is missing is no error for an entry with nofail: the entry is left out.
    """
    for entry in list(work.mounts):
        if entry.kind != "bind" or entry.options.flags & m.MS_REMOUNT:
            continue
        try:
            if entry.options.copy_link and _take_link(work, entry):
                continue
            work.sources[entry.index] = open_source(work, entry)
        except FileNotFoundError as problem:
            if not entry.options.nofail:
                raise Error(f"{entry.where}.source {entry.source}", problem) from None
            warn(f"{entry.where}.source {entry.source}: no such file or directory, left out (nofail)")
            work.mounts.remove(entry)
        except OSError as problem:
            text = hints.source(entry, problem, work.in_userns)
            raise Error(f"{entry.where}.source {entry.source}", problem, text) from None


def _take_link(work: Work, entry: Entry) -> bool:
    from . import links

    target = links.target_of(entry)
    if target is not None:
        work.links[entry.index] = target
    return target is not None


def open_source(work: Work, entry: Entry) -> int:
    """A detached copy of the source, id-mapped where asked for. Raises OSError, Error."""
    if plan.id_mapped(entry):
        from . import idmap

        return idmap.source(work, entry)
    path = plan.encode(entry.source, f"{entry.where}.source")
    return m.open_tree(
        m.AT_FDCWD, path, bool(entry.options.flags & m.MS_REC), nofollow=entry.options.source_itself
    )


def bind(work: Work, entry: Entry) -> None:
    """Mount the source at the destination. Raises Error."""
    if entry.options.flags & m.MS_REMOUNT:
        rebind(work, entry)
        return
    if entry.index in work.links:
        from . import links

        links.make(work, entry)
        return
    source = work.sources[entry.index]
    is_file = not st.S_ISDIR(posix.fstat(source).st_mode)
    with Held(destination(work, entry, is_file)[0]) as target:
        try:
            set_flags(source, entry)
            m.move_mount(source, target)
        except OSError as problem:
            if problem.errno != errno.ENOSYS:
                raise _bind_failed(work, entry, problem, is_file, target) from None
            _bind_classic(work, entry, target)
    made = work.sources.pop(entry.index)
    finish(work, entry, made)


def set_flags(fd: int, entry: Entry) -> None:
    """Give the mount the flags of the options. Where some are locked, those that are not named stay.
    Raises OSError."""
    if not entry.options.changes:
        return
    try:
        m.mount_setattr(fd, *options.bind_changes(entry.options))
    except PermissionError:
        m.mount_setattr(fd, *options.locked_changes(entry.options))


def _bind_classic(work: Work, entry: Entry, target: int) -> None:
    """The same with the calls of older kernels: attach first, then change."""
    from . import classic

    source = work.sources[entry.index]
    try:
        m.move_mount(source, target)
        try:
            classic.change(source, *options.bind_changes(entry.options), 0, False)
        except PermissionError:
            classic.change(source, *options.locked_changes(entry.options), 0, False)
    except OSError as problem:
        raise hints.bind(entry, problem, work.in_userns) from None


def _bind_failed(work: Work, entry: Entry, problem: OSError, is_file: bool, target: int) -> Error:
    on_file = not st.S_ISDIR(posix.fstat(target).st_mode)
    if is_file != on_file:
        kinds = ("a directory", "a file")
        text = f"the source is {kinds[is_file]} and the destination is {kinds[on_file]}"
        return Error(f"{entry.doing} from {entry.source}", "not a directory", text)
    return hints.bind(entry, problem, work.in_userns)


# ---- remounts --------------------------------------------------------------------------------------------


def remount(work: Work, entry: Entry) -> None:
    """Change the options of the filesystem mounted at the destination. Raises Error."""
    from . import classic

    data = [plan.encode(word, f"{entry.where}.options") for word in entry.options.data]
    with Held(_mounted(work, entry)) as target:
        try:
            classic.remount(entry, target, data)
        except OSError as problem:
            raise Error(
                f"mounts[{entry.index}] {entry.destination}: remount", problem, _remount_hint(problem)
            ) from None
        finish(work, entry, posix.dup(target))


def rebind(work: Work, entry: Entry) -> None:
    """Change the flags of the mount at the destination. Raises Error."""
    with Held(_mounted(work, entry)) as target:
        try:
            if entry.options.changes:
                change(target, *options.bind_changes(entry.options))
        except OSError as problem:
            raise Error(
                f"mounts[{entry.index}] {entry.destination}: remount", problem, _remount_hint(problem)
            ) from None
        finish(work, entry, posix.dup(target))


def _mounted(work: Work, entry: Entry) -> int:
    try:
        return find(work.root, entry.path, finding(entry))
    except OSError as problem:
        raise Error(f"mounts[{entry.index}] {entry.destination}: remount", problem) from None


def _remount_hint(problem: OSError) -> str:
    return "nothing is mounted at the destination" if problem.errno == errno.EINVAL else ""

"""/dev: the device nodes, and the links that programs expect there."""

from __future__ import annotations

import _stat as st
import errno
import posix

from ...errors import Error
from ...linux import mount as m
from ...linux.openat2 import O_PATH, Held, create, make_directories, symlink
from . import plan
from .work import change

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Device
    from .work import Work

_KINDS = {st.S_IFCHR: "character device", st.S_IFBLK: "block device", st.S_IFIFO: "fifo"}
_OTHERS = {st.S_IFREG: "file", st.S_IFDIR: "directory", st.S_IFLNK: "link", st.S_IFSOCK: "socket"}


def apply(work: Work) -> None:
    """Make the default devices, linux.devices, /dev/ptmx and the links. Raises Error."""
    try:
        dev = make_directories(work.root, b"/dev")
    except OSError as problem:
        raise Error("/dev", problem) from None
    with Held(dev):
        for device in plan.devices(work.config):
            above, _, name = device.path.rpartition(b"/")
            try:
                if above == b"/dev":
                    node(work, dev, name, device)
                else:
                    with Held(make_directories(work.root, above)) as directory:
                        node(work, directory, name, device)
            except OSError as problem:
                raise Error(device.where, problem) from None
        links(dev)


def links(dev: int) -> None:
    """The links of /dev; only ptmx replaces what the image may hold. Raises Error."""
    try:
        _ptmx(dev)
        for name, target in plan.SYMLINKS:
            symlink(dev, name, target)
        if _is_there("/proc/kcore"):
            symlink(dev, b"core", b"/proc/kcore")
    except OSError as problem:
        raise Error("links in /dev", problem) from None


def _ptmx(dev: int) -> None:
    try:
        posix.symlink(b"pts/ptmx", b"ptmx", dir_fd=dev)
    except FileExistsError:
        posix.unlink(b"ptmx", dir_fd=dev)
        posix.symlink(b"pts/ptmx", b"ptmx", dir_fd=dev)


def _is_there(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def node(work: Work, directory: int, name: bytes, device: Device) -> None:
    """Make one device in the directory. Raises OSError, Error."""
    if work.userns and device.type != st.S_IFIFO:
        bind(directory, name, device)
        return
    try:
        posix.mknod(name, device.type | device.mode, device.number, dir_fd=directory)
    except FileExistsError:
        _same(posix.stat(name, dir_fd=directory, follow_symlinks=False), device)
        return
    except PermissionError:
        if device.type == st.S_IFIFO:
            raise
        # A user namespace that config.json does not speak of, or a device cgroup that forbids mknod.
        bind(directory, name, device)
        return
    _own(directory, name, device)


def _own(directory: int, name: bytes, device: Device) -> None:
    """Owner and mode of a node just made; that it is still the one we made is seen on the descriptor that
    is changed."""
    status = posix.stat(name, dir_fd=directory, follow_symlinks=False)
    _same(status, device)
    owner = (device.uid, device.gid)
    if (status.st_uid, status.st_gid) == owner and st.S_IMODE(status.st_mode) == device.mode:
        return
    with Held(posix.open(name, O_PATH | posix.O_NOFOLLOW, dir_fd=directory)) as fd:
        _same(posix.fstat(fd), device)
        posix.chown(m.of_descriptor(fd), *owner)
        posix.chmod(m.of_descriptor(fd), device.mode)


def _same(status: posix.stat_result, device: Device) -> None:
    """Raise Error unless the file is the device wanted (runtime-spec config-linux.md "Devices")."""
    kind = st.S_IFMT(status.st_mode)
    if kind == device.type and (kind == st.S_IFIFO or status.st_rdev == device.number):
        return
    there = _OTHERS.get(kind) or f"{_KINDS.get(kind, 'file')} {_number(status.st_rdev)}"
    raise Error(device.where, f"a {there} is there instead of {_KINDS[device.type]} {_number(device.number)}")


def _number(device: int) -> str:
    return f"{posix.major(device)}:{posix.minor(device)}"


def bind(directory: int, name: bytes, device: Device) -> None:
    """Mount the host's node of this device where mknod(2) is not allowed. Raises OSError, Error."""
    with Held(_host_node(device)) as source:
        try:
            create(directory, name, 0)
        except FileExistsError:
            pass
        with Held(posix.open(name, O_PATH | posix.O_NOFOLLOW, dir_fd=directory)) as target:
            kind = st.S_IFMT(posix.fstat(target).st_mode)
            if kind in (st.S_IFDIR, st.S_IFLNK):
                raise Error(device.where, f"a {_OTHERS[kind]} is there, the host's device cannot be mounted on it")
            m.move_mount(source, target)
            # Not noexec: some devices are mapped with PROT_EXEC.
            change(source, m.ATTR_NOSUID, propagation=m.MS_PRIVATE)


def _host_node(device: Device) -> int:
    """A detached mount of the host's node: of the same path, else by its number as udev lists it. Raises
    Error."""
    family = b"block" if device.type == st.S_IFBLK else b"char"
    number = _number(device.number).encode()
    for path in (device.path, b"/dev/%s/%s" % (family, number)):
        try:
            fd = m.open_tree(m.AT_FDCWD, path)
        except OSError as problem:
            if problem.errno not in (errno.ENOENT, errno.ENOTDIR, errno.EACCES):
                raise
            continue
        status = posix.fstat(fd)
        if st.S_IFMT(status.st_mode) == device.type and status.st_rdev == device.number:
            return fd
        posix.close(fd)
    text = "a user namespace may not make device nodes, the host's are bound instead"
    raise Error(device.where, f"the host has no {_KINDS[device.type]} {number.decode()} in /dev", text)

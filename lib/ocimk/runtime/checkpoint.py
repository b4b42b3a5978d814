"""oci checkpoint: have CRIU write a container's processes to files."""

from __future__ import annotations

import fcntl
import posix

from .. import jsonio
from ..container import state
from ..container.folder import Folder, write_all
from ..errors import Error, warn
from ..linux import criu
from ..linux.openat2 import DIRECTORY, Held, find
from . import criu_options as common
from . import delete as deletion
from . import mounts, plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation
    from .criu_options import Options

_LOG = "dump.log"
_FLAGS = ("leave-running", "tcp-skip-in-flight", "link-remap")


def main(invocation: Invocation) -> int:
    """The command; the container is deleted after it, unless it is to go on. Raises Error: it goes on as before."""
    folder = plan.prepare(Folder.existing(invocation.root, invocation.args[0]), invocation)
    folder.lock()
    now = state.status(folder)
    if now not in ("running", "paused"):
        raise Error(f"container {folder.id}", f"cannot be checkpointed in {now} state")
    if invocation.rootless:
        warn("checkpoint without root is not known to work")
    checkpoint(folder, invocation)
    if not invocation.flag("leave-running") and not invocation.flag("pre-dump"):
        deletion.delete(folder, force=True)
    return 0


def checkpoint(folder: Folder, invocation: Invocation) -> None:
    """Write the images; the folder must be locked. Raises Error."""
    doing = f"checkpoint container {folder.id}"
    images = common.image_path(invocation, make=True)
    parent = common.parent_path(invocation, images)
    work = common.work_path(invocation)
    status_fd = _status_fd(invocation)
    program = common.find(doing)
    pre = invocation.flag("pre-dump")
    _features(doing, program, [("mem_track", pre), ("lazy_pages", invocation.flag("lazy-pages"))])
    options = common.common(invocation, folder, _LOG)
    _describe(folder, invocation, options, parent)
    if not pre:
        _outside(folder, options)
        _keep_descriptors(folder, images)
        if mounts.recorded(folder):
            _write(f"{images}/{common.ADDED}", mounts.recorded(folder))
    places = common.directories(options, images, work)
    worker = criu.Worker(program)
    try:
        kind = criu.PRE_DUMP if pre else criu.DUMP
        worker.ask(kind, options.fields)
        worker.answer(kind, lambda event, pid, fd: _notice(event, fd, status_fd))
    except (criu.CriuError, OSError) as problem:
        raise common.failed(doing, problem, worker, f"{work or images}/{_LOG}") from None
    finally:
        worker.end()
        for fd in places:
            posix.close(fd)


def _features(doing: str, program: str, wanted: list[tuple[str, bool]]) -> None:
    """Raise Error for a feature that is asked for and not there."""
    for feature in [name for name, asked in wanted if asked]:
        try:
            found = criu.has(program, feature)
        except (criu.CriuError, OSError) as problem:
            raise Error(f"{doing}: CRIU feature check", str(problem), "criu check says more") from None
        if not found:
            raise Error(doing, f"criu is missing features: {feature}", "the kernel or criu lacks it")


def _describe(folder: Folder, invocation: Invocation, options: Options, parent: str) -> None:
    pid = state.init(folder.state)[0]
    options.add(pid=pid, root=folder.rootfs, **common.lockable(invocation))
    options.flags(invocation, *_FLAGS)
    if invocation.text("page-server"):
        address, port = _page_server(invocation.text("page-server"))
        options.pair("ps", address, port)
    if parent:
        options.add(parent_img=parent, track_mem=True)
    for short, key, path in common.joined(folder):
        options.add(external=f"{short}[{_inode(path)}]:{key}")
    freezer = folder.state["ocimk"].get("freezer")
    if freezer:
        options.add(freeze_cgroup=freezer.rpartition("/")[0])


def _page_server(text: str) -> tuple[str, int]:
    address, colon, port = text.rpartition(":")
    if not (address and colon and port):
        raise Error("Use --page-server ADDRESS:PORT to specify page server", text)
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise Error("Invalid port number", port)
    return address.strip("[]"), int(port)


def _inode(path: str) -> int:
    try:
        return posix.stat(path).st_ino
    except OSError as problem:
        raise Error(f"linux.namespaces: {path}", problem) from None


def _outside(folder: Folder, options: Options) -> None:
    """Name what comes from outside of the container."""
    for destination, _ in common.external_mounts(folder):
        options.pair("ext_mnt", destination, destination)
    with Held(posix.open(f"/proc/{state.init(folder.state)[0]}/root", DIRECTORY)) as root:
        for path in (folder.config.get("linux") or {}).get("maskedPaths") or []:
            try:
                with Held(find(root, path.encode("utf-8", "surrogateescape"))) as fd:
                    if posix.fstat(fd).st_mode & 0o170000 != 0o040000:
                        options.pair("ext_mnt", path, "/dev/null")
            except OSError:
                continue


def _keep_descriptors(folder: Folder, images: str) -> None:
    """Write down what the standard streams are: pipes of the caller, for one, which restore puts others in place of."""
    pid = state.init(folder.state)[0]
    found = []
    for fd in (0, 1, 2):
        try:
            found.append(posix.readlink(f"/proc/{pid}/fd/{fd}"))
        except OSError:
            found.append("")
    _write(f"{images}/{common.DESCRIPTORS}", found)


def _write(path: str, found: object) -> None:
    try:
        with Held(posix.open(path, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, 0o600)) as fd:
            write_all(fd, jsonio.dumps(found).encode("utf-8", "surrogateescape"))
    except OSError as problem:
        raise Error(f"write {path}", problem) from None


def _status_fd(invocation: Invocation) -> int:
    """--status-fd, which must be open for writing; -1 without. Raises Error."""
    fd = invocation.number("status-fd", -1)
    if fd < 0:
        return -1
    try:
        if not fcntl.fcntl(fd, fcntl.F_GETFL) & (posix.O_WRONLY | posix.O_RDWR):
            raise Error(f"invalid --status-fd argument {fd}", "not writable")
    except OSError as problem:
        raise Error(f"invalid --status-fd argument {fd}", problem) from None
    return fd


def _notice(event: str, fd: int, status_fd: int) -> None:
    """What CRIU tells on the way: the pages can be fetched, for one."""
    if fd >= 0:
        posix.close(fd)
    if event == "status-ready" and status_fd >= 0:
        try:
            posix.write(status_fd, b"\0")
            posix.close(status_fd)
        except OSError as problem:
            warn(f"--status-fd {status_fd}: {problem.strerror}")

"""oci restore: make a container of the processes that checkpoint has written to files.

As create, up to the cgroups; then CRIU makes the processes, with their namespaces, filters and all, where create makes
a first process and the waiting image.
"""

from __future__ import annotations

import _stat
import posix

from .. import jsonio
from ..container import names, state
from ..container.folder import Folder, check_id, read_all
from ..errors import Error, warn
from ..linux import criu, prctl, process
from ..linux import mount as m
from ..linux import path as paths
from ..linux.openat2 import DIRECTORY, O_PATH, Held, find, make_directories, make_file, parent
from ..stages import birth, runner
from ..stages.child import Child, hand_over_console
from ..stages.rootfs import links
from ..stages.rootfs import plan as roots
from ..stages.rootfs.mounts import finding
from . import criu_options as common
from . import mounts, plan, run, undo
from .handover import check_console, write_pid_file
from .interrupt import Interruptible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation
    from .criu_options import Options

_LOG = "restore.log"
_HELD = "criu-root"
_LSM = (("lsm-profile", 31600), ("lsm-mount-context", 31600))


def main(invocation: Invocation) -> int:
    """The command; returns 0 once restored and detached, else the program's exit status. Raises Error."""
    if invocation.rootless:
        warn("restore without root is not known to work")
    detached = invocation.flag("detach")
    prctl.set_child_subreaper(not invocation.flag("no-subreaper"))
    folder, child = restore(invocation, detached)
    if detached:
        folder.release()
        return 0
    from . import foreground

    try:
        with foreground.Foreground(child) as screen:
            folder.release()
            status = screen.stay()
    except BaseException:
        run.discard(folder)
        raise
    run.delete_it(folder)
    return status


def restore(invocation: Invocation, detached: bool) -> tuple[Folder, Child]:
    """Make the container; the folder stays locked by us. Raises Error after undoing all."""
    name = invocation.args[0]
    check_id(name)
    doing = f"restore container {name}"
    images = common.image_path(invocation, make=False)
    if not paths.is_dir(images):
        raise Error(f"{doing}: --image-path {images}", "no such directory", "checkpoint writes one")
    program = common.find(doing)
    for option, least in _LSM:
        if invocation.text(option) and criu.version(program) < least:
            raise Error(f"--{option} requires at least CRIU 3.16", program)
    folder = plan.prepare(Folder(f"{invocation.root}/{name}"), invocation)
    planned = plan.CreatePlan(folder, plan.enter_bundle(invocation), invocation)
    with Interruptible():
        runner.run(folder, planned.host[0])
        folder.relock()
        try:
            terminal = bool((folder.config.get("process") or {}).get("terminal"))
            check_console(terminal, invocation.text("console-socket"), detached)
            _recall_mounts(folder, images)
            for line in planned.host[1:]:
                if line[0] != "oci-seccomp":  # filters are restored as they were
                    runner.run(folder, line)
            child = _carry_out(folder, invocation, program, images, doing)
        except BaseException as problem:
            undo.after_failure(folder, problem)
            raise
    return folder, child


def _carry_out(folder: Folder, invocation: Invocation, program: str, images: str, doing: str) -> Child:
    root = _hold_root(folder)
    try:
        _make_places(folder)
        child = _by_criu(folder, invocation, program, images, doing, root)
    finally:
        runner.run(folder, ["oci-mount", "undo", folder.path])
        posix.rmdir(root)
    state.advance(folder, "running")
    if child.console >= 0 and invocation.text("console-socket"):
        hand_over_console(child, invocation.text("console-socket"))
    if invocation.text("pid-file"):
        write_pid_file(invocation.text("pid-file"), child.pid)
    return child


# ---- the root filesystem ---------------------------------------------------------------------------------------------


def _hold_root(folder: Folder) -> str:
    """Mount the root filesystem in the folder, for CRIU wants a mount point; noted before it is made. Raises Error."""
    place = f"{folder.path}/{_HELD}"
    try:
        posix.mkdir(place, 0o700)
        source = roots.encode(folder.rootfs, "root.path")
        with Held(m.open_tree(m.AT_FDCWD, source, recursive=True)) as tree:
            folder.record("oci-mount", "mount", f"{m.mount_id(tree)} {place}")
            with Held(posix.open(place, DIRECTORY)) as target:
                m.move_mount(tree, target)
            m.mount(None, roots.encode(place, "root.path"), None, m.MS_PRIVATE | m.MS_REC)
    except OSError as problem:
        raise Error(f"mount root.path {folder.rootfs} at {place}", problem) from None
    return place


def _recall_mounts(folder: Folder, images: str) -> None:
    """Take over what ``mounts add`` had added to the container that was written. Raises Error."""
    path = f"{images}/{common.ADDED}"
    try:
        with Held(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)) as fd:
            folder.write(names.MOUNTS, read_all(fd))
    except FileNotFoundError:
        return
    except OSError as problem:
        raise Error(f"read {path}", problem) from None


def _make_places(folder: Folder) -> None:
    """Make the places that are missing for mounts, as create does; what lies on a tmpfs CRIU brings along. Bind mounts
    are put there meanwhile, for places that lie in them. Raises Error."""
    wanted = {"mounts": [*(folder.config.get("mounts") or []), *mounts.recorded(folder)]}
    entries = [entry for entry in roots.entries(wanted, folder.bundle) if entry.kind != "cgroup"]
    memory = [entry.path + b"/" for entry in entries if entry.kind == "tmpfs"]
    made: list[int] = []
    with Held(posix.open(f"{folder.path}/{_HELD}", DIRECTORY)) as root:
        try:
            for entry in entries:
                if entry.path.startswith(tuple(memory)):
                    continue
                doing = f"{entry.where} {entry.destination}: make the destination"
                try:
                    _make_place(root, entry, made)
                except OSError as problem:
                    raise Error(doing, problem) from None
        finally:
            for fd in reversed(made):
                with Held(fd):
                    m.umount(m.of_descriptor(fd), m.MNT_DETACH)


def _make_place(root: int, entry: roots.Entry, made: list[int]) -> None:
    if entry.kind != "bind":
        posix.close(_found_or_made(root, entry.path, is_file=False))
        return
    link = links.target_of(entry)
    if link is not None:
        above, name = parent(root, entry.path)
        with Held(above) as directory:
            links.put(directory, name, link, f"{entry.where} {entry.destination}: make the link")
        return
    source = roots.encode(entry.source, f"{entry.where}.source")
    tree = m.open_tree(m.AT_FDCWD, source, recursive=True, nofollow=entry.options.source_itself)
    try:
        is_file = not _stat.S_ISDIR(posix.fstat(tree).st_mode)
        with Held(_found_or_made(root, entry.path, is_file, finding(entry))) as target:
            m.move_mount(tree, target)
    except OSError:
        posix.close(tree)
        raise
    made.append(tree)


def _found_or_made(root: int, path: bytes, is_file: bool, flags: int = O_PATH) -> int:
    try:
        return find(root, path, flags)
    except FileNotFoundError:
        return (make_file if is_file else make_directories)(root, path)


# ---- CRIU ------------------------------------------------------------------------------------------------------------


class Restored:
    """What CRIU tells while it restores."""

    def __init__(self, folder: Folder, doing: str) -> None:
        self.folder = folder
        self.doing = doing
        self.child = Child()
        self.failure: Error | None = None

    def notice(self, event: str, pid: int, fd: int) -> None:
        """Note the process before it goes on, run the hooks, take the terminal. Raises Error."""
        if event == "orphan-pts-master" and fd >= 0:
            self.child.console = fd
            return
        if fd >= 0:
            posix.close(fd)
        if event == "setup-namespaces":
            self._settle(pid)
            runner.run(self.folder, ["oci-hooks", "apply", self.folder.path, "prestart", "createRuntime"])
        elif event == "post-restore":
            self._settle(pid)
            self.child.pidfd = process.pidfd_of(pid, self.child.started)
            birth.dismiss_holder(self.folder)
            birth.tighten(self.folder)
            runner.run(self.folder, ["oci-state", "apply", self.folder.path, "created"])
            self.child.ready = True

    def _settle(self, pid: int) -> None:
        if self.child.pid == pid:
            return
        self.child.pid, self.child.started = pid, process.start_time(pid)
        self.folder.record("oci-unshare", "process", f"{pid} {self.child.started}")
        hooks = self.folder.config.get("hooks") or {}
        later = [kind for kind in ("poststart", "poststop") if hooks.get(kind)]
        own = {**self.folder.state.get("ocimk", {}), "startTime": self.child.started, "hooks": later}
        self.folder.commit(pid=pid, ocimk=own)


def _by_criu(folder: Folder, invocation: Invocation, program: str, images: str, doing: str, root: str) -> Child:
    options = common.common(invocation, folder, _LOG)
    options.add(root=root, evasive_devices=True, rst_sibling=True)
    options.flags(invocation, "tcp-close")
    for name in ("lsm-profile", "lsm-mount-context"):
        if invocation.text(name):
            options.add(**{name.replace("-", "_"): invocation.text(name)})
    work = common.work_path(invocation)
    places = common.directories(options, images, work)
    handed: list[int] = []
    _inherit(folder, images, options, handed)
    _outside(folder, options)
    restored = Restored(folder, doing)
    worker = criu.Worker(program, tuple(handed))
    try:
        _into_cgroups(folder, worker.pid, options)
        worker.ask(criu.RESTORE, options.fields)
        worker.answer(criu.RESTORE, restored.notice)
    except (criu.CriuError, OSError) as problem:
        raise common.failed(doing, problem, worker, f"{work or images}/{_LOG}") from None
    finally:
        worker.end()
        for fd in [*places, *(fd for fd in handed if fd > 2)]:
            posix.close(fd)
    if not restored.child.ready:
        raise Error(doing, "criu has not said that it is restored", f"see {work or images}/{_LOG}")
    return restored.child


def _inherit(folder: Folder, images: str, options: Options, handed: list[int]) -> None:
    """Our standard streams in the place of pipes that the container had, and the namespaces that it joins. Raises
    Error."""
    for fd, what in enumerate(_descriptors(images)[:3]):
        if "pipe:" in what:
            options.pair("inherit_fd", what, criu.Worker.FIRST + len(handed))
            handed.append(fd)
    for _, key, path in common.joined(folder):
        try:
            fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
        except OSError as problem:
            raise Error(f"linux.namespaces: {path}", problem, "a namespace to join must be there") from None
        options.pair("inherit_fd", key, criu.Worker.FIRST + len(handed))
        handed.append(fd)
    external = [kind for kind, _, _ in common.EXTERNAL]
    for entry in (folder.config.get("linux") or {}).get("namespaces") or []:
        if not entry.get("path") or entry["type"] in external:
            continue
        if entry["type"] in ("cgroup", "time"):
            raise Error(f"linux.namespaces: {entry['type']} {entry['path']}", "criu cannot join it")
        short = {"mount": "mnt"}.get(entry["type"], entry["type"])
        options.pair("join_ns", short, entry["path"])


def _descriptors(images: str) -> list[str]:
    path = f"{images}/{common.DESCRIPTORS}"
    try:
        with Held(posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)) as fd:
            found = jsonio.loads(read_all(fd), path)
    except OSError as problem:
        raise Error(f"read {path}", problem, "is it a checkpoint of oci or runc?") from None
    if not isinstance(found, list):
        raise Error(path, "an array is required")
    return [str(item) for item in found]


def _outside(folder: Folder, options: Options) -> None:
    for destination, source in common.external_mounts(folder):
        options.pair("ext_mnt", destination, source)
    if (folder.config.get("linux") or {}).get("maskedPaths"):
        options.pair("ext_mnt", "/dev/null", "/dev/null")


def _into_cgroups(folder: Folder, pid: int, options: Options) -> None:
    """Put CRIU into the container's cgroups, which its children inherit, and have it take those for the roots of what
    was dumped. Raises Error."""
    from ..linux import cgroup
    from ..stages import cgroups

    try:
        folder.read(names.CGROUP)
    except FileNotFoundError:
        return
    if cgroups.load(folder).mode == "none":
        return
    if cgroups.apart(folder):
        from ..stages.cgroups import systemd

        systemd.attach(folder, pid)
    else:
        cgroups.attach(folder, pid)
    for controllers, path in cgroup.memberships(str(pid)).items():
        options.pair("cg_root", controllers, path)

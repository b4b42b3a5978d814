"""The two sides of oci-unshare: the first process is made, told to go on, and watched until the container is created.

Where every namespace is new (or the joined ones need no privilege over the new ones), one clone3(2) makes them all.
Otherwise a process in between joins first and then clones with CLONE_PARENT, so that the first process is our own child
either way and can be waited for.
"""

from __future__ import annotations

import _signal
import _socket
import errno
import posix

from ..container import barrier, names, sync
from ..container.folder import Folder
from ..errors import Error, log, warn
from ..linux import namespaces as ns
from ..linux import process
from ..native import _native
from . import contract, idmap, runner, unshare
from .child import Child, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

_SET_DUMPABLE = 4
_ENDED_BY = {
    _signal.SIGKILL: "killed by the memory limit?",
    _signal.SIGILL: "does linux.seccomp forbid exit_group?",  # see end() in image.c
    _signal.SIGTRAP: "does linux.seccomp forbid exit_group?",
}
_HANDED = (names.CONFIG, names.STATE, names.CGROUP, "seccomp.bpf", "seccomp.json")


class Order:
    """What is to be made and joined, worked out before the clone."""

    __slots__ = ("apart", "cgroup_fd", "cgroup_ns", "flags", "joins", "offsets", "tasks")

    def __init__(self, folder: Folder) -> None:
        flags, joins = unshare.wanted(folder.config)
        self.cgroup_ns = bool(flags & ns.NEWCGROUP)
        # A cgroup namespace shows the cgroup in which it was made: that must be the container's, so it comes later.
        self.flags = flags & ~ns.NEWCGROUP
        flags_read = posix.O_RDONLY | posix.O_CLOEXEC
        self.joins = [(kind, path, posix.open(path, flags_read)) for kind, path in _openable(joins)]
        at = next((at for at, row in enumerate(self.joins) if row[0] == "pid"), -1)
        if at >= 0 and enters_late(folder, self.joins[at][2]):
            folder.fds["pidns"] = self.joins.pop(at)[2]
        self.offsets = (folder.config.get("linux") or {}).get("timeOffsets") or {}
        self.cgroup_fd, self.tasks, self.apart = _cgroups(folder)

    @property
    def between(self) -> bool:
        """Whether a process in between is needed: to join before the new namespaces are made, or to set clocks."""
        early = {"user", "pid", "time"}
        joins_first = bool(self.joins) and bool(self.flags & ns.NEWUSER)
        return joins_first or bool(self.offsets) or any(kind in early for kind, _, _ in self.joins)

    def close(self) -> None:
        """Close what only the child needed."""
        for fd in [fd for _, _, fd in self.joins] + self.tasks + [self.cgroup_fd]:
            if fd >= 0:
                posix.close(fd)


def enters_late(folder: Folder, namespace: int) -> bool:
    """Whether a pid namespace given by path is entered only by the waiting image, when all else is done and the rights
    are gone: those who are in it see every process that enters. With CAP_SYS_PTRACE they could look into it, and
    through it at the host's files, and hold its executable.

    It takes a kernel that mounts the procfs of a namespace from outside. With a user namespace the first process could
    not enter later, but those in it have no power over a process that was executed outside and may not be dumped.
    """
    if any(entry["type"] == "user" for entry in folder.config["linux"]["namespaces"]):
        return False
    if ((folder.config["linux"].get("seccomp")) or {}).get("listenerPath"):
        return False  # the agent is told the process's id before the filter binds
    ours = posix.stat("/proc/self/ns/pid")
    theirs = posix.fstat(namespace)
    from ..linux import mount

    return (ours.st_dev, ours.st_ino) != (theirs.st_dev, theirs.st_ino) and mount.knows_pidns(namespace)


def _openable(joins: list[tuple[str, str]]) -> list[tuple[str, str]]:
    for kind, path in joins:
        if not posix.access(path, posix.F_OK):
            hint = "is the process that held it gone?"
            raise Error(f"join {kind} namespace {path}", "no such file or directory", hint)
    return joins


def _cgroups(folder: Folder) -> tuple[int, list[int], bool]:
    """The directory for CLONE_INTO_CGROUP (-1: none), the open ``tasks`` files of the v1 hierarchies, and whether
    nobody but systemd may move the process."""
    try:
        folder.read(names.CGROUP)
    except FileNotFoundError:
        return -1, [], False
    from . import cgroups

    if cgroups.apart(folder):
        return -1, [], True
    fd = cgroups.clone_fd(folder)
    return fd, cgroups.join_fds(folder, cloned=fd >= 0), False


# ---- the host's side ------------------------------------------------------------------------------------------------


def start(folder: Folder, following: list[str]) -> Child:
    """Make the first process, note it, map its ids and tell it to go on. Raises Error; then nothing of it is left."""
    barrier.make(folder)
    if any(mount.get("uidMappings") or _idmap_option(mount) for mount in folder.config.get("mounts") or []):
        from .rootfs import idmap as id_mapped_mounts

        id_mapped_mounts.prepare(folder)
    if any(name.startswith("run.oci.hooks.") for name in folder.config.get("annotations") or {}):
        from . import hooks

        hooks.output_files(folder)
    order = Order(folder)
    process.collectable_children()
    ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    child = Child(ours)
    try:
        _clone(folder, order, child, theirs, following)
    finally:
        theirs.close()
        order.close()
        if "pidns" in folder.fds:
            posix.close(folder.fds.pop("pidns"))
    barrier.close(folder)
    try:
        if order.apart:
            from .cgroups import systemd

            systemd.attach(folder, child.pid)
        _settle(folder, child)
    except BaseException:
        give_up(child)
        let_go(folder, created=False)
        raise
    return child


def _idmap_option(mount: dict[str, Any]) -> bool:
    return any(option.startswith(("idmap", "ridmap")) for option in mount.get("options") or [])


def _clone(folder: Folder, order: Order, child: Child, theirs: _socket.socket, following: list[str]) -> None:
    if order.between:
        _clone_between(folder, order, child, theirs, following)
    else:
        child.pid, child.pidfd = _clone3(order, order.flags, child, theirs, folder, following, direct=True)
    child.started = process.start_time(child.pid)


def _clone3(
    order: Order, flags: int, child: Child, theirs: _socket.socket, folder: Folder, following: list[str], direct: bool
) -> tuple[int, int]:
    exit_signal = 0 if flags & ns.CLONE_PARENT else int(_signal.SIGCHLD)
    try:
        pid, pidfd = _native.clone3(flags, exit_signal, order.cgroup_fd, True)
    except OSError as problem:
        raise Error("clone the container's first process", problem, _clone_hint(problem)) from None
    if pid == 0:
        inside(folder, order, child, theirs, following, direct)
    return pid, pidfd


def _clone_hint(problem: OSError) -> str:
    if problem.errno == 28:
        return "too many namespaces: see /proc/sys/user/max_*_namespaces"
    return "making namespaces needs root or a user namespace" if problem.errno == 1 else ""


def _clone_between(folder: Folder, order: Order, child: Child, theirs: _socket.socket, following: list[str]) -> None:
    """Let a process in between join, then clone the first process as our own child; it tells us the pid."""
    between = posix.fork()
    if between == 0:
        _join_and_clone(folder, order, child, theirs, following)
    told = sync.receive_answer(child.sync.fileno())
    posix.waitpid(between, 0)
    problem = sync.to_error(told)
    if problem is not None:
        raise problem
    if not told.startswith("pid "):
        raise Error("clone the container's first process", "the process that joins the namespaces ended early")
    child.pid = int(told[4:])
    child.pidfd = process.pidfd_open(child.pid)


def _join_and_clone(
    folder: Folder, order: Order, child: Child, theirs: _socket.socket, following: list[str]
) -> NoReturn:
    try:
        join(order)
        flags = order.flags
        if order.offsets:
            ns.unshare(ns.NEWTIME)
            _set_clocks(order.offsets)
            flags &= ~ns.NEWTIME
        pid, _ = _clone3(order, flags | ns.CLONE_PARENT, child, theirs, folder, following, direct=False)
        sync.send(theirs.fileno(), f"pid {pid}")
    except BaseException as problem:
        folder.fds["sync"] = theirs.fileno()
        contract.lament(folder, unshare, problem)  # type: ignore[arg-type]
    finally:
        posix._exit(0)


def _set_clocks(offsets: dict[str, dict[str, int]]) -> None:
    """Write linux.timeOffsets before anybody has entered the time namespace. See time_namespaces(7)."""
    for clock, offset in offsets.items():
        line = f"{clock} {offset.get('secs') or 0} {offset.get('nanosecs') or 0}\n"
        try:
            fd = posix.open("/proc/self/timens_offsets", posix.O_WRONLY | posix.O_CLOEXEC)
            try:
                posix.write(fd, line.encode())
            finally:
                posix.close(fd)
        except OSError as problem:
            raise Error(f"linux.timeOffsets.{clock}: set to {line.strip()}", problem) from None


def _settle(folder: Folder, child: Child) -> None:
    """Note the process, give it its ids and what only the host may give, then let it go on."""
    folder.record(unshare.NAME, "process", f"{child.pid} {child.started}")
    hooks = folder.config.get("hooks") or {}
    later = [kind for kind in ("poststart", "poststop") if hooks.get(kind)]
    own = {**folder.state.get("ocimk", {}), "startTime": child.started, "hooks": later}
    folder.commit(pid=child.pid, ocimk=own)
    idmap.write(folder.config, child.pid)
    idmap.raise_limits(folder.config, child.pid)
    idmap.oom_score_adj(folder.config, child.pid)
    idmap.own_streams(folder.config)
    equip(folder)
    sync.send(child.sync.fileno(), "go")


def equip(folder: Folder) -> None:
    """Give the process what stages of the host's side bring in from outside: a resctrl group, network devices."""
    linux = folder.config.get("linux") or {}
    if linux.get("intelRdt") is not None:
        runner.run(folder, ["oci-resctrl", "apply", folder.path])
    if linux.get("netDevices"):
        from . import netdev

        # Held until the container is created: devices in a namespace that ends with a failed one would end with it.
        folder.fds["netns"] = netdev.open_namespace(folder)
        runner.run(folder, ["oci-netdev", "apply", folder.path])


def let_go(folder: Folder, created: bool) -> None:
    """Stop holding the network namespace; before that, take back the devices of a container that was not created."""
    if "netns" not in folder.fds:
        return
    try:
        if not created:
            runner.run(folder, ["oci-netdev", "undo", folder.path])
    except Error as problem:
        warn(f"while undoing: {problem}")
    finally:
        posix.close(folder.fds.pop("netns"))


def attend(folder: Folder, child: Child, meanwhile: Callable[[], None] | None = None) -> None:
    """Serve the container's side until it is created, fails, or ends.

    meanwhile  what is worth doing while the other side is at work; it must not fail

    Sets child.ready when the waiting image waits, else child.status to what the process ended with. Raises Error with
    what the other side tells; the process is gone then.
    """
    if meanwhile is not None:
        meanwhile()
    try:
        _serve(folder, child)
    finally:
        let_go(folder, created=child.ready)


def _serve(folder: Folder, child: Child) -> None:
    fd = child.sync.fileno()
    while not child.ready:
        message = receive(child)
        problem = sync.to_error(message)
        if problem is not None:
            give_up(child)
            raise problem
        if message == "mounted":
            try:
                runner.run(folder, ["oci-hooks", "apply", folder.path, "prestart", "createRuntime"])
            except BaseException:
                give_up(child)
                raise
            sync.send(fd, "go")
        elif message == "ready":
            dismiss_holder(folder)
            sub = (folder.config.get("annotations") or {}).get("run.oci.delegate-cgroup")
            if sub:
                from .cgroups import delegate

                delegate.move_below(folder, child.pid, sub)
            child.ready = True
            tighten(folder)
            runner.run(folder, ["oci-state", "apply", folder.path, "created"])
        elif message.startswith("pid "):
            _succeed(folder, child, int(message[4:]))
        elif message == "born":
            pass
        elif not message:
            return _ended(child)
        else:
            sync.is_warning(message)


def dismiss_holder(folder: Folder) -> None:
    """End the process that has kept a scope of systemd's alive until now, if there is one."""
    if any(kind == "holder" for _, kind, _ in folder.records("oci-cgroup")):
        from .cgroups import holder

        holder.dismiss(folder)


def _succeed(folder: Folder, child: Child, pid: int) -> None:
    """Go on with the process that the first one has become by a clone, in the pid namespace that was joined; it waits
    to be told its id there, once for itself and once for each hook that it has to tell."""
    posix.waitpid(child.pid, 0)
    if child.pidfd >= 0:
        posix.close(child.pidfd)
    child.pid = pid
    child.pidfd = process.pidfd_open(pid)
    child.started = process.start_time(pid)
    folder.record(unshare.NAME, "process", f"{pid} {child.started}")
    folder.forget()
    folder.commit(**folder.state | {"pid": pid, "ocimk": {**folder.state["ocimk"], "startTime": child.started}})
    inner = process.inner_pid(pid)
    for _ in range(1 + len((folder.config.get("hooks") or {}).get("startContainer") or [])):
        sync.send(child.sync.fileno(), f"{inner:>{sync.PID_DIGITS}}")


def tighten(folder: Folder) -> None:
    """Write the limits of memory and processes only now that the waiting image is all there is to be limited."""
    resources = (folder.config.get("linux") or {}).get("resources") or {}
    if not any(resources.get(name) for name in ("memory", "pids", "unified")):
        return
    from . import cgroups

    try:
        folder.read(names.CGROUP)
    except FileNotFoundError:
        return
    if cgroups.load(folder).mode != "none":
        runner.run(folder, ["oci-cgroup", "apply", folder.path, "tight"])


def _ended(child: Child) -> None:
    """The other side closed the socket without a word: take over the process's exit status."""
    child.status = posix.waitstatus_to_exitcode(posix.waitpid(child.pid, 0)[1])
    if child.status < 0:
        hint = _ENDED_BY.get(-child.status, "")
        raise Error("the container's first process", f"killed by signal {-child.status}", hint)


def give_up(child: Child) -> None:
    """End the first process, and with it all in its pid namespace."""
    child.sync.close()
    try:
        posix.kill(child.pid, _signal.SIGKILL)
        posix.waitpid(child.pid, 0)
    except (ProcessLookupError, ChildProcessError):
        pass


# ---- the container's side -------------------------------------------------------------------------------------------


def inside(
    folder: Folder, order: Order, child: Child, theirs: _socket.socket, following: list[str], direct: bool
) -> NoReturn:
    """What the first process does: wait, move in, become the rest of the chain. Never returns."""
    status = 1
    try:
        child.sync.close()
        folder.fds["sync"] = theirs.detach()
        log.relay = sync.relay(folder.fds["sync"])
        log.held.clear()
        for number in (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP, _signal.SIGCHLD):
            _signal.signal(number, _signal.SIG_DFL)
        sync.expect_go(folder.fds["sync"])
        folder.refresh()
        if direct:
            join(order)
        move_in(folder, order)
        contract.become(folder, following)
    except BaseException as problem:
        status = contract.lament(folder, unshare, problem)  # type: ignore[arg-type]
    finally:
        # Whatever happens, this process must not go on as if it were the host's side.
        posix._exit(status)


def join(order: Order) -> None:
    """Enter the namespaces given by path. Those that our present rights suffice for come first: once in another user
    namespace we would have none over the host's. Raises Error."""
    first = [row for row in order.joins if row[0] != "user"]
    later = [row for row in order.joins if row[0] == "user"]
    for row in first:
        try:
            _join(*row)
        except PermissionError:
            later.append(row)
    for kind, path, fd in later:
        try:
            _join(kind, path, fd)
        except PermissionError as problem:
            raise Error(f"join {kind} namespace {path}", problem) from None


def _join(kind: str, path: str, fd: int) -> None:
    """setns(2). Raises PermissionError, which another order may help; Error."""
    try:
        ns.setns(fd, ns.FLAGS[kind])
    except PermissionError:
        raise
    except OSError as problem:
        hint = "the file names a namespace of another kind, or none" if problem.errno == errno.EINVAL else ""
        raise Error(f"join {kind} namespace {path}", problem, hint) from None


def move_in(folder: Folder, order: Order) -> None:
    """Enter the cgroups, then make the cgroup namespace, bring lo up, and close ourselves to others' eyes."""
    if order.tasks:
        from . import cgroups

        cgroups.join(order.tasks)
        order.tasks = []
    if order.cgroup_ns:
        ns.unshare(ns.NEWCGROUP)
    if order.flags & ns.NEWNET:
        from ..linux import netlink

        netlink.loopback_up()
    order.close()
    _native.syscall(_native.NR["prctl"], _SET_DUMPABLE, 0)
    if order.flags & ns.NEWUSER or any(kind == "user" for kind, _, _ in order.joins):
        hand_on_files(folder)
        if not folder.inprocess:
            from ..linux import capability

            capability.keep_over_exec()


def hand_on_files(folder: Folder) -> None:
    """Open the folder's files for the stages to come: the root of a user namespace may not enter the folder itself."""
    for name in _HANDED:
        try:
            folder.fds[name] = posix.open(f"{folder.path}/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
        except FileNotFoundError:
            pass

"""Every transition of containers as it happens: inotify on folders, pidfds for processes' ends, no polling.

A watch is always set before what it guards is read, so that a change is either read or told. What follows
quickly is not lost either: state.json keeps the moment of each transition, and the names by which it is replaced
(states.note) stay in inotify's queue even when the folder is gone before we have looked.

Only long-running commands import this: inotify_simple costs more than the whole work of a short one.
"""

from __future__ import annotations

import errno
import posix
import select
import time

from ..errors import Error, rfc3339, warn
from ..linux import path as paths
from ..linux import process
from ..linux.pidfd_info import how_it_ended
from . import names
from . import state as states
from .folder import Folder, is_id
from .watched import Container, record_end

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Event = dict[str, Any]
    How = dict[str, int]

# inotify(7)
_MODIFY, _CLOSE_WRITE, _MOVED_FROM, _MOVED_TO, _CREATE, _DELETE = 0x2, 0x8, 0x40, 0x80, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF, _UNMOUNT, _Q_OVERFLOW, _IGNORED = 0x400, 0x800, 0x2000, 0x4000, 0x8000
_ONLYDIR, _ISDIR = 0x1000000, 0x40000000

_APPEARS = _CREATE | _MOVED_TO
_GOES = _DELETE | _MOVED_FROM
_LOST = _DELETE_SELF | _MOVE_SELF | _UNMOUNT | _IGNORED

_ON_ROOT = _APPEARS | _GOES | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_ABOVE_ROOT = _APPEARS | _DELETE_SELF | _MOVE_SELF | _ONLYDIR
_ON_FOLDER = _MOVED_FROM | _MOVED_TO | _CLOSE_WRITE | _ONLYDIR

_RETRIES = 6
"""How often a lock is looked at again after its file was closed: inotify tells of the close just before the
kernel gives the lock back. 5 ms at first, twice as long each time; who holds it then is somebody else."""

_STOPPED = states.ORDER.index("stopped")


class Watcher:
    """Tells the transitions of the containers below a root, of those named or of all, now and later.

    root        the folder of the containers; it need not be there yet
    wanted      names of containers; none: all
    from_start  tell first what containers that are there have gone through already

    All that happens after the constructor has returned is told. Raises Error when a system's limit is hit.
    """

    def __init__(self, root: str, wanted: list[str] | None = None, from_start: bool = False) -> None:
        from .. import vendor

        vendor.enable()
        from inotify_simple import INotify

        self.root = root
        self.wanted = frozenset(wanted or ())
        self._root_wd = -1
        self._above = (-1, "")
        self._by_name: dict[str, Container] = {}
        self._by_wd: dict[int, Container] = {}
        self._by_freezer: dict[int, Container] = {}
        self._by_pidfd: dict[int, Container] = {}
        self._retrying: set[Container] = set()
        self._passing: set[str] = set()
        self._told: list[Event] = []
        _raise_limit()
        try:
            self._inotify = INotify()
        except OSError as problem:
            raise _limit(problem) from None
        self._epoll = select.epoll()
        self._epoll.register(self._inotify.fileno(), select.EPOLLIN)
        if self._arm():
            self._scan()
        if not from_start:
            self._told.clear()

    def __enter__(self) -> Watcher:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Give back all descriptors."""
        for fd in self._by_pidfd:
            posix.close(fd)
        self._by_pidfd.clear()
        self._epoll.close()
        self._inotify.close()

    def knows(self, name: str) -> bool:
        """Whether a container's folder of this name is there."""
        return name in self._by_name

    def next(self, seconds: float | None = None, alongside: int = -1) -> list[Event]:
        """Wait for transitions, at most so long; [] when there were none.

        alongside  a descriptor whose other end may go away: then ConnectionError is raised
        """
        end = None if seconds is None else time.monotonic() + seconds
        watching = alongside >= 0 and self._listen(alongside)
        try:
            while not self._told:
                left = None if end is None else max(0.0, end - time.monotonic())
                ready = self._epoll.poll(self._patience(left))
                if watching and any(fd == alongside for fd, _ in ready):
                    raise ConnectionError
                self._handle([fd for fd, _ in ready])
                if end is not None and time.monotonic() >= end:
                    break
        finally:
            if watching:
                self._epoll.unregister(alongside)
        told, self._told = self._told, []
        return told

    # ---- what woke us --------------------------------------------------------------------------------------

    def _listen(self, fd: int) -> bool:
        try:
            self._epoll.register(fd, 0)
        except OSError:
            return False  # a regular file: it has no other end
        return True

    def _patience(self, left: float | None) -> float | None:
        """How long to sleep: until the time is up or a lock is to be looked at again."""
        now = time.monotonic()
        delays = [max(0.0, container.again - now) for container in self._retrying]
        if left is not None:
            delays.append(left)
        return min(delays) if delays else None

    def _handle(self, ready: list[int]) -> None:
        for fd in ready:
            container = self._by_pidfd.get(fd)
            if container is not None:
                self._process_ended(container)
        if self._inotify.fileno() in ready:
            for event in self._inotify.read(timeout=0):
                self._noticed(event.wd, event.mask, event.name)
        for container in [c for c in self._retrying if c.again <= time.monotonic()]:
            self._retry(container, container.retries - 1)
            self._update(container.name)

    def _retry(self, container: Container, times: int) -> None:
        """Look at the container's lock again in a moment, so many times."""
        self._retrying.discard(container)
        if times > 0:
            container.retries = times
            container.again = time.monotonic() + 0.005 * 2 ** (_RETRIES - times)
            self._retrying.add(container)

    def _noticed(self, wd: int, mask: int, name: str) -> None:
        """One event of inotify."""
        if mask & _Q_OVERFLOW:
            self._lost_count()
        elif wd == self._root_wd:
            self._noticed_on_root(mask, name)
        elif wd == self._above[0]:
            if mask & _LOST or name == self._above[1]:
                self._look_for_root()
        elif wd in self._by_wd:
            self._noticed_in_folder(self._by_wd[wd], mask, name)
        elif wd in self._by_freezer:
            self._update(self._by_freezer[wd].name)

    def _noticed_on_root(self, mask: int, name: str) -> None:
        if mask & _LOST:
            self._unwatch(self._root_wd)
            self._root_wd = -1
            for known in list(self._by_name):
                self._update(known, final=True)
            self._look_for_root()
        elif mask & _ISDIR and self._is_wanted(name):
            self._update(name, final=bool(mask & _GOES))
            # One that is gone before we could look at it was there all the same.
            if name not in self._by_name and mask & _APPEARS:
                self._passing.add(name)
            elif name in self._passing and mask & _GOES:
                self._passing.discard(name)
                self._tell(name, "deleted", 0)

    def _noticed_in_folder(self, container: Container, mask: int, name: str) -> None:
        if mask & _MOVED_FROM and name.startswith(states.NOTE):
            self._heard(container, name)
        elif mask & (_MOVED_TO | _CLOSE_WRITE) and name == names.STATE:
            self._update(container.name)
        elif mask & _CLOSE_WRITE and name == names.LOCK and container.held is not None:
            self._retry(container, _RETRIES)
            self._update(container.name)

    def _lost_count(self) -> None:
        """The kernel's queue ran over: look at everything."""
        for name in list(self._by_name):
            self._update(name, final=True)
        self._look_for_root()

    # ---- the root ------------------------------------------------------------------------------------------

    def _look_for_root(self) -> None:
        if self._above[0] >= 0:
            self._unwatch(self._above[0])
            self._above = (-1, "")
        if self._arm():
            self._scan()

    def _arm(self) -> bool:
        """Watch the root, or as long as it is missing the nearest folder above; whether it is there."""
        while True:
            self._root_wd = self._watch(self.root, _ON_ROOT)
            if self._root_wd >= 0:
                return True
            if paths.exists(self.root) and not paths.is_dir(self.root):
                raise Error(f"watch {self.root}", "not a directory")
            above, _, child = self.root.rpartition("/")
            while above and not paths.is_dir(above):
                above, _, child = above.rpartition("/")
            wd = self._watch(above or "/", _ABOVE_ROOT)
            if wd >= 0 and not paths.exists(f"{above}/{child}"):
                self._above = (wd, child)
                return False
            self._unwatch(wd)

    def _scan(self) -> None:
        """Look at every folder below the root."""
        try:
            with posix.scandir(self.root) as entries:
                found = [entry.name for entry in entries if entry.is_dir()]
        except FileNotFoundError:
            return
        except OSError as problem:
            raise Error(f"watch {self.root}", problem) from None
        for name in sorted(found):
            if self._is_wanted(name):
                self._update(name)

    def _is_wanted(self, name: str) -> bool:
        return name in self.wanted if self.wanted else is_id(name)

    # ---- one container -------------------------------------------------------------------------------------

    def _update(self, name: str, final: bool = False) -> None:
        """Tell all that has happened to it and is not told yet.

        final  that it is gone, or another one by now, too; else what is in the queue still is to be told before
        """
        path = f"{self.root}/{name}"
        while True:
            wd = self._watch(path, _ON_FOLDER)
            container = self._by_name.get(name)
            if container is not None and container.wd != wd:
                if not final:
                    return
                self._gone(container)
                container = None
            if wd < 0:
                return
            if container is None:
                container = self._by_name[name] = self._by_wd[wd] = Container(name, wd)
            folder = self._read(container)
            # Still the same directory: then what we have read was in it.
            if self._watch(path, _ON_FOLDER) == wd:
                if folder is not None:
                    self._learn(container, folder)
                return

    def _heard(self, container: Container, name: str) -> None:
        """state.json was replaced, and the name says by what: tell it, as the file may be gone by now."""
        heard = states.parse_note(name)
        if heard is None:
            return
        status, pid, moment, how = heard
        self._reconsider(container, status)
        index = states.ORDER.index(status)
        if index <= container.reached:
            return
        container.recorded = status
        if index == _STOPPED:
            self._stopped(container, how or self._how(container) or {}, pid, moment)
        else:
            self._tell(container.name, status, pid, moment)
            container.reached = index

    def _reconsider(self, container: Container, status: str) -> None:
        """The creation that we took for given up has gone on."""
        if container.guess and status in ("created", "running"):
            container.guess, container.reached = False, states.ORDER.index("creating")

    def _read(self, container: Container) -> Folder | None:
        """The folder with its state read; None while there is none that we understand."""
        folder = Folder(f"{self.root}/{container.name}")
        try:
            container.recorded = str(folder.state.get("status"))
        except FileNotFoundError:
            return None
        except (Error, OSError) as problem:
            if str(problem) != container.broken:
                container.broken = str(problem)
                warn(str(problem))
            return None
        return folder

    def _learn(self, container: Container, folder: Folder) -> None:
        """Tell the transitions that are recorded, then see whose end to wait for and whether it is frozen."""
        if container.recorded not in states.ORDER:
            return
        self._reconsider(container, container.recorded)
        self._tell_recorded(container, folder.state)
        if container.reached < _STOPPED:
            self._follow(container, folder.state)
            self._settle(container, folder)
        if container.reached < _STOPPED and container.held is None:
            self._tell_frozen(container, folder.state)

    def _tell_recorded(self, container: Container, state: dict[str, Any]) -> None:
        own = state["ocimk"]
        times = own.get("times", {})
        target = states.ORDER.index(container.recorded)
        pid = states.init(state)[0]
        for index in range(container.reached + 1, target + 1):
            status = states.ORDER[index]
            if index == _STOPPED:
                how = own.get("exit") or self._how(container) or {}
                self._stopped(container, how, pid, times.get(status, ""))
            elif status in times or index == target:
                self._tell(container.name, status, pid if status != "creating" else 0, times.get(status, ""))
            container.reached = index

    def _follow(self, container: Container, state: dict[str, Any]) -> None:
        """Wait for the end of the process that counts: the init's; the creator's as long as there is none."""
        creating = container.recorded == "creating"
        pid, started = states.init(state)
        role = "init" if pid or not creating else "creator"
        if role == "creator":
            pid, started = states.creator(state)
        if (role, pid, started) == (container.role, container.pid, container.started):
            return
        self._unfollow(container)
        container.role, container.pid, container.started = role, pid, started
        followed = states.this_boot(state) and self._poll_process(container, pid, started)
        container.held = None if followed or (creating and not pid) else {}

    def _process_ended(self, container: Container) -> None:
        """The pidfd has woken us. How it ended is asked first: a zombie may be gone in a moment."""
        container.held = self._how(container) or {}
        self._unfollow(container)
        self._update(container.name)

    def _how(self, container: Container) -> How | None:
        """How the init ended; None while it lives and when nothing is known of it."""
        if container.held is not None or container.pidfd < 0 or container.role != "init":
            return container.held
        if not process.wait_end(container.pidfd, 0):
            return None
        return how_it_ended(container.pidfd, container.pid, container.started)

    def _settle(self, container: Container, folder: Folder) -> None:
        """Tell the end, unless somebody is at work who may yet record a transition that came before it."""
        if container.held is None:
            return
        if container.recorded != "running" and folder.locked():
            return
        container.guess = container.recorded == "creating"
        how = container.held
        self._stopped(container, how, states.init(folder.state)[0])
        if how:
            record_end(folder.path, container.pid, container.started, how)

    def _poll_process(self, container: Container, pid: int, started: int) -> bool:
        """Be woken when the very process ends; False when it is gone."""
        fd = _pidfd(pid, started) if pid else -1
        if fd >= 0:
            container.pidfd = fd
            self._by_pidfd[fd] = container
            self._epoll.register(fd, select.EPOLLIN)
        return fd >= 0

    def _tell_frozen(self, container: Container, state: dict[str, Any]) -> None:
        """Tell when it is paused or goes on: cgroup v2 wakes us, on v1 who pauses writes state.json anew."""
        freezer = state["ocimk"].get("freezer", "")
        if not freezer:
            return
        if container.freezer < 0 and paths.basename(freezer).startswith("cgroup."):
            container.freezer = self._watch(f"{paths.dirname(freezer)}/cgroup.events", _MODIFY)
            if container.freezer >= 0:
                self._by_freezer[container.freezer] = container
        if states.frozen(freezer) != container.paused:
            container.paused = not container.paused
            status = "paused" if container.paused else container.recorded
            self._tell(container.name, status, states.init(state)[0])

    def _gone(self, container: Container) -> None:
        """Its folder is removed: tell the end of its process, if that has ended, and then this."""
        pid = container.pid if container.role == "init" else 0
        how = self._how(container)
        if how is not None and container.reached < _STOPPED:
            self._stopped(container, how, pid)
        self._forget(container)
        self._unwatch(container.wd)
        del self._by_wd[container.wd], self._by_name[container.name]
        self._tell(container.name, "deleted", pid)

    # ---- telling -------------------------------------------------------------------------------------------

    def _tell(self, name: str, status: str, pid: int, moment: str = "", how: How | None = None) -> None:
        moment = moment or rfc3339(time.time_ns())
        self._told.append({"id": name, "status": status, "pid": pid, "time": moment, **(how or {})})

    def _stopped(self, container: Container, how: How, pid: int, moment: str = "") -> None:
        self._tell(container.name, "stopped", pid, moment, how)
        container.reached = _STOPPED
        self._forget(container)

    # ---- watches -------------------------------------------------------------------------------------------

    def _forget(self, container: Container) -> None:
        """Stop waiting for its process and its freezer."""
        self._unfollow(container)
        container.held = None
        self._retrying.discard(container)
        if container.freezer >= 0:
            self._unwatch(container.freezer)
            self._by_freezer.pop(container.freezer, None)
            container.freezer = -1

    def _unfollow(self, container: Container) -> None:
        if container.pidfd >= 0:
            del self._by_pidfd[container.pidfd]
            self._epoll.unregister(container.pidfd)
            posix.close(container.pidfd)
            container.pidfd = -1

    def _watch(self, path: str, mask: int) -> int:
        """Set a watch, or find the one that is set on the same file; -1 when there is no such file."""
        try:
            return int(self._inotify.add_watch(path, mask))
        except OSError as problem:
            if problem.errno in (errno.ENOENT, errno.ENOTDIR, errno.ENODEV):
                return -1
            if problem.errno == errno.ENOSPC:
                raise _limit(problem) from None
            if path == self.root or problem.errno != errno.EACCES:
                raise Error(f"watch {path}", problem) from None
            warn(f"watch {path}: permission denied")
            return -1

    def _unwatch(self, wd: int) -> None:
        try:
            self._inotify.rm_watch(wd)
        except OSError:
            pass  # it went with its directory


def _pidfd(pid: int, started: int) -> int:
    """A pidfd of the very process, also of a zombie (whose end it tells at once); -1 when it is gone."""
    try:
        fd = process.pidfd_open(pid)
    except OSError as problem:
        if problem.errno in (errno.EMFILE, errno.ENFILE):
            raise _limit(problem) from None
        return -1
    if started and process.start_time(pid) == started:
        return fd
    posix.close(fd)
    return -1


def _limit(problem: OSError) -> Error:
    hints = {
        errno.ENOSPC: "raise /proc/sys/fs/inotify/max_user_watches",
        errno.EMFILE: "raise /proc/sys/fs/inotify/max_user_instances, or the limit of open files (ulimit -n)",
    }
    return Error("watch containers", problem, hints.get(problem.errno or 0, ""))


def _raise_limit() -> None:
    """As many open files as we may have: each container that runs needs one."""
    import resource

    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))

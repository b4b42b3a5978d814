"""The way into a running container: the calls by which the image (image.c) gets there and becomes the program.

The image is started outside, from a sealed memfd, and goes in by itself. So nobody in the container ever sees a process
of ours whose executable is a file of the host, and none that holds a descriptor of the host's beyond the program's own:

1. outside: what needs the host's rights (OOM score, labels, cgroups, limits of a user namespace), then setns(2) by
   pidfd, all namespaces at once, the root by descriptor; then all that was needed for it is closed
2. it goes on as a child, since only a child is born into the pid namespace; the child's parent is ``oci exec``
3. before that, where it can be, all rights but the program's are given up, as the container's first process does
   (process_plan.py): who has CAP_SYS_PTRACE in there gains nothing by looking into it
4. inside: session, terminal, the program
"""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error, debug
from ..linux import capability, namespaces, prctl, process
from . import process_plan

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ALL = 0xFFFFFFFF
_CLOSE_ON_EXEC = 4  # CLOSE_RANGE_CLOEXEC
_AT_FDCWD = -100
_JOIN_SESSION_KEYRING = 1
_TIOCSCTTY = 0x540E
_SETMASK = 2
_OF_LIBC = (32, 33)
_DEFAULT = b"\0" * 32  # struct sigaction of the kernel: SIG_DFL

VIA, IN, PID, BORN, READY = "via ", "in", "pid ", "born", "ready"
"""What is reported on the way, see join.py."""


class Target:
    """The container's first process, held by descriptors, and in what it differs from us."""

    __slots__ = ("flags", "pid", "pidfd", "root", "same_root")

    def __init__(self, pid: int, started: int) -> None:
        """Raises Error when it has ended."""
        self.pid = pid
        self.pidfd = process.pidfd_of(pid, started)
        if self.pidfd < 0:
            raise Error("cannot exec in a stopped container")
        try:
            self.root = posix.open(f"/proc/{pid}/root", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
            self.flags = _differing(pid)
            ours, theirs = posix.stat("/"), posix.fstat(self.root)
        except OSError as problem:
            raise Error(f"look at /proc/{pid}", problem, "may we trace the container's processes?") from None
        self.same_root = (ours.st_dev, ours.st_ino) == (theirs.st_dev, theirs.st_ino)
        # All of that was about this very process only if it is still there.
        if process.wait_end(self.pidfd, 0):
            raise Error("cannot exec in a stopped container")

    @property
    def user_namespace(self) -> bool:
        """Whether it is in another user namespace than we are."""
        return bool(self.flags & namespaces.NEWUSER)

    def host_id(self, kind: str, number: int) -> int:
        """The host's number of an id ("uid", "gid") of the container; -1 for one that is not mapped."""
        for line in _read(f"/proc/{self.pid}/{kind}_map").splitlines():
            inside, outside, size = (int(word) for word in line.split())
            if inside <= number < inside + size:
                return outside + number - inside
        return -1

    def close(self) -> None:
        """Close the descriptors."""
        posix.close(self.pidfd)
        posix.close(self.root)


def _differing(pid: int) -> int:
    """The flags of the namespaces that are not ours. Raises OSError."""
    flags = 0
    for kind, name in namespaces.FILES.items():
        try:
            ours = posix.stat(f"/proc/self/ns/{name}")
        except FileNotFoundError:
            continue  # this kernel has no such namespace
        if ours.st_ino != posix.stat(f"/proc/{pid}/ns/{name}").st_ino:
            flags |= namespaces.FLAGS[kind]
    return flags


def _read(path: str) -> str:
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return posix.read(fd, 65536).decode("ascii", "replace")
    finally:
        posix.close(fd)


class Entrance(process_plan.Builder):
    """Collects the steps of one process that enters."""

    def __init__(self, folder: Folder, kept: int, process: dict[str, Any], target: Target) -> None:
        super().__init__(folder, kept, process)
        self.target = target
        self.report = -1
        """The descriptor by which it tells us how far it has come."""
        self.told = -1
        """The one by which it hears of its id, for an agent (linux.seccomp.listenerPath); else -1."""
        self.setgroups = f"/proc/{target.pid}/setgroups"
        if target.user_namespace:
            last = capability.last_capability()
            every = (1 << last + 1) - 1
            self.own = capability.Own(every, every, 0, every, last)

    def tell_lost(self, text: str) -> None:
        """What the container's own process was refused too has been told by create. Standard error is the program's
        here, and callers take what is on it for its words."""
        same = self.process.get("capabilities") == process_plan.of(self.folder).get("capabilities")
        debug(text) if same else super().tell_lost(text)

    # ---- outside ------------------------------------------------------------------------------------------------

    def outside(self, tasks: list[tuple[str, int]], cgroup: int) -> None:
        """Until it is in.

        tasks   the files (path, descriptor) by which it moves itself into cgroups and the like
        cgroup  a cgroup2 directory that it is to be born in, or -1
        """
        self.calls([prctl.call("prctl(PR_SET_NAME)", prctl.SET_NAME, b"oci-exec\0")])
        for number in _OF_LIBC:  # posix_spawn(3) lets these two, which glibc keeps for itself, be ignored
            self.call("rt_sigaction", "rt_sigaction", number, _DEFAULT, 0, 8)
        affinity = self.process.get("execCPUAffinity") or {}
        self._affinity(affinity, "initial")
        self._oom_score()
        if any(self.process.get(name) for name in ("apparmorProfile", "selinuxLabel")):
            from . import lsm

            lsm.write_outside(self.plan, self.process)
        # From here on nobody looks into us. Before, the files of a process of an ordinary user are his own.
        self._hide()
        self.call("close_range", "close_range", 3 + self.kept, _ALL, _CLOSE_ON_EXEC)
        self.call("rt_sigprocmask", "rt_sigprocmask", _SETMASK, b"\0" * 8, 0, 8)
        for path, fd in tasks:
            self.call(f"join {path.rpartition('/')[0]}", "write", fd, b"0", 1)
        if cgroup >= 0:
            self.plan.divide("join the cgroup by clone", namespaces.CLONE_PARENT, cgroup, VIA, IN)
        self._affinity(affinity, "final")
        self._enter()
        self._close_all_but([self.report, self.told, self.folder.fds.get("seccomp", -1)])
        self._keyring()
        if self.process.get("terminal"):
            uid = int((self.process.get("user") or {}).get("uid") or 0)
            self.call(f"process.terminal: give it to uid {uid}", "fchown", 0, uid, _ALL)
        if self.told >= 0 or self.must_enter_first():
            self._go_in()
            self._become_the_user()
        else:
            self._become_the_user()
            self._go_in()

    def _go_in(self) -> None:
        """Go on as a child, which is in the pid namespace and leads a session."""
        self.plan.divide("enter the container: clone", namespaces.CLONE_PARENT, -1, PID, BORN)
        self.call("setsid", "setsid", may_fail=True)
        if self.process.get("terminal"):
            self.call("process.terminal: make it the controlling terminal", "ioctl", 0, _TIOCSCTTY, 0)

    def _become_the_user(self) -> None:
        if self.told >= 0:
            self.pid_told = self.call("learn the process's id", "read", self.told, 0, 0)
        self.attributes()
        early, _ = self.directory()
        if not self.process.get("noNewPrivileges"):
            self.filter()
        self.user(early)

    def _keyring(self) -> None:
        """The session keyring that create made for the container, or a new one. See keyrings(7)."""
        if not self.folder.state["ocimk"].get("callersKeyring"):
            name = f"_ses.{self.folder.id}".encode() + b"\0"
            self.call("join the session keyring", "keyctl", _JOIN_SESSION_KEYRING, name, may_fail=True)

    def _affinity(self, affinity: dict[str, str], which: str) -> None:
        if affinity.get(which):
            from ..linux import sched

            self.calls(sched.affinity(affinity[which], f"process.execCPUAffinity.{which}"))

    def _oom_score(self) -> None:
        value = self.process.get("oomScoreAdj")
        if value is None:
            return
        label = f"process.oomScoreAdj: set to {value}"
        data = str(int(value)).encode()
        path = b"/proc/self/oom_score_adj\0"
        opened = self.call(label, "openat", _AT_FDCWD, path, posix.O_WRONLY | posix.O_CLOEXEC)
        self.plan.feeds(opened, self.call(label, "write", -1, data, len(data)))

    def _hide(self) -> None:
        self.calls([prctl.call("prctl(PR_SET_DUMPABLE)", prctl.SET_DUMPABLE, 0)])

    def _enter(self) -> None:
        target = self.target
        if target.user_namespace and posix.geteuid() == 0:
            self._lift_limits()
        if target.flags:
            self.call("enter the container: setns", "setns", target.pidfd, target.flags)
        if target.user_namespace:
            # Become its root, which the kernel then takes for the maker of what is made.
            for kind, name in (("gid", "setresgid"), ("uid", "setresuid")):
                if target.host_id(kind, 0) >= 0:
                    self.call(f"enter the container: {name}", name, 0, 0, 0)
        if not target.flags & namespaces.NEWNS and not target.same_root:
            self.call("enter the container's root", "fchdir", target.root)
            self.call("enter the container's root", "chroot", b".\0")
            self.call("enter the container's root", "chdir", b"/\0")

    def _lift_limits(self) -> None:
        """In a user namespace hard limits cannot be raised any more: raise them here, they are set exactly inside."""
        from ..linux import rlimit

        for row in self.process.get("rlimits") or []:
            soft, hard = rlimit.get(row["type"])
            if row["hard"] > hard:
                label = f"process.rlimits: raise {row['type']} to {row['hard']}"
                data = rlimit.pack(soft, row["hard"])
                self.call(label, "prlimit64", 0, rlimit.NUMBERS[row["type"]], data, 0)

    def _close_all_but(self, kept: list[int]) -> None:
        low = 3 + self.kept
        for fd in sorted(fd for fd in kept if fd >= low):
            if low < fd:
                self.call("close_range", "close_range", low, fd - 1, 0)
            low = fd + 1
        self.call("close_range", "close_range", low, _ALL, 0)

    # ---- inside -------------------------------------------------------------------------------------------------

    def inside(self, environment: list[str]) -> None:
        """From the birth in the container to the program."""
        listed = self.lookup(environment)
        # Whoever waits for us has gone when this fails: then nothing is started any more.
        self.call("tell that all is ready", "write", self.report, READY.encode(), len(READY))
        self.become(listed, environment)

"""From config.json's process to the calls that the waiting image makes, in their order and with the reasons for it.

1. what needs privilege or must hold for all that follows: no_new_privs, scheduling, limits, personality
2. the working directory, tried with the privileges of the namespace's root first, as runc does
3. a seccomp filter without no_new_privs: loading it takes CAP_SYS_ADMIN, so it comes before the capabilities go
4. the user: bounding set, groups, gid, uid, then the sets of capabilities
5. the program is looked for with the user's own rights, so that create can tell that it is missing
6. "ready", then the wait at the FIFO, then the startContainer hooks
7. a seccomp filter with no_new_privs, at the last moment: it binds as few of our own calls as possible
"""

from __future__ import annotations

import errno
import posix
from _struct import pack

from ..container import names, sync
from ..container.folder import Folder
from ..errors import Error, debug, warn
from ..linux import capability, namespaces, prctl, rlimit
from ..native import image

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..linux.prctl import Call

_SET_FILTER = 1  # SECCOMP_SET_MODE_FILTER
_SETFD = 2  # F_SETFD
_CLOEXEC = 1  # FD_CLOEXEC
_ALL = 0xFFFFFFFF
_CLOSE_ON_EXEC = 4  # CLOSE_RANGE_CLOEXEC
_SETMASK = 2  # SIG_SETMASK
NO_PROCESS = "process property must not be empty"
_TIOCSCTTY = 0x540E
_ALLOW, _LOG, _ERRNO = 0x7FFF0000, 0x7FFC0000, 0x00050000  # SECCOMP_RET_*
_UMASK = 0o022  # what runc sets when process.user.umask is absent, and what people rely on


class Builder:
    """Collects the steps of one process."""

    def __init__(self, folder: Folder, kept: int, process: dict[str, Any] | None = None) -> None:
        self.folder = folder
        self.process: dict[str, Any] = of(folder) if process is None else process
        self.plan = image.Plan()
        self.own: capability.Own | None = None
        """The capabilities that the process has before it gets its own; None: ours."""
        self.pid_told: image.Step | None = None
        """The step that reads the process's id, which nobody knows beforehand."""
        self.setgroups = "/proc/self/setgroups"
        """The file that tells whether its user namespace lets it set groups."""
        self.entered = False
        """Whether the process goes on as a child, in a pid namespace of others."""
        self.hooks_told: list[image.Address] = []
        """What startContainer hooks are told then: the process's id is filled in by the process itself."""
        self.kept = kept
        """How many descriptors after 2 are the program's (--preserve-fds, LISTEN_FDS)."""

    def calls(self, calls: list[Call]) -> None:
        """Add calls that another module worked out: (label, number, arguments)."""
        for label, number, args in calls:
            placed = tuple(self.plan.blob(a) if isinstance(a, bytes) else a for a in args)
            self.plan.add(image.CALL, label, number, placed)

    def call(self, label: str, name: str, *args: int | bytes, may_fail: bool = False) -> image.Step:
        """Add one call by name."""
        return self.plan.call(label, name, *args, may_fail=may_fail)

    # ---- 1 ------------------------------------------------------------------------------------------------------

    def close_ourselves(self) -> None:
        """Not to be traced, named for ps, and nothing of ours left open in the program."""
        self.calls([prctl.call("prctl(PR_SET_DUMPABLE)", prctl.SET_DUMPABLE, 0)])
        self.calls([prctl.call("prctl(PR_SET_NAME)", prctl.SET_NAME, b"oci-exec-fifo\0")])
        self.call("close_range", "close_range", 3 + self.kept, _ALL, _CLOSE_ON_EXEC)
        self.call("rt_sigprocmask", "rt_sigprocmask", _SETMASK, b"\0" * 8, 0, 8)

    def attributes(self) -> None:
        """no_new_privs, scheduling and limits."""
        if self.process.get("noNewPrivileges"):
            self.calls([prctl.no_new_privileges()])
        if any(self.process.get(key) for key in ("scheduler", "ioPriority")):
            self._scheduling()
        linux = self.folder.config.get("linux") or {}
        if linux.get("personality") or linux.get("memoryPolicy"):
            self._memory(linux)
        rows = [(row["type"], row["soft"], row["hard"]) for row in self.process.get("rlimits") or []]
        for label, number, args in rlimit.calls(rows):
            self.calls([(f"process.{label}", number, args)])

    def _scheduling(self) -> None:
        from ..linux import sched

        wanted = self.process.get("scheduler")
        if wanted:
            times = tuple(int(wanted.get(key) or 0) for key in ("runtime", "deadline", "period"))
            numbers = (int(wanted.get("nice") or 0), int(wanted.get("priority") or 0))
            flags = wanted.get("flags") or ()
            self.calls(sched.scheduler(wanted["policy"], *numbers, flags, times, "process.scheduler"))  # type: ignore[arg-type]
        wanted = self.process.get("ioPriority")
        if wanted:
            level = int(wanted.get("priority") or 0)
            self.calls(sched.io_priority(wanted["class"], level, "process.ioPriority"))

    def _memory(self, linux: dict[str, Any]) -> None:
        from ..linux import sched

        wanted = linux.get("personality")
        if wanted:
            self.calls(sched.personality(wanted["domain"], "linux.personality"))
        wanted = linux.get("memoryPolicy")
        if wanted and wanted.get("mode"):
            where = "linux.memoryPolicy"
            flags = wanted.get("flags") or ()
            self.calls(sched.memory_policy(wanted["mode"], wanted.get("nodes") or "", flags, where))

    # ---- 2 to 4 -------------------------------------------------------------------------------------------------

    def directory(self) -> tuple[image.Step, image.Step]:
        """Change to the working directory and see that it lies inside; the first step may fail."""
        cwd = self.process["cwd"]
        label = f"chdir to cwd ({_quoted(cwd)}) set in config.json failed"
        change = self.call(label, "chdir", cwd.encode("utf-8", "surrogateescape") + b"\0", may_fail=True)
        return change, self.plan.add(image.CWD, f"{label}: it lies outside of the container")

    def filter(self) -> None:
        """Load the seccomp filter that oci-seccomp compiled."""
        if not (self.folder.config.get("linux") or {}).get("seccomp"):
            return
        from . import seccomp

        found = seccomp.load_info(self.folder)
        if found is None:
            return
        program, flags = found
        at = self.plan.room(program)
        header = self.plan.room(pack("=HxxxxxxQ", len(program) // 8, 0))
        self.plan.points(header + 8, at)
        step = self.plan.add(
            image.CALL, "linux.seccomp: load the filter", image.number("seccomp"), (_SET_FILTER, flags, header)
        )
        if seccomp.listener(self.folder) is not None:
            from . import seccomp_notify

            seccomp_notify.send(self.plan, step, self.folder, self.pid_told)

    def tell_lost(self, text: str) -> None:
        """What of the capabilities cannot be had. That ambient ones need inheritable ones is old news: every older
        default bundle asks for them without, and runc says nothing either."""
        (debug if "as ambient" in text else warn)(text)

    def user(self, early: image.Step) -> None:
        """The user with his capabilities, who enters the working directory when *early* could not."""
        sets = capability.plan(self.process.get("capabilities") or {}, self.tell_lost, self.own)
        self.calls(sets.before_user())
        self._groups()
        user = self.process.get("user") or {}
        uid, gid = int(user.get("uid") or 0), int(user.get("gid") or 0)
        self.call(f"process.user.gid: set gid {gid}", "setresgid", gid, gid, gid)
        self.call(f"process.user.uid: set uid {uid}", "setresuid", uid, uid, uid)
        self.calls(sets.after_user())
        # The change of user may have undone it: fs.suid_dumpable.
        self.calls([prctl.call("prctl(PR_SET_DUMPABLE)", prctl.SET_DUMPABLE, 0)])
        late, _ = self.directory()
        late.flags = 0
        self.plan.cancels(early, late, more=1)
        mask = user.get("umask")
        self.call("umask", "umask", _UMASK if mask is None else int(mask))

    def _groups(self) -> None:
        if "run.oci.keep_original_groups" in (self.folder.config.get("annotations") or {}):
            return
        groups = [int(gid) for gid in (self.process.get("user") or {}).get("additionalGids") or []]
        if _setgroups_denied(self.setgroups):
            if groups:
                cause = "the user namespace denies setgroups"
                raise Error("process.user.additionalGids", cause, "map groups with newgidmap, or leave them out")
            return
        data = pack(f"={len(groups)}I", *groups) if groups else 0
        self.call("process.user.additionalGids: set groups", "setgroups", len(groups), data)

    # ---- 5 to 7 -------------------------------------------------------------------------------------------------

    def program(self, environment: list[str], verdict: int, fifo: int, pid: int) -> None:
        """Look for the program, wait, run the hooks, become it."""
        if not self.process.get("args"):
            self._nothing(verdict, fifo)
            return
        listed = self.lookup(environment)
        self.plan.ready(verdict)
        self.plan.add(image.AWAIT, "wait for start", args=(fifo,))
        self._hooks(environment, pid)
        if "label" in self.folder.fds and not self.entered:
            from . import lsm

            lsm.write(self.plan, self.folder)
        self.become(listed, environment)

    def enter(self) -> None:
        """Go on as a child in the pid namespace that was joined: its rights are those of the program by now. It leads a
        session of its own, with the terminal if there is one, and waits until the host's side knows it."""
        fd = self.folder.fds["sync"]
        if "label" in self.folder.fds:
            from . import lsm

            lsm.write(self.plan, self.folder)  # to a file of this very task; the child inherits it
        self.plan.divide("enter the pid namespace: clone", namespaces.CLONE_PARENT, -1, "pid ", "born")
        self.call("setsid", "setsid", may_fail=True)
        if self.process.get("terminal"):
            self.call("process.terminal: make it the controlling terminal", "ioctl", 0, _TIOCSCTTY, 0)
        from . import hooks

        places = [self.plan.room(b" " * sync.PID_DIGITS)]
        for _ in hooks.of_kind(self.folder, "startContainer"):
            told = hooks.state(self.folder, "startContainer", "created", sync.LATER)
            self.hooks_told.append(self.plan.room(told))
            places.append(image.Address(self.hooks_told[-1] + told.index(b"%d" % sync.LATER)))
        for place in places:
            self.call("wait for the host's side", "read", fd, place, sync.PID_DIGITS)
        self.entered = True

    def must_enter_first(self) -> bool:
        """Whether a pid namespace must be entered before the rights are given up: no child inherits every scheduling,
        and a filter may forbid to make one."""
        if self.process.get("scheduler"):
            return True
        return not self.process.get("noNewPrivileges") and self._binds_clone()

    def _binds_clone(self) -> bool:
        """Whether the filter, once loaded, does not let us go on as a child."""
        from ..linux import bpf_filter
        from ..linux import seccomp as kernel
        from . import seccomp

        found = seccomp.load_info(self.folder) if (self.folder.config.get("linux") or {}).get("seccomp") else None
        if found is None:
            return False
        program = bpf_filter.unpack(found[0])
        audit = kernel.AUDIT_ARCH[kernel.NATIVE[posix.uname().machine]]

        def answer(name: str, *args: int) -> tuple[int, int]:
            return bpf_filter.split(bpf_filter.run(program, audit, image.number(name), args))

        allowing = (_ALLOW, _LOG)
        first = answer("clone3")
        if first[0] in allowing:
            return False
        refused = first[0] == _ERRNO and first[1] in (errno.EPERM, errno.ENOSYS)
        return not (refused and answer("clone", namespaces.CLONE_PARENT)[0] in allowing)

    def lookup(self, environment: list[str]) -> image.Address:
        """Look for the program with the user's own rights; returns the list of where it may be."""
        program = str(self.process["args"][0])
        name = _quoted(program)
        absent = "" if "/" in program else f"error 1\texec: {name}: executable file not found in $PATH"
        listed = self.plan.words(candidates(program, environment))
        literal = self.plan.text(absent) if absent else 0
        self.plan.add(image.LOOKUP, f"exec: {name}", args=(listed, literal))
        return listed

    def become(self, listed: image.Address, environment: list[str]) -> None:
        """The filter, when it was not loaded before, and the program."""
        if self.process.get("noNewPrivileges"):
            self.filter()
        args = [str(arg) for arg in self.process["args"]]
        self.plan.add(image.EXEC, f"exec {args[0]}", args=(listed, self.plan.words(args), self.plan.words(environment)))

    def _nothing(self, verdict: int, fifo: int) -> None:
        """Without a process there is something to create and nothing to start: that is start's error."""
        absent = f"error 1\t{NO_PROCESS} (config.json names no program to run)"
        self.plan.ready(verdict)
        self.plan.add(image.AWAIT, "wait for start", args=(fifo,))
        self.plan.add(image.LOOKUP, "process", args=(self.plan.words([]), self.plan.text(absent)))

    def _hooks(self, environment: list[str], pid: int) -> None:
        from . import hooks

        for number, hook in enumerate(hooks.of_kind(self.folder, "startContainer")):
            told = hooks.state(self.folder, "startContainer", "created", sync.LATER if self.entered else pid)
            state = self.hooks_told[number] if self.entered else self.plan.blob(told)
            env = hook.get("env")
            argv = self.plan.words([str(word) for word in hook.get("args") or [hook["path"]]])
            words = self.plan.words(environment if env is None else env)
            where = (self.plan.text(hook["path"]), argv, words, state, len(told))
            label = f"error running startContainer hook #{number} {hook['path']}"
            self.plan.add(image.HOOK, label, args=(*where, int(hook.get("timeout") or 0)))


def of(folder: Folder) -> dict[str, Any]:
    """config.json's process. It is optional until start, so without one there is one that can only wait."""
    return folder.config.get("process") or {"cwd": "/"}


def preserved(kept: int) -> int:
    """How many descriptors after 2 the program is to have. Raises Error when one of them was not open when we began:
    what is closed on exec is our own, made since, and no business of the program's."""
    for fd in range(3, 3 + kept):
        try:
            ours = not posix.get_inheritable(fd)
        except OSError:
            ours = True
        if ours:
            raise Error(f"--preserve-fds: hand on {kept} descriptors", f"descriptor {fd} is not open")
    return kept


def build(folder: Folder, environment: list[str], kept: int, pid: int) -> image.Plan:
    """The whole plan for the container's first process, *pid* as it sees itself."""
    builder = Builder(folder, kept)
    builder.close_ourselves()
    if "pidns" in folder.fds and builder.must_enter_first():
        builder.enter()
    builder.attributes()
    early, _ = builder.directory()
    if not builder.process.get("noNewPrivileges"):
        builder.filter()
    builder.user(early)
    if "pidns" in folder.fds and not builder.entered:
        builder.enter()
    builder.program(environment, folder.fds.get(names.VERDICT, 2), folder.fds.get(names.FIFO, 0), pid)
    return builder.plan


def candidates(name: str, environment: list[str]) -> list[str]:
    """Where the program may be: itself when it holds a slash, else below each folder of the process's own PATH."""
    if "/" in name:
        return [name]
    search = ""
    for pair in environment:
        if pair.startswith("PATH="):
            search = pair[5:]
    return [f"{place.rstrip('/')}/{name}" for place in search.split(":") if place.startswith("/")]


def _quoted(name: str) -> str:
    return '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _setgroups_denied(path: str) -> bool:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    try:
        return posix.read(fd, 16).strip() == b"deny"
    finally:
        posix.close(fd)

"""oci-resctrl: put the container's first process into a group of the resctrl file system, as linux.intelRdt says.

Reads   config.json; /proc/self/mountinfo; the group's schemata
Writes  ledger before it makes a group: ``group PATH`` (named after the container, removed with it), ``class PATH`` (the
        class of service of closID: it stays, but for a creation that fails), ``monitor PATH`` (removed with it)

Runs on the host's side once the first process exists and before it goes on: what it starts later is in its group.
The order is runc's: the group, the process into it, the monitoring group and the process into that, the schemata.
"""

from __future__ import annotations

import errno
import posix

from ..container.folder import Folder, never_created, read_all
from ..errors import Error, Usage, reason
from ..linux import path as paths
from ..linux import resctrl

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "oci-resctrl"
SUMMARY = "put the container's process into its resctrl group, with the schemata of linux.intelRdt"
OPTIONS: tuple[tuple[str, str, str], ...] = ()
VALUES = ""
CHAINS = False

WHERE = "linux.intelRdt"
_NOT_MOUNTED = "resctrl is not mounted on this host"
_REMEDY = "mount -t resctrl resctrl /sys/fs/resctrl; the processor and the kernel (CONFIG_X86_CPU_RESCTRL) must have it"
_HINTS = {
    errno.ENOSPC: "the processor has no more groups of this kind",
    errno.EINVAL: "the kernel does not accept this; see info/ in the mounted resctrl",
    errno.EROFS: "resctrl is mounted read-only",
}


def settings(config: dict[str, Any]) -> dict[str, Any] | None:
    """linux.intelRdt; None when it is not set. An empty object is set."""
    found = (config.get("linux") or {}).get("intelRdt")
    return dict(found) if found is not None else None


def mount_point() -> str:
    """Where resctrl is mounted; "" when it is not."""
    fd = posix.open("/proc/self/mountinfo", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return resctrl.mounted(read_all(fd))
    finally:
        posix.close(fd)


class Group:
    """The group of one container below a mounted resctrl."""

    def __init__(self, folder: Folder, rdt: dict[str, Any], root: str) -> None:
        self.folder = folder
        self.root = root
        self.closid = str(rdt.get("closID") or "")
        self.cache = str(rdt.get("l3CacheSchema") or "")
        self.bandwidth = str(rdt.get("memBwSchema") or "")
        self.lines = [line for line in (self.cache, self.bandwidth, *(rdt.get("schemata") or [])) if line]
        name = self.closid or folder.id or "ID"
        self.path = root if name == "/" else f"{root}/{name}"
        self.monitor = f"{self.path}/mon_groups/{folder.id or 'ID'}" if rdt.get("enableMonitoring") else ""

    def carry_out(self, pid: int) -> None:
        """All of it for the process. Raises Error naming the property."""
        self.have()
        self._join(self.path, pid, WHERE)
        if self.monitor:
            self._monitor(pid)
        if self.lines:
            self._write(f"{self.path}/schemata", "".join(f"{line}\n" for line in self.lines), self._lines_named())

    def have(self) -> None:
        """Make the group, or take one that is there when the specification lets us. Raises Error."""
        if self.path == self.root:
            return self._compare()
        if self.closid and not self.lines:
            if not resctrl.is_group(self.path):
                cause = f"{self.path} is not there, and without schemata it must be"
                raise Error(f"{WHERE}.closID: {self.closid}", cause, "make it, or say what it is to have")
            return
        if not paths.exists(self.path):
            self.folder.record(NAME, "class" if self.closid else "group", self.path)
        if self._make(self.path, f"{WHERE}.closID" if self.closid else WHERE):
            return
        if not resctrl.is_group(self.path):
            raise Error(f"{WHERE}.closID: {self.closid or self.folder.id}", f"{self.path} is no group of resctrl")
        if self.closid:
            self._compare()

    def _compare(self) -> None:
        """A group that is there must have the schemata that are asked for (config-linux.md, IntelRdt)."""
        for name, line in (("l3CacheSchema", self.cache), ("memBwSchema", self.bandwidth)):
            if not line:
                continue
            there = resctrl.read(f"{self.path}/schemata")
            if not resctrl.agrees(line, there):
                has = "; ".join(part.strip() for part in there.splitlines())
                raise Error(f"{WHERE}.{name}: {line}", f"the group {self.closid} exists and has {has}")

    def _monitor(self, pid: int) -> None:
        doing = f"{WHERE}.enableMonitoring"
        if paths.exists(self.monitor):
            raise Error(f"{doing}: make {self.monitor}", "file exists", "rmdir it if no other container has this ID")
        self.folder.record(NAME, "monitor", self.monitor)
        self._make(self.monitor, doing)
        self._join(self.monitor, pid, doing)

    def _make(self, path: str, doing: str) -> bool:
        try:
            return resctrl.make_group(self.root, path)
        except OSError as problem:
            raise _failed(f"{doing}: make {path}", problem) from None

    def _join(self, path: str, pid: int, doing: str) -> None:
        self._write(f"{path}/tasks", str(pid), f"{doing}: put process {pid} into {path}")

    def _write(self, path: str, text: str, doing: str) -> None:
        try:
            resctrl.write(self.root, path, text)
        except OSError as problem:
            raise _failed(doing, problem) from None

    def _lines_named(self) -> str:
        only = {self.cache: "l3CacheSchema", self.bandwidth: "memBwSchema"}
        name = only.get(self.lines[0], "schemata") if len(self.lines) == 1 else ""
        return f"{WHERE}{'.' if name else ''}{name}: write {', '.join(self.lines)}"


def _failed(doing: str, problem: OSError) -> Error:
    told = getattr(problem, "told", "")
    cause = f"{reason(problem)}: {told}" if told else reason(problem)
    return Error(doing, cause, _HINTS.get(problem.errno or 0, ""))


def apply(folder: Folder, options: dict[str, str], operands: list[str], root: str = "") -> None:
    """Nothing unless linux.intelRdt is set. Raises Error.

    root  where resctrl is mounted; found out when empty
    """
    if operands:
        raise Usage(f"unexpected operand {operands[0]}")
    rdt = settings(folder.config)
    if rdt is None:
        return
    root = root or mount_point()
    if not root:
        raise Error(WHERE, _NOT_MOUNTED, _REMEDY)
    Group(folder, rdt, root).carry_out(int(folder.state["pid"]))


def change(folder: Folder, cache: str, bandwidth: str, root: str = "") -> str:
    """Give a living container's group other schemata, "" for what stays; the old ones. Raises Error."""
    root = root or mount_point()
    known = resctrl.parse(resctrl.read(f"{root}/schemata")) if root else {}
    if cache and not known.keys() & {"L3", "L3CODE", "L3DATA"}:
        raise Error("Intel RDT/CAT: l3 cache schema is not enabled", "" if root else _NOT_MOUNTED)
    if bandwidth and "MB" not in known:
        raise Error("Intel RDT/MBA: memory bandwidth schema is not enabled", "" if root else _NOT_MOUNTED)
    rdt = settings(folder.config)
    if rdt is None:
        raise Error("updating a non-existent Intel RDT configuration is not supported", hint=f"{WHERE} is not set")
    group = Group(folder, rdt, root)
    before = resctrl.read(f"{group.path}/schemata")
    lines = "".join(f"{line}\n" for line in (cache, bandwidth) if line)
    group._write(f"{group.path}/schemata", lines, f"{WHERE}: write {', '.join(lines.split())} to {group.path}")
    return before


def put_back(folder: Folder, schemata: str, root: str = "") -> None:
    """Write the schemata that change() has told. Raises Error."""
    root = root or mount_point()
    group = Group(folder, settings(folder.config) or {}, root)
    group._write(f"{group.path}/schemata", schemata, f"{WHERE}: write back the schemata of {group.path}")


def files_to_join(folder: Folder) -> list[str]:
    """The files by which another process of the container puts itself into its groups; [] without resctrl."""
    rdt = settings(folder.config)
    root = mount_point() if rdt is not None else ""
    if rdt is None or not root:
        return []
    group = Group(folder, rdt, root)
    return [f"{path}/tasks" for path in (group.path, group.monitor) if path and paths.exists(f"{path}/tasks")]


def undo(folder: Folder) -> None:
    """Remove the groups that bear the container's name, the newest first; a class of service stays once the container
    was created. Raises Error."""
    for _, kind, path in reversed(folder.records(NAME)):
        if kind == "class" and (not never_created(folder) or _shared(folder, path)):
            continue
        try:
            resctrl.remove_group(path)
        except OSError as problem:
            raise Error(f"{WHERE}: remove {path}", problem) from None
    folder.strike(NAME)


def _shared(folder: Folder, path: str) -> bool:
    """Whether others than our first process have joined the class meanwhile."""
    try:
        tasks = set(resctrl.read(f"{path}/tasks").split())
    except OSError:
        return False
    return bool(tasks - {str(folder.state.get("pid", 0))})


def explain(folder: Folder, options: dict[str, str], operands: list[str], root: str = "") -> list[str]:
    """The same with mkdir(1) and echo; PID is the first process."""
    from .words import shell

    rdt = settings(folder.config)
    if rdt is None:
        return []
    group = Group(folder, rdt, root or mount_point() or "/sys/fs/resctrl")
    pid = str(folder.state.get("pid") or "PID") if folder.path else "PID"
    lines = []
    if group.path != group.root and (group.lines or not group.closid):
        lines.append(shell(["mkdir", "-p", group.path]))
    lines.append(f"echo {pid} > {shell([group.path + '/tasks'])}")
    if group.monitor:
        lines.append(shell(["mkdir", group.monitor]))
        lines.append(f"echo {pid} > {shell([group.monitor + '/tasks'])}")
    if group.lines:
        words = shell(["printf", "%s\\n", *group.lines])
        lines.append(f"{words} > {shell([group.path + '/schemata'])}")
    return lines


def check(folder: Folder, root: str = "") -> list[str]:
    """Whether resctrl is mounted, has what the schemata ask for, and the class of service that must be there."""
    rdt = settings(folder.config)
    if rdt is None:
        return []
    root = root or mount_point()
    if not root:
        return [f"{WHERE}: {_NOT_MOUNTED} ({_REMEDY})"]
    group = Group(folder, rdt, root)
    problems = []
    known = resctrl.parse(resctrl.read(f"{root}/schemata"))
    for line in group.lines:
        kind = line.partition(":")[0].strip()
        if kind not in known:
            problems.append(f"{WHERE}: {line}: this host has no {kind} (it has {', '.join(known) or 'none'})")
    if group.closid not in ("", "/") and not group.lines and not resctrl.is_group(group.path):
        problems.append(f"{WHERE}.closID: {group.path} is not there (without schemata it must be)")
    if rdt.get("enableMonitoring") and not paths.exists(f"{root}/mon_groups"):
        problems.append(f"{WHERE}.enableMonitoring: this host's resctrl has no monitoring groups (see {root}/info)")
    return problems

"""oci-netdev: move the host's network devices that linux.netDevices names into the container's network namespace.

Reads   config.json; the network namespace: what linux.namespaces names by path, else that of the first process
Writes  ledger, a line per device before it is moved: ``device OLD NEW up|down ADDRESS...`` (addresses in hexadecimal)

Runs on the host's side once the first process exists and before it goes on. Each device keeps its attributes (the
kernel sees to that) and its permanent addresses of global scope (the kernel drops them; they are given again), and is
set up. It is not moved back when the container is deleted, for the specification forbids it: the kernel returns
physical devices to the initial namespace when the last process is gone, and virtual ones end (network_namespaces(7)).
A container that could not be created gives back what it had taken: name, addresses and state.
"""

from __future__ import annotations

import errno
import posix

from ..container.folder import Folder, living, never_created
from ..errors import Error, Usage, reason
from ..linux import openat2, rtnetlink

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "oci-netdev"
SUMMARY = "move the network devices of linux.netDevices into the container's network namespace"
OPTIONS: tuple[tuple[str, str, str], ...] = ()
VALUES = ""
CHAINS = False

_TRIES = 64  # numbers tried for %d when others take names at the same time
_HINTS = {
    errno.EPERM: "CAP_NET_ADMIN is needed over both network namespaces",
    errno.EEXIST: "the container's network namespace has a device of this name; a name that ends in %d is numbered",
    errno.EINVAL: "a device that belongs to its network namespace, like lo or a bridge of its own, cannot be moved",
    errno.EOPNOTSUPP: "this kind of device cannot be moved",
    errno.EBUSY: "it is in use by another device, as a port of a bond or a bridge is",
}


def where(name: str) -> str:
    """How a device is called in messages."""
    return f'linux.netDevices["{name}"]'


def wanted(config: dict[str, Any]) -> list[tuple[str, str]]:
    """The host's name of each device and the one it gets."""
    devices = (config.get("linux") or {}).get("netDevices") or {}
    return [(name, (device or {}).get("name") or name) for name, device in devices.items()]


def joined(config: dict[str, Any]) -> str:
    """The path of a network namespace that is joined; "" when it is new, or the host's."""
    entries = (config.get("linux") or {}).get("namespaces") or []
    return next((str(entry.get("path") or "") for entry in entries if entry["type"] == "network"), "")


def namespace_path(folder: Folder) -> str:
    """The file that names the container's network namespace. A joined one by its own path: the process may not have
    entered it yet."""
    return joined(folder.config) or f"/proc/{int(folder.state.get('pid', 0))}/ns/net"


def open_namespace(folder: Folder) -> int:
    """A descriptor of the container's network namespace, which keeps it there. Raises Error."""
    path = namespace_path(folder)
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError as problem:
        raise Error(f"linux.netDevices: open {path}", problem, "is the first process gone?") from None


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Check all devices, then move them. Raises Error naming the device; what was moved by then is in the ledger."""
    if operands:
        raise Usage(f"unexpected operand {operands[0]}")
    devices = wanted(folder.config)
    if not devices:
        return
    held = folder.fds.get("netns", -1)
    there = held if held >= 0 else open_namespace(folder)
    try:
        if _ours(there):
            return stay(devices)
        with rtnetlink.Route() as host, _there(there) as inside:
            for old, new, link in _checked(host, inside, devices):
                Move(folder, host, inside, there, old, new).carry_out(link)
    finally:
        if there != held:
            posix.close(there)


def _ours(namespace: int) -> bool:
    here, there = posix.stat("/proc/self/ns/net"), posix.fstat(namespace)
    return (here.st_dev, here.st_ino) == (there.st_dev, there.st_ino)


def _there(namespace: int) -> rtnetlink.Route:
    try:
        return rtnetlink.Route(namespace)
    except OSError as problem:
        hint = _HINTS.get(problem.errno or 0, "")
        raise Error("linux.netDevices: speak to the container's network namespace", problem, hint) from None


def stay(devices: list[tuple[str, str]]) -> None:
    """Without a network namespace of its own the container has the host's devices, but under their names only."""
    with rtnetlink.Route() as host:
        for old, new in devices:
            if host.link(old) is None:
                raise Error(where(old), "no such network device on the host")
            if new != old:
                cause = "the container has the host's network namespace"
                raise Error(f"{where(old)}.name: {new}", cause, "add a network namespace to linux.namespaces")


def _checked(
    host: rtnetlink.Route, inside: rtnetlink.Route, devices: list[tuple[str, str]]
) -> list[tuple[str, str, rtnetlink.Link]]:
    """Each device with its link, when all are there and no name is taken: nothing is moved before. Raises Error."""
    taken = set(inside.links())
    found = []
    for old, new in devices:
        link = host.link(old)
        if link is None:
            raise Error(where(old), "no such network device on the host", "see ip link")
        if "%d" not in new:
            if new in taken:
                doing = where(old) if new == old else f"{where(old)}.name: {new}"
                raise Error(doing, "file exists", _HINTS[errno.EEXIST])
            taken.add(new)
        found.append((old, new, link))
    return found


class Move:
    """One device on its way into the container."""

    def __init__(
        self, folder: Folder, host: rtnetlink.Route, inside: rtnetlink.Route, there: int, old: str, new: str
    ) -> None:
        self.folder = folder
        self.host = host
        self.inside = inside
        self.there = there
        self.old = old
        self.new = new

    def carry_out(self, link: rtnetlink.Link) -> None:
        """Move it, give it its addresses, set it up. Raises Error."""
        addresses = self.host.addresses(link.index)
        state = "up" if link.up else "down"
        taken = set(self.inside.links())
        for name in self._names(taken):
            line = " ".join([self.old, name, state, *(address.hex() for address in addresses)])
            self.folder.record(NAME, "device", line)
            try:
                self.host.move(link.index, self.there, name)
            except OSError as problem:
                self._fetch_back(taken, (self.old, name, state), line.split(" ")[3:])
                if problem.errno == errno.EEXIST and "%d" in self.new:
                    self.folder.strike(NAME, "device", line)
                    link = self.host.link(self.old) or link  # on its way back it may have got another index
                    continue
                raise self._failed("move into the container", problem) from None
            return self._settle(name, addresses)
        raise Error(f"{where(self.old)}.name: {self.new}", "no free number was found")

    def _names(self, taken: set[str]) -> list[str]:
        """The names to try: for a pattern the free ones, lowest first, as the kernel would choose."""
        if "%d" not in self.new:
            return [self.new]
        numbered = (self.new.replace("%d", str(number), 1) for number in range(len(taken) + _TRIES))
        return [name for name in numbered if name not in taken][:_TRIES]

    def _fetch_back(self, taken: set[str], told: tuple[str, str, str], addresses: list[str]) -> None:
        """A new name that is refused only after the move has left the device there under its old one."""
        link = None if self.old in taken or self.host.link(self.old) else self.inside.link(self.old)
        if link is not None:
            with openat2.Held(_home()) as home:
                _return(self.host, self.inside, link, home, told, addresses)

    def _settle(self, name: str, addresses: list[bytes]) -> None:
        try:
            link = self.inside.link(name)
            if link is None:
                raise OSError(errno.ENODEV, posix.strerror(errno.ENODEV))
            for address in addresses:
                self.inside.add_address(link, address, (self.old, name))
            self.inside.set_up(link.index)
        except OSError as problem:
            raise self._failed(f"set up as {name}", problem) from None

    def _failed(self, doing: str, problem: OSError) -> Error:
        told = getattr(problem, "told", "")
        cause = f"{reason(problem)}: {told}" if told else reason(problem)
        return Error(f"{where(self.old)}: {doing}", cause, _HINTS.get(problem.errno or 0, ""))


# ---- undo ------------------------------------------------------------------------------------------------------------


def undo(folder: Folder) -> None:
    """Give the devices of a container that was never created back; of one that was, leave them to the kernel."""
    moved = [value.split(" ") for _, kind, value in folder.records(NAME) if kind == "device"]
    if moved and never_created(folder):
        there = _reachable(folder)
        if there >= 0:
            try:
                _give_back(moved, there)
            finally:
                if there != folder.fds.get("netns", -1):
                    posix.close(there)
    folder.strike(NAME)


def _reachable(folder: Folder) -> int:
    """The namespace, as long as somebody holds it; -1 when it ended with the first process."""
    held = folder.fds.get("netns", -1)
    if held >= 0:
        return held
    if not joined(folder.config) and not living(folder):
        return -1
    try:
        return open_namespace(folder)
    except Error:
        return -1


def _give_back(moved: list[list[str]], there: int) -> None:
    with openat2.Held(_home()) as home, rtnetlink.Route() as host, _there(there) as inside:
        for old, new, state, *addresses in reversed(moved):
            link = None if host.link(old) else inside.link(new)
            if link is not None:
                _return(host, inside, link, home, (old, new, state), addresses)


def _home() -> int:
    return posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)


def _return(
    host: rtnetlink.Route,
    inside: rtnetlink.Route,
    link: rtnetlink.Link,
    home: int,
    told: tuple[str, str, str],
    addresses: list[str],
) -> None:
    old, _, state = told
    try:
        inside.move(link.index, home, old)
        back = host.link(old)
        if back is None:
            raise OSError(errno.ENODEV, posix.strerror(errno.ENODEV))
        for address in addresses:
            host.add_address(back, bytes.fromhex(address))
        if state == "up":
            host.set_up(back.index)
    except OSError as problem:
        raise Error(f"{where(old)}: move back to the host", problem) from None


# ---- explain, check --------------------------------------------------------------------------------------------------


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The same with ip(8); PID is the first process."""
    from .words import shell

    pid = str(folder.state.get("pid") or "PID") if folder.path else "PID"
    path = joined(folder.config)
    enter = ["nsenter", f"--net={path}"] if path else ["nsenter", "--net", "--target", pid]
    lines = []
    for old, new in wanted(folder.config):
        lines.append(shell(["ip", "-o", "address", "show", "dev", old, "scope", "global", "permanent"]))
        lines.append(shell(["ip", "link", "set", "dev", old, "netns", path or pid, "name", new]))
        lines.append(shell([*enter, "ip", "address", "add", "ADDRESS", "dev", new]) + "  # each of them")
        lines.append(shell([*enter, "ip", "link", "set", "dev", new, "up"]))
    return lines


def check(folder: Folder) -> list[str]:
    """Devices that are not there, and rights that are missing."""
    devices = wanted(folder.config)
    if not devices:
        return []
    if folder.path and any(kind == "device" for _, kind, _ in folder.records(NAME)):
        return []  # they have been moved
    problems = []
    kinds = [entry["type"] for entry in (folder.config.get("linux") or {}).get("namespaces") or []]
    if "network" not in kinds:
        problems += [
            f"{where(old)}.name: {new}: the container has the host's network namespace; add one to linux.namespaces"
            for old, new in devices
            if old != new
        ]
    if posix.geteuid():
        problems.append("linux.netDevices: moving devices needs root")
    with rtnetlink.Route() as host:
        here = host.links()
    problems += [
        f"{where(old)}: no such network device on this host (see ip link)" for old, _ in devices if old not in here
    ]
    return problems

"""A manager of systemd, spoken to over D-Bus: the system's or a user's. See org.freedesktop.systemd1(5).

jeepney packs and unpacks the messages; the socket is ours, since jeepney's own connection says Hello, which a
manager's private socket does not understand, and names the user that it takes itself to be, which is another one
inside a user namespace. So no user is named: the kernel tells the peer who we are. See the D-Bus specification,
"Authentication Protocol".

An address is ``system``, or what D-Bus has: ``unix:path=/run/user/1000/bus``.
"""

from __future__ import annotations

import posix
import time

from ...errors import Error
from ...linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    Properties = list[tuple[str, tuple[str, Any]]]

SYSTEM = "system"
BOOTED = "/run/systemd/system"
_SYSTEM_SOCKETS = ("/run/dbus/system_bus_socket", "/run/systemd/private")
_PRIVATE = "/systemd/private"
OBJECT = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_NAME, _OBJECT, _MANAGER = OBJECT
_SECONDS = 30.0
"""For a reply and for a job, as runc."""

NOT_HERE = "systemd cgroup flag passed, but systemd support for managing cgroups is not available"


class Refused(Error):
    """What the manager answered in place of a reply; ``name`` is the D-Bus error's last word."""

    def __init__(self, doing: str, name: str, text: str) -> None:
        super().__init__(doing, text or name)
        self.name = name.rpartition(".")[2]


def booted() -> bool:
    """Whether systemd is this host's init; see sd_booted(3)."""
    return paths.is_dir(BOOTED)


def user_addresses() -> list[str]:
    """Where the user's manager may be reached: as the environment says, then where it usually is."""
    env = posix.environ
    told = env.get(b"DBUS_SESSION_BUS_ADDRESS", b"").decode("utf-8", "surrogateescape")
    places = [env.get(b"XDG_RUNTIME_DIR", b"").decode("utf-8", "surrogateescape"), f"/run/user/{outer_uid()}"]
    found = [f"unix:path={place}{end}" for end in ("/bus", _PRIVATE) for place in dict.fromkeys(places) if place]
    return ([told] if told else []) + found


def outer_uid() -> int:
    """Our user ID outside of the user namespace that we may be in; see user_namespaces(7)."""
    from ...linux.cgroup import read_file

    own = posix.geteuid()
    for line in read_file("/proc/self/uid_map").splitlines():
        inside, outside, size = map(int, line.split())
        if inside <= own < inside + size:
            return outside + own - inside
    return own


def connect(addresses: list[str]) -> Manager:
    """The first manager that answers. Raises Error."""
    if not booted():
        raise Error(NOT_HERE, f"{BOOTED} is missing", "--cgroup-manager cgroupfs does without")
    from ... import vendor

    vendor.enable()
    try:
        import jeepney  # noqa: F401
    except ImportError:
        raise Error("talk to systemd", "the Python package jeepney is missing", "install it") from None
    problem: Error | None = None
    for address in addresses:
        try:
            return Manager(address)
        except Error as met:
            problem = met if problem is None else problem
    raise problem or Error("talk to systemd", "no address of it is known")


class Manager:
    """One connection; jobs are followed on it from the start."""

    def __init__(self, address: str) -> None:
        """Connect. Raises Error."""
        from jeepney import Parser

        self.address = address
        self.serial = 0
        self.parser = Parser()
        self.signals: list[Any] = []
        self.socket, self.private = _open(address)
        try:
            if not self.private:
                bus = ("org.freedesktop.DBus", "/org/freedesktop/DBus", "org.freedesktop.DBus")
                self._ask("Hello", "", (), *bus)
                rule = f"type='signal',sender='{_NAME}',interface='{_MANAGER}',member='JobRemoved'"
                self._ask("AddMatch", "s", (rule,), *bus)
            self.call("Subscribe")
        except BaseException:
            self.close()
            raise

    def call(self, method: str, signature: str = "", body: tuple[Any, ...] = ()) -> tuple[Any, ...]:
        """Call a method of the manager. Raises Error (Refused)."""
        reply: tuple[Any, ...] = self._ask(method, signature, body, _NAME, _OBJECT, _MANAGER)
        return reply

    def property(self, name: str, path: str = _OBJECT, interface: str = _MANAGER) -> Any:
        """A property of the manager, or of another object. Raises Error (Refused)."""
        words = (interface, name)
        return self._ask("Get", "ss", words, _NAME, path, "org.freedesktop.DBus.Properties")[0][1]

    def version(self) -> int:
        """systemd's version, 0 when it cannot be told."""
        digits = str(self.property("Version")).lstrip("v")
        head = digits[: next((at for at, c in enumerate(digits) if not c.isdigit()), len(digits))]
        return int(head or 0)

    def job(self, method: str, signature: str, body: tuple[Any, ...]) -> str:
        """Call a method that starts a job and wait for that job's result (``done``, ``failed``, ...). Raises Error."""
        job = self.call(method, signature, body)[0]
        deadline = time.monotonic() + _SECONDS
        while True:
            for signal in self.signals:
                if len(signal.body) == 4 and signal.body[1] == job:
                    return str(signal.body[3])
            self.signals.clear()
            message = self._receive(deadline, f"wait for systemd's {method} of {body[0]}")
            if _kind(message) == "signal":
                self.signals.append(message)

    def close(self) -> None:
        self.socket.close()

    def __enter__(self) -> Manager:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---- messages --------------------------------------------------------------------------------------------------

    def _ask(self, method: str, signature: str, body: tuple[Any, ...], name: str, path: str, interface: str) -> Any:
        """Send a call and wait for its reply; signals that come before it are kept."""
        from jeepney import DBusAddress, HeaderFields, new_method_call

        self.serial += 1
        message = new_method_call(DBusAddress(path, name, interface), method, signature or None, body)
        if self.private:
            del message.header.fields[HeaderFields.destination]
        doing = f"ask systemd at {self.address} for {method}"
        try:
            self.socket.settimeout(_SECONDS)
            self.socket.sendall(message.serialise(self.serial))
        except OSError as problem:
            raise Error(doing, problem) from None
        deadline = time.monotonic() + _SECONDS
        while True:
            reply = self._receive(deadline, doing)
            if _kind(reply) == "signal":
                self.signals.append(reply)
            elif reply.header.fields.get(HeaderFields.reply_serial) == self.serial:
                if _kind(reply) == "error":
                    text = str(reply.body[0]) if reply.body else ""
                    raise Refused(doing, str(reply.header.fields.get(HeaderFields.error_name)), text)
                return reply.body

    def _receive(self, deadline: float, doing: str) -> Any:
        """The next message. Raises Error, also when the time is up."""
        while (message := self.parser.get_next_message()) is None:
            left = deadline - time.monotonic()
            try:
                if left <= 0:
                    raise TimeoutError(f"no answer within {_SECONDS:.0f} s")
                self.socket.settimeout(left)
                data = self.socket.recv(65536)
            except OSError as problem:
                raise Error(doing, problem) from None
            if not data:
                raise Error(doing, "it closed the connection")
            self.parser.add_data(data)
        return message


def _kind(message: Any) -> str:
    return str(message.header.message_type.name)


def _open(address: str) -> tuple[socket.socket, bool]:
    """A socket that is authenticated, and whether it is a manager's private one. Raises Error."""
    import _socket
    import socket
    from _struct import pack

    problem: OSError | None = None
    for place in _sockets(address):
        made = socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
        try:
            # Blocking, for else a crowd before the socket would be an error at once; this is how long at most.
            made.setsockopt(_socket.SOL_SOCKET, _socket.SO_SNDTIMEO, pack("@ll", int(_SECONDS), 0))
            made.connect(place)
            made.settimeout(_SECONDS)
            _authenticate(made)
            return made, place.endswith(_PRIVATE)
        except OSError as met:
            made.close()
            problem = problem or met
    hint = "is the user's systemd running? see loginctl(1), enable-linger"
    if address == SYSTEM:
        hint = "is the D-Bus daemon running?"
    raise Error(f"connect to systemd at {address}", problem or "no such address", hint)


def _sockets(address: str) -> list[str]:
    """The sockets of an address; an abstract one begins with NUL. Raises Error."""
    if address == SYSTEM:
        return list(_SYSTEM_SOCKETS[: 2 if posix.geteuid() == 0 else 1])
    from jeepney.bus import get_connectable_addresses

    try:
        return list(get_connectable_addresses(address))
    except (RuntimeError, ValueError) as problem:
        raise Error(f"connect to systemd at {address}", problem) from None


def _authenticate(made: socket.socket) -> None:
    """Say that we are who the kernel says. Raises OSError."""
    made.sendall(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")
    told = b""
    while b"\nOK " not in b"\n" + told or not told.endswith(b"\r\n"):
        more = made.recv(1)
        if not more or told.startswith((b"REJECTED", b"ERROR")) or len(told) > 1024:
            raise PermissionError(f"not let in: {told.decode(errors='replace').strip()}")
        told += more

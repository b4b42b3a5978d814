"""Network devices and their addresses over rtnetlink: found, moved to another network namespace, set up.

No package for it: what is needed are five messages, and pyroute2 takes 150 ms to import where all of create takes 20.
See netlink(7), rtnetlink(7), linux/if_link.h, linux/if_addr.h.
"""

from __future__ import annotations

import _socket
import errno
import posix
from _struct import calcsize, pack, unpack_from

from . import namespaces as ns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_ROUTE = 0  # NETLINK_ROUTE
_SOL_NETLINK = 270
_CAP_ACK, _EXT_ACK = 10, 11
_NEWLINK, _GETLINK, _NEWADDR, _GETADDR = 16, 18, 20, 22
_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _DUMP, _CREATE, _EXCLUSIVE = 0x1, 0x4, 0x300, 0x400, 0x200
_CAPPED, _ACK_TLVS = 0x100, 0x200
_INTERRUPTED = 0x10  # NLM_F_DUMP_INTR
_AGAIN = 10

_HEADER = "=IHHII"
_LINK = "=BxHiII"  # struct ifinfomsg: family, type, index, flags, change
_ADDRESS = "=BBBBI"  # struct ifaddrmsg: family, prefix length, flags, scope, index
_IFLA_IFNAME, _IFLA_NET_NS_FD = 3, 28
_IFA_LABEL, _IFA_FLAGS = 3, 8
_KEPT = (1, 2, _IFA_LABEL, 4, 9, 11)  # address, local, label, broadcast, route priority, protocol
IFF_UP = 1
_PERMANENT = 0x80
# What a caller may ask of an address: nodad, optimistic, home, mngtmpaddr, noprefixroute, autojoin. The others are what
# the kernel found out about it.
_ASKED = 0x02 | 0x04 | 0x10 | 0x100 | 0x200 | 0x400


class Refused(OSError):
    """What the kernel refused; ``told`` is its own sentence about it, where it gave one."""

    told = ""


class Link:
    """A network device as its namespace knows it."""

    __slots__ = ("flags", "index", "name")

    def __init__(self, index: int, name: str, flags: int) -> None:
        self.index = index
        self.name = name
        self.flags = flags

    @property
    def up(self) -> bool:
        """Whether it is set up (administratively)."""
        return bool(self.flags & IFF_UP)


class Route:
    """A socket to the routing part of one network namespace. To be closed."""

    def __init__(self, namespace: int = -1) -> None:
        """*namespace*: a descriptor of the network namespace to speak to, -1 for our own. Raises OSError."""
        self._serial = 0
        self._socket = _at(namespace) if namespace >= 0 else _socket_here()
        for option in (_CAP_ACK, _EXT_ACK):
            try:
                self._socket.setsockopt(_SOL_NETLINK, option, 1)
            except OSError:
                pass  # only the kernel's own words are lost

    def __enter__(self) -> Route:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    # ---- devices ------------------------------------------------------------------------------------------------

    def links(self) -> dict[str, Link]:
        """All devices by name. Raises OSError."""
        found = [_link(body) for body in self._ask(_GETLINK, _DUMP, pack(_LINK, 0, 0, 0, 0, 0))]
        return {link.name: link for link in found}

    def link(self, name: str) -> Link | None:
        """The device of that name. Raises OSError."""
        body = pack(_LINK, 0, 0, 0, 0, 0) + attribute(_IFLA_IFNAME, _text(name))
        try:
            for answer in self._ask(_GETLINK, _ACK, body):
                return _link(answer)
        except OSError as problem:
            if problem.errno not in (errno.ENODEV, errno.ENOENT):
                raise
        return None

    def move(self, index: int, namespace: int, name: str) -> None:
        """Move a device to the namespace of the descriptor and give it the name there. The kernel sets it down and
        takes its addresses. Raises OSError: EEXIST when the name is taken, EINVAL for a device that cannot be moved.

        A rename that is refused only after the move leaves the device there under its old name."""
        body = pack(_LINK, 0, 0, index, 0, 0) + attribute(_IFLA_IFNAME, _text(name))
        self._ask(_NEWLINK, _ACK, body + attribute(_IFLA_NET_NS_FD, pack("=I", namespace)))

    def set_up(self, index: int) -> None:
        """Set a device up. Raises OSError."""
        self._ask(_NEWLINK, _ACK, pack(_LINK, 0, 0, index, IFF_UP, IFF_UP))

    # ---- addresses ----------------------------------------------------------------------------------------------

    def addresses(self, index: int) -> list[bytes]:
        """The permanent addresses of global scope of a device, each as `add_address` takes it. Raises OSError."""
        asked = self._ask(_GETADDR, _DUMP, pack(_ADDRESS, 0, 0, 0, 0, 0))
        return [kept for kept in (_to_keep(body, index) for body in asked) if kept]

    def add_address(self, link: Link, address: bytes, label: tuple[str, str] = ("", "")) -> None:
        """Give the device an address; one that it has already is no failure. Raises OSError.

        label  the device's old and its new name: an IPv4 label that begins with the one begins with the other then
        """
        family, prefix, flags, scope = unpack_from("=BBBB", address)
        body = pack(_ADDRESS, family, prefix, flags, scope, link.index)
        for kind, value in attributes(address, calcsize(_ADDRESS)):
            body += attribute(kind, _relabel(value, *label) if kind == _IFA_LABEL else value)
        try:
            self._ask(_NEWADDR, _ACK | _CREATE | _EXCLUSIVE, body)
        except OSError as problem:
            if problem.errno != errno.EEXIST:
                raise

    # ---- messages -----------------------------------------------------------------------------------------------

    def _ask(self, kind: int, flags: int, body: bytes) -> list[bytes]:
        """Send a request and return the bodies of the answers; a list that changed while it was told is asked for
        again. Raises Refused."""
        for _ in range(_AGAIN):
            found, whole = self._answers(kind, flags, body)
            if whole:
                break
        return found

    def _answers(self, kind: int, flags: int, body: bytes) -> tuple[list[bytes], bool]:
        self._serial += 1
        self._socket.send(pack(_HEADER, 16 + len(body), kind, _REQUEST | flags, self._serial, 0) + body)
        found: list[bytes] = []
        whole = True
        while True:
            for answer, bits, serial, payload in _messages(self._socket.recv(1 << 17)):
                if serial != self._serial:
                    continue
                whole = whole and not bits & _INTERRUPTED
                if answer == _ERROR:
                    _judge(payload, bits)
                    return found, True
                if answer == _DONE:
                    return found, whole
                found.append(payload)


def _socket_here() -> _socket.socket:
    kind = _socket.SOCK_RAW | _socket.SOCK_CLOEXEC
    return _socket.socket(_socket.AF_NETLINK, kind, _ROUTE)


def _at(namespace: int) -> _socket.socket:
    """A socket belongs to the namespace in which it is made: go there for that moment. Raises OSError."""
    home = posix.open("/proc/self/ns/net", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        ns.setns(namespace, ns.NEWNET)
        try:
            return _socket_here()
        finally:
            ns.setns(home, ns.NEWNET)
    finally:
        posix.close(home)


def _messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(kind, flags, serial, payload) of each message in a packet."""
    at = 0
    while at + 16 <= len(data):
        size, kind, flags, serial, _ = unpack_from(_HEADER, data, at)
        if size < 16:
            return
        yield kind, flags, serial, data[at + 16 : at + size]
        at += _aligned(size)


def _judge(payload: bytes, flags: int) -> None:
    """Raise Refused unless the error message says 0, which is an acknowledgement."""
    number = -unpack_from("=i", payload)[0]
    if not number:
        return
    problem = Refused(number, posix.strerror(number))
    if flags & _ACK_TLVS:
        size = 16 if flags & _CAPPED else _aligned(unpack_from("=I", payload, 4)[0])
        problem.told = dict(attributes(payload, 4 + size)).get(1, b"").rstrip(b"\0").decode("utf-8", "replace")
    raise problem


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = unpack_from(_LINK, body)
    name = dict(attributes(body, calcsize(_LINK))).get(_IFLA_IFNAME, b"")
    return Link(index, name.rstrip(b"\0").decode("utf-8", "surrogateescape"), flags)


def _to_keep(body: bytes, index: int) -> bytes:
    """The address message cut down to what is to be kept; empty for one of another device, scope or duration."""
    family, prefix, flags, scope, owner = unpack_from(_ADDRESS, body)
    found = dict(attributes(body, calcsize(_ADDRESS)))
    if _IFA_FLAGS in found:
        flags = unpack_from("=I", found[_IFA_FLAGS])[0]
    if owner != index or scope or not flags & _PERMANENT:
        return b""
    flags &= _ASKED
    kept = pack(_ADDRESS, family, prefix, flags & 0xFF, scope, 0)
    kept += b"".join(attribute(kind, found[kind]) for kind in _KEPT if kind in found)
    return kept + attribute(_IFA_FLAGS, pack("=I", flags))


def _relabel(label: bytes, old: str, new: str) -> bytes:
    text = label.rstrip(b"\0").decode("utf-8", "surrogateescape")
    if not old or not (text == old or text.startswith(f"{old}:")):
        return label
    return _text(f"{new}{text[len(old) :]}"[:15])


def _text(name: str) -> bytes:
    return name.encode("utf-8", "surrogateescape") + b"\0"


def _aligned(size: int) -> int:
    return (size + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """One attribute, padded."""
    size = 4 + len(value)
    return pack("=HH", size, kind) + value + b"\0" * (_aligned(size) - size)


def attributes(data: bytes, at: int) -> Iterator[tuple[int, bytes]]:
    """(kind, value) of the attributes from that place on."""
    while at + 4 <= len(data):
        size, kind = unpack_from("=HH", data, at)
        if size < 4:
            return
        yield kind & 0x3FFF, data[at + 4 : at + size]
        at += _aligned(size)

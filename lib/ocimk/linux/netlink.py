"""The loopback interface of a fresh network namespace.

Bringing it up is enough: the kernel gives lo 127.0.0.1/8 and ::1/128 by itself when it goes up
(net/ipv4/devinet.c, inetdev_event; net/ipv6/addrconf.c, init_loopback). Two ioctls on a socket are cheaper
than rtnetlink and need no message to be built, and no answer to be read."""

from __future__ import annotations

import _socket
import _struct
import errno
import fcntl

from ..errors import Error

# linux/sockios.h, linux/if.h
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 1

_IFREQ = "=16sH22x"  # struct ifreq: the name and, of the union, the flags


def loopback_up() -> None:
    """Set lo up in the network namespace of the caller; no effect when it is up. Raises Error.

    Needs CAP_NET_ADMIN in the user namespace that owns the network namespace.
    """
    try:
        set_up("lo")
    except OSError as problem:
        hint = "CAP_NET_ADMIN is needed over the network namespace" if problem.errno == errno.EPERM else ""
        raise Error("network: bring up the loopback interface", problem, hint) from None


def set_up(interface: str) -> None:
    """Set an interface up. Raises OSError (ENODEV: no such interface)."""
    control = _control()
    try:
        current = _flags(control, interface)
        if not current & IFF_UP:
            fcntl.ioctl(control.fileno(), SIOCSIFFLAGS, _request(interface, current | IFF_UP))
    finally:
        control.close()


def is_up(interface: str) -> bool:
    """Whether an interface is up. Raises OSError (ENODEV: no such interface)."""
    control = _control()
    try:
        return bool(_flags(control, interface) & IFF_UP)
    finally:
        control.close()


def _control() -> _socket.socket:
    """Any socket speaks for its network namespace. One that exists in every kernel that has IPv4 or, without
    it, unix."""
    try:
        return _socket.socket(_socket.AF_INET, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)
    except OSError as problem:
        if problem.errno != errno.EAFNOSUPPORT:
            raise
        return _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_CLOEXEC, 0)


def _request(interface: str, flags: int = 0) -> bytes:
    return _struct.pack(_IFREQ, interface.encode("utf-8", "surrogateescape"), flags)


def _flags(control: _socket.socket, interface: str) -> int:
    answer = fcntl.ioctl(control.fileno(), SIOCGIFFLAGS, _request(interface))
    return int(_struct.unpack(_IFREQ, answer)[1])

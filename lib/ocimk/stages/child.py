"""A process of a container as the host's side sees it while it is made, and what is handed on about it."""

from __future__ import annotations

import posix

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    import _socket


class Child:
    """The container's first process, or one that ``oci exec`` has put into it."""

    __slots__ = ("console", "pid", "pidfd", "ready", "started", "status", "sync")

    sync: _socket.socket

    def __init__(self, sync_socket: _socket.socket | None = None) -> None:
        if sync_socket is not None:
            self.sync = sync_socket
        self.pid = 0
        self.pidfd = -1
        self.started = 0
        self.console = -1
        self.ready = False
        self.status = 0


def receive(child: Child) -> str:
    """The next message; a descriptor that comes with it is the terminal's master."""
    import _socket
    from _struct import unpack

    from ..container import sync

    data, ancillary, _, _ = child.sync.recvmsg(sync.LIMIT, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            child.console = unpack("=i", payload[:4])[0]
    return data.decode("utf-8", "surrogateescape")


def hand_over_console(child: Child, path: str) -> None:
    """Send the terminal's master to the socket at *path* and close it. Raises Error."""
    send_descriptor(path, child.console, "/dev/ptmx")
    posix.close(child.console)
    child.console = -1


def connect(path: str, name: str) -> _socket.socket:
    """A connection to the socket at *path* (@NAME: an abstract one), to send *name* there. Raises Error."""
    import _socket

    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(f"\0{path[1:]}" if path.startswith("@") else path)
    except OSError as problem:
        sock.close()
        raise Error(f"send {name} to the socket {path}", problem) from None
    return sock


def send(sock: _socket.socket, fd: int, name: str) -> None:
    """Send one message, a name and one descriptor, and close the connection. Raises Error."""
    import _socket
    from _struct import pack

    try:
        sock.sendmsg([name.encode()], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", fd))])
    except OSError as problem:
        raise Error(f"send {name} to a socket", problem) from None
    finally:
        sock.close()


def send_descriptor(path: str, fd: int, name: str) -> None:
    """Send one message to the socket at *path*: a name and one descriptor. Raises Error."""
    send(connect(path, name), fd, name)

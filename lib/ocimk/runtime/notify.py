"""$NOTIFY_SOCKET: the container tells the service manager that it is ready, through a socket of ours.

create makes ROOT/ID/notify, which is bind-mounted (read-only) at /run/notify; start and run listen at notify.sock
in it.
Of what the container says only READY= is passed on, and then MAINPID= and BARRIER=1 are sent in its place: what it
says of pids is not ours. See sd_notify(3), sd_notify_barrier(3); the names are runc's.
"""

from __future__ import annotations

import _socket
import posix
import select
from _struct import pack

from ..container import names
from ..errors import Error, debug, warn
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..container.folder import Folder

_LIMIT = 4096
_PATIENCE = 30_000
"""Milliseconds for the service manager to take notice."""


def wanted() -> str:
    """The service manager's socket, "" without one; ``@NAME`` is an abstract one."""
    return posix.environ.get(b"NOTIFY_SOCKET", b"").decode("utf-8", "surrogateescape")


def listen(folder: Folder, needed: bool = False) -> Notify | None:
    """The container's end of it; None when nobody waits or the container was created without.

    needed  raise Error when nobody is at the other end; else that is a warning: ``run`` may have been started by
            something that was itself started by a service manager, long ago, and goes on as runc does
    """
    host = wanted()
    if not host or not paths.is_dir(f"{folder.path}/{names.NOTIFY}"):
        return None
    try:
        return Notify(folder, host)
    except Error as problem:
        if needed:
            raise
        warn(str(problem))
        return None


class Notify:
    """One socket that the container may speak to, until its word has been passed on."""

    def __init__(self, folder: Folder, host: str) -> None:
        self.host = host
        self._manager = _connect(host)
        self._socket = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM | _socket.SOCK_NONBLOCK)
        place = f"{folder.path}/{names.NOTIFY}"
        directory = posix.open(place, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
        # Anybody in the container may speak. By descriptor: the path may be too long for a socket's address.
        umask = posix.umask(0)
        try:
            self._socket.bind(f"/proc/self/fd/{directory}/notify.sock")
        except OSError as problem:
            raise Error(f"listen at {place}/notify.sock", problem) from None
        finally:
            posix.umask(umask)
            posix.close(directory)
        self._barrier = -1

    def wait(self, pidfd: int, pid: int) -> None:
        """Wait until the container is ready and the service manager knows, or the process has ended."""
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        self.register(poll)
        while dict(poll.poll()).keys() != {pidfd}:
            if self._hear(pid):
                break
        else:
            return
        if not _gone(self._barrier, _PATIENCE):
            warn(f"NOTIFY_SOCKET {self.host}: no answer to BARRIER=1 within 30 s")

    def register(self, poll: select.poll) -> None:
        """Have a loop wait for what the container says."""
        poll.register(self._socket.fileno(), select.POLLIN)

    def carry(self, events: dict[int, int], pid: int) -> None:
        """Pass on what has come; *pid* is told as the main process. After READY= the rest is heard and dropped."""
        if self._socket.fileno() in events:
            self._hear(pid)

    def _hear(self, pid: int) -> bool:
        """Whether the container has just become ready."""
        while True:
            try:
                said = self._socket.recv(_LIMIT)
            except OSError:
                return False
            ready = next((line for line in said.split(b"\n") if line.startswith(b"READY=")), b"")
            if ready and self._barrier < 0:
                self._tell(ready, pid)
                return True

    def _tell(self, ready: bytes, pid: int) -> None:
        self._barrier, ours = posix.pipe2(posix.O_CLOEXEC)
        try:
            self._manager.send(ready + b"\n")
            self._manager.send(b"MAINPID=%d\n" % pid)
            self._manager.sendmsg([b"BARRIER=1"], [(_socket.SOL_SOCKET, _socket.SCM_RIGHTS, pack("=i", ours))])
        except OSError as problem:
            warn(f"NOTIFY_SOCKET {self.host}: {problem.strerror}")
        finally:
            posix.close(ours)
        debug(f"NOTIFY_SOCKET {self.host}: told {ready.decode('utf-8', 'replace')}, main process {pid}")


def _connect(host: str) -> _socket.socket:
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_DGRAM)
    address = host.encode("utf-8", "surrogateescape")
    try:
        sock.connect(b"\0" + address[1:] if address.startswith(b"@") else address)
    except OSError as problem:
        sock.close()
        raise Error(f"NOTIFY_SOCKET {host}: connect", problem, "unset it where nobody listens") from None
    return sock


def _gone(pipe: int, milliseconds: int) -> bool:
    """Whether the other end was closed within the time."""
    poll = select.poll()
    poll.register(pipe, 0)
    return bool(poll.poll(milliseconds))

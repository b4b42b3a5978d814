"""One hook as a process: the state on its standard input, its output kept for the log and for the error, and when its
time is up the end of it and of all that it started in its process group."""

from __future__ import annotations

import _signal
import posix
import select
import time

from .. import errors
from ..errors import Error
from ..linux import process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KEPT = 4096
"""Bytes of output kept for the error message: the last of them tell why."""


_OURS = (b"OCI_FDS", b"OCI_LOG")
"""What only the next stage is to read from the environment."""


def carry_out(hook: dict[str, Any], told: bytes, cwd: str, inherit: bool, files: tuple[int, int] = (-1, -1)) -> None:
    """Run one hook to its end.

    hook     an entry of hooks.KIND: path, args, env, timeout (seconds)
    told     the state as JSON
    files    descriptors for its output and its errors in place of ours; -1: they are kept for the error message
    inherit  whether a hook without env gets our environment (the runtime's side), else an empty one
    Raises Error when it cannot be run, fails, is killed, or takes longer than its timeout.
    """
    process.collectable_children()
    started = time.monotonic()
    feed, pump = posix.pipe2(posix.O_CLOEXEC)
    out, output = posix.pipe2(posix.O_CLOEXEC)
    try:
        pid = _spawn(hook, (feed, *(fd if fd >= 0 else output for fd in files)), cwd, inherit)
    except OSError as problem:
        for fd in (feed, pump, out, output):
            posix.close(fd)
        raise Error(f"hook {hook['path']}", problem) from None
    posix.close(feed)
    posix.close(output)
    limit = float(hook.get("timeout") or 0)
    said = bytearray()
    ended = _converse(pid, pump, out, told, limit, said)
    if not ended:
        _kill_group(pid)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    _judge(status, limit if not ended else 0, said)
    errors.debug(f"hook {hook['path']} took {(time.monotonic() - started) * 1000:.1f} ms: {_words(said)}")


def _spawn(hook: dict[str, Any], streams: tuple[int, ...], cwd: str, inherit: bool) -> int:
    """Start the hook in a process group of its own. Raises OSError."""
    env: Any = {name: value for name, value in process.environment().items() if name not in _OURS} if inherit else {}
    if hook.get("env") is not None:
        env = dict(pair.partition("=")[::2] for pair in hook["env"])
    argv = list(hook.get("args") or [hook["path"]])
    actions: list[Any] = [(posix.POSIX_SPAWN_DUP2, fd, to) for to, fd in enumerate(streams)]
    actions += [(posix.POSIX_SPAWN_CLOSE, fd) for fd in _strays()]
    here = posix.open(".", posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        if cwd:
            posix.chdir(cwd)
        default = [_signal.SIGPIPE, _signal.SIGXFSZ]
        return posix.posix_spawn(
            hook["path"], argv, env, file_actions=actions, setpgroup=0, setsigmask=[], setsigdef=default
        )
    finally:
        posix.fchdir(here)
        posix.close(here)


def _strays() -> list[int]:
    """What our caller has left open, which is not the hook's: a pipe that a hook's daemon holds never ends."""
    return [fd for fd in map(int, posix.listdir("/proc/self/fd")) if fd > 2 and _inheritable(fd)]


def _inheritable(fd: int) -> bool:
    try:
        return posix.get_inheritable(fd)
    except OSError:
        return False  # the descriptor with which the list was read


def _converse(pid: int, pump: int, out: int, told: bytes, limit: float, said: bytearray) -> bool:
    """Feed the hook and listen to it until it ends; False when its time was up first. Closes both descriptors."""
    pidfd = process.pidfd_open(pid)
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(out, select.POLLIN)
    poll.register(pump, select.POLLOUT)
    posix.set_blocking(pump, False)
    posix.set_blocking(out, False)
    rest = memoryview(told)
    deadline = time.monotonic() + limit if limit else 0.0
    try:
        while True:
            left = max(0.0, deadline - time.monotonic()) * 1000 if limit else None
            events = dict(poll.poll(left))
            if not events:
                return False
            if pump in events:
                rest = _feed(pump, rest, events[pump])
                if not rest:
                    poll.unregister(pump)
                    posix.close(pump)
                    pump = -1
            if out in events and not _listen(out, said):
                poll.unregister(out)
            if pidfd in events:
                _listen(out, said)
                return True
    finally:
        for fd in (pidfd, out, pump):
            if fd >= 0:
                posix.close(fd)


def _feed(pump: int, rest: memoryview, event: int) -> memoryview:
    """Write what fits; a hook that closes its input has read enough."""
    if event & (select.POLLERR | select.POLLHUP):
        return rest[:0]
    try:
        return rest[posix.write(pump, rest) :]
    except BlockingIOError:
        return rest
    except OSError:
        return rest[:0]


def _listen(out: int, said: bytearray) -> bool:
    """Take in what the hook says, keeping the end of it; False when it says no more."""
    while True:
        try:
            part = posix.read(out, 65536)
        except BlockingIOError:
            return True
        if not part:
            return False
        said += part
        del said[:-_KEPT]


def _kill_group(pid: int) -> None:
    try:
        posix.kill(-pid, _signal.SIGKILL)
    except ProcessLookupError:
        posix.kill(pid, _signal.SIGKILL)


def _judge(status: int, limit: float, said: bytearray) -> None:
    if limit:
        raise Error("hook", f"killed: it took longer than its timeout of {limit:g} s{_after(said)}")
    if status < 0:
        raise Error("hook", f"killed by signal {-status}{_after(said)}")
    if status:
        raise Error("hook", f"exit status {status}{_after(said)}")


def _words(said: bytearray) -> str:
    return said.decode("utf-8", "replace").strip()


def _after(said: bytearray) -> str:
    text = _words(said)
    return f", output: {text}" if text else ""

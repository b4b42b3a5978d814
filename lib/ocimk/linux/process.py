"""Processes named so that a reused pid is not mistaken for the one we knew. See proc_pid_stat(5), pidfd_open(2)."""

from __future__ import annotations

import _signal
import fcntl
import posix
import select

from ..native import _native

_DEAD = "ZXx"
_TYPE, _FIFO, _FILE = 0o170000, 0o010000, 0o100000  # S_IFMT, S_IFIFO, S_IFREG
_COERCED = (b"C.UTF-8", b"C.utf8", b"UTF-8")


def status(pid: int) -> tuple[str, int]:
    """The process's state letter and its start time in clock ticks since boot; ("", 0) when there is none."""
    try:
        fd = posix.open(f"/proc/{pid}/stat", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return "", 0
    try:
        line = posix.read(fd, 4096)
    except OSError:
        return "", 0
    finally:
        posix.close(fd)
    # The command name, in parentheses, may hold spaces and parentheses itself: count from the last one.
    fields = line[line.rfind(b")") + 2 :].split()
    return fields[0].decode(), int(fields[19])


def start_time(pid: int) -> int:
    """Start time in clock ticks since boot; 0 when there is no such process."""
    return status(pid)[1]


def inner_pid(pid: int) -> int:
    """The process's id in its own pid namespace; 0 when there is no such process. See NSpid in proc_pid_status(5)."""
    try:
        fd = posix.open(f"/proc/{pid}/status", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return 0
    try:
        told = posix.read(fd, 8192).partition(b"\nNSpid:")[2].partition(b"\n")[0].split()
    except OSError:
        return 0
    finally:
        posix.close(fd)
    return int(told[-1]) if told else 0


def alive(pid: int, started: int) -> bool:
    """Whether the very process (pid and start time) still runs; a zombie does not."""
    if pid <= 0:
        return False
    letter, start = status(pid)
    return bool(letter) and letter not in _DEAD and start == started


def pidfd_open(pid: int) -> int:
    """A descriptor that names the process for good. Raises OSError (ESRCH: no such process)."""
    return _native.syscall(_native.NR["pidfd_open"], pid, 0)


def pidfd_of(pid: int, started: int) -> int:
    """A descriptor of the very process (pid and start time), or -1 when it has ended."""
    try:
        fd = pidfd_open(pid)
    except OSError:
        return -1
    # Opened first, compared after: from here on the number cannot be reused under us.
    if alive(pid, started):
        return fd
    posix.close(fd)
    return -1


def pidfd_signal(fd: int, signal: int) -> None:
    """Send a signal. Raises OSError (ESRCH: it has ended). See pidfd_send_signal(2)."""
    _native.syscall(_native.NR["pidfd_send_signal"], fd, signal, None, 0)


def wait_end(fd: int, milliseconds: int) -> bool:
    """Whether the process ends within the time (-1: without end). A zombie counts as ended."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(milliseconds))


def end(pid: int, started: int, milliseconds: int) -> bool:
    """Kill the very process, wait for its end and reap it if it is our child; false when it is still there after the
    time. Raises OSError."""
    fd = pidfd_of(pid, started)
    if fd >= 0:
        try:
            pidfd_signal(fd, _signal.SIGKILL)
            if not wait_end(fd, milliseconds):
                return False
        except ProcessLookupError:
            pass
        finally:
            posix.close(fd)
    try:
        posix.waitpid(pid, posix.WNOHANG)
    except ChildProcessError:
        pass  # another's
    return True


def boot_id() -> str:
    """The kernel's identity of this boot; "" where /proc does not tell."""
    try:
        fd = posix.open("/proc/sys/kernel/random/boot_id", posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return posix.read(fd, 64).decode().strip()
    finally:
        posix.close(fd)


def collectable_children() -> None:
    """See to it that ended children wait to be collected: with SIGCHLD ignored, which a caller may hand on to us, they
    vanish and their exit status with them. See sigaction(2)."""
    if _signal.getsignal(_signal.SIGCHLD) == _signal.SIG_IGN:
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)


def own_streams(uid: int, files: bool = True) -> None:
    """Give the standard streams to a user, so that he can open /dev/stdout and its like again.

    That matters for pipes and for files that are written to. What else there is stays whose it is: a terminal or a
    device is others' too, a socket cannot be opened, and a file that is only read is not ours to give; no file is
    without *files*. What the kernel does not permit is left: in a user namespace the owner may be nobody there, a file
    system may be read-only.
    """
    for fd in (0, 1, 2):
        try:
            status = posix.fstat(fd)
            kind = status.st_mode & _TYPE
            if status.st_uid != uid and (kind == _FIFO or (files and kind == _FILE and _written(fd))):
                posix.fchown(fd, uid, -1)
        except OSError:
            continue


def _written(fd: int) -> bool:
    return fcntl.fcntl(fd, fcntl.F_GETFL) & posix.O_ACCMODE != posix.O_RDONLY


def environment() -> dict[bytes, bytes]:
    """Our environment as the caller gave it: in the locale C the interpreter adds an LC_CTYPE of its own (PEP 538). It
    stays where we may not look what we were given: not dumpable, in a user namespace."""
    env = dict(posix.environ)
    if env.get(b"LC_CTYPE") in _COERCED:
        try:
            given = b"\0" + _own("environ")
        except PermissionError:
            return env
        if b"\0LC_CTYPE=" not in given:
            del env[b"LC_CTYPE"]
    return env


def _own(name: str) -> bytes:
    fd = posix.open(f"/proc/self/{name}", posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return b"".join(iter(lambda: posix.read(fd, 65536), b""))
    finally:
        posix.close(fd)

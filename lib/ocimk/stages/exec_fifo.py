"""oci-exec-fifo: change the root, apply the process's attributes, and become the image that waits for start.

The last of the chain and the last Python: all is prepared before the root is changed, since no file of ours can be
reached by path afterwards. What waits, and later becomes the user's program, is the image of
ocimk/native/image.c in a sealed memfd with the plan that process_plan.py lays out.
"""

from __future__ import annotations

import _signal
import fcntl
import posix
import time

from ..container import barrier, names, sync, trace
from ..container.folder import Folder
from ..errors import Error, debug
from ..linux import namespaces
from ..linux import process as processes
from ..native import _native, image
from . import environment, process_plan
from .rootfs import enter, root

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

NAME = "oci-exec-fifo"
SUMMARY = "change the root, apply the process's attributes and wait for start; then become the program"
OPTIONS = (
    ("--no-pivot", "", "move the root mount and chroot instead of pivot_root"),
    ("--no-new-keyring", "", "keep the session keyring of the caller"),
    ("--listen-fds", "N", "hand on N descriptors after 2, and tell the program by $LISTEN_FDS"),
    ("--preserve-fds", "N", "hand on N more descriptors after those"),
)
VALUES = ""
CHAINS = False

_JOIN_SESSION_KEYRING = 1
_SETPERM = 5
_DESCRIBE = 6
_POSSESSOR_ONLY_SEARCH = 0x080000
_TIOCSCTTY = 0x540E
_SIGNALS = 65
_DEFAULT = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, nothing masked


def apply(folder: Folder, options: dict[str, str], operands: list[str]) -> None:
    """Never returns but by raising Error: the process becomes the waiting image."""
    began = time.monotonic_ns()
    kept = process_plan.preserved(number(options, "--listen-fds") + number(options, "--preserve-fds"))
    code = image.load()
    if names.FIFO not in folder.fds:
        barrier.make(folder)
    if "--no-new-keyring" not in options:
        new_keyring(folder.id)
    hold_streams()
    own_streams(folder)
    if "pidns" not in folder.fds:
        new_session()
    open_outside(folder)
    words = environment.of(process_plan.of(folder), number(options, "--listen-fds"), folder.fds.get("root", -1))
    plan = process_plan.build(folder, words, kept, posix.getpid())
    enter.enter(folder, "--no-pivot" in options, root.propagation(folder.config))
    take_terminal(folder)
    enter_pid_namespace(folder)
    trace.note(folder, [NAME, "apply", folder.path], began, "done")
    become(folder, code, plan, kept)


def open_outside(folder: Folder) -> None:
    """Open what can be reached only before the root is changed: the seccomp agent's socket, the label's file."""
    if ((folder.config.get("linux") or {}).get("seccomp") or {}).get("listenerPath"):
        from . import seccomp_notify

        seccomp_notify.connect(folder)
    if any(process_plan.of(folder).get(name) for name in ("apparmorProfile", "selinuxLabel")):
        from . import lsm

        lsm.prepare(folder)


def number(options: dict[str, str], name: str) -> int:
    """The value of an option that counts descriptors. Raises Error."""
    text = options.get(name, "0")
    if not (text.isascii() and text.isdigit()):
        raise Error(name, f"{text!r} is not a number")
    return int(text)


def new_keyring(name: str) -> None:
    """A session keyring of the container's own, so that it does not see the caller's. See keyrings(7)."""
    keyctl = _native.NR["keyctl"]
    try:
        ring = _native.syscall(keyctl, _JOIN_SESSION_KEYRING, f"_ses.{name}".encode() + b"\0")
        told = bytearray(512)  # an id of 255 characters and some numbers
        size = _native.syscall(keyctl, _DESCRIBE, ring, told, len(told))
        rights = int(bytes(told[:size]).split(b";")[3], 16)
        _native.syscall(keyctl, _SETPERM, ring, rights | _POSSESSOR_ONLY_SEARCH)
    except OSError as problem:
        if problem.errno not in (38, 1):  # ENOSYS: a kernel without keys; EPERM: a seccomp filter around us
            raise Error("make a session keyring", problem, "see /proc/key-users; --no-new-keyring") from None
        debug(f"no session keyring: {problem}")


def new_session() -> None:
    """A session of the container's own: no terminal of the host's, and signals typed there do not reach it."""
    try:
        posix.setsid()
    except PermissionError:
        pass  # we lead one already


def hold_streams() -> None:
    """Standard streams that are closed must not be taken by what we open."""
    for fd in (0, 1, 2):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", posix.O_RDWR)


def own_streams(folder: Folder) -> None:
    """Give the streams to the user that the program runs as, as long as they are no terminal."""
    wanted = process_plan.of(folder)
    if not wanted.get("terminal"):
        # A caller who is not root would not get his file back from an id of his that he cannot become.
        private = any(entry["type"] == "user" for entry in (folder.config.get("linux") or {}).get("namespaces") or [])
        processes.own_streams(int((wanted.get("user") or {}).get("uid") or 0), files=not private)


def take_terminal(folder: Folder) -> None:
    """process.terminal: hand the master to the host's side and make our end the controlling terminal."""
    console = folder.fds.pop("console", -1)
    if console < 0:
        return
    master = folder.fds.pop("ptmx")
    fd = folder.fds.get("sync", -1)
    if fd < 0:
        raise Error("process.terminal", "nobody takes the terminal's master", "use oci-unshare with --console-socket")
    sync.send_descriptor(fd, "console", master)
    posix.close(master)
    if "pidns" not in folder.fds:
        fcntl.ioctl(console, _TIOCSCTTY, 0)
    user = folder.config["process"].get("user") or {}
    posix.fchown(console, int(user.get("uid") or 0), -1)
    for stream in (0, 1, 2):
        posix.dup2(console, stream)
    posix.close(console)


def enter_pid_namespace(folder: Folder) -> None:
    """Let the image's child be born in the pid namespace that is joined (birth.enters_late). Raises Error."""
    if "pidns" not in folder.fds:
        return
    try:
        namespaces.setns(folder.fds["pidns"], namespaces.NEWPID)
    except OSError as problem:
        raise Error("join pid namespace", problem) from None


def become(folder: Folder, code: bytes, plan: image.Plan, kept: int) -> NoReturn:
    """Become the image. Raises Error when it cannot be executed."""
    report = folder.fds.get("sync", 2)
    wanted = {report, *(folder.fds.get(name, report) for name in (names.FIFO, names.VERDICT, "seccomp", "label"))}
    _native.syscall(_native.NR["close_range"], 3 + kept, 0xFFFFFFFF, 4)
    for fd in wanted:
        posix.set_inheritable(fd, True)
    memory = plan.memory(report)
    fd = image.seal(code, memory)
    default_signals()
    try:
        posix.execve(fd, ["oci-exec-fifo", "wait", folder.id], {})
    except OSError as problem:
        raise Error("become the waiting image", problem, "does /proc/sys/vm/memfd_noexec forbid it?") from None


def default_signals() -> None:
    """Have every signal do what it does by default: what the interpreter, the caller (nohup) and posix_spawn(3) (the
    two that glibc keeps for itself) ignore would be ignored by the program too. Raw calls: libc hides those two."""
    action = _native.NR["rt_sigaction"]
    for number in range(1, _SIGNALS):
        if number not in (_signal.SIGKILL, _signal.SIGSTOP):
            _native.syscall(action, number, _DEFAULT, None, 8)


def undo(folder: Folder) -> None:
    """Remove the FIFOs; the process itself is oci-unshare's to end."""
    barrier.drop(folder)


def explain(folder: Folder, options: dict[str, str], operands: list[str]) -> list[str]:
    """The calls that are made after the root is changed, as strace would print them."""
    process = process_plan.of(folder)
    words = environment.of({**process, "env": [*(process.get("env") or []), "HOME=?"]})
    plan = process_plan.build(folder, words, 0, 1)
    return ["pivot_root . .", *plan.describe()]


def check(folder: Folder) -> list[str]:
    """Whether a memfd may be executed here, and whether the security modules that are asked for are there."""
    problems = []
    process = folder.config.get("process") or {}
    if process.get("apparmorProfile") or process.get("selinuxLabel"):
        from . import lsm

        if process.get("apparmorProfile") and not lsm.apparmor():
            problems.append("process.apparmorProfile: AppArmor is not enabled on this host")
        if process.get("selinuxLabel") and not lsm.selinux():
            problems.append("process.selinuxLabel: SELinux is not enabled on this host")
    try:
        posix.close(image.seal(image.load(), image.Plan().memory(2)))
    except OSError as problem:
        problems.append(f"process: the waiting image cannot be made: {problem.strerror}")
    return problems

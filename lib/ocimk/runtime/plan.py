"""Plans: which stages make a container, in which order, as command lines that can be printed, typed and replaced."""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error, log
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation

    Line = list[str]


class CreatePlan:
    """The stages of create: those of the host's side in order; the last, oci-unshare, ends in the container's side."""

    __slots__ = ("host", "inner", "unshare")

    def __init__(self, folder: Folder, bundle: str, invocation: Invocation) -> None:
        place = folder.path
        config_file = invocation.text("config")
        validate = ["oci-validate", "apply", place, "--bundle", bundle]
        if config_file:
            validate += ["--config", config_file]
        if posix.environ.get(b"NOTIFY_SOCKET"):
            validate.append("--notify")
        self.host: list[Line] = [
            validate,
            ["oci-state", "apply", place, "creating"],
            ["oci-seccomp", "apply", place],
            ["oci-cgroup", "apply", place, *_cgroup_options(invocation), "create", "limits"],
        ]
        self.unshare: Line = ["oci-unshare", "apply", place]
        if invocation.text("console-socket"):
            self.unshare += ["--console-socket", invocation.text("console-socket")]
        self.inner: list[Line] = [
            ["oci-mount", "apply", place],
            ["oci-hooks", "apply", place, "createContainer"],
            ["oci-sysctl", "apply", place],
            ["oci-exec-fifo", "apply", place, *_last_options(invocation)],
        ]

    def chain(self) -> Line:
        """What the container's first process becomes, one stage after the other."""
        words: Line = []
        for line in self.inner:
            words += ["--", *line] if words else line
        return words

    def lines(self) -> list[Line]:
        """All command lines, as they would be typed."""
        return [*self.host, [*self.unshare, "--", *self.chain()]]

    def break_at(self, stage: str) -> None:
        """Put a shell before the stage. Raises Error when it is none of the plan's."""
        for group in (self.host, self.inner):
            for at, line in enumerate(group):
                if line[0] in (stage, f"oci-{stage}"):
                    group.insert(at, ["oci-break", "apply", line[2], "--before", line[0]])
                    return
        if stage in ("oci-unshare", "unshare"):
            self.host.append(["oci-break", "apply", self.unshare[2], "--before", "oci-unshare"])
            return
        known = [line[0] for line in [*self.host, self.unshare, *self.inner]]
        raise Error(f"--break {stage}", "no such stage in the plan", " ".join(known))


def enter_bundle(invocation: Invocation) -> str:
    """The bundle's own path. Sockets of relative names are from now on the bundle's, where runc and crun go for them;
    one of the name @NAME is in no folder."""
    bundle = paths.real_dir(invocation.text("bundle"))
    for name in ("console-socket", "pidfd-socket"):
        socket = invocation.text(name)
        if socket and socket[0] not in "/@":
            invocation.options[name] = f"{bundle}/{socket}"
    return bundle


def _cgroup_options(invocation: Invocation) -> Line:
    words = ["--manager", invocation.cgroup_manager]
    if "rootless" in invocation.globals:
        words += ["--rootless", "true" if invocation.rootless else "false"]
    return words


def _last_options(invocation: Invocation) -> Line:
    words = [f"--{name}" for name in ("no-pivot", "no-new-keyring") if invocation.flag(name)]
    listen = listen_fds()
    if listen:
        words += ["--listen-fds", str(listen)]
    if invocation.number("preserve-fds"):
        words += ["--preserve-fds", str(invocation.number("preserve-fds"))]
    return words


def listen_fds() -> int:
    """How many sockets the service manager passes to us for the program. See sd_listen_fds(3)."""
    env = posix.environ
    count = env.get(b"LISTEN_FDS", b"")
    ours = env.get(b"LISTEN_PID", b"") == str(posix.getpid()).encode()
    return int(count) if ours and count.isdigit() else 0


def undo_order(folder: Folder) -> list[str]:
    """The stages that have something in the ledger, the one that recorded last first."""
    order: list[str] = []
    for stage, _, _ in reversed(folder.records()):
        if stage not in order:
            order.append(stage)
    return order


def open_trace(folder: Folder, path: str) -> None:
    """Hand the file of ``--trace`` along the chain. Raises Error."""
    if not path:
        return
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC
    try:
        folder.fds["trace"] = posix.open(path, flags, 0o644)
    except OSError as problem:
        raise Error(f"open trace file {path}", problem) from None


def prepare(folder: Folder, invocation: Invocation) -> Folder:
    """Tell the folder how stages are run: called or executed, searched where, traced or not, logged where."""
    folder.inprocess = not invocation.exec_stages
    folder.search = invocation.search
    open_trace(folder, invocation.trace)
    if log.fd >= 0:
        folder.fds["log"] = log.fd
    return folder

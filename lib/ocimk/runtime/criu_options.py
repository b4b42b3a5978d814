"""What checkpoint and restore have in common: CRIU found, its options made, its failures told."""

from __future__ import annotations

import posix

from ..errors import Error, reason
from ..linux import criu
from ..linux import path as paths
from ..stages.rootfs import links
from ..stages.rootfs import plan as roots
from . import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli.invocation import Invocation
    from ..container.folder import Folder
    from ..linux.criu import Field, Value

DESCRIPTORS = "descriptors.json"
"""In the folder of images: what standard input, output and error were, as runc keeps it."""

ADDED = "ocimk-mounts.json"
"""There too: what ``mounts add`` has added."""

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
OLDEST = 30000
_NEWNET = 0x40000000
_LOG_LEVEL = 4
_QUOTED = 3

EXTERNAL = (("network", "net", "extRootNetNS"), ("pid", "pid", "extRootPidNS"))
"""Namespaces that are joined, not dumped: our name, criu's, and the key under which it is found again."""


def find(doing: str) -> str:
    """The program criu, of a version that is new enough. Raises Error."""
    search = posix.environ.get(b"PATH", PATH.encode()).decode("utf-8", "surrogateescape")
    for place in search.split(":"):
        program = f"{place}/criu"
        if place.startswith("/") and posix.access(program, posix.X_OK):
            _check_version(doing, program)
            return program
    raise Error(doing, 'exec: "criu": executable file not found in $PATH', "install criu, see criu.org")


def _check_version(doing: str, program: str) -> None:
    try:
        found = criu.version(program)
    except (criu.CriuError, OSError) as problem:
        raise Error(f"{doing}: ask {program} for its version", reason(problem)) from None
    if found < OLDEST:
        raise Error(doing, f"CRIU version {found} must be {OLDEST} or higher", program)


# ---- folders ---------------------------------------------------------------------------------------------------------


def image_path(invocation: Invocation, make: bool) -> str:
    """--image-path, made when missing if it is to be written. Raises Error."""
    path = paths.absolute(invocation.text("image-path") or "checkpoint")
    if make:
        _make(path, "--image-path")
    return path


def parent_path(invocation: Invocation, images: str) -> str:
    """--parent-path, relative to the images, where an earlier pre-dump is. Raises Error."""
    parent = invocation.text("parent-path")
    if not parent:
        return ""
    if parent.startswith("/"):
        raise Error("--parent-path must be relative", parent, f"to {images}")
    if not paths.is_dir(f"{images}/{parent}"):
        cause = "not a directory" if paths.exists(f"{images}/{parent}") else "no such file or directory"
        raise Error(f"invalid --parent-path: {images}/{parent}", cause)
    return parent


def work_path(invocation: Invocation) -> str:
    """--work-path, made when missing, or "". Raises Error."""
    path = invocation.text("work-path")
    if path:
        path = paths.absolute(path)
        _make(path, "--work-path")
    return path


def _make(path: str, doing: str) -> None:
    try:
        paths.make_dirs(path, 0o700)
    except OSError as problem:
        raise Error(f"{doing}: make {path}", problem) from None


def directories(options: Options, images: str, work: str) -> list[int]:
    """Open the folders and name them to criu, which takes them from /proc/OURS/fd; to be closed. Raises Error."""
    found = [_directory(images, "--image-path")]
    options.add(images_dir_fd=found[0])
    if work:
        found.append(_directory(work, "--work-path"))
        options.add(work_dir_fd=found[1])
    return found


def _directory(path: str, doing: str) -> int:
    try:
        return posix.open(path, posix.O_RDONLY | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError as problem:
        raise Error(f"{doing}: open {path}", problem) from None


# ---- options ---------------------------------------------------------------------------------------------------------


class Options:
    """criu_opts in the making, by name."""

    def __init__(self) -> None:
        self.fields: list[Field] = []

    def add(self, **values: Value | bool) -> None:
        """One or more of them; a repeated one is added again."""
        self.fields += [(criu.OPTIONS[name], value) for name, value in values.items()]

    def flags(self, invocation: Invocation, *names_of: str) -> None:
        """Those that are flags of the command line too."""
        for name in names_of:
            self.add(**{name.replace("-", "_"): invocation.flag(name)})

    def pair(self, name: str, key: str, value: Value) -> None:
        """One of those that are pairs: ext_mnt, inherit_fd, cg_root."""
        self.add(**{name: [(1, key), (2, value)]})


def common(invocation: Invocation, folder: Folder, log_file: str) -> Options:
    """The options that both commands have. Raises Error."""
    options = Options()
    mode = invocation.text("manage-cgroups-mode")
    options.add(log_level=_LOG_LEVEL, log_file=log_file, manage_cgroups=True, notify_scripts=True)
    options.add(manage_cgroups_mode=criu.CGROUP_MODES[mode], orphan_pts_master=True)
    options.flags(invocation, "tcp-established", "ext-unix-sk", "shell-job", "file-locks", "auto-dedup", "lazy-pages")
    for name in invocation.many("empty-ns"):
        if name != "network":
            raise Error("--empty-ns", f'namespace "{name}" is not supported', "network")
    options.add(empty_ns=_NEWNET)  # what is in it is not ours, so it never is CRIU's
    config_file = (folder.config.get("annotations") or {}).get("org.criu.config", "/etc/criu/runc.conf")
    if config_file:
        options.add(config_file=config_file)
    return options


def external_mounts(folder: Folder) -> list[tuple[str, str]]:
    """(destination, source) of what is mounted from outside: CRIU keeps its place, not its content. Raises Error."""
    found: list[tuple[str, str]] = []
    for raw in [*(folder.config.get("mounts") or []), *mounts.recorded(folder)]:
        entry = roots.entry(len(found), raw, folder.bundle)
        if entry.kind == "bind" and not _link(entry):
            found.append((entry.path.decode("utf-8", "surrogateescape"), entry.source))
        elif entry.kind == "cgroup" and roots.namespace(folder.config, "cgroup") is None:
            found += _hierarchies(entry.path.decode("utf-8", "surrogateescape"), folder)
    found += [(device.path.decode("utf-8", "surrogateescape"),) * 2 for device in roots.devices(folder.config)]
    return found


def _link(entry: roots.Entry) -> bool:
    """Whether it was made as a link, and is no mount. Raises Error."""
    try:
        return links.target_of(entry) is not None
    except OSError as problem:
        raise Error(f"{entry.where}.source {entry.source}", problem) from None


def _hierarchies(destination: str, folder: Folder) -> list[tuple[str, str]]:
    """The directories of cgroup v1 that are bound into the container."""
    from ..stages.cgroups import load
    from ..stages.rootfs import cgroups

    if cgroups.unified():
        return []
    own = {paths.basename(paths.dirname(path)): path for name, path in load(folder).paths.items() if name}
    places = [line.split(" ")[4] for line in _mountinfo() if " - cgroup " in line]
    return [(f"{destination}/{paths.basename(place)}", own.get(paths.basename(place), place)) for place in places]


def _mountinfo() -> list[str]:
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        return file.read().splitlines()


def joined(folder: Folder) -> list[tuple[str, str, str]]:
    """(criu's name, key, path) of each namespace that is dumped as an external one."""
    found = []
    for kind, short, key in EXTERNAL:
        entry = roots.namespace(folder.config, kind)
        if entry is not None and entry.get("path"):
            found.append((short, key, str(entry["path"])))
    return found


# ---- failures --------------------------------------------------------------------------------------------------------


def failed(doing: str, problem: Exception, worker: criu.Worker, log_file: str) -> Error:
    """The failure with the first errors that CRIU tells of, in its log or before it has one."""
    try:
        with open(log_file, encoding="utf-8", errors="replace") as file:
            text = file.read()
    except OSError:
        text, log_file = worker.said(), ""
    lines = [line.partition("): ")[2].strip() for line in text.splitlines() if "Error (" in line]
    number = problem.number if isinstance(problem, criu.CriuError) else 0
    told = f"criu failed: {'; '.join(lines[:_QUOTED]) or reason(problem)}" + (f" (errno {number})" if number else "")
    return Error(doing, told, f"see {log_file}" if log_file else "criu check says what it lacks here")


def lockable(invocation: Invocation) -> dict[str, Any]:
    """--network-lock as an option of CRIU's."""
    method = invocation.text("network-lock")
    return {"network_lock": criu.NETWORK_LOCKS[method]} if method else {}

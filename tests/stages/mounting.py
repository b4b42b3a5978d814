"""Helpers of the oci-mount tests: a bundle with busybox, and its root filesystem really made in throw-away
namespaces."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.native import _native
from ocimk.stages import mount
from ocimk.stages.rootfs.enter import enter

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")

FLAGS = {
    "mount": 0x00020000,
    "cgroup": 0x02000000,
    "uts": 0x04000000,
    "ipc": 0x08000000,
    "user": 0x10000000,
    "pid": 0x20000000,
    "network": 0x40000000,
}

DEFAULT_NAMESPACES = ("mount", "pid", "ipc", "uts", "network")

TOOLS = "cat id ls mkdir mount readlink stat stty test touch umount".split()

PROC = {"destination": "/proc", "type": "proc", "source": "proc"}
DEV = {
    "destination": "/dev",
    "type": "tmpfs",
    "source": "tmpfs",
    "options": ["nosuid", "strictatime", "mode=755", "size=65536k"],
}
PTS = {
    "destination": "/dev/pts",
    "type": "devpts",
    "source": "devpts",
    "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
}
SYS = {
    "destination": "/sys",
    "type": "sysfs",
    "source": "sysfs",
    "options": ["nosuid", "noexec", "nodev", "ro"],
}
SHM = {
    "destination": "/dev/shm",
    "type": "tmpfs",
    "source": "shm",
    "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
}
MQUEUE = {
    "destination": "/dev/mqueue",
    "type": "mqueue",
    "source": "mqueue",
    "options": ["nosuid", "noexec", "nodev"],
}
CGROUP = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "noexec", "nodev", "relatime", "ro"],
}
MASKED = ["/proc/acpi", "/proc/keys", "/proc/timer_list", "/proc/no/such", "/sys/firmware"]
READONLY = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger", "/proc/nothing"]


class Mount:
    """A line of mountinfo."""

    def __init__(self, line: str) -> None:
        left, right = line.split(" - ")
        fields, tail = left.split(), right.split(" ")
        self.id, self.parent, self.device, self.root, self.point = fields[:5]
        self.flags = set(fields[5].split(","))
        self.propagation = {word.split(":")[0] for word in fields[6:]}
        self.type, self.source = tail[0], tail[1]
        self.superblock = set(tail[2].split(","))

    def __repr__(self) -> str:
        return f"<{self.point} {self.type} {sorted(self.flags)} {sorted(self.propagation)}>"


class Result:
    """How the container ended: what it printed, or the error of oci-mount."""

    def __init__(self, status: int, out: str, error: str) -> None:
        self.status = status
        self.out = out
        self.error = error

    @property
    def mounts(self) -> dict[str, Mount]:
        """By mount point, the topmost, of a container that printed /proc/self/mountinfo."""
        found = [Mount(line) for line in self.out.splitlines() if " - " in line]
        return {one.point: one for one in found}

    def ok(self) -> Result:
        assert not self.error, self.error
        assert self.status == 0, (self.status, self.out)
        return self


class Bundle:
    """A bundle: a root filesystem with busybox, and a configuration to change."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rootfs = path / "rootfs"
        for name in ("bin", "etc", "proc", "sys", "dev", "tmp"):
            (self.rootfs / name).mkdir(parents=True)
        shutil.copy("/usr/bin/busybox", self.rootfs / "bin/busybox")
        (self.rootfs / "bin/sh").symlink_to("busybox")
        for tool in TOOLS:
            (self.rootfs / "bin" / tool).symlink_to("busybox")
        self.config: dict[str, Any] = {
            "ociVersion": "1.2.0",
            "root": {"path": "rootfs"},
            "process": {"cwd": "/", "args": ["sh"], "terminal": False},
            "mounts": [PROC, DEV],
            "linux": {"namespaces": [{"type": name} for name in DEFAULT_NAMESPACES]},
        }

    def mount(self, destination: str, kind: str, *options: str, source: str = "", **more: Any) -> None:
        """Add an entry to mounts[]."""
        entry = {"destination": destination, "type": kind, "source": source or kind, "options": list(options)}
        self.config["mounts"] = [*self.config["mounts"], {**entry, **more}]

    def bind(self, source: object, destination: str, *options: str, **more: Any) -> None:
        self.mount(destination, "none", *(options or ("rbind",)), source=str(source), **more)

    def folder(self) -> Folder:
        """A container's folder for this bundle."""
        place = self.path / "folder"
        place.mkdir(exist_ok=True, mode=0o700)
        folder = Folder(str(place), str(self.path))
        folder.fds = {}
        folder.config = json.loads(json.dumps(self.config))
        return folder

    def namespaces(self, *names: str) -> None:
        self.config["linux"]["namespaces"] = [{"type": name} for name in names]

    def user(self, host: int = 100000, size: int = 65536) -> None:
        """Add a user namespace whose root is *host*."""
        mapping = [{"containerID": 0, "hostID": host, "size": size}]
        linux = self.config["linux"]
        linux["namespaces"] = [*linux["namespaces"], {"type": "user"}]
        linux["uidMappings"] = linux["gidMappings"] = mapping
        for path in [self.rootfs, *self.rootfs.rglob("*")]:
            os.lchown(path, host, host)

    def run(
        self,
        script: str = "cat /proc/self/mountinfo",
        before: Callable[[Folder], None] | None = None,
        after: Callable[[Folder], None] | None = None,
        no_pivot: bool = False,
        host: Callable[[Folder], None] | None = None,
        stdin: int = -1,
    ) -> Result:
        """Make the root filesystem, enter it and run the shell script there.

        *host* runs first, on the host's side; *before* in the namespaces before oci-mount; *after* after
        it, with the host's root still in place.
        """
        folder = self.folder()
        if host:
            host(folder)

        def child() -> None:
            if stdin >= 0:
                os.dup2(stdin, 0)
            if before:
                before(folder)
            mount.apply(folder, {}, [])
            if after:
                after(folder)
            enter(folder, no_pivot, self.config["linux"].get("rootfsPropagation", ""))
            os.execve("/bin/busybox", ["sh", "-c", script], {"PATH": "/bin"})

        return in_namespaces(self.config, child)


def in_namespaces(config: dict[str, Any], child: Callable[[], None]) -> Result:
    """Run *child* in new namespaces as the configuration says; what it prints, or the Error it raises,
    comes back."""
    kinds = [entry["type"] for entry in config["linux"]["namespaces"] if not entry.get("path")]
    flags = 0
    for kind in kinds:
        flags |= FLAGS[kind]
    out, err, start = os.pipe(), os.pipe(), os.pipe()
    pid, _ = _native.clone3(flags, signal.SIGCHLD, -1, False)
    if pid == 0:
        _child(child, out[1], err[1], start)
    for fd in (out[1], err[1], start[0]):
        os.close(fd)
    if "user" in kinds:
        for which in ("uid", "gid"):
            rows = config["linux"][f"{which}Mappings"]
            text = "".join(f"{r['containerID']} {r['hostID']} {r['size']}\n" for r in rows)
            Path(f"/proc/{pid}/{which}_map").write_text(text)
    os.close(start[1])
    texts = []
    for fd in (out[0], err[0]):
        with os.fdopen(fd, "rb") as stream:
            texts.append(stream.read().decode("utf-8", "replace"))
    _, status = os.waitpid(pid, 0)
    return Result(os.waitstatus_to_exitcode(status), *texts)


def _child(child: Callable[[], None], out: int, err: int, start: tuple[int, int]) -> None:
    status = 99
    try:
        os.close(start[1])
        os.read(start[0], 1)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.set_inheritable(err, False)
        child()
        status = 0
    except Error as problem:
        os.write(err, str(problem).encode())
    except BaseException:
        import traceback

        os.write(err, traceback.format_exc().encode())
    finally:
        os._exit(status)


@contextlib.contextmanager
def mounted(path: Path, kind: str = "tmpfs", options: str = "") -> Iterator[None]:
    """Something mounted on the host for a while."""
    path.mkdir(exist_ok=True, parents=True)
    told = f"-o {options}" if options else ""
    assert os.system(f"mount -t {kind} {told} {kind} '{path}'") == 0
    try:
        yield
    finally:
        os.system(f"umount -l '{path}'")


def tree(path: Path) -> dict[str, tuple[int, int]]:
    """What is below a directory of the host: names with type and change time, to see that nothing was
    touched."""
    found = {}
    for one in sorted(path.rglob("*")):
        status = one.lstat()
        found[str(one)] = (stat.S_IFMT(status.st_mode), status.st_ctime_ns)
    return found


def host_mounts() -> list[str]:
    return [line.split(" ", 5)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def refuse(**calls: int) -> None:
    """From here on the kernel answers these system calls of this process with an errno, as one that lacks
    them."""
    import ctypes
    import struct

    load, jump, ret = 0x20, 0x15, 0x06
    program = [struct.pack("=HBBI", load, 0, 0, 0)]
    for name, number in calls.items():
        program.append(struct.pack("=HBBI", jump, 0, 1, _native.NR[name]))
        program.append(struct.pack("=HBBI", ret, 0, 0, 0x00050000 | number))
    program.append(struct.pack("=HBBI", ret, 0, 0, 0x7FFF0000))
    code = ctypes.create_string_buffer(b"".join(program))
    fprog = struct.pack("=HxxxxxxQ", len(program), ctypes.addressof(code))
    # Without no_new_privs CAP_SYS_ADMIN is needed, which whoever mounts has.
    _native.syscall(_native.NR["seccomp"], 1, 0, fprog)

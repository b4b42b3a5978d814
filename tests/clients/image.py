"""The image that the clients' tests run, and a terminal to run them on."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import shutil
import struct
import subprocess
import termios
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TOP = Path(__file__).resolve().parents[2]
OCI = str(TOP / "bin/oci")
V1 = Path("/sys/fs/cgroup/memory").is_dir()
"""Whether the controllers are those of version 1."""
SYSTEMD = os.path.isdir("/run/systemd/system")
"""Whether the callers are to use the systemd cgroup manager."""
PATIENCE = 8 if os.environ.get("OCIMK_VM") else 1
"""How much longer all takes: in the VM lane the machine may be translated."""


def lane(name: str, *programs: str) -> list[pytest.MarkDecorator]:
    """The marks of a client that has a Makefile target of its own, check-NAME, and is left alone without it."""
    told = os.environ.get("OCIMK_CLIENT") in (name, "all")
    missing = [program for program in programs if shutil.which(program) is None]
    return [
        pytest.mark.skipif(not told, reason=f"make check-{name} runs it"),
        pytest.mark.skipif(os.getuid() != 0, reason=f"{name} needs root"),
        pytest.mark.skipif(bool(missing), reason=f"{', '.join(missing)}: not installed"),
        pytest.mark.timeout(300 * PATIENCE),
    ]


def make_rootfs(root: Path) -> None:
    """A busybox with all its names, a few users and places."""
    for folder in ("bin", "etc", "tmp", "data", "proc", "sys", "dev", "root", "home/user", "usr/bin"):
        (root / folder).mkdir(parents=True)
    busybox = shutil.which("busybox")
    assert busybox
    shutil.copy(busybox, root / "bin/busybox")
    names = subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        if name != "busybox":
            (root / "bin" / name).symlink_to("busybox")
    (root / "tmp").chmod(0o1777)
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\nuser:x:1000:\n")


def make_archive(place: Path) -> Path:
    """A tar archive of that file system."""
    make_rootfs(place / "image")
    archive = place / "image.tar"
    subprocess.run(["tar", "-C", place / "image", "-cf", archive, "."], check=True)
    shutil.rmtree(place / "image")
    return archive


class Client:
    """A caller with all that it keeps in a folder of its own."""

    command: list[str]
    """What every command line of it begins with."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.env = {**os.environ, "PODMAN_IGNORE_CGROUPSV1_WARNING": "1"}

    def __call__(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """Run one of its commands to the end."""
        options = {"timeout": 90 * PATIENCE, "cwd": self.place, "env": self.env, **options}
        return subprocess.run([*self.command, *words], capture_output=True, text=True, check=False, **options)

    def ok(self, *words: str, **options: Any) -> str:
        """What a command prints that must succeed."""
        done = self(*words, **options)
        assert done.returncode == 0, (words, done.stdout, done.stderr, self.log())
        return str(done.stdout)

    def inspect(self, name: str, what: str) -> str:
        return self.ok("inspect", "--format", f"{{{{{what}}}}}", name).strip()

    def until(self, true: Callable[[], object], what: str, seconds: float = 30) -> None:
        """Wait for something to be so."""
        deadline = time.monotonic() + seconds * PATIENCE
        while not true():
            assert time.monotonic() < deadline, (what, self.log())
            time.sleep(0.1)

    def log(self) -> str:
        """The end of what its daemon has to say."""
        log = self.place / "log"
        return log.read_text()[-3000:] if log.exists() else ""


class Daemon(Client):
    """A caller that is one, from begin() to end()."""

    def begin(self, *words: str) -> None:
        with open(self.place / "log", "wb") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def end(self) -> None:
        self.process.terminate()
        self.process.wait(30 * PATIENCE)


def on_terminal(argv: list[str], typed: bytes = b"", until: bytes = b"", seconds: float = 60) -> tuple[int, str]:
    """Run a program on a terminal of 40 rows and 132 columns, type when *until* has been shown (at once when empty);
    its status and all that it showed."""
    pid, master = pty.fork()
    if pid == 0:
        try:
            os.execvp(argv[0], argv)
        finally:
            os._exit(127)
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 40, 132, 0, 0))
    shown = b""
    deadline = time.monotonic() + seconds * PATIENCE
    while True:
        if typed and until in shown:
            os.write(master, typed)
            typed = b""
        left = deadline - time.monotonic()
        if left < 0 or not select.select([master], [], [], left)[0]:
            os.kill(pid, 9)
            os.waitpid(pid, 0)
            os.close(master)
            raise AssertionError(f"{argv} did not end: {shown[-2000:]!r}")
        try:
            data = os.read(master, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(master)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), shown.decode(errors="replace")


def traces(cgroups_of: str, ids: str) -> dict[str, set[str]]:
    """What containers could leave behind on the host: mounts in the tests' folders, cgroups below one that the pattern
    matches, and waiting images of containers whose ID the regular expression matches."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines() if "/pytest-" in line}
    cgroups = {str(path) for path in Path("/sys/fs/cgroup").glob(f"**/{cgroups_of}") if path.is_dir()}
    waiting = set()
    for told in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = told.read_bytes().split(b"\0")
        except OSError:
            continue
        if words[0] == b"oci-exec-fifo" and re.fullmatch(ids, words[2].decode()):
            waiting.add(told.parent.name)
    return {"mounts": mounts, "cgroups": cgroups, "waiting": waiting}

"""Containers that are real as far as their state goes: a folder written by the library, and a real process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ocimk.container.folder import Folder
from ocimk.linux import process
from ocimk.stages import state as stage

TREE = Path(__file__).resolve().parents[2]
OCI_STATE = str(TREE / "libexec" / "oci-state")
OCI = str(TREE / "bin" / "oci")
CONFIG = {"ociVersion": "1.2.0", "root": {"path": "rootfs"}, "linux": {"namespaces": [{"type": "pid"}]}}


class Box:
    """One container: its folder, and the process that stands for its init."""

    def __init__(self, root: Path, name: str, config: dict[str, Any] | None = None, to: str = "running") -> None:
        self.folder = Folder(str(root / name))
        self.folder.inprocess = True
        self.folder.make("/bundle", config or CONFIG)
        self.folder.write("config.json", json.dumps(config or CONFIG).encode())
        self.process: subprocess.Popen[bytes] | None = None
        self.to("creating")
        for status in ("created", "running"):
            if to in ("created", "running", "stopped") and (to != "created" or status == "created"):
                self.to(status)
        self.folder.release()
        if to == "stopped":
            self.end()

    @property
    def path(self) -> Path:
        return Path(self.folder.path)

    @property
    def pid(self) -> int:
        return self.process.pid if self.process else 0

    def to(self, status: str, **options: str) -> None:
        """Commit a transition, as the stages do."""
        given = {f"--{name.replace('_', '-')}": value for name, value in options.items()}
        if status == "created" and self.process is None and "--pid" not in given:
            self.process = subprocess.Popen(["sleep", "1000"])
            given["--pid"] = str(self.process.pid)
        self.folder.forget()
        stage.apply(self.folder, given, [status])

    def end(self, signal: int = 9, collect: bool = True) -> None:
        """End the process; uncollected it stays a zombie."""
        if self.process is None:
            return
        self.process.send_signal(signal)
        if collect:
            self.process.wait()
        else:
            fd = os.pidfd_open(self.process.pid)
            assert process.wait_end(fd, 5000)
            os.close(fd)

    def recorded(self) -> dict[str, Any]:
        return dict(json.loads((self.path / "state.json").read_bytes()))

    def clean(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()


class Program:
    """``oci-state ...`` running, its lines read as they come."""

    def __init__(self, *argv: str, executable: str = OCI_STATE, wait_until_ready: bool = True) -> None:
        ready, theirs = os.pipe()
        options = ["--ready-fd", str(theirs)] if wait_until_ready else []
        self.process = subprocess.Popen(
            [executable, *argv, *options], pass_fds=[theirs], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        os.close(theirs)
        if wait_until_ready and not os.read(ready, 1):
            raise AssertionError(self.process.communicate(timeout=10)[1].decode())
        os.close(ready)
        self._rest = b""

    def line(self, seconds: float = 10.0) -> dict[str, Any]:
        """The next line; fails when none comes in time."""
        assert self.process.stdout is not None
        poll = select.poll()
        poll.register(self.process.stdout, select.POLLIN)
        end = time.monotonic() + seconds
        while b"\n" not in self._rest:
            assert poll.poll(max(0.0, end - time.monotonic()) * 1000), f"no line within {seconds} s"
            part = os.read(self.process.stdout.fileno(), 65536)
            assert part, f"it has ended: {self.process.stderr.read().decode() if self.process.stderr else ''}"
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return dict(json.loads(line))

    def statuses(self, count: int) -> list[tuple[str, str]]:
        """(id, status) of the next lines."""
        return [(line["id"], line["status"]) for line in (self.line() for _ in range(count))]

    def finish(self, seconds: float = 10.0) -> tuple[int, str, str]:
        """Wait for its own end: exit status, standard output, standard error."""
        out, err = self.process.communicate(timeout=seconds)
        return self.process.returncode, out.decode(), err.decode()

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


def wait_until(true: Callable[[], bool], what: str) -> None:
    """Wait for something that sends no event; fails after ten seconds."""
    end = time.monotonic() + 10
    while not true():
        assert time.monotonic() < end, what
        time.sleep(0.002)


def polls(pid: int) -> bool:
    """Whether the process has no more to do than to wait in epoll_wait(2)."""
    return "poll" in Path(f"/proc/{pid}/wchan").read_text()


def holds_pidfd(pid: int, of: int = 0) -> bool:
    """Whether the process waits for the end of another one, of any or of a certain one."""
    for name in os.listdir(f"/proc/{pid}/fdinfo"):
        try:
            info = Path(f"/proc/{pid}/fdinfo/{name}").read_text()
        except FileNotFoundError:
            continue  # closed meanwhile
        found = [line.split()[1] for line in info.splitlines() if line.startswith("Pid:")]
        if found and (not of or found == [str(of)]):
            return True
    return False

"""containerd, its shim with ocimk as BinaryName (what ctr's --runc-binary sets), on a daemon of the test's own:
`make check-containerd`."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image import OCI, PATIENCE, Daemon, lane, make_rootfs, on_terminal, traces

pytestmark = lane("containerd", "containerd", "ctr")

SECOND = 10**9


class Containerd(Daemon):
    """A daemon on folders and a socket of its own."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.rootfs = place / "rootfs"
        make_rootfs(self.rootfs)
        (place / "config.toml").write_text(
            f'version = 2\nroot = "{place}/root"\nstate = "{place}/state"\n'
            'disabled_plugins = ["io.containerd.grpc.v1.cri"]\n'
            f'[grpc]\n  address = "{place}/sock"\n'
        )
        self.command = ["ctr", "--address", f"{place}/sock", "--namespace", "ocimk-test"]
        self.begin("containerd", "--config", f"{place}/config.toml")

    def line(self, *words: str) -> list[str]:
        """The words of ``ctr run`` with ocimk and the busybox."""
        options = [word for word in words[:-1] if word.startswith("-")]
        assert len(options) == len(words) - 1, "each option is one word; the last is the container's name"
        return ["run", "--runc-binary", OCI, "--runc-root", f"{self.place}/runs", "--env=PATH=/bin", *options, "--rootfs", str(self.rootfs), words[-1]]

    def run(self, name: str, *command: str, options: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[str]:
        """``ctr run --rm``."""
        return self(*self.line("--rm", *options, name), *command, **more)

    def detached(self, name: str, *command: str, options: tuple[str, ...] = ()) -> None:
        self.ok(*self.line("--detach", "--null-io", *options, name), *command)

    def status(self, name: str) -> str:
        rows = (line.split() for line in self.ok("task", "list").splitlines()[1:])
        return {row[0]: row[2] for row in rows}.get(name, "")

    def remove(self, name: str) -> None:
        self("task", "kill", "--signal", "SIGKILL", name)
        self.until(lambda: self.status(name) in ("", "STOPPED"), "its end")
        self("task", "delete", name)
        self("container", "delete", name)

    def close(self) -> None:
        for name in self("container", "list", "--quiet").stdout.split():
            self.remove(name)
        self.end()


@pytest.fixture(scope="module")
def containerd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Containerd]:
    before = traces("ocimk-test*", r"c\d+")
    containerd = Containerd(tmp_path_factory.mktemp("containerd"))
    try:
        containerd.until(lambda: containerd("version").returncode == 0, "the daemon answers")
        yield containerd
        assert not [name for name in os.listdir(containerd.place / "runs/ocimk-test") if name != ".cache"]
    finally:
        containerd.close()
    left = traces("ocimk-test*", r"c\d+")
    for place in sorted(left.pop("cgroups") - before["cgroups"], key=len, reverse=True):
        os.rmdir(place)  # the shim keeps the parent; a container's own in it would make this fail
    assert {kind: found - before[kind] for kind, found in left.items()} == {"mounts": set(), "waiting": set()}


@pytest.fixture
def named(containerd: Containerd, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "c" + str(abs(hash(request.node.name)) % 10**8)
    yield name
    containerd.remove(name)


def test_output_and_exit_status(containerd: Containerd, named: str) -> None:
    done = containerd.run(named, "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_what_cannot_be_run_is_told_in_our_words(containerd: Containerd, named: str) -> None:
    done = containerd.run(named, "nope")
    assert done.returncode != 0
    assert 'exec: "nope": executable file not found in $PATH' in done.stderr


def test_limits_and_privileges(containerd: Containerd, named: str) -> None:
    options = ("--memory-limit=67108864", "--cpus=0.5", "--read-only", "--cap-drop=CAP_CHOWN", "--seccomp", "--net-host")
    script = "touch /x || echo ro; grep -E '^(Seccomp|NoNewPrivs|CapEff):' /proc/self/status; readlink /proc/self/ns/net; sleep 3"
    process = subprocess.Popen(
        [*containerd.command, *containerd.line("--rm", *options, named), "sh", "-c", script],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )
    containerd.until(lambda: containerd.status(named) == "RUNNING", "it runs")
    files = ("memory.limit_in_bytes", "memory.max")
    found = [place for file in files for place in Path("/sys/fs/cgroup").glob(f"**/ocimk-test/{named}/{file}")]
    assert [place.read_text() for place in found] == ["67108864\n"]
    out, err = process.communicate(timeout=30 * PATIENCE)
    lines = dict(line.split(":\t") for line in out.splitlines() if ":\t" in line)
    assert out.startswith("ro\n"), (out, err)
    assert lines == {"Seccomp": "2", "NoNewPrivs": "1", "CapEff": "00000000a80425fa"}
    assert os.readlink("/proc/self/ns/net") in out


def test_a_life(containerd: Containerd, named: str) -> None:
    containerd.detached(named, "sh", "-c", "trap 'exit 3' TERM; while :; do sleep 0.1; done")
    assert containerd.status(named) == "RUNNING"
    done = containerd("task", "exec", "--exec-id", "e1", "--cwd", "/tmp", named, "sh", "-c", "pwd; echo err >&2; exit 9")
    assert (done.stdout, done.stderr, done.returncode) == ("/tmp\n", "err\n", 9)
    assert containerd("task", "exec", "--exec-id", "e2", "--user", "1000", named, "id", "-u").stdout == "1000\n"
    containerd.ok("task", "exec", "--detach", "--exec-id", "e3", named, "sleep", "50")
    shown = containerd.ok("task", "ps", named).split()
    assert len([word for word in shown if word.isdigit()]) >= 2
    containerd.ok("task", "pause", named)
    assert containerd.status(named) == "PAUSED"
    containerd.ok("task", "resume", named)
    assert containerd.status(named) == "RUNNING"
    assert "memory.usage" in containerd.ok("task", "metrics", named)
    assert json.loads(containerd.ok("task", "metrics", "--format", "json", named))
    containerd.ok("task", "kill", "--signal", "SIGTERM", named)
    containerd.until(lambda: containerd.status(named) == "STOPPED", "its end")
    assert containerd("task", "delete", named).returncode in (0, 3)


def test_kill_all(containerd: Containerd, named: str) -> None:
    containerd.detached(named, "sh", "-c", "sleep 100 & sleep 100 & wait")
    containerd.ok("task", "kill", "--all", "--signal", "SIGKILL", named)
    containerd.until(lambda: containerd.status(named) == "STOPPED", "its end")


def test_a_terminal(containerd: Containerd, named: str) -> None:
    argv = [*containerd.command, *containerd.line("--rm", "--tty", named), "sh"]
    status, shown = on_terminal(argv, b"tty; exit 5\n", until=b"/ #")
    assert status == 5, shown
    assert "/dev/pts/0" in shown


def test_exec_on_a_terminal(containerd: Containerd, named: str) -> None:
    containerd.detached(named, "sleep", "100")
    argv = [*containerd.command, "task", "exec", "--tty", "--exec-id", "t", named, "sh"]
    status, shown = on_terminal(argv, b"test -t 0 && echo 'term'inal; exit 6\n", until=b"/ #")
    assert status == 6, shown
    assert "terminal" in shown


def test_a_shim_that_is_killed_leaves_nothing(containerd: Containerd, named: str) -> None:
    """containerd then calls `delete --force`."""
    containerd.detached(named, "sleep", "100")
    for told in Path("/proc").glob("[0-9]*/cmdline"):
        words = told.read_bytes().split(b"\0") if told.exists() else []
        if words and b"shim" in words[0] and b"ocimk-test" in words and named.encode() in words:
            os.kill(int(told.parent.name), 9)
    runs = containerd.place / "runs/ocimk-test" / named
    containerd.until(lambda: not runs.exists(), "the folder goes")

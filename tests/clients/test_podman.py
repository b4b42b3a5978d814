"""Podman calls ocimk in place of runc: what it shows of a container, and what is left when it is gone.

Podman keeps everything in folders of the test's own. The limits that it would raise (nofile, nproc) are set low, since
raising a hard limit takes a capability that not every machine that tests has.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image import OCI, PATIENCE, SYSTEMD, Client, make_archive

LOW = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")

pytestmark = [
    pytest.mark.skipif(os.getuid() != 0, reason="Podman with cgroups of its own needs root"),
    pytest.mark.skipif(shutil.which("podman") is None, reason="podman is not installed (make test installs it)"),
    pytest.mark.timeout(120 * PATIENCE),
]


class Podman(Client):
    """Podman on a root of its own, with ocimk as its runtime."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.command = ["podman", "--root", f"{place}/root", "--runroot", f"{place}/run", "--tmpdir", f"{place}/tmp"]
        self.command += ["--storage-driver", "vfs", "--cgroup-manager", "systemd" if SYSTEMD else "cgroupfs", "--events-backend", "file"]
        self.command += ["--runtime", OCI]

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """``podman run --rm`` without a network."""
        return self("run", "--rm", "--network", "none", *LOW, *words, **options)


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Podman]:
    place = tmp_path_factory.mktemp("podman")
    podman = Podman(place)
    podman.ok("import", str(make_archive(place)), "bb")
    yield podman
    podman("rm", "--force", "--all")
    podman("rmi", "--force", "--all")
    subprocess.run(["umount", "-R", f"{podman.place}/root"], stderr=subprocess.DEVNULL, check=False)


def of_podman(cmdline: Path) -> bool:
    """Whether it is a conmon, or a container of Podman's (their ids have 64 digits) that still waits."""
    try:
        words = cmdline.read_bytes().split(b"\0")
    except OSError:
        return False
    return words[0].endswith(b"conmon") or (words[:2] == [b"oci-exec-fifo", b"wait"] and len(words[2]) == 64)


def traces() -> dict[str, set[str]]:
    """What a container could leave behind on the host."""
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    # os.walk passes over what vanishes meanwhile: others have cgroups too.
    walked = ((place, name) for place, names, _ in os.walk("/sys/fs/cgroup") for name in names)
    cgroups = {f"{place}/{name}" for place, name in walked if name.startswith("libpod-")}
    processes = {status.parent.name for status in Path("/proc").glob("[0-9]*/cmdline") if of_podman(status)}
    folders = {str(path) for path in Path("/run/oci").glob("[!.]*")}
    return {"mounts": mounts, "cgroups": cgroups, "processes": processes, "folders": folders}


@pytest.fixture(autouse=True)
def nothing_is_left(podman: Podman) -> Iterator[None]:
    before = traces()
    yield
    deadline = time.monotonic() + 5
    while True:
        left = {kind: found - before[kind] for kind, found in traces().items()}
        left["mounts"] = {path for path in left["mounts"] if not path.endswith(("/root/vfs", "/shm"))}
        if not any(left.values()):
            return
        # conmon ends shortly after podman has
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def test_output_and_exit_status(podman: Podman) -> None:
    done = podman.run("bb", "sh", "-c", "echo out; echo err >&2; exit 7")

    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


def test_a_program_that_is_missing_is_127_and_one_that_is_not_executable_126(podman: Podman) -> None:
    missing = podman.run("bb", "nope")
    forbidden = podman.run("bb", "/etc/passwd")

    assert missing.returncode == 127, missing.stderr
    assert 'exec: "nope": executable file not found in $PATH' in missing.stderr
    assert forbidden.returncode == 126, forbidden.stderr
    assert "permission denied" in forbidden.stderr.lower()


def test_input(podman: Podman) -> None:
    done = podman.run("-i", "bb", "cat", input="one\ntwo\n")

    assert done.stdout == "one\ntwo\n"


def test_user_environment_and_place(podman: Podman) -> None:
    words = ("--user", "user", "--env", "COLOUR=blue", "--workdir", "/data", "--hostname", "box")
    done = podman.run(*words, "bb", "sh", "-c", "id -u; id -g; echo $COLOUR $HOME; pwd; hostname")

    assert done.stdout.split() == ["1000", "1000", "blue", "/home/user", "/data", "box"], done.stderr


def test_limits(podman: Podman) -> None:
    script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us"
    if not Path("/sys/fs/cgroup/memory").is_dir():
        script = "cd /sys/fs/cgroup; cat memory.max pids.max; cat cpu.max"
    done = podman.run("--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "bb", "sh", "-c", script)

    assert done.stdout.split()[:3] == ["67108864", "50", "50000"], done.stderr


def test_too_much_memory_is_told_as_such(podman: Podman) -> None:
    words = ("--memory", "20m", "--memory-swap", "20m", "--tmpfs", "/t")
    done = podman.run(*words, "bb", "sh", "-c", "exec busybox dd if=/dev/zero of=/t/x bs=1M count=60")

    assert done.returncode == 137, done.stderr


def test_volumes_and_a_readonly_root(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("hello")
    words = ("--read-only", "--volume", f"{tmp_path}/a:/a:ro", "--volume", f"{tmp_path}:/b", "--tmpfs", "/t")
    script = "cat /a/file; touch /a/x || echo ro; touch /b/made && touch /t/x && echo rw; touch /x || echo ro"
    done = podman.run(*words, "bb", "sh", "-c", script)

    assert done.stdout.replace("hello", "").split() == ["ro", "rw", "ro"], done.stderr
    assert (tmp_path / "made").exists()


def test_capabilities_seccomp_and_no_new_privileges(podman: Podman) -> None:
    script = "busybox grep -E '^(CapEff|NoNewPrivs|Seccomp):' /proc/self/status"
    words = ("--cap-drop", "all", "--cap-add", "chown", "--security-opt", "no-new-privileges")
    done = podman.run(*words, "bb", "sh", "-c", script)

    told = dict(line.split(":", 1) for line in done.stdout.splitlines())
    found = {key: value.strip() for key, value in told.items()}
    assert found == {"CapEff": "0000000000000001", "NoNewPrivs": "1", "Seccomp": "2"}, done.stderr


def test_the_default_profile_forbids_what_it_should(podman: Podman) -> None:
    done = podman.run("bb", "sh", "-c", "busybox unshare -m true || echo forbidden")

    assert "forbidden" in done.stdout


def test_the_network_of_the_host_and_none(podman: Podman) -> None:
    own = os.readlink("/proc/self/ns/net")
    shared = podman("run", "--rm", "--network", "host", *LOW, "bb", "busybox", "readlink", "/proc/self/ns/net")
    alone = podman.run("bb", "sh", "-c", "busybox readlink /proc/self/ns/net; ip addr show lo")

    assert shared.stdout.strip() == own, shared.stderr
    assert own not in alone.stdout
    assert "127.0.0.1" in alone.stdout


def test_detached_logs_stop_and_remove(podman: Podman) -> None:
    begun = podman(
        "run", "--detach", "--name", "long", "--network", "none", *LOW, "bb", "sh", "-c", "echo up; sleep 100"
    )
    assert begun.returncode == 0, begun.stderr
    state = json.loads(podman("inspect", "long").stdout)[0]["State"]
    logs = podman("logs", "long")
    stopped = podman("stop", "--time", "1", "long")
    removed = podman("rm", "long")

    assert state["Status"] == "running"
    assert state["Pid"] > 0
    assert logs.stdout == "up\n"
    assert (stopped.returncode, removed.returncode) == (0, 0), stopped.stderr + removed.stderr


def test_create_then_start(podman: Podman) -> None:
    made = podman("create", "--name", "later", "--network", "none", *LOW, "bb", "sh", "-c", "echo now; exit 4")
    done = podman("start", "--attach", "later")
    podman("rm", "later")

    assert made.returncode == 0, made.stderr
    assert (done.stdout, done.returncode) == ("now\n", 4)


def test_a_terminal(podman: Podman) -> None:
    command = " ".join([*podman.command, "run", "--rm", "-t", "--network", "none", *LOW, "bb", "sh", "-c"])
    script = f"{command} 'test -t 0 && test -t 1 && echo terminal; busybox tty'"
    done = subprocess.run(
        ["script", "-qec", script, "/dev/null"], capture_output=True, text=True, check=False, timeout=60 * PATIENCE
    )

    assert "terminal" in done.stdout
    assert "/dev/pts/0" in done.stdout or "/dev/console" in done.stdout


# ---- exec ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def long(podman: Podman) -> Iterator[str]:
    """A container that stays."""
    words = ("--detach", "--name", "stays", "--network", "none", "--init=false")
    done = podman("run", *words, *LOW, "bb", "sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.1; done")
    assert done.returncode == 0, done.stderr
    yield "stays"
    podman("rm", "--force", "--time", "0", "stays")


def test_what_exec_cannot_run(podman: Podman, long: str) -> None:
    missing, forbidden = podman("exec", long, "nope"), podman("exec", long, "/etc/passwd")

    assert (missing.returncode, forbidden.returncode) == (127, 126), missing.stderr + forbidden.stderr
    assert 'exec: "nope": executable file not found in $PATH' in missing.stderr


def test_exec_is_confined_as_the_container_is(podman: Podman, long: str) -> None:
    script = "busybox grep -E '^(CapEff|Seccomp|CapInh):' /proc/self/status; busybox unshare -m true || echo forbidden"
    first = podman("exec", long, "busybox", "grep", "CapEff", "/proc/1/status").stdout
    done = podman("exec", long, "sh", "-c", script)

    assert first.split()[1] in done.stdout
    assert "Seccomp:\t2" in done.stdout
    assert "CapInh:\t0000000000000000" in done.stdout
    assert "forbidden" in done.stdout


def test_exec_privileged_and_detached(podman: Podman, long: str) -> None:
    more = podman("exec", "--privileged", long, "busybox", "grep", "CapEff", "/proc/self/status")
    begun = podman("exec", "--detach", long, "sh", "-c", "echo made > /tmp/made")
    assert begun.returncode == 0, begun.stderr
    deadline = time.monotonic() + 5
    while podman("exec", long, "cat", "/tmp/made").stdout != "made\n":
        assert time.monotonic() < deadline

    assert more.stdout.split()[1].lstrip("0") not in ("", "1"), more.stderr

"""What takes longer with Podman: pods, a life with all its commands, healthchecks, ordinary users, many containers:
`make check-podman`."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from image import OCI, PATIENCE, SYSTEMD, V1, Client, lane, make_archive, on_terminal, traces

pytestmark = lane("podman", "podman")

CONF = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
[engine]
runtime_supports_nocgroups = ["oci"]
runtime_supports_nocgroup = ["oci"]
"""
"""Raising a hard limit, as Podman does by default, takes a capability that not every machine that tests has; Podman
knows which runtimes can do without cgroups by their names, under a key that older versions spell otherwise."""


class Podman(Client):
    """Podman on folders of its own; as *user* when there is one."""

    def __init__(self, place: Path, archive: Path, user: str = "") -> None:
        super().__init__(place)
        self.prefix = ["setpriv", f"--reuid={user}", f"--regid={user}", "--init-groups", "--"] if user else []
        options = ["--root", f"{place}/root", "--runroot", f"{place}/run", "--tmpdir", f"{place}/tmp"]
        manager = "systemd" if SYSTEMD and not user else "cgroupfs"
        options += ["--storage-driver", "vfs", "--cgroup-manager", manager, "--events-backend", "file"]
        self.command = [*self.prefix, "podman", *options, "--runtime", OCI]
        (place / "containers.conf").write_text(CONF)
        self.env["CONTAINERS_CONF"] = f"{place}/containers.conf"
        if user:
            self.env |= {"HOME": str(place), "USER": user, "XDG_RUNTIME_DIR": f"{place}/xdg"}
            (place / "xdg").mkdir(mode=0o700)
            for path in (place, place / "xdg"):
                os.chown(path, pwd.getpwnam(user).pw_uid, -1)
        self.ok("import", str(archive), "bb")

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        return self("run", "--rm", "--network", "none", *words, **options)

    def close(self) -> None:
        self("pod", "rm", "--force", "--all", "--time", "0")
        self("rm", "--force", "--all", "--time", "0")
        self("rmi", "--force", "--all")
        subprocess.run(["umount", "-R", f"{self.place}/root"], stderr=subprocess.DEVNULL, check=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_archive(tmp_path_factory.mktemp("archive"))


@pytest.fixture(scope="module")
def podman(tmp_path_factory: pytest.TempPathFactory, archive: Path) -> Iterator[Podman]:
    def found() -> dict[str, set[str]]:
        kinds = traces("libpod*", "[0-9a-f]{64}")
        kinds["mounts"] = {path for path in kinds["mounts"] if str(tmp_path_factory.getbasetemp()) in path}
        kinds["cgroups"] = {path for path in kinds["cgroups"] if "libpod-" in path}
        return kinds

    before, hierarchies = found(), set(os.listdir("/sys/fs/cgroup"))
    podman = Podman(tmp_path_factory.mktemp("podman"), archive)
    yield podman
    podman.close()
    if V1:  # for a pod it makes plain folders where controllers would be that are not mounted
        for name in set(os.listdir("/sys/fs/cgroup")) - hierarchies:
            shutil.rmtree(f"/sys/fs/cgroup/{name}")
    podman.until(lambda: found() == before, "nothing is left")


@pytest.fixture
def named(podman: Podman, request: pytest.FixtureRequest) -> Iterator[str]:
    name = "c" + str(abs(hash(request.node.name)) % 10**8)
    yield name
    podman("rm", "--force", "--time", "0", name)


def test_a_life(podman: Podman, named: str) -> None:
    words = ("--name", named, "--network", "none", "--memory", "64m")
    podman.ok("run", "--detach", *words, "bb", "sh", "-c", "trap 'exit 3' TERM; while :; do echo x; sleep 0.1; done")
    assert "while" in podman.ok("top", named)
    done = podman("exec", "--user", "user", "--env", "A=b", "--workdir", "/tmp", named, "sh", "-c", "id -u; echo $A; pwd; exit 9")
    assert (done.stdout.split(), done.returncode) == (["1000", "b", "/tmp"], 9), done.stderr
    assert podman("exec", "-i", named, "cat", input="in\n").stdout == "in\n"
    assert podman("exec", named, "nope").returncode == 127
    podman.ok("pause", named)
    assert podman.inspect(named, ".State.Status") == "paused"
    before = podman("logs", named).stdout
    time.sleep(0.5)
    assert podman("logs", named).stdout == before
    podman.ok("unpause", named)
    assert "67.11MB" in podman.ok("stats", "--no-stream", named)
    podman.ok("stop", "--time", "5", named)
    assert podman.inspect(named, ".State.ExitCode") == "3"
    podman.ok("start", named)
    podman.ok("kill", named)
    podman.until(lambda: podman.inspect(named, ".State.Status") == "exited", "its end")
    assert podman.inspect(named, ".State.ExitCode") == "137"
    podman.ok("rm", named)


def test_exec_on_a_terminal(podman: Podman, named: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONTAINERS_CONF", podman.env["CONTAINERS_CONF"])
    podman.ok("run", "--detach", "--name", named, "--network", "none", "bb", "sleep", "100")
    argv = [*podman.command, "exec", "-it", named, "sh"]
    status, shown = on_terminal(argv, b"test -t 0 && echo 'term'inal; sleep %d; stty size; exit 6\n" % PATIENCE, until=b"#")
    assert status == 6, shown
    assert "terminal" in shown and "40 132" in shown, shown


def test_a_healthcheck(podman: Podman, named: str) -> None:
    words = ("--health-cmd", "test -e /healthy", "--health-interval", "disable", "--health-retries", "1")
    podman.ok("run", "--detach", "--name", named, "--network", "none", *words, "bb", "sleep", "100")
    assert podman("healthcheck", "run", named).returncode == 1
    podman.ok("exec", named, "touch", "/healthy")
    podman.ok("healthcheck", "run", named)


def test_restarted_by_its_policy(podman: Podman, named: str) -> None:
    words = ("--name", named, "--network", "none", "--restart", "on-failure:2", "--volume", f"{podman.place}:/v")
    podman.ok("run", "--detach", *words, "bb", "sh", "-c", f"echo x >> /v/{named}; exit 1")
    podman.until(lambda: (podman.place / named).exists() and (podman.place / named).read_text() == "x\n" * 3, "three lives")


def test_device_sysctl_and_ulimit(podman: Podman) -> None:
    words = ("--device", "/dev/fuse:/dev/f:r", "--sysctl", "net.ipv4.ip_forward=1", "--ulimit", "nofile=512:1024", "--ulimit", "nproc=4096")
    lines = podman.run(*words, "bb", "sh", "-c", "ls -l /dev/f; cat /proc/sys/net/ipv4/ip_forward; ulimit -n").stdout.splitlines()
    assert (lines[0][0], lines[1:]) == ("c", ["1", "512"])


@pytest.mark.skipif(not shutil.which("catatonit"), reason="catatonit is not installed")
def test_init(podman: Podman) -> None:
    """The first process is Podman's, which ends when told and takes in orphans."""
    done = podman.run("--init", "--init-path", shutil.which("catatonit") or "", "bb", "sh", "-c", "cat /proc/1/comm; exit 3")
    assert (done.stdout, done.returncode) == ("podman-init\n", 3), done.stderr


def test_without_cgroups(podman: Podman) -> None:
    assert podman.run("--cgroups", "disabled", "bb", "echo", "here").stdout == "here\n"


def test_a_user_namespace(podman: Podman) -> None:
    done = podman.run("--uidmap", "0:100000:5000", "--gidmap", "0:100000:5000", "bb", "cat", "/proc/self/uid_map")
    assert done.stdout.split() == ["0", "100000", "5000"], done.stderr


def test_a_pod(podman: Podman) -> None:
    infra = ("--infra-image", "bb", "--infra-command", "/bin/sleep 1000", "--infra-name", "infra")
    podman.ok("pod", "create", "--name", "pod", "--network", "none", "--share", "net,ipc,uts,pid", *infra)
    serve = "mkdir /w; echo hi > /w/index.html; exec httpd -f -p 80 -h /w"
    podman.ok("run", "--detach", "--pod", "pod", "--name", "web", "bb", "sh", "-c", serve)
    fetch = ("run", "--rm", "--pod", "pod", "bb", "wget", "-q", "-O", "-", "http://127.0.0.1/")
    podman.until(lambda: podman(*fetch).stdout == "hi\n", "an answer")
    shown = podman.ok("run", "--rm", "--pod", "pod", "bb", "ps")
    assert "httpd" in shown and "sleep 1000" in shown
    podman.ok("pod", "pause", "pod")
    assert podman.inspect("web", ".State.Status") == "paused"
    podman.ok("pod", "unpause", "pod")
    podman.ok("pod", "stop", "--time", "0", "pod")
    # conmon is in the pod's cgroup too, and ends a little later
    podman.until(lambda: podman("pod", "rm", "--force", "--time", "0", "pod").returncode == 0, "it is removed")


def test_a_build(podman: Podman, tmp_path: Path) -> None:
    (tmp_path / "Containerfile").write_text("FROM bb\nENV PATH=/bin\nRUN echo built > /built && id -u >> /built\n")
    podman.ok("build", "--network", "none", "--pull-never", "--tag", "made", str(tmp_path))
    assert podman.run("made", "cat", "/built").stdout.split() == ["built", "0"]


@pytest.mark.timeout(900)
def test_three_hundred_one_after_the_other_and_twenty_at_a_time(podman: Podman) -> None:
    for number in range(300 // PATIENCE):
        done = podman.run("bb", "sh", "-c", f"echo {number}; exit {number % 5}")
        assert (done.stdout, done.returncode) == (f"{number}\n", number % 5), done.stderr
    with ThreadPoolExecutor(20) as pool:
        found = list(pool.map(lambda number: podman.run("bb", "echo", str(number), timeout=300), range(100)))
    assert [(done.stdout, done.returncode) for done in found] == [(f"{number}\n", 0) for number in range(100)]


@pytest.fixture
def user() -> Iterator[str]:
    """An ordinary user with subordinate IDs."""
    name = "ocimk-tester"
    if name not in [entry.pw_name for entry in pwd.getpwall()]:
        subprocess.run(["useradd", "--no-create-home", "--user-group", name], check=True)
    yield name
    subprocess.run(["pkill", "-KILL", "-u", name], check=False)
    subprocess.run(["userdel", name], check=True)


def test_as_an_ordinary_user(archive: Path, user: str) -> None:
    """In a folder that the user can reach: pytest's own are root's."""
    import tempfile

    with tempfile.TemporaryDirectory(prefix="ocimk-") as place:
        os.chmod(place, 0o755)
        copied = Path(place, "image.tar")
        copied.write_bytes(archive.read_bytes())
        podman = Podman(Path(place), copied, user)
        try:
            done = podman.run("bb", "sh", "-c", "id -u; wc -l < /proc/self/uid_map; touch /made; exit 3")
            assert (done.stdout.split(), done.returncode) == (["0", "2"], 3), done.stderr
            assert podman.run("--user", "user", "--read-only", "bb", "sh", "-c", "id -u; touch /x || echo ro").stdout == "1000\nro\n"
            podman.ok("run", "--detach", "--name", "long", "--network", "none", "bb", "sleep", "100")
            assert podman.ok("exec", "long", "id", "-u") == "0\n"
            podman.ok("stop", "--time", "0", "long")
        finally:
            podman("rm", "--force", "--all", "--time", "0")
            subprocess.run([*podman.prefix, "podman", "unshare", "rm", "-rf", f"{place}/root"], env=podman.env, check=False)

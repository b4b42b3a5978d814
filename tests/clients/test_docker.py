"""Docker with ocimk as its default runtime, on a daemon of the test's own: `make check-docker`.

The daemon has no bridge and no rules of a firewall, so that the host's network stays as it is; containers use none,
the host's or each other's.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from image import OCI, PATIENCE, SYSTEMD, V1, Daemon, lane, make_archive, on_terminal, traces

pytestmark = lane("docker", "docker", "dockerd")

PARENT = "ocimkdocker.slice" if SYSTEMD else "ocimkdocker"


class Docker(Daemon):
    """A daemon on a folder and a socket of its own."""

    def __init__(self, place: Path) -> None:
        super().__init__(place)
        self.command = ["docker", "--host", f"unix://{place}/sock"]
        (place / "daemon.json").write_text(json.dumps({"runtimes": {"ocimk": {"path": OCI}}}))
        argv = ["dockerd", "--config-file", f"{place}/daemon.json", "--default-runtime", "ocimk"]
        argv += ["--data-root", f"{place}/data", "--exec-root", f"{place}/exec", "--pidfile", f"{place}/pid"]
        argv += ["--host", f"unix://{place}/sock", "--storage-driver", "vfs", "--cgroup-parent", PARENT]
        argv += ["--bridge", "none", "--iptables=false", "--ip6tables=false"]
        if "--oom-score-adjust" in subprocess.run(["dockerd", "--help"], capture_output=True, text=True, check=True).stdout:
            argv += ["--oom-score-adjust", "0"]  # what daemons before 25 lower, which needs a right
        self.begin(*argv)

    def run(self, *words: str, **options: Any) -> subprocess.CompletedProcess[str]:
        """``docker run --rm`` without a network."""
        return self("run", "--rm", "--network", "none", *words, **options)

    def close(self) -> None:
        names = self("ps", "--all", "--quiet").stdout.split()
        if names:
            self("rm", "--force", *names)
        self.end()
        for place in (self.place / "exec/netns").glob("*"):  # the daemon's own, which it leaves mounted
            subprocess.run(["umount", place], check=False)


@pytest.fixture(scope="module")
def docker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Docker]:
    before = traces("ocimkdocker*", "[0-9a-f]{64}")
    docker = Docker(tmp_path_factory.mktemp("docker"))
    try:
        docker.until(lambda: docker("version").returncode == 0, "the daemon answers")
        docker.ok("import", str(make_archive(docker.place)), "bb")
        yield docker
    finally:
        docker.close()
    for place in sorted(traces("ocimkdocker*", "[0-9a-f]{64}")["cgroups"] - before["cgroups"], key=len, reverse=True):
        os.rmdir(place)  # the daemon keeps the parent that we named; a container's own in it would make this fail
    assert {kind: found - before[kind] for kind, found in traces("ocimkdocker*", "[0-9a-f]{64}").items()} == {
        "mounts": set(), "cgroups": set(), "waiting": set()
    }


@pytest.fixture
def named(docker: Docker, request: pytest.FixtureRequest) -> Iterator[str]:
    """A name for a container that is removed afterwards."""
    name = "c" + str(abs(hash(request.node.name)) % 10**8)
    yield name
    docker("rm", "--force", name)


# ---- run -------------------------------------------------------------------------------------------------------------


def test_output_and_exit_status(docker: Docker) -> None:
    done = docker.run("bb", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (done.stdout, done.stderr, done.returncode) == ("out\n", "err\n", 7)


@pytest.mark.parametrize(
    ("program", "status", "told"),
    [
        ("nope", 127, 'exec: "nope": executable file not found in $PATH'),
        ("/no/such", 127, "no such file or directory"),
        ("/etc/passwd", 126, "permission denied"),
        ("/etc", 126, ""),
    ],
)
def test_a_program_that_cannot_be_run(docker: Docker, program: str, status: int, told: str) -> None:
    done = docker.run("bb", program)
    older = 125 if "is a directory" in done.stderr else status  # clients that do not know these words
    assert done.returncode in (status, older), done.stderr
    assert told in done.stderr


def test_input(docker: Docker) -> None:
    data = "".join(f"{number}\n" for number in range(100000))
    assert docker.run("-i", "bb", "cat", input=data).stdout == data


def test_user_environment_place_and_hostname(docker: Docker) -> None:
    words = ("--user", "user", "--env", "COLOUR=blue", "--workdir", "/data/new", "--hostname", "box")
    done = docker.run(*words, "--group-add", "5", "bb", "sh", "-c", "id -u; id -G; echo $COLOUR $HOME; pwd; hostname")
    assert done.stdout.split() == ["1000", "1000", "5", "blue", "/home/user", "/data/new", "box"], done.stderr


def test_limits(docker: Docker) -> None:
    script = "cd /sys/fs/cgroup; cat memory.max pids.max cpu.max cpuset.cpus"
    if V1:
        script = "cd /sys/fs/cgroup; cat memory/memory.limit_in_bytes pids/pids.max cpu/cpu.cfs_quota_us cpuset/cpuset.cpus"
    words = ("--memory", "64m", "--pids-limit", "50", "--cpus", "0.5", "--cpuset-cpus", "0")
    told = docker.run(*words, "bb", "sh", "-c", script).stdout.split()
    assert told[:3] == ["67108864", "50", "50000"]
    assert told[-1] == "0"


def test_too_much_memory(docker: Docker, named: str) -> None:
    words = ("--name", named, "--network", "none", "--memory", "20m", "--memory-swap", "20m", "--tmpfs", "/t")
    done = docker("run", *words, "bb", "dd", "if=/dev/zero", "of=/t/x", "bs=1M", "count=60")
    assert done.returncode == 137, done.stderr
    assert docker.inspect(named, ".State.OOMKilled") == "true"


def test_volumes_tmpfs_and_a_readonly_root(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a/file").write_text("hello")
    words = ("--read-only", "--volume", f"{tmp_path}/a:/a:ro", "--volume", f"{tmp_path}:/b", "--tmpfs", "/t:size=1m")
    script = "cat /a/file; touch /a/x || echo ro; touch /b/made && touch /t/x && echo rw; touch /x || echo ro; df /t | tail -1"
    done = docker.run(*words, "--volume", "kept:/kept", "bb", "sh", "-c", f"{script}; touch /kept/1")
    docker.ok("run", "--rm", "--network", "none", "--volume", "kept:/kept", "bb", "test", "-e", "/kept/1")
    docker.ok("volume", "rm", "kept")
    assert done.stdout.replace("hello", "").split()[:3] == ["ro", "rw", "ro"], done.stderr
    assert done.stdout.split()[4] == "1024"
    assert (tmp_path / "made").exists()


def test_capabilities_seccomp_and_no_new_privileges(docker: Docker) -> None:
    words = ("--cap-drop", "all", "--cap-add", "chown", "--security-opt", "no-new-privileges")
    done = docker.run(*words, "bb", "grep", "-E", "^(CapEff|NoNewPrivs|Seccomp):", "/proc/self/status")
    told = dict(line.split(":\t", 1) for line in done.stdout.splitlines())
    assert told == {"CapEff": "0000000000000001", "NoNewPrivs": "1", "Seccomp": "2"}, done.stderr


def test_the_default_profile_forbids_what_it_should(docker: Docker) -> None:
    script = "unshare -m true || echo forbidden; mount -t tmpfs none /tmp || echo forbidden"
    assert docker.run("bb", "sh", "-c", script).stdout == "forbidden\n" * 2


def test_privileged(docker: Docker) -> None:
    script = "grep -E '^Seccomp:' /proc/self/status; mount -t tmpfs none /tmp && echo mounted; ls /dev/kmsg"
    assert docker.run("--privileged", "bb", "sh", "-c", script).stdout.split() == ["Seccomp:", "0", "mounted", "/dev/kmsg"]


def test_ulimit_sysctl_device_and_init(docker: Docker) -> None:
    words = ("--ulimit", "nofile=512:1024", "--sysctl", "net.ipv4.ip_forward=1", "--device", "/dev/fuse:/dev/f:r", "--init")
    script = "ulimit -n; ulimit -Hn; cat /proc/sys/net/ipv4/ip_forward; ls -l /dev/f; cat /proc/1/comm"
    lines = docker.run(*words, "bb", "sh", "-c", script).stdout.splitlines()
    assert (lines[:3], lines[3][0], lines[4]) == (["512", "1024", "1"], "c", "docker-init")


def test_networks_none_and_host(docker: Docker) -> None:
    own = os.readlink("/proc/self/ns/net")
    assert docker.ok("run", "--rm", "--network", "host", "bb", "readlink", "/proc/self/ns/net").strip() == own
    assert docker.run("bb", "sh", "-c", "ls /sys/class/net").stdout.split() == ["lo"]


def test_namespaces_of_the_host_and_of_each_other(docker: Docker, named: str) -> None:
    docker.ok("run", "--detach", "--name", named, "--network", "none", "--ipc", "shareable", "bb", "sleep", "100")
    words = ("--pid", f"container:{named}", "--ipc", f"container:{named}", "--network", f"container:{named}")
    shown = docker.ok("run", "--rm", *words, "bb", "ps")
    assert "sleep 100" in shown
    mine = str(os.getpid())
    assert mine in docker.run("--pid", "host", "--uts", "host", "bb", "ps").stdout


# ---- a life ----------------------------------------------------------------------------------------------------------


def test_detached_logs_exec_stop_and_remove(docker: Docker, named: str) -> None:
    script = "trap 'echo ending; exit 3' TERM; echo up; while :; do sleep 0.1; done"
    docker.ok("run", "--detach", "--name", named, "--network", "none", "bb", "sh", "-c", script)
    docker.until(lambda: docker("logs", named).stdout == "up\n", "the first line")
    assert docker.inspect(named, ".State.Status") == "running"
    words = ("--user", "user", "--env", "A=b", "--workdir", "/data")
    done = docker("exec", *words, named, "sh", "-c", "id -u; echo $A; pwd; exit 9")
    assert (done.stdout.split(), done.returncode) == (["1000", "b", "/data"], 9), done.stderr
    assert docker("exec", "-i", named, "cat", input="in\n").stdout == "in\n"
    for program, told in (("nope", "executable file not found in $PATH"), ("/etc/passwd", "permission denied")):
        done = docker("exec", named, program)
        assert done.returncode in (126, 127)  # older versions have one for both
        assert told in done.stdout + done.stderr
    docker.ok("exec", "--detach", named, "touch", "/made")
    docker.until(lambda: docker("exec", named, "test", "-e", "/made").returncode == 0, "the detached exec")
    assert "sleep 0.1" in docker.ok("top", named) or "sh -c" in docker.ok("top", named, "-o", "pid,args")
    docker.ok("stop", named)
    assert docker.inspect(named, ".State.ExitCode") == "3"
    assert docker("logs", named).stdout == "up\nending\n"
    assert docker("exec", named, "true").returncode != 0
    docker.ok("start", named)
    docker.ok("kill", "--signal", "KILL", named)
    docker.until(lambda: docker.inspect(named, ".State.Status") == "exited", "its end")
    assert docker.inspect(named, ".State.ExitCode") == "137"
    docker.ok("rm", named)


def test_pause_update_stats(docker: Docker, named: str) -> None:
    words = ("--name", named, "--network", "none", "--memory", "64m", "--memory-swap", "64m")
    docker.ok("run", "--detach", *words, "bb", "sh", "-c", "while :; do echo x; sleep 0.1; done")
    docker.ok("pause", named)
    assert docker.inspect(named, ".State.Status") == "paused"
    before = docker("logs", named).stdout
    time.sleep(0.5)
    assert docker("logs", named).stdout == before
    docker.ok("unpause", named)
    docker.until(lambda: docker("logs", named).stdout != before, "it goes on")
    docker.ok("update", "--memory", "100m", "--memory-swap", "100m", "--pids-limit", "77", named)
    limit = "memory/memory.limit_in_bytes pids/pids.max" if V1 else "memory.max pids.max"
    told = docker.ok("exec", named, "sh", "-c", f"cd /sys/fs/cgroup; cat {limit}").split()
    assert told == [str(100 << 20), "77"]
    shown = docker.ok("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", named)
    assert "/ 100MiB" in shown, shown


def test_healthcheck(docker: Docker, named: str) -> None:
    words = ("--health-cmd", "test -e /healthy", "--health-interval", "1s", "--health-retries", "1")
    docker.ok("run", "--detach", "--name", named, "--network", "none", *words, "bb", "sleep", "100")
    docker.until(lambda: docker.inspect(named, ".State.Health.Status") == "unhealthy", "it is found ill")
    docker.ok("exec", named, "touch", "/healthy")
    docker.until(lambda: docker.inspect(named, ".State.Health.Status") == "healthy", "it is found well")


def test_a_web_server_that_is_killed_is_started_again(docker: Docker, named: str) -> None:
    """Reached from another container of its network namespace; its log is whole."""
    docker.ok("run", "--detach", "--name", f"{named}-net", "--network", "none", "bb", "sleep", "1000")
    try:
        serve = "mkdir -p /www && echo hello > /www/index.html && echo serving && exec httpd -f -vv -p 8080 -h /www"
        words = ("--name", named, "--network", f"container:{named}-net", "--restart", "always")
        docker.ok("run", "--detach", *words, "bb", "sh", "-c", serve)

        def answer() -> str:
            fetch = ("wget", "-q", "-O", "-", "http://127.0.0.1:8080/")
            return docker("run", "--rm", "--network", f"container:{named}-net", "bb", *fetch).stdout

        docker.until(lambda: answer() == "hello\n", "an answer")
        os.kill(int(docker.inspect(named, ".State.Pid")), signal.SIGKILL)
        docker.until(lambda: docker.inspect(named, ".RestartCount") == "1", "another start")
        docker.until(lambda: answer() == "hello\n", "another answer")
        done = docker("logs", named)
        assert (done.stdout + done.stderr).count("serving\n") == 2
        assert (done.stdout + done.stderr).count("response:200") >= 2
    finally:
        docker("rm", "--force", f"{named}-net")


# ---- terminals -------------------------------------------------------------------------------------------------------


def test_run_on_a_terminal(docker: Docker) -> None:
    argv = [*docker.command, "run", "--rm", "-it", "--network", "none", "bb", "sh"]
    status, shown = on_terminal(argv, b"tty; sleep %d; stty size; exit 5\n" % PATIENCE, until=b"/ #")
    assert status == 5, shown
    assert "/dev/pts/0" in shown and "40 132" in shown, shown


def test_exec_on_a_terminal(docker: Docker, named: str) -> None:
    docker.ok("run", "--detach", "--name", named, "--network", "none", "bb", "sleep", "100")
    argv = [*docker.command, "exec", "-it", named, "sh"]
    status, shown = on_terminal(argv, b"test -t 0 && echo 'term'inal; sleep %d; stty size; exit 6\n" % PATIENCE, until=b"/ #")
    assert status == 6, shown
    assert "terminal" in shown and "40 132" in shown, shown


def test_control_c_in_an_exec(docker: Docker, named: str) -> None:
    docker.ok("run", "--detach", "--name", named, "--network", "none", "bb", "sleep", "100")
    argv = [*docker.command, "exec", "-it", named, "sh", "-c", "trap 'echo got it; exit 4' INT; echo ready; sleep 30; exit 0"]
    status, shown = on_terminal(argv, b"\x03", until=b"ready")
    assert status == 4 and "got it" in shown, shown


# ---- build -----------------------------------------------------------------------------------------------------------


def test_a_build_with_run_steps(docker: Docker, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(
        "FROM bb\nRUN echo built > /built && id -u > /who\nUSER user\nRUN id -u >> /tmp/who\nCMD cat /built /who /tmp/who\n"
    )
    done = docker("build", "--network", "none", "--tag", "made", str(tmp_path), env={**os.environ, "DOCKER_BUILDKIT": "0"})
    assert done.returncode == 0, done.stdout + done.stderr
    assert docker.run("made").stdout.split() == ["built", "0", "1000"]

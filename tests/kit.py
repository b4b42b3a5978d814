"""What the tests with real containers share: a bundle with busybox, the runtime as a program, and a look at what a
container leaves behind on the host."""

from __future__ import annotations

import json
import os
import select
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from itertools import count
from pathlib import Path
from typing import Any

TREE = Path(__file__).resolve().parents[1]
OCI = str(TREE / "bin" / "oci")
LIBEXEC = str(TREE / "libexec")
CGROUPS = Path("/sys/fs/cgroup")
CLEAN = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
APPLETS = (
    "[ awk cat chmod cut dd echo env false grep find head hostname id ifconfig ip kill ln ls mkdir mkfifo mknod mount nc "
    "ps pwd readlink realpath rm rmdir sed seq setsid sh sleep sort stat stty tail tee test touch tr true tty umount "
    "uname usleep wc xargs yes"
).split()

_numbers = count()


def fresh_id() -> str:
    """An ID that no other container has: what is left behind can be told by it."""
    return f"rt{os.getpid()}-{next(_numbers)}"


def make_rootfs(place: Path, busybox: Path) -> None:
    """A root filesystem: busybox, linked, and two users."""
    for name in ("bin", "etc", "tmp", "proc", "sys", "dev"):
        (place / name).mkdir(parents=True)
    place.chmod(0o755)
    os.link(busybox, place / "bin/busybox")
    for name in APPLETS:
        (place / "bin" / name).symlink_to("busybox")
    (place / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\nann:x:1000:1000::/home/ann:/bin/sh\n")


# ---- bundles ---------------------------------------------------------------------------------------------------------


class Bundle:
    """A bundle: change ``config`` and ``save()``, or let Runtime do so."""

    def __init__(self, path: Path, config: str, busybox: Path) -> None:
        self.path = path
        self.rootfs = path / "rootfs"
        make_rootfs(self.rootfs, busybox)
        self.config: dict[str, Any] = json.loads(config)
        self.process["terminal"] = False

    @property
    def process(self) -> dict[str, Any]:
        return self.config["process"]

    @property
    def linux(self) -> dict[str, Any]:
        return self.config["linux"]

    def save(self) -> Path:
        (self.path / "config.json").write_text(json.dumps(self.config))
        return self.path

    def script(self, text: str) -> Bundle:
        """Make this shell script the program."""
        self.process["args"] = ["/bin/sh", "-c", text]
        return self

    def args(self, *words: str) -> Bundle:
        self.process["args"] = list(words)
        return self

    def writable(self) -> Bundle:
        self.config["root"]["readonly"] = False
        return self

    def namespace(self, kind: str, path: object = None) -> Bundle:
        """Add the namespace, or join it by path."""
        self.without(kind)
        self.linux["namespaces"].append({"type": kind, "path": str(path)} if path else {"type": kind})
        return self

    def without(self, *kinds: str) -> Bundle:
        """Leave namespaces out."""
        self.linux["namespaces"] = [e for e in self.linux["namespaces"] if e["type"] not in kinds]
        return self

    def user_namespace(self, host: int = 100000, size: int = 65536) -> Bundle:
        self.namespace("user")
        self.linux["uidMappings"] = self.linux["gidMappings"] = [{"containerID": 0, "hostID": host, "size": size}]
        return self

    def mount(self, destination: str, kind: str, *options: str, source: object = "") -> Bundle:
        entry = {"destination": destination, "type": kind, "source": str(source or kind), "options": list(options)}
        self.config["mounts"].append(entry)
        return self

    def bind(self, source: object, destination: str, *options: str) -> Bundle:
        return self.mount(destination, "bind", "rbind", *options, source=source)

    def hook(self, kind: str, script: str, **more: Any) -> Bundle:
        """Add a hook that is a shell script; startContainer has the container's shell."""
        hooks = self.config.setdefault("hooks", {}).setdefault(kind, [])
        hooks.append({"path": "/bin/sh", "args": ["sh", "-c", script], "env": [f"PATH={CLEAN['PATH']}"], **more})
        return self


# ---- the runtime -----------------------------------------------------------------------------------------------------


class Result:
    """How a program ended and what it said."""

    def __init__(self, argv: Sequence[str], status: int, out: bytes, err: bytes) -> None:
        self.argv = argv
        self.status = status
        self.raw = out
        self.out = out.decode("utf-8", "surrogateescape")
        self.err = err.decode("utf-8", "surrogateescape")

    def __repr__(self) -> str:
        return f"<{' '.join(self.argv[-4:])}: status {self.status}, out {self.out[-2000:]!r}, err {self.err[-2000:]!r}>"

    def ok(self) -> Result:
        assert self.status == 0, self
        return self

    def refused(self, *words: str) -> str:
        """It failed as failures must: exit status 1, one line on standard error with these words, no traceback."""
        assert self.status == 1, self
        assert self.err.endswith("\n") and self.err.count("\n") == 1, self
        assert "Traceback" not in self.err and "internal error" not in self.err, self
        for word in words:
            assert word in self.err, (word, self)
        return self.err

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    @property
    def json(self) -> Any:
        return json.loads(self.out)


class Runtime:
    """``oci`` with a root folder of its own. Its containers are removed by clean()."""

    def __init__(self, place: Path, *options: str) -> None:
        self.place = place
        self.root = place / "run"
        self.options = options
        self.ids: list[str] = []
        self.started: list[subprocess.Popen[bytes]] = []

    @property
    def executed(self) -> bool:
        """Whether each stage is a program of its own."""
        return "--exec-stages" in self.options

    def argv(self, *words: object) -> list[str]:
        return [OCI, "--root", str(self.root), *self.options, *map(str, words)]

    def __call__(self, *words: object, stdin: bytes = b"", timeout: float = 30, **more: Any) -> Result:
        """Run one command to its end."""
        argv = self.argv(*words)
        more.setdefault("env", CLEAN)
        if "stdin_fd" in more:
            more["stdin"] = more.pop("stdin_fd")
        else:
            more["input"] = stdin
        done = subprocess.run(argv, capture_output=True, timeout=timeout, check=False, **more)
        return Result(argv, done.returncode, done.stdout, done.stderr)

    def quiet(self, *words: object, **more: Any) -> Result:
        """Run one command whose container goes on living: its streams are /dev/null and files."""
        with open(self.place / "out", "w+b") as out, open(self.place / "err", "w+b") as err:
            argv = self.argv(*words)
            more = {"env": CLEAN, "stdin": subprocess.DEVNULL, "timeout": 30, "check": False, **more}
            done = subprocess.run(argv, stdout=out, stderr=err, **more)
            out.seek(0)
            err.seek(0)
            return Result(argv, done.returncode, out.read(), err.read())

    def begin(self, *words: object, **more: Any) -> subprocess.Popen[bytes]:
        """Start a command; it is ended by clean() if it has not by then."""
        more = {"env": CLEAN, "stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **more}
        process = subprocess.Popen(self.argv(*words), **more)
        self.started.append(process)
        return process

    def id(self) -> str:
        """An ID for a container that clean() looks after."""
        name = fresh_id()
        self.ids.append(name)
        return name

    # ---- whole ways -------------------------------------------------------------------------------------------------

    def run(self, bundle: Bundle, *options: object, name: str = "", **more: Any) -> Result:
        """``oci run`` in the foreground."""
        return self("run", "--bundle", bundle.save(), *options, name or self.id(), **more)

    def tell(self, bundle: Bundle, script: str, *options: object, **more: Any) -> Result:
        """What a shell script prints in a container made from the bundle."""
        return self.run(bundle.script(script), *options, **more).ok()

    def create(self, bundle: Bundle, *options: object, **more: Any) -> str:
        """A created container's ID."""
        name = self.id()
        self.quiet("create", "--bundle", bundle.save(), *options, name, **more).ok()
        return name

    def detached(self, bundle: Bundle, *options: object, **more: Any) -> str:
        """A running container's ID."""
        name = self.id()
        self.quiet("run", "--detach", "--bundle", bundle.save(), *options, name, **more).ok()
        return name

    def state(self, name: str) -> dict[str, Any]:
        return dict(self("state", name).ok().json)

    def names(self) -> list[str]:
        """What is in the root folder; .cache is kept for the next container."""
        found = os.listdir(self.root) if self.root.exists() else []
        return sorted(name for name in found if name != ".cache")

    def pid(self, name: str) -> int:
        """The first process, from its folder (no interpreter is started for it)."""
        return int(json.loads((self.root / name / "state.json").read_bytes())["pid"])

    def wait_stopped(self, name: str) -> None:
        """Wait for the end of the first process."""
        wait_gone(self.pid(name))

    # ---- the end ----------------------------------------------------------------------------------------------------

    def clean(self) -> list[str]:
        """Remove all containers and tell what was left after that; that is then removed by force."""
        for process in self.started:
            if process.poll() is None:
                process.kill()
            for stream in (process.stdin, process.stdout, process.stderr):
                if stream:
                    stream.close()
            process.wait()
        for name in self.ids:
            if (self.root / name).exists():
                self("delete", "--force", name)
        left = left_overs(self)
        for told in left:
            _force(told)
        return left


def left_overs(runtime: Runtime) -> list[str]:
    """What is still there of the containers: ``KIND WHAT`` each."""
    found = [f"folder {runtime.root / name}" for name in runtime.names()]
    found += [f"process {pid} {what}" for pid, what in processes(runtime)]
    found += [f"mount {point}" for point in mount_points() if point.startswith(f"{runtime.place}/")]
    return found + [f"cgroup {path}" for path in cgroups_of(runtime.ids)]


def processes(runtime: Runtime) -> Iterator[tuple[int, str]]:
    """The processes that belong to the containers: in a cgroup of theirs, or with our place in their command line."""
    ours = [f"/{name}" for name in runtime.ids]
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text().split("\n")
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            zombie = ") Z " in Path(f"/proc/{pid}/stat").read_text()
        except OSError:
            continue
        inside = any(part in group for group in groups for part in ours)
        if not zombie and int(pid) != os.getpid() and (inside or f"{runtime.place}/" in line):
            yield int(pid), line.strip()


def mount_points() -> list[str]:
    return [line.split(" ")[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def cgroups_of(names: Sequence[str]) -> list[str]:
    """The control groups that have one of the names in theirs, the innermost first."""
    known = set(names)
    found = []
    for place, below, _ in os.walk(CGROUPS):
        found += [f"{place}/{name}" for name in below if name in known]
    return sorted(found, reverse=True)


def _force(told: str) -> None:
    """Remove a left-over."""
    kind, _, what = told.partition(" ")
    if kind == "process":
        kill(int(what.split(" ")[0]))
    elif kind == "mount":
        subprocess.run(["umount", "-l", what], check=False, capture_output=True)
    elif kind == "folder":
        shutil.rmtree(what, ignore_errors=True)
    elif kind == "cgroup":
        for place, _, _ in os.walk(what, topdown=False):
            await_true(lambda place=place: _rmdir(place), f"rmdir {place}", fail=False)


def _rmdir(place: str) -> bool:
    try:
        os.rmdir(place)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


# ---- processes, and waiting for them ---------------------------------------------------------------------------------


def await_true(true: Callable[[], Any], what: str, seconds: float = 10, fail: bool = True) -> Any:
    """Wait for something that sends no event; returns its first true value."""
    end = time.monotonic() + seconds
    while not (value := true()):
        if time.monotonic() > end:
            assert not fail, f"waited {seconds:g} s in vain: {what}"
            return value
        time.sleep(0.002)
    return value


def wait_gone(pid: int, seconds: float = 10) -> None:
    """Wait for the end of a process that need not be our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        poll = select.poll()
        poll.register(fd, select.POLLIN)
        assert poll.poll(seconds * 1000), f"process {pid} has not ended within {seconds:g} s"
    finally:
        os.close(fd)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    if number == signal.SIGKILL:
        wait_gone(pid)


def alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return ") Z " not in Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False


def of_status(pid: int, key: str) -> str:
    """A line of /proc/PID/status."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    raise KeyError(key)


def status_words(text: str) -> dict[str, str]:
    """The lines ``Key: value`` of a /proc/PID/status that a container has printed."""
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def shell(script: str, env: dict[str, str] | None = None, timeout: float = 60, **more: Any) -> Result:
    """A shell script of the host with our programs in its PATH."""
    path = f"{LIBEXEC}:{Path(OCI).parent}:{CLEAN['PATH']}"
    argv = ["sh", "-eu", "-c", script]
    more = {"stdin": subprocess.DEVNULL, **more}
    done = subprocess.run(
        argv, env={"PATH": path, **(env or {})}, capture_output=True, timeout=timeout, check=False, **more
    )
    return Result(argv, done.returncode, done.stdout, done.stderr)


def program(path: Path, text: str) -> Path:
    """An executable script of the host."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path

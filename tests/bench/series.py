"""One series of measurements: a bundle, the runtimes that can run it, and the rounds."""

from __future__ import annotations

import ctypes
import glob
import json
import os
import select
import shutil
import subprocess
import time

Command = list[str]

SUBREAPER = 36  # PR_SET_CHILD_SUBREAPER
QUIET = [(os.POSIX_SPAWN_OPEN, fd, "/dev/null", os.O_RDWR, 0) for fd in (0, 1)]
INTERPRETER = ["/usr/bin/python3", "-ISXutf8", "-c", "import posix; posix._exit(0)"]
"""What every command of ocimk costs before its first line."""


MEMLOCK = "RLIM_MEMLOCK"
"""crun 1.8 lifts this limit before it loads a device filter, and ends where it may not."""
WARM_UP = 2
"""Rounds that do not count: they fill the caches."""
SETTLE = 0.05
"""Seconds of rest before a container is made: the kernel takes namespaces and cgroups of the one before apart in the
background, and a cgroup lock taken within the last RCU grace period is cheap, so without a rest one runtime would pay
for, or profit from, the one before it."""


class Failed(Exception):
    """A command of a runtime did not do its work."""


class Runtime:
    """One runtime: how it is called, and all that was measured of it."""

    def __init__(self, name: str, command: Command, root: str) -> None:
        self.name = name
        self.command = [*command, "--root", root]
        self.seconds: dict[str, list[float]] = {}
        self.rss: dict[str, int] = {}
        self.pss = 0

    def call(self, verb: str, *words: str) -> Command:
        """The command line of a verb."""
        return [*self.command, verb, *words]

    def timed(self, verb: str, *words: str) -> None:
        """Run the verb and keep the wall time. Raises Failed."""
        self.seconds.setdefault(verb, []).append(timed(self.call(verb, *words)))

    def state(self, name: str) -> dict[str, object]:
        """The container's state. Raises Failed."""
        found: dict[str, object] = json.loads(output(self.call("state", name)))
        return found


def timed(command: Command) -> float:
    """The seconds that the command takes. Raises Failed unless it ends well."""
    begun = time.perf_counter()
    pid = os.posix_spawn(command[0], command, os.environ, file_actions=QUIET)
    status = os.waitpid(pid, 0)[1]
    taken = time.perf_counter() - begun
    if status:
        raise Failed(f"{' '.join(command)}: exit status {os.waitstatus_to_exitcode(status)}")
    return taken


def output(command: Command) -> str:
    """What the command prints. Raises Failed."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise Failed(f"{' '.join(command)}: exit status {done.returncode}")
    return done.stdout


class Series:
    """The bundles below *work* and the runtimes that have shown that they can run them."""

    def __init__(self, work: str, oci: str, only: list[str]) -> None:
        self.work = work
        self.oci = oci
        self.busybox = shutil.which("busybox") or "busybox"
        self.sleeper = self._bundle("sleeper", ["/bin/sleep", "1000"])
        self.quitter = self._bundle("quitter", ["/bin/true"])
        self.interpreter: list[float] = []
        self.unit = rss_unit(self.busybox)
        # The first processes of the containers become our children when their runtime ends: we reap them.
        ctypes.CDLL(None).prctl(SUBREAPER, 1, 0, 0, 0)
        known = {"ocimk": [oci], "runc": [shutil.which("runc") or ""], "crun": [shutil.which("crun") or ""]}
        roots = {name: Runtime(name, command, f"{work}/root-{name}") for name, command in known.items()}
        found = [runtime for name, runtime in roots.items() if not only or name in only]
        self.refused: dict[str, str] = {}
        self.runtimes = [runtime for runtime in found if self._able(runtime)]
        self.note = ""
        if MEMLOCK in self.refused.get("crun", ""):
            self._without_resources()
            self.runtimes = [runtime for runtime in found if self._able(runtime)]

    def _bundle(self, name: str, args: Command) -> str:
        """A bundle of the default configuration with one static busybox; its program, terminal and version are ours."""
        bundle = f"{self.work}/{name}"
        os.makedirs(f"{bundle}/rootfs/bin")
        shutil.copy(self.busybox, f"{bundle}/rootfs/bin/busybox")
        for applet in ("true", "sleep"):
            os.symlink("busybox", f"{bundle}/rootfs/bin/{applet}")
        subprocess.run([self.oci, "spec", "--bundle", bundle], check=True)
        with open(f"{bundle}/config.json") as file:
            config = json.load(file)
        config["ociVersion"] = "1.0.2"  # which crun 1.8 knows too
        config["process"] |= {"terminal": False, "args": args}
        with open(f"{bundle}/config.json", "w") as file:
            json.dump(config, file)
        return bundle

    def _without_resources(self) -> None:
        """Take linux.resources out of the bundles, for all runtimes."""
        self.refused.clear()
        self.note = "the bundle has no linux.resources: crun may not load its device filter here"
        for bundle in (self.sleeper, self.quitter):
            with open(f"{bundle}/config.json") as file:
                config = json.load(file)
            del config["linux"]["resources"]
            with open(f"{bundle}/config.json", "w") as file:
                json.dump(config, file)

    def _able(self, runtime: Runtime) -> bool:
        """Whether the runtime is here and runs a container on this host."""
        if not runtime.command[0]:
            self.refused[runtime.name] = "not installed"
            return False
        name = f"bench-{runtime.name}-try"
        run = runtime.call("run", "--bundle", self.quitter, name)
        done = subprocess.run(run, stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if not done.returncode:
            return True
        self.refused[runtime.name] = (done.stderr.strip().splitlines() or ["failed"])[-1]
        if runtime.name == "ocimk":
            raise Failed(self.refused[runtime.name])
        # crun 1.8 leaves the cgroup of a container that it could not make.
        for left in glob.glob(f"/sys/fs/cgroup/**/{name}", recursive=True):
            os.rmdir(left)
        return False

    # ---- the rounds -------------------------------------------------------------------------------------------------

    def run(self, rounds: int) -> dict[str, object]:
        """All rounds, then what needs no repetition; returns all that was measured (seconds, KiB)."""
        for number in range(WARM_UP + rounds):
            if number == WARM_UP:
                self._forget()
            time.sleep(SETTLE)
            self.interpreter.append(timed(INTERPRETER))
            turn = number % len(self.runtimes)
            for runtime in self.runtimes[turn:] + self.runtimes[:turn]:
                self._round(runtime, f"bench-{runtime.name}-{number}")
        for runtime in self.runtimes:
            self._memory(runtime, f"bench-{runtime.name}-memory")
        measured = {r.name: {"seconds": r.seconds, "rss": r.rss, "pss": r.pss} for r in self.runtimes}
        versions = {r.name: output([r.command[0], "--version"]).splitlines()[0] for r in self.runtimes}
        return {
            "runtimes": measured, "interpreter": self.interpreter, "refused": self.refused, "versions": versions,
            "note": self.note, "rounds": rounds, "kernel": os.uname().release, "processors": os.cpu_count(),
        }  # fmt: skip

    def _forget(self) -> None:
        """Drop what the warm-up measured."""
        self.interpreter.clear()
        for runtime in self.runtimes:
            runtime.seconds.clear()

    def _round(self, runtime: Runtime, name: str) -> None:
        """One container through its life, and one run."""
        try:
            time.sleep(SETTLE)
            runtime.timed("create", "--bundle", self.sleeper, name)
            runtime.timed("state", name)
            pid = int(str(runtime.state(name)["pid"]))
            runtime.timed("start", name)
            runtime.timed("exec", name, "/bin/true")
            runtime.timed("kill", name, "KILL")
            reap(pid)
            runtime.timed("delete", name)
            time.sleep(SETTLE)
            runtime.timed("run", "--bundle", self.quitter, name)
        except BaseException:
            subprocess.run(runtime.call("delete", "--force", name))
            raise

    def _memory(self, runtime: Runtime, name: str) -> None:
        """The peak RSS of the commands, and the PSS of a created container."""
        try:
            runtime.rss["create"] = self._peak(runtime.call("create", "--bundle", self.sleeper, name))
            runtime.rss["state"] = self._peak(runtime.call("state", name))
            pid = int(str(runtime.state(name)["pid"]))
            runtime.pss = pss(pid)
            runtime.rss["start"] = self._peak(runtime.call("start", name))
            runtime.rss["exec"] = self._peak(runtime.call("exec", name, "/bin/true"))
            runtime.rss["kill"] = self._peak(runtime.call("kill", name, "KILL"))
            reap(pid)
            runtime.rss["delete"] = self._peak(runtime.call("delete", name))
            runtime.rss["run"] = self._peak(runtime.call("run", "--bundle", self.quitter, name))
        except BaseException:
            subprocess.run(runtime.call("delete", "--force", name))
            raise

    def _peak(self, command: Command) -> int:
        """The command's peak RSS in KiB."""
        return maxrss(self.busybox, self.work, command) // self.unit


def maxrss(busybox: str, work: str, command: Command) -> int:
    """The greatest ru_maxrss (of busybox's unit) of the command and of what it waited for. Raises Failed.

    Measured by a small program in between: what we spawn ourselves is charged with our own size as well, since
    ru_maxrss counts the memory that a process had before it became another program. See getrusage(2).
    """
    told = f"{work}/maxrss"
    timed([busybox, "time", "-o", told, "-f", "%M", *command])
    with open(told) as file:
        return int(file.read().split()[-1])


def rss_unit(busybox: str) -> int:
    """How many of its units busybox says for a KiB: older ones take ru_maxrss for pages and say four times too much."""
    shown = "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    command = [busybox, "time", "-f", "%M", *INTERPRETER[:2], "-c", shown]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return max(1, round(int(done.stderr.split()[-1]) / int(done.stdout)))


def reap(pid: int) -> None:
    """Wait for the end of a container's first process, which became our child."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    ended = poll.poll(10_000)
    os.close(fd)
    if not ended:
        raise Failed(f"process {pid} does not end")
    os.waitpid(pid, 0)


def pss(pid: int) -> int:
    """The proportional set size of a process in KiB. See proc_pid_smaps(5)."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1])
    raise Failed(f"/proc/{pid}/smaps_rollup names no Pss")

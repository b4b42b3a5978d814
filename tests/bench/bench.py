#!/usr/bin/env python3
"""Time the commands of ocimk against runc's (and crun's where it runs), interleaved round by round.

    bench.py [--rounds N] [--check] [--json FILE]

Each round runs create, state, start, kill, delete and run of one bundle with every runtime in turn; the order of the
runtimes alternates. Printed are medians in milliseconds, the 90th percentile, the ratio of the medians to runc's, the
peak memory of each command, and the proportional set size of a created container. Bundle and state are on tmpfs.

A runtime that cannot run the bundle here (crun refuses hosts that mix cgroup v1 and v2) is left out. --check fails when
a limit is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
OCI = str(TOP / "bin/oci")
COMMANDS = ("create", "state", "start", "kill", "delete", "run")

LIMITS = {"create": 0.75, "run": 0.75, "state": 2.2, "start": 2.2, "kill": 2.2, "delete": 2.2}
"""The most that a median may be of runc's."""
PSS_LIMIT = 150
"""KiB that a created container may take."""

RUNTIMES = {
    "ocimk": [OCI],
    "runc": ["runc"],
    "crun": ["crun"],
}

MAXRSS = """
import posix, sys
quiet = [(posix.POSIX_SPAWN_OPEN, 1, "/dev/null", posix.O_RDWR, 0)]
pid = posix.posix_spawnp(sys.argv[1], sys.argv[1:], posix.environ, file_actions=quiet)
_, status, usage = posix.wait4(pid, 0)
print(usage.ru_maxrss)
sys.exit(posix.waitstatus_to_exitcode(status))
"""
"""A launcher that is small itself: what a process had before its exec counts into its peak memory (getrusage(2))."""

SETTLE = 0.05
"""Seconds of rest before a container is made: the kernel takes namespaces and cgroups of the one before apart in the
background, and a cgroup lock taken within the last RCU grace period is cheap, so without a rest one runtime would pay
for, or profit from, the one before it."""

NOTHING = subprocess.DEVNULL
NAME = f"bench-{os.getpid()}"


class Sample:
    """What was measured of one runtime."""

    def __init__(self, weigh: bool = False) -> None:
        self.weigh = weigh
        self.times: dict[str, list[float]] = defaultdict(list)
        self.memory: dict[str, int] = defaultdict(int)
        self.pss: list[int] = []


def bundle(place: Path, *args: str) -> Path:
    """A bundle of the default configuration that runs the program in a busybox root filesystem."""
    root = place / "rootfs"
    root.mkdir(parents=True)
    (root / "bin").mkdir()
    busybox = shutil.which("busybox")
    if busybox is None:
        sys.exit("bench: busybox is missing (Debian: busybox-static)")
    shutil.copy(busybox, root / "bin/busybox")
    subprocess.run([OCI, "spec", "--bundle", str(place)], check=True)
    config = json.loads((place / "config.json").read_text())
    config["process"]["terminal"] = False
    config["process"]["args"] = ["/bin/busybox", *args]
    # What an older runc does not know it would refuse or ignore; the version is all that it might look at.
    config["ociVersion"] = "1.0.2"
    (place / "config.json").write_text(json.dumps(config, indent=1))
    return place


def timed(sample: Sample, name: str, argv: list[str]) -> None:
    """Run one command to its end and note its wall time, or in the round for that its peak memory."""
    if sample.weigh:
        launcher = ["/usr/bin/python3", "-ISc", MAXRSS, *argv]
        sample.memory[name] = int(subprocess.run(launcher, stdin=NOTHING, stdout=-1, check=True).stdout)
        return
    with tempfile.TemporaryFile() as said:  # not a pipe: what create leaves waiting keeps it open
        began = time.perf_counter()
        status = subprocess.Popen(argv, stdin=NOTHING, stdout=NOTHING, stderr=said).wait()
        sample.times[name].append((time.perf_counter() - began) * 1000)
        said.seek(0)
        if status != 0:
            raise RuntimeError(f"{' '.join(argv)}: exit status {status}: {said.read().decode().strip()}")


def created(runtime: list[str]) -> tuple[int, int]:
    """The pid and the proportional set size in KiB of the created container."""
    state = json.loads(subprocess.run([*runtime, "state", NAME], check=True, capture_output=True).stdout)
    for line in Path(f"/proc/{state['pid']}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return state["pid"], int(line.split()[1])
    raise RuntimeError("smaps_rollup tells no Pss")


def one_round(sample: Sample, runtime: list[str], sleeper: Path, ender: Path) -> None:
    """A container's whole life, and one that only runs."""
    time.sleep(SETTLE)
    timed(sample, "create", [*runtime, "create", "--bundle", str(sleeper), NAME])
    pid, pss = created(runtime)
    sample.pss.append(pss)
    pidfd = os.pidfd_open(pid)
    timed(sample, "state", [*runtime, "state", NAME])
    timed(sample, "start", [*runtime, "start", NAME])
    timed(sample, "kill", [*runtime, "kill", NAME, "KILL"])
    select.select([pidfd], [], [], 10)
    os.close(pidfd)
    timed(sample, "delete", [*runtime, "delete", NAME])
    time.sleep(SETTLE)
    timed(sample, "run", [*runtime, "run", "--bundle", str(ender), NAME])


def usable(runtime: list[str], ender: Path) -> bool:
    """Whether the runtime can run a container here at all."""
    argv = [*runtime, "run", "--bundle", str(ender), NAME]
    return subprocess.run(argv, stdin=NOTHING, stdout=NOTHING, stderr=NOTHING, check=False).returncode == 0


def measure(rounds: int) -> dict[str, Sample]:
    """Measure all runtimes that work, interleaved."""
    names = list(RUNTIMES)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="ocimk-bench-") as place:
        sleeper = bundle(Path(place) / "sleeper", "sleep", "1000")
        ender = bundle(Path(place) / "ender", "true")
        runtimes = {name: [*RUNTIMES[name], "--root", f"{place}/{number}"] for number, name in enumerate(names)}
        runtimes = {n: argv for n, argv in runtimes.items() if shutil.which(argv[0]) and usable(argv, ender)}
        samples = {name: Sample() for name in runtimes}
        try:
            for name, sample in samples.items():
                heavy = Sample(weigh=True)
                one_round(heavy, runtimes[name], sleeper, ender)
                sample.memory = heavy.memory
            for number in range(rounds + 2):
                order = list(runtimes) if number % 2 else list(reversed(runtimes))
                for name in order:
                    # The first two rounds warm the caches up.
                    one_round(samples[name] if number > 1 else Sample(), runtimes[name], sleeper, ender)
        finally:
            for argv in runtimes.values():
                subprocess.run([*argv, "delete", "--force", NAME], stdout=NOTHING, stderr=NOTHING, check=False)
        return samples


def interpreter(rounds: int) -> float:
    """The bare interpreter's start and end, in milliseconds: the floor under our figures."""
    sample = Sample()
    for _ in range(rounds):
        timed(sample, "", ["/usr/bin/python3", "-ISXutf8", "-c", "import posix; posix._exit(0)"])
    return statistics.median(sample.times[""])


def table(samples: dict[str, Sample]) -> None:
    """Print what was measured."""
    print("median (90th percentile) in ms, ratio to runc, peak MiB")
    print(f"{'':8}" + "".join(f"{name:>32}" for name in samples))
    base = samples.get("runc")
    for command in COMMANDS:
        row = f"{command:8}"
        for sample in samples.values():
            times = sample.times[command]
            middle, high = statistics.median(times), statistics.quantiles(times, n=10)[-1]
            ratio = f"{middle / statistics.median(base.times[command]):.2f}" if base else "-"
            row += f"{middle:8.1f} ({high:5.1f}) {ratio:>5} {sample.memory[command] / 1024:7.1f}"
        print(row)
    waiting = "".join(f"{statistics.median(sample.pss):>32.0f}" for sample in samples.values())
    print(f"{'PSS KiB':8}{waiting}   (a created container)")


def missed(samples: dict[str, Sample]) -> list[str]:
    """The limits that were not kept."""
    if "runc" not in samples:
        return ["runc did not run: nothing to compare with"]
    found = []
    for command, most in LIMITS.items():
        ours, theirs = (statistics.median(samples[name].times[command]) for name in ("ocimk", "runc"))
        if ours / theirs > most:
            found.append(f"{command}: {ours / theirs:.2f} of runc's time, at most {most}")
    pss = statistics.median(samples["ocimk"].pss)
    return [*found, f"a created container: {pss} KiB, at most {PSS_LIMIT}"] if pss > PSS_LIMIT else found


def plain(samples: dict[str, Sample]) -> dict[str, dict[str, object]]:
    """The samples as JSON can tell them."""
    return {n: {"times": s.times, "memory": s.memory, "pss": s.pss} for n, s in samples.items()}


def main() -> int:
    """Measure, print, and with --check judge."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")
    parser.add_argument("--json", metavar="FILE", help="write all samples to FILE")
    options = parser.parse_args()
    samples = measure(options.rounds)
    print(f"bare interpreter: {interpreter(options.rounds):.1f} ms; {options.rounds} rounds")
    table(samples)
    if options.json:
        Path(options.json).write_text(json.dumps(plain(samples)))
    problems = missed(samples) if options.check else []
    for problem in problems:
        print(f"missed: {problem}")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

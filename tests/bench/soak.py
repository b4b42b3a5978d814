"""Many containers one after the other, then many at once: afterwards cgroups, mounts, /run and processes are as before.

    soak.py [--rounds N] [--containers N] [--exec-stages]

`make soak` calls it. What others change on the host meanwhile is shown, but does not fail.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import kit

NAME = f"soak{os.getpid()}"
ROOT = Path("/run") / NAME
QUIET = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=1000, help="containers one after the other")
    parser.add_argument("--containers", type=int, default=200, help="containers at once")
    parser.add_argument("--exec-stages", action="store_true", help="execute each stage")
    given = parser.parse_args()
    if os.geteuid() != 0:
        sys.exit("soak: real containers need root")
    with TemporaryDirectory(prefix=NAME) as place:
        soak = Soak(Path(place), ["--exec-stages"] if given.exec_stages else [])
        for number in range(len(soak.bundles)):
            soak.one(f"{NAME}-{number}", number)  # fills the cache of filters, which stays
        before = host()
        try:
            timed(f"{given.rounds} rounds", lambda: soak.rounds(given.rounds))
            timed(f"{given.containers} at once", lambda: soak.at_once(given.containers))
        finally:
            subprocess.run([*soak.oci, "delete", "--force", "--regex", f"^{NAME}-"], check=False)
        differences = settled(before)
    shutil.rmtree(ROOT)
    ours = [line for line in differences if NAME in line]
    for line in differences:
        print(f"  {line}" if line in ours else f"  {line} (not ours)")
    print(f"soak: {len(ours)} left behind" if ours else "soak: cgroups, mounts, /run and processes are as before")
    return 1 if ours else 0


def timed(what: str, work: Callable[[], None]) -> None:
    began = time.monotonic()
    work()
    print(f"soak: {what}: {time.monotonic() - began:.1f} s", flush=True)


class Soak:
    """The runtime, and bundles of several kinds."""

    def __init__(self, place: Path, options: list[str]) -> None:
        self.oci = [kit.OCI, "--root", str(ROOT), *options]
        busybox = shutil.which("busybox")
        if not busybox:
            sys.exit("soak: busybox is not installed")
        shutil.copy(busybox, place / "busybox")
        subprocess.run([*self.oci, "spec", "--bundle", place], check=True)
        spec = (place / "config.json").read_text()
        self.bundles = [kit.Bundle(place / kind, spec, place / "busybox") for kind in ("plain", "limited", "mapped", "shared")]
        _, limited, mapped, shared = self.bundles
        limited.linux["resources"] |= {"memory": {"limit": 64 << 20}, "pids": {"limit": 20}, "cpu": {"shares": 512}}
        limited.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
        mapped.user_namespace()
        shared.without("pid")
        for bundle in self.bundles:
            bundle.script("sleep 1000 & exec sleep 1000").save()

    def __call__(self, *words: object) -> None:
        done = subprocess.run([*self.oci, *map(str, words)], env=kit.CLEAN, check=False, timeout=120, **QUIET)
        if done.returncode:
            raise RuntimeError(f"oci {' '.join(map(str, words))}: status {done.returncode}")

    def one(self, name: str, number: int = 0) -> None:
        """A whole life; every third is deleted without having been started."""
        self("create", "--bundle", self.bundles[number % len(self.bundles)].path, name)
        if number % 3:
            self("start", name)
        self("delete", "--force", name)

    def rounds(self, number: int) -> None:
        for at in range(number):
            self.one(f"{NAME}-{at}", at)

    def at_once(self, number: int) -> None:
        names = [f"{NAME}-{at}" for at in range(number)]

        def run(at: int) -> None:
            self("run", "--detach", "--bundle", self.bundles[at % len(self.bundles)].path, names[at])

        with ThreadPoolExecutor(os.cpu_count()) as workers:
            list(workers.map(run, range(number)))
            told = subprocess.run([*self.oci, "list", "--format", "json"], capture_output=True, check=True).stdout
            states = {row["id"]: row["status"] for row in json.loads(told)}
            if states != dict.fromkeys(names, "running"):
                raise RuntimeError(f"not all are running: {states}")
            for verb in ("pause", "resume"):
                list(workers.map(lambda name, verb=verb: self(verb, name), names))
            list(workers.map(lambda name: self("kill", "--all", name, "KILL"), names))
        self("delete", "--force", "--regex", f"^{NAME}-[0-9]+$")


# ---- the host --------------------------------------------------------------------------------------------------------


def host() -> set[str]:
    """All that a container might leave but processes, a line each."""
    return {*folders("/sys/fs/cgroup", "cgroup"), *folders("/run", "run"), *mounts()}


def folders(top: str, kind: str) -> Iterator[str]:
    for place, below, files in os.walk(top):
        yield from (f"{kind} {place}/{name}" for name in (below if kind == "cgroup" else below + files))


def mounts() -> Iterator[str]:
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        yield "mount " + " ".join(line.split(" ")[3:])


def processes() -> Iterator[str]:
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            groups = Path(f"/proc/{pid}/cgroup").read_text()
            line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        except OSError:
            continue
        if int(pid) != os.getpid() and NAME in groups + line:
            yield f"process {pid} of {NAME}: {line}"


def settled(before: set[str]) -> list[str]:
    """The differences, once those that are just going have gone: two seconds at most."""
    end = time.monotonic() + 2
    while (differences := sorted(before ^ {*host(), *processes()})) and time.monotonic() < end:
        time.sleep(0.1)
    return [f"{'new' if line not in before else 'gone'}: {line}" for line in differences]


if __name__ == "__main__":
    sys.exit(main())

"""An attacker's view: bundles that are hostile, attackers in containers of their own, and a host that is watched."""

from __future__ import annotations

import hashlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import kit

RACES = int(os.environ.get("OCIMK_RACES", "30"))
"""How many containers are made while something is raced for; ``make check-security`` asks for more."""

HERE = Path(__file__).resolve().parent
SELF = "/work"  # where the container has the directory that it shares with the test

Attack = Callable[["Siege"], list[str]]


class Weakened(kit.Runtime):
    """``oci`` with one of its defences taken out (weaken.py)."""

    def __init__(self, place: Path, weakness: str, *options: str) -> None:
        super().__init__(place, *options)
        self.weakness = weakness

    def argv(self, *words: object) -> list[str]:
        return [sys.executable, "-IS", str(HERE / "weakened.py"), self.weakness, *super().argv(*words)[1:]]


class Siege:
    """One attempt: the runtime under attack, what it attacks with, and what of the host must stay as it is.

    The host has the directory `host` with a file; `shared` is a directory that containers may write.
    """

    def __init__(self, oci: kit.Runtime, make: Callable[[Path], kit.Bundle], attacker: Path, ally: kit.Runtime) -> None:
        self.oci = oci
        self.ally = ally
        self.place = oci.place
        self.attacker = attacker
        self._make = make
        self._bundles = 0
        self.host = self.place / "host"
        self.shared = self.place / "shared"
        self.host.mkdir()
        self.shared.mkdir()
        (self.host / "file").write_text("of the host")
        self.seen = self.place / "mountinfo"
        self._before = self.state()

    @property
    def races(self) -> int:
        """How often a race is run: executed stages take their time, and are the same code."""
        return RACES // 6 if self.oci.executed else RACES

    # ---- the host ---------------------------------------------------------------------------------------------------

    def state(self) -> dict[str, object]:
        """What must be the same afterwards: files of the host, programs of ours, mounts, parameters."""
        found: dict[str, object] = {str(path): fingerprint(path) for path in sorted(self.host.rglob("*"))}
        for program in (os.path.realpath("/usr/bin/python3"), kit.OCI, f"{kit.TREE}/lib/ocimk/native/image"):
            found[program] = fingerprint(Path(program))
        for name in ("core_pattern", "hostname"):
            found[name] = Path(f"/proc/sys/kernel/{name}").read_text()
        found["mounts"] = [point for point in kit.mount_points() if point.startswith(str(self.place))]
        return found

    def accept(self) -> None:
        """Take the host as it is now for what it must be afterwards: the test itself has prepared something there."""
        self._before = self.state()

    def traces(self) -> list[str]:
        """What has changed on the host, and what was mounted there by somebody who watched for it (see hook())."""
        now = self.state()
        names = {*now, *self._before}
        found = [f"host: {name} changed" for name in sorted(names) if now.get(name) != self._before.get(name)]
        if self.seen.exists():
            points = {line.split(" ")[4] for line in self.seen.read_text().splitlines()}
            found += [f"mounted on the host: {point}" for point in points if point.startswith(str(self.host))]
        return found

    @property
    def outside(self) -> str:
        """A way out for links: the directory of the host, from however deep."""
        return "/.." * 20 + str(self.host)

    # ---- bundles ----------------------------------------------------------------------------------------------------

    def bundle(self) -> kit.Bundle:
        """A new bundle, with the attacker's program, that shares a directory with the test."""
        self._bundles += 1
        made = self._make(self.place / f"bundle{self._bundles}")
        os.link(self.attacker, made.rootfs / "bin/attack")
        (made.rootfs / SELF.lstrip("/")).mkdir()
        return made.writable().bind(self.shared, SELF)

    def spy(self, bundle: kit.Bundle) -> kit.Bundle:
        """Have the container's mounts noted while the host's are still there."""
        return bundle.hook("createContainer", f"grep -F {self.place} /proc/self/mountinfo >> {self.seen} || true")

    def said(self, name: str) -> str:
        """What a container wrote into a file of the shared directory."""
        path = self.shared / name
        return path.read_text(errors="replace") if path.exists() else ""

    def runs(self, bundle: kit.Bundle, *options: object, **more: object) -> kit.Result:
        """Run it to its end, or to its refusal: a refusal is one line without a traceback."""
        done = self.oci.run(bundle, *options, **more)
        assert "Traceback" not in done.err, done
        return done

    @contextmanager
    def attack(self, *words: object, capabilities: list[str] | None = None) -> Iterator[int]:
        """An attacker at work in a container of its own (made by a runtime that is not under attack): its pid."""
        bundle = self.bundle().args("sh", "-c", f'exec attack "$@" > {SELF}/said', "sh", *map(str, words))
        if capabilities is not None:
            bundle.process["capabilities"] = {
                kind: capabilities for kind in ("bounding", "effective", "permitted")
            }
        name = self.ally.detached(bundle)
        try:
            yield self.ally.pid(name)
        finally:
            self.ally("delete", "--force", name)


@contextmanager
def receiver(place: Path) -> Iterator[tuple[str, Callable[[], int]]]:
    """A socket that awaits a terminal's master, and what takes it."""
    path = place / f"console{time.monotonic_ns()}"

    def take() -> int:
        connection, _ = server.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, 4096, 1)
        return fds[0]

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(str(path))
        server.listen(1)
        server.settimeout(10)
        yield str(path), take


def fingerprint(path: Path) -> tuple[object, ...]:
    """Kind, change time and content of a file."""
    status = path.lstat()
    content = hashlib.sha256(path.read_bytes()).hexdigest() if stat.S_ISREG(status.st_mode) else ""
    return stat.S_IFMT(status.st_mode), status.st_mode, status.st_ctime_ns, content


def build(place: Path) -> Path:
    """The attacker's program."""
    made = place / "attack"
    subprocess.run(["gcc", "-static", "-O2", "-o", made, HERE / "attack.c"], check=True)
    return made

"""What is fuzzed: whatever these are given, they return, or raise Error (one line for a person). See test_fuzz.py for the
inputs that Hypothesis makes and fuzz.py for those of a fuzzer that watches which code is reached."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from ocimk import jsonio
from ocimk.cli.invocation import Invocation
from ocimk.container import names, state
from ocimk.container.folder import Folder, check_id
from ocimk.errors import Error
from ocimk.runtime import exec_process, mounts, undo
from ocimk.runtime import list as listing
from ocimk.runtime import update as updating
from ocimk.spec.supported import unsupported
from ocimk.spec.validate import ERROR, drop_nulls, findings
from ocimk.stages import cgroups, contract, hooks, seccomp, unshare
from ocimk.stages.cgroups import update
from ocimk.stages.rootfs import plan

TOP = Path(__file__).resolve().parents[2]
FULL: dict[str, Any] = json.loads((TOP / "tests/unit/data/config-full.json").read_text())
"""A configuration with every property: what inputs start from."""

STATE: dict[str, Any] = {
    "ociVersion": "1.2.0", "id": "c", "status": "created", "pid": 1, "bundle": "/b", "rootfs": "/b/rootfs",
    "created": "2026-01-01T00:00:00Z", "owner": 0, "annotations": {"a": "b"},
    "ocimk": {"version": 1, "startTime": 5, "bootId": "x", "pidNamespace": "new", "freezer": "", "creator": [1, 2],
              "times": {"created": "2026-01-01T00:00:00Z"}, "hooks": ["poststop"], "exit": {"exitStatus": 1}},
}  # fmt: skip
CGROUP: dict[str, Any] = {"mode": "v1", "paths": {"cpu": "/sys/fs/cgroup/cpu/c", "": "/sys/fs/cgroup/unified/c"}}
SECCOMP: dict[str, Any] = {
    "flags": [1], "notify": True, "listenerPath": "/s", "listenerMetadata": "m", "unknown": ["x"], "warnings": [], "sum": "0",
}  # fmt: skip

PROCESS: dict[str, Any] = FULL["process"]
RESOURCES: dict[str, Any] = FULL["linux"]["resources"]

FILES = {
    names.STATE: STATE, names.CGROUP: CGROUP, seccomp.INFO: SECCOMP, names.CONFIG: FULL, names.MOUNTS: FULL["mounts"],
    update.FILE: RESOURCES,
}  # fmt: skip


def config(data: bytes) -> None:
    """config.json: checked, and if it is good all stages say what they would do."""
    try:
        found = jsonio.loads(data, "config.json")
        wrong = any(finding.severity == ERROR for finding in findings(found))
        if wrong:
            return
        unsupported(found)
        found = drop_nulls(found)
        folder = Folder("", "/bundle")
        folder.config = found
        unshare.wanted(found)
        plan.entries(found, "/bundle")
        plan.devices(found)
        for name in contract.STOCK:
            if name not in ("oci-validate", "oci-state", "oci-break"):
                _guarded(lambda name=name: contract.load(name).explain(folder, {}, []))
    except Error:
        pass


def folder(name: str, data: bytes) -> None:
    """A file of a container's folder, read in every way but by acting on it."""
    with tempfile.TemporaryDirectory() as place:
        for other, content in FILES.items():
            (Path(place) / other).write_text(json.dumps(content))
        (Path(place) / seccomp.PROGRAM).write_bytes(b"\6\0\0\0\0\0\xff\x7f")
        (Path(place) / names.LEDGER).write_text("oci-mount mount 1 /x\n")
        (Path(place) / name).write_bytes(data)
        for read in _readers(place):
            _guarded(read)


def _readers(place: str) -> Iterator[Callable[[], Any]]:
    def fresh() -> Folder:
        return Folder(place)

    yield lambda: state.current(fresh())
    yield lambda: listing.look(str(Path(place).parent), Path(place).name)
    yield lambda: Folder.open(place)
    yield lambda: fresh().records()
    yield lambda: undo.has_cgroup(fresh())
    yield lambda: undo.remember(fresh())
    yield lambda: cgroups.load(fresh())
    yield lambda: seccomp.load_info(fresh())
    yield lambda: seccomp.listener(fresh())
    yield lambda: fresh().rootfs
    yield lambda: hooks.state(fresh(), "poststop", "stopped")
    yield lambda: state.init_lives(fresh().state)
    yield lambda: plan.entries({"mounts": mounts.recorded(fresh())}, "/bundle")
    yield lambda: update.merge(update.current(fresh()), RESOURCES)


def process(data: bytes) -> None:
    """The file of ``oci exec --process``."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        folder = Folder("", "/bundle")
        folder.config = FULL
        _guarded(lambda: exec_process.wanted(folder, Invocation("exec", {"process": file.name}, ["c"], "", {})))


def resources(data: bytes) -> None:
    """The file of ``oci update --resources``."""
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()

        def act() -> None:
            given = updating.read(Invocation("update", {"resources": file.name}, ["c"], "", {}))
            updating.check(given)
            update.merge(RESOURCES, given)

        _guarded(act)


def _guarded(act: Callable[[], Any]) -> None:
    try:
        act()
    except (Error, FileNotFoundError):
        pass


def identifier(text: str) -> None:
    """A container's name."""
    try:
        check_id(text)
    except Error:
        return
    assert text.isascii() and "/" not in text and text not in (".", "..", "")


# ---- changing what is good -------------------------------------------------------------------------------------------


def places(value: Any, at: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The ways to all values inside."""
    yield at
    if isinstance(value, dict):
        for key in value:
            yield from places(value[key], (*at, key))
    elif isinstance(value, list):
        for number in range(len(value)):
            yield from places(value[number], (*at, number))


def changed(base: Any, changes: list[tuple[int, Any]]) -> Any:
    """A copy with values replaced: (which place, modulo their number; the value, or LEFT_OUT)."""
    found = copy.deepcopy(base)
    for number, value in changes:
        ways = list(places(found))
        way = ways[number % len(ways)]
        if not way:
            if value is not LEFT_OUT:
                found = copy.deepcopy(value)
            continue
        inner = found
        for step in way[:-1]:
            inner = inner[step]
        if value is LEFT_OUT:
            del inner[way[-1]]
        else:
            inner[way[-1]] = copy.deepcopy(value)
    return found


LEFT_OUT = object()
EDGES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**32 - 1, 2**32, 2**63, 2**64, -(2**63) - 1, 1.5, 1e308, -0.0, "", "/", "..", "a/../b",
    "\0", "x" * 70_000, "\ud800", "é", "\n", "-1", "0x10", "0-3,7", "%n", [], {}, [[]], [None], {"": None}, {"a": {}},
    "/proc/self/fd/7", "CAP_SYS_ADMIN", "SCMP_ACT_NOTIFY", "rbind,ro", ["a"] * 300, [0] * 300,
)  # fmt: skip

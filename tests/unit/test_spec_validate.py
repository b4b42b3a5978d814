"""Every property of the tables in ocimk.spec: types, required ones, null, and findings as such."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from spec_full import DATA, FULL, GONE, changed, errors, everywhere

from ocimk.spec import rare, seccomp, shape, supported, walk
from ocimk.spec.validate import drop_nulls, findings, process_findings, resources_findings

LIB = Path(__file__).parents[2] / "lib"


def test_the_full_configuration_passes():
    assert findings(FULL) == []


def test_the_full_configuration_has_every_property():
    """Else the tests below would not reach it."""

    def properties(table, path):
        if table[0] is shape._rare:
            table = getattr(rare, table[2])
        if table[0] is shape._seccomp:
            table = seccomp.SECCOMP
        if table[0] is walk.record:
            for name, inner in table[2].items():
                yield f"{path}.{name}"
                yield from properties(inner, f"{path}.{name}")
        if table[0] in (walk.array, walk.mapping):
            yield from properties(table[2], f"{path}[]")

    def used(value, path):
        if isinstance(value, dict):
            for name, item in value.items():
                yield f"{path}.{name}"
                yield from used(item, f"{path}.{name}")
                yield from used(item, f"{path}[]")
        for item in value if isinstance(value, list) else ():
            yield from used(item, f"{path}[]")

    missing = set(properties(shape.CONFIG, "")) - set(used(FULL, ""))
    assert {path for path in missing if not path.startswith(".hooks.")} == {".process.commandLine"}


WRONG_TYPES = {
    str: (3, True, ["x"], {}),
    bool: (0, 1, "true"),
    int: ("3", True, 1.0, [], 2**64, -(2**63) - 1),
    list: ({}, "x", 1),
    dict: ([], "x", 1, False),
}


@pytest.mark.parametrize("path", [path for path, _ in everywhere(FULL)])
def test_a_wrong_type_is_found_at_its_place(path):
    """One error, with the very path: nothing before it hides it, nothing follows from it."""
    value = dict(everywhere(FULL))[path]
    for wrong in WRONG_TYPES[type(value)]:
        assert errors(changed((path, wrong))) == [path], wrong


@pytest.mark.parametrize(
    "path", [p for p, v in everywhere(FULL) if isinstance(v, str) and not re.match("annot|process.cap", p)]
)
def test_a_nul_is_found_in_every_string(path):
    value = dict(everywhere(FULL))[path]
    assert errors(changed((path, value + "\0"))) == [path]


REQUIRED = """
ociVersion root root.path process.cwd process.args process.consoleSize.height process.consoleSize.width
process.rlimits[0].type process.rlimits[0].soft process.rlimits[0].hard
process.scheduler.policy process.ioPriority.class mounts[0].destination
mounts[1].uidMappings[0].containerID mounts[1].uidMappings[0].hostID mounts[1].uidMappings[0].size
mounts[1].gidMappings[0].containerID mounts[1].gidMappings[0].hostID mounts[1].gidMappings[0].size
hooks.prestart[0].path hooks.createRuntime[0].path hooks.createContainer[0].path hooks.startContainer[0].path
hooks.poststart[0].path hooks.poststop[0].path
linux.namespaces[1].type
linux.uidMappings[0].containerID linux.uidMappings[0].hostID linux.uidMappings[0].size
linux.gidMappings[0].containerID linux.gidMappings[0].hostID linux.gidMappings[0].size
linux.devices[0].type linux.devices[0].path linux.devices[0].major linux.devices[0].minor
linux.resources.devices[0].allow
linux.resources.blockIO.weightDevice[0].major linux.resources.blockIO.weightDevice[0].minor
linux.resources.hugepageLimits[0].pageSize linux.resources.hugepageLimits[0].limit
linux.resources.network.priorities[0].name linux.resources.network.priorities[0].priority
linux.memoryPolicy.mode linux.personality.domain linux.seccomp.defaultAction
linux.seccomp.syscalls[0].names linux.seccomp.syscalls[0].action linux.seccomp.syscalls[0].args[0].index
linux.seccomp.syscalls[0].args[0].value linux.seccomp.syscalls[0].args[0].op
""".split()
REQUIRED += [
    f"linux.resources.blockIO.throttle{kind}Device[0].{name}"
    for kind in ("ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS")
    for name in ("major", "minor", "rate")
]


@pytest.mark.parametrize("path", REQUIRED)
def test_a_required_property_is_missed(path):
    for value in (GONE, None):
        config = changed((path, value))
        assert errors(config) == [path]
        assert str(findings(config)[0]).startswith(f"{path}: found nothing, ")


NEEDED = re.compile(
    r"linux$|linux.(namespaces|[ug]idMappings|memoryPolicy.nodes|seccomp.listenerPath|resources.rdma.rxe3.hcaObjects)$"
    r"|mounts.1..(source|[ug]idMappings)$|process.scheduler.(runtime|deadline)$"
)
"""Properties that others of the full configuration need."""
FREE = r"^annotations.|.(unified|rdma|timeOffsets|netDevices|sysctl)[.\[][^.]+$"
"""Paths of members with a free name: there null is a value, and a wrong one."""


def is_optional(path):
    required = [re.sub(r"\[\d+\]", "[]", needed) for needed in REQUIRED]
    return path[-1] != "]" and not NEEDED.match(path) and re.sub(r"\[\d+\]", "[]", path) not in required


@pytest.mark.parametrize("path", [path for path, _ in everywhere(FULL) if is_optional(path)])
def test_other_properties_may_be_away_or_null(path):
    """Go reads null as absent; so do we."""
    assert errors(changed((path, GONE))) == []
    assert errors(changed((path, None))) == ([path] if re.search(FREE, path) else [])


def test_unknown_properties_are_ignored():
    """config.md, Extensibility."""
    extra = [
        ("new", 1),
        ("linux.new", []),
        ("process.user.username", 3),
        ("windows", 1),
        ("zos", {}),
        ("freebsd", {}),
    ]
    assert findings(changed(*extra)) == []


def test_every_text_names_what_was_found_and_what_is_allowed():
    config = changed(("linux.namespaces[2].type", 3), ("process.user.uid", 2**40), ("root.readonly", "yes"))
    assert sorted(map(str, findings(config))) == [
        "linux.namespaces[2].type: found 3, a string is required",
        "process.user.uid: found 1099511627776, a whole number from 0 to 4294967294 (an id) is required",
        'root.readonly: found "yes", true or false is required',
    ]


def test_long_values_are_cut():
    text = str(findings(changed(("root.path", ["x" * 1000])))[0])
    assert len(text) < 120


def test_all_is_found_in_one_run():
    paths = [
        "ociVersion",
        "process.cwd",
        "process.rlimits[1].type",
        "mounts[1].source",
        "linux.seccomp.flags[0]",
    ]
    config = changed(*((path, "") for path in paths), ("linux.namespaces[8]", {"type": "pid"}))
    assert set(errors(config)) == {*paths, "linux.namespaces[8].type"}


@pytest.mark.parametrize("config", [None, [], 3, "x", True])
def test_a_configuration_is_an_object(config):
    assert [str(f) for f in findings(config)] == [
        f"{walk.show(config).join(['found ', ''])}, an object is required"
    ]


@pytest.mark.parametrize(
    "path", sorted((DATA / "runtime-spec" / "good").iterdir()), ids=lambda path: path.name
)
def test_good_samples_of_the_specification(path):
    assert errors(json.loads(path.read_text())) == []


@pytest.mark.parametrize(
    ("name", "where"),
    [
        ("linux-hugepage.json", "linux.resources.hugepageLimits[0].pageSize"),
        ("linux-netdevice.json", "linux.netDevices.eth0.name"),
        ("linux-rdma.json", "linux.resources.rdma.mlx5_1.hcaHandles"),
    ],
)
def test_bad_samples_of_the_specification(name, where):
    assert errors(json.loads((DATA / "runtime-spec" / "bad" / name).read_text())) == [where]


def test_a_bare_process():
    assert process_findings(FULL["process"]) == []
    process = changed(("process.cwd", "x"), ("process.rlimits[1].type", "RLIMIT_NOFILE"))["process"]
    assert [f.path for f in process_findings(process)] == ["process.cwd", "process.rlimits[1].type"]
    assert [f.path for f in process_findings([])] == ["process"]


def test_bare_resources():
    assert resources_findings(FULL["linux"]["resources"]) == []
    resources = changed(("linux.resources.pids.limit", "1"))["linux"]["resources"]
    assert [f.path for f in resources_findings(resources)] == ["resources.pids.limit"]


def test_nulls_are_dropped_from_objects_only():
    assert drop_nulls({"a": None, "b": [{"c": None, "d": 0}, None], "e": {}}) == {
        "b": [{"d": 0}, None],
        "e": {},
    }


@pytest.mark.parametrize("path", supported.MISSING)
def test_what_is_not_supported_yet_is_refused(path):
    config = {}
    place = config
    for name in path.split("."):
        place[name] = {}
        place, last = place[name], place
    assert supported.unsupported(config) == []
    last[name] = {"x": 1}
    assert [str(f) for f in supported.unsupported(config)] == [f"{path}: not supported yet by ocimk"]


def test_unsupported_tolerates_nonsense():
    for config in (None, [], {"linux": 3}, {"linux": None}, {}):
        assert supported.unsupported(config) == []


HEAVY = (
    "os re typing json ctypes enum dataclasses pathlib subprocess functools collections stat struct socket "
    "signal contextlib"
)


def test_the_hot_path_imports_nothing_heavy():
    """And the tables of seccomp and of the rare parts only when a configuration has them."""
    script = (
        f"import sys; sys.path.insert(0, {str(LIB)!r})\n"
        "from ocimk.spec import validate, default, state, supported\n"
        "assert validate.findings(default.default_config(False)) == []\n"
        "print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-IS", "-c", script], capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert loaded.isdisjoint(HEAVY.split())
    assert loaded.isdisjoint(
        {"ocimk.spec.seccomp", "ocimk.spec.rare", "ocimk.spec.sysctl", "ocimk.spec.features"}
    )


def test_a_deeply_nested_value_is_shown_in_words():
    value = []
    for _ in range(200_000):
        value = [value]
    assert (
        str(findings({**FULL, "hostname": value})[0])
        == "hostname: found a deeply nested value, a string is required"
    )

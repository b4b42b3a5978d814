"""The import budget: what each command loads, exactly. An import that creeps in costs every caller, every time.

Measured on the program itself: an audit hook (PEP 578) sees every import, also in the processes that it forks.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]

DRIVER = """
import posix, sys
log = posix.open(sys.argv[1], posix.O_WRONLY | posix.O_CREAT | posix.O_APPEND | posix.O_CLOEXEC)
def hook(event, args):
    if event == "import":
        try:
            posix.write(log, args[0].encode() + b"\\n")
        except OSError:
            pass
sys.addaudithook(hook)
sys.argv = sys.argv[2:]
__file__ = sys.argv[0]
exec(compile(open(__file__).read(), __file__, "exec"))
"""

CORE = {"__future__", "_json", "errno", "fcntl", "gc", "select"}
"""Python's own modules that every command may load: all but _json and __future__ are built in."""
CHAIN = CORE | {"_socket", "_struct"}
MAKING = CHAIN | {"_stat"}

BUDGET: dict[str, tuple[set[str], int]] = {
    "create": (MAKING, 90),
    "state": (CORE, 25),
    "start": (CHAIN, 35),
    "exec": (CHAIN, 45),
    "kill": (CORE, 26),
    "list": (CORE | {"pwd"}, 25),
    "delete": (CHAIN, 50),
    "ps": (CORE | {"time"}, 25),
    "pause": (CORE, 25),
    "resume": (CORE, 25),
    "update": (CORE, 35),
    "events": (CORE, 35),
    "run": (MAKING | {"_signal"}, 95),
    "spec": (CORE, 30),
}
"""Python's modules that a command may load beyond the bare interpreter's, and how many of ocimk's."""

DEAR = set("os re typing json ctypes enum dataclasses functools collections subprocess typer".split())
"""Costs milliseconds each; named here so that nobody widens the budget by one of them."""

FEW = {"state": {"ocimk.stages", "ocimk.spec"}, "list": {"ocimk.stages", "ocimk.spec"}, "kill": {"ocimk.spec"}}
"""Parts of ocimk that a command has no business with."""


def imports(tmp_path: Path, *words: str, library: Path = TOP) -> set[str]:
    """The modules that ``oci WORDS`` loads."""
    log = tmp_path / "imports"
    log.unlink(missing_ok=True)
    # The interpreter's own /usr/bin/python3, as the program's first line has it: the tests' may have more modules.
    command = ["/usr/bin/python3", "-ISXutf8", "-c", DRIVER, str(log), str(library / "bin/oci"), *words]
    nothing = subprocess.DEVNULL
    done = subprocess.run(command, env={}, cwd=tmp_path, stdin=nothing, stdout=nothing, check=False, timeout=60)
    assert done.returncode == 0, words
    return set(log.read_text().split())


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    busybox = shutil.which("busybox")
    if os.getuid() != 0 or not busybox:
        pytest.skip("makes a container: needs root and busybox")
    (tmp_path / "rootfs").mkdir()
    shutil.copy(busybox, tmp_path / "rootfs/busybox")
    subprocess.run([TOP / "bin/oci", "spec"], cwd=tmp_path, check=True, env={})
    config = json.loads((tmp_path / "config.json").read_text())
    config["process"] |= {"terminal": False, "args": ["/busybox", "sleep", "1000"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    return tmp_path


def test_every_command_keeps_to_its_budget(bundle: Path) -> None:
    root = ("--root", str(bundle / "run"))
    found = {}
    try:
        living = ("exec a /busybox true", "ps -f json a", "pause a", "resume a", "update --pids-limit 9 a", "events --stats a")
        for words in ("create a", "state a", "start a", *living, "kill a KILL", "list", "delete --force a"):
            found[words.split()[0]] = imports(bundle, *root, *words.split())
        config = (bundle / "config.json").read_text().replace('"1000"', '"0"')
        (bundle / "config.json").write_text(config)
        found["run"] = imports(bundle, *root, "run", "b")
        (bundle / "config.json").unlink()
        found["spec"] = imports(bundle, *root, "spec")
    finally:
        for name in "ab":
            subprocess.run([TOP / "bin/oci", *root, "delete", "--force", name], env={}, check=True)

    assert set(found) == set(BUDGET)
    for command, names in found.items():
        ours = {name for name in names if name.partition(".")[0] == "ocimk"}
        allowed, most = BUDGET[command]
        assert names - ours <= allowed, f"oci {command} loads {sorted(names - ours - allowed)}"
        assert len(ours) <= most, f"oci {command} loads {len(ours)} of our modules: {sorted(ours)}"
        assert not ours & FEW.get(command, set()), command


def test_the_budget_has_nothing_dear_in_it() -> None:
    assert not any(allowed & DEAR for allowed, _ in BUDGET.values())


def test_the_measure_sees_what_creeps_in(tmp_path: Path) -> None:
    """The test above is worth something: a heavy import is noticed, also one inside a function."""
    shutil.copytree(TOP / "bin", tmp_path / "bin")
    shutil.copytree(TOP / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    with open(tmp_path / "lib/ocimk/runtime/list.py", "a") as file:
        file.write("\n\ndef main(invocation):\n    import enum\n    return 0\n")

    assert "enum" in imports(tmp_path, "--root", str(tmp_path), "list", library=tmp_path)


@pytest.mark.parametrize("package", ["cli", "container", "linux", "native", "runtime", "spec", "stages"])
def test_the_packages_that_are_made_without_reading_say_nothing(package: str) -> None:
    """ocimk.cli.door skips their __init__: it must hold a docstring and no more."""
    source = (TOP / "lib/ocimk" / package / "__init__.py").read_text()

    assert compile(source, package, "exec").co_names in ((), ("__doc__",))
    assert not [line for line in source.splitlines() if line and not line.startswith('"""')]


def test_byte_code_that_is_out_of_step_is_not_used(tmp_path: Path) -> None:
    """The quick finder takes byte code only where the interpreter would, too."""
    shutil.copytree(TOP / "bin", tmp_path / "bin")
    shutil.copytree(TOP / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    module = tmp_path / "lib/ocimk/runtime/list.py"
    oci = [str(tmp_path / "bin/oci"), "list"]
    for number in (3, 41, 5):
        module.write_text(f"def main(invocation):\n    return {number}\n")
        os.utime(module, (number, number))
        assert [subprocess.run(oci, env={}, check=False).returncode for _ in range(2)] == [number] * 2
    cached = tmp_path / f"lib/ocimk/runtime/__pycache__/list.cpython-{sys.version_info[0]}{sys.version_info[1]}.pyc"
    if cached.exists():
        cached.write_bytes(b"rubbish")
        assert subprocess.run(oci, env={}, check=False).returncode == 5


def test_a_pack_that_is_out_of_step_is_left_alone_module_by_module(tmp_path: Path) -> None:
    """Also where the package is newer and what is in it is not."""
    shutil.copytree(TOP / "bin", tmp_path / "bin")
    shutil.copytree(TOP / "lib", tmp_path / "lib", ignore=shutil.ignore_patterns("__pycache__"))
    subprocess.run(["/usr/bin/python3", "-ISXutf8", tmp_path / "lib/ocimk/cli/pack.py"], check=True)
    os.utime(tmp_path / "lib/ocimk/stages/cgroups/__init__.py", (1, 1))

    oci = [str(tmp_path / "bin/oci"), "--root", str(tmp_path), "delete", "--force", "nobody"]
    done = subprocess.run(oci, env={}, check=False, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")

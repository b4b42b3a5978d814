"""Hooks of a real container: when, where, with what, and what their failure means (runtime.md, Lifecycle)."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from kit import Bundle, Runtime, alive, await_true

KINDS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
HOST = ("prestart", "createRuntime", "poststart", "poststop")


@pytest.fixture
def seen(bundle: Bundle, tmp_path: Path) -> Path:
    """A folder of the host that is /seen in the container too: hooks write there, wherever they run."""
    place = tmp_path / "seen"
    place.mkdir()
    (bundle.rootfs / "seen").mkdir()
    bundle.bind(place, "/seen")
    return place


def place(kind: str, seen: Path) -> str:
    return "/seen" if kind == "startContainer" else str(seen)


def all_hooks(bundle: Bundle, seen: Path, script: str, **more: Any) -> None:
    """A hook of each kind that runs *script* with its output going to a file named after the kind."""
    for kind in KINDS:
        bundle.hook(kind, f"exec > {place(kind, seen)}/{kind}; {script}", **more)


# ---- order, place, state ---------------------------------------------------------------------------------------------


def test_all_kinds_in_their_order(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    for kind in KINDS:
        for number in (1, 2):
            bundle.hook(kind, f"echo {kind} {number} >> {place(kind, seen)}/order")
    name = oci.create(bundle.script("echo program >> /seen/order; exec sleep 1000"))
    expected = [f"{kind} {number}" for kind in KINDS for number in (1, 2)]
    assert (seen / "order").read_text().splitlines() == expected[:6]
    oci("start", name).ok()
    await_true(lambda: "program" in (seen / "order").read_text(), "the program")
    lines = (seen / "order").read_text().splitlines()
    assert lines[:8] == expected[:8]
    assert sorted(lines[8:]) == sorted(["program", *expected[8:10]])  # poststart runs beside the program
    oci("kill", name, "KILL").ok()
    oci.wait_stopped(name)
    oci("delete", name).ok()
    assert (seen / "order").read_text().splitlines()[11:] == expected[10:]


def test_the_state_on_standard_input(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    bundle.config["annotations"] = {"org.example": 'ä "quoted"\n'}
    all_hooks(bundle, seen, "cat")
    name = oci.create(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    oci("start", name).ok()
    oci("delete", "--force", name).ok()
    statuses = dict(zip(KINDS, ("creating", "creating", "creating", "created", "running", "stopped"), strict=True))
    pids = {"createContainer": 1, "startContainer": 1, "poststop": None}
    for kind in KINDS:
        state = json.loads((seen / kind).read_text())
        assert state["ociVersion"] == bundle.config["ociVersion"]
        assert state["id"] == name
        assert state["bundle"] == str(bundle.path)
        assert state["annotations"] == bundle.config["annotations"]
        assert state["status"] == statuses[kind], kind
        assert (state.get("pid") or None) == pids.get(kind, pid), kind


def test_the_namespaces(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    names = "mnt pid uts ipc net"
    all_hooks(bundle, seen, f"for n in {names}; do readlink /proc/self/ns/$n; done")
    name = oci.create(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    inside = [os.readlink(f"/proc/{pid}/ns/{n}") for n in names.split()]
    outside = [os.readlink(f"/proc/self/ns/{n}") for n in names.split()]
    oci("start", name).ok()
    oci("delete", "--force", name).ok()
    for kind in KINDS:
        assert (seen / kind).read_text().splitlines() == (outside if kind in HOST else inside), kind


def test_the_file_systems(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    """createContainer sees the host's files and the container's mounts, before the root is changed; so do the mounts
    stand for createRuntime, seen through the process."""
    (bundle.rootfs / "etc/mark").write_text("inner\n")
    bundle.mount("/mnt", "tmpfs")
    bundle.hook(
        "createRuntime",
        f"grep -c ' {bundle.rootfs}/mnt ' /proc/$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/')/mountinfo > {seen}/runtime",
    )
    bundle.hook(
        "createContainer",
        f"cat {bundle.rootfs}/etc/mark > {seen}/container; pwd >> {seen}/container; stat -f -c %T {bundle.rootfs}/mnt >> {seen}/container",
    )
    bundle.hook("startContainer", "cat /etc/mark > /seen/start; pwd >> /seen/start")
    oci.tell(bundle, "true")
    assert (seen / "runtime").read_text() == "1\n"
    assert (seen / "container").read_text().splitlines() == ["inner", str(bundle.rootfs), "tmpfs"]
    assert (seen / "start").read_text().splitlines() == ["inner", "/"]


def test_env_and_args(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    for kind in KINDS:
        script = f'exec > {place(kind, seen)}/{kind}; echo "$0|$1|$#"; env'
        hook = {"path": "/bin/sh", "args": ["sh", "-c", script, "zero", "a b", ""], "env": ["A=1", "B=x y"]}
        bundle.config.setdefault("hooks", {})[kind] = [hook]
    oci.run(bundle.script("true"), env={"PATH": "/bin", "SECRET": "1"}).ok()
    for kind in KINDS:
        lines = (seen / kind).read_text().splitlines()
        assert lines[0] == "zero|a b|2", kind
        assert {line for line in lines[1:] if not line.startswith(("PATH=", "PWD=", "SHLVL=", "_="))} == {
            "A=1",
            "B=x y",
        }, kind


def test_without_env_they_have_that_of_their_side(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    for kind in KINDS:
        hook = {"path": "/bin/sh", "args": ["sh", "-c", f"exec > {place(kind, seen)}/{kind}; /usr/bin/env || /bin/env"]}
        bundle.config.setdefault("hooks", {})[kind] = [hook]
    bundle.process["env"] = ["PATH=/bin", "INNER=1"]
    oci.run(bundle.script("true"), env={"PATH": "/bin:/usr/bin", "OUTER": "1"}).ok()
    for kind in KINDS:
        lines = (seen / kind).read_text().splitlines()
        assert not [line for line in lines if line.startswith("OCI_")], kind
        assert ("OUTER=1" in lines) == (kind in HOST), kind
        assert not [line for line in lines if line.startswith("LC_")], kind  # the interpreter's own
        assert ("INNER=1" in lines) == (kind == "startContainer"), kind


def test_without_args_the_path_is_the_only_word(oci: Runtime, bundle: Bundle, seen: Path, tmp_path: Path) -> None:
    script = tmp_path / "hook"
    script.write_text(f'#!/bin/sh\necho "$0 $#" > {seen}/words\n')
    script.chmod(0o755)
    bundle.config["hooks"] = {"createRuntime": [{"path": str(script)}]}
    oci.tell(bundle, "true")
    assert (seen / "words").read_text() == f"{script} 0\n"


def test_a_state_too_large_for_a_pipe(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    """200 kB of annotations; a hook that reads nothing of it is no failure."""
    bundle.config["annotations"] = {f"org.example.{number}": "x" * 2000 for number in range(100)}
    all_hooks(bundle, seen, "wc -c")
    for kind in KINDS:
        bundle.hook(kind, "true")
    oci.tell(bundle, "true")
    for kind in KINDS:
        assert int((seen / kind).read_text()) > 200_000, kind


def test_hooks_that_say_much(oci: Runtime, bundle: Bundle) -> None:
    for kind in KINDS:
        bundle.hook(
            kind, "i=0; while [ $i -lt 3000 ]; do echo $i a line of some words to fill a pipe; i=$((i+1)); done"
        )
    result = oci.run(bundle.script("echo program")).ok()
    assert (result.out, result.err) == ("program\n", "")


# ---- timeouts --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_timeout_kills_the_hook_and_its_children(oci: Runtime, bundle: Bundle, seen: Path, kind: str) -> None:
    bundle.hook(kind, f"sleep 999 & echo $! > {place(kind, seen)}/child; echo waiting; wait", timeout=1)
    before = time.monotonic()
    result = oci.run(bundle.script("echo never"))
    assert 1 <= time.monotonic() - before < 5
    result.refused(f"{kind} hook #0", "timeout", "1", "waiting")
    assert result.out == ""
    if kind == "createRuntime":
        assert not alive(int((seen / "child").read_text()))
    assert oci.names() == []


def test_a_hook_within_its_time(oci: Runtime, bundle: Bundle) -> None:
    for kind in KINDS:
        bundle.hook(kind, "true", timeout=5)
    assert oci.tell(bundle, "echo fine").out == "fine\n"


def test_a_hook_that_leaves_a_daemon(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    """What it leaves holds its output open, and is not waited for."""
    bundle.hook("createRuntime", f"sleep 999 & echo $! > {seen}/child")
    before = time.monotonic()
    oci.tell(bundle, "true")
    assert time.monotonic() - before < 5
    child = int((seen / "child").read_text())
    assert alive(child)
    os.kill(child, 9)


# ---- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["prestart", "createRuntime", "createContainer"])
def test_a_failure_before_created(oci: Runtime, bundle: Bundle, seen: Path, kind: str) -> None:
    """Step 12 follows: destroyed, and the poststop hooks are run."""
    bundle.hook(kind, "echo some words >&2; exit 3")
    bundle.hook(kind, f"touch {place(kind, seen)}/second")
    bundle.hook("poststop", f"cat > {seen}/poststop")
    name = oci.id()
    oci("create", "--bundle", bundle.save(), name).refused(f"{kind} hook #0", "/bin/sh", "exit status 3", "some words")
    assert oci.names() == []
    assert not (seen / "second").exists()
    assert json.loads((seen / "poststop").read_text())["status"] == "stopped"
    oci("state", name).refused("does not exist")


def test_a_failing_start_container_hook(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    bundle.hook("startContainer", "echo some words; exit 4")
    bundle.hook("startContainer", "touch /seen/second")
    bundle.hook("poststart", f"touch {seen}/poststart")
    bundle.hook("poststop", f"touch {seen}/poststop")
    name = oci.create(bundle.script("touch /seen/program"))
    pid = oci.pid(name)
    oci("start", name).refused("startContainer hook #0", "exit status 4", "some words")
    assert not alive(pid)
    assert sorted(os.listdir(seen)) == ["poststop"]
    assert oci.names() == []


def test_a_start_container_hook_that_is_not_there(oci: Runtime, bundle: Bundle) -> None:
    bundle.config["hooks"] = {"startContainer": [{"path": "/no/hook"}]}
    name = oci.create(bundle)
    oci("start", name).refused("startContainer hook #0", "/no/hook")
    assert oci.names() == []


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer"])
def test_a_hook_that_is_not_there(oci: Runtime, bundle: Bundle, kind: str) -> None:
    bundle.config["hooks"] = {kind: [{"path": "/no/hook"}]}
    oci.run(bundle).refused(f"{kind} hook #0", "/no/hook", "no such file or directory")
    assert oci.names() == []


def test_a_hook_killed_by_a_signal(oci: Runtime, bundle: Bundle) -> None:
    oci.run(bundle.hook("createRuntime", "kill -9 $$")).refused("createRuntime hook #0", "signal 9")


@pytest.mark.parametrize("version", ["1.0.2", "1.2.1"])
def test_a_failing_poststart_hook_before_1_3_0(oci: Runtime, bundle: Bundle, seen: Path, version: str) -> None:
    """A warning, and the lifecycle continues as if it had succeeded."""
    bundle.config["ociVersion"] = version
    bundle.hook("poststart", "echo some words; exit 5")
    name = oci.create(bundle.args("sleep", "1000"))
    result = oci("start", name).ok()
    assert "poststart hook #0" in result.err and "exit status 5" in result.err and result.err.count("\n") == 1
    assert oci.state(name)["status"] == "running"


def test_a_failing_poststart_hook_since_1_3_0(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    """An error: the container is stopped and destroyed, the poststop hooks are run."""
    bundle.config["ociVersion"] = "1.3.0"
    bundle.hook("poststart", "echo some words; exit 5")
    bundle.hook("poststop", f"touch {seen}/poststop")
    name = oci.create(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    oci("start", name).refused("poststart hook #0", "exit status 5", "some words")
    assert not alive(pid)
    assert (seen / "poststop").exists()
    assert oci.names() == []


def test_a_failing_poststart_hook_of_run(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    bundle.hook("poststart", "exit 5").hook("poststop", f"echo x >> {seen}/poststop")
    oci.run(bundle.args("sleep", "1000")).refused("poststart hook #0")
    assert (seen / "poststop").read_text() == "x\n"
    assert oci.names() == []


def test_a_failing_poststop_hook_is_a_warning(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    bundle.hook("poststop", "echo some words; exit 6").hook("poststop", f"touch {seen}/second")
    name = oci.create(bundle)
    result = oci("delete", name).ok()
    assert "poststop hook #0" in result.err and "exit status 6" in result.err and result.err.count("\n") == 1
    assert (seen / "second").exists()
    assert oci.names() == []


def test_poststop_hooks_run_when_all_is_gone(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    name = oci.id()
    bundle.hook("poststop", f"ls {oci.root} > {seen}/folders; find /sys/fs/cgroup -name {name} > {seen}/cgroups")
    oci.run(bundle.script("true"), name=name).ok()
    assert (seen / "folders").read_text() == ""
    assert (seen / "cgroups").read_text() == ""


def test_a_failure_before_the_process_is_no_matter_for_poststop(oci: Runtime, bundle: Bundle, seen: Path) -> None:
    """Step 2 failed: as if create had never been called."""
    bundle.hook("poststop", f"touch {seen}/poststop").hook("createRuntime", f"touch {seen}/runtime")
    bundle.linux["resources"]["unified"] = {"no.such": "1"}
    bundle.linux["namespaces"][0] = {"type": "pid", "path": "/no/such"}
    assert oci.run(bundle).status == 1
    assert os.listdir(seen) == []

"""Hooks and annotations: when each hook runs, where, with what on its standard input, and what its failure means."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kit import Bundle, Runtime
from ocimk.spec import tables

RUNTIME_SIDE = ("prestart", "createRuntime", "poststart", "poststop")
STATUS = {"startContainer": "created", "poststart": "running", "poststop": "stopped"}


def noted(bundle: Bundle, place: Path) -> Bundle:
    """Each kind of hook adds a line to the log: its kind and the namespaces it is in; its input goes to a file."""
    bundle.writable().script("echo program >> /log/order")
    place.mkdir()
    bundle.bind(place, "/log")
    for kind in tables.HOOKS:
        log = "/log" if kind == "startContainer" else str(place)
        name = f"{kind} $(readlink /proc/self/ns/uts) $(readlink /proc/self/ns/mnt)"
        bundle.hook(kind, f"echo {name} >> {log}/order; cat > {log}/{kind}")
    return bundle


def test_order_place_and_state(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    bundle.config["annotations"] = {"org.example.key": "value"}
    name = oci.id()
    oci.run(noted(bundle, log), name=name).ok()
    lines = [line.split() for line in (log / "order").read_text().splitlines()]
    # The program has been started when poststart runs: which of the two writes first is open.
    found = [line[0] for line in lines]
    assert [kind for kind in found if kind != "program"] == list(tables.HOOKS)
    assert found.index("program") > found.index("startContainer")
    ours = [str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("uts", "mnt")]
    for kind, *namespaces in lines:
        if kind in RUNTIME_SIDE:
            assert namespaces == ours, kind
        elif namespaces:
            assert not set(namespaces) & set(ours), kind
    for kind in tables.HOOKS:
        state = json.loads((log / kind).read_text())
        assert state["id"] == name
        assert state["status"] == STATUS.get(kind, "creating"), kind
        assert state["bundle"] == str(bundle.path)
        assert state["annotations"] == {"org.example.key": "value"}
        assert state["ociVersion"] == bundle.config["ociVersion"]
        pid = state.get("pid", 0)
        inside = kind in ("createContainer", "startContainer")
        assert (pid == 1) if inside else (pid == 0) if kind == "poststop" else pid > 1, kind


def test_the_root_is_the_hosts_until_the_container_starts(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    """createContainer finds its program on the host, startContainer in the container."""
    bundle.writable().hook("createContainer", f"ls -d {bundle.rootfs} > {tmp_path}/host")
    bundle.hook("startContainer", "ls -d /etc/passwd > /tmp/own")
    oci.run(bundle.args("true")).ok()
    assert (tmp_path / "host").read_text() == f"{bundle.rootfs}\n"
    assert (bundle.rootfs / "tmp/own").read_text() == "/etc/passwd\n"


def test_args_env_and_several_hooks(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    log = tmp_path / "log"
    for word in ("one", "two"):
        bundle.hook("createRuntime", f'echo "$0 $1 $KEY $HOME" >> {log}')
        bundle.config["hooks"]["createRuntime"][-1] |= {"env": [f"KEY={word}", "PATH=/bin"]}
        bundle.config["hooks"]["createRuntime"][-1]["args"] += ["zero", f"arg {word}"]
    oci_called.run(bundle.args("true")).ok()
    assert log.read_text() == "zero arg one one \nzero arg two two \n"


@pytest.mark.parametrize("kind", [kind for kind in tables.HOOKS if kind != "poststop"])
def test_a_failure_ends_the_container(oci: Runtime, bundle: Bundle, tmp_path: Path, kind: str) -> None:
    bundle.writable().args("sleep", "1000")
    bundle.hook(kind, "echo because >&2; exit 3")
    bundle.hook("poststop", f"echo after > {tmp_path}/after")
    name = oci.id()
    done = oci.run(bundle, "--detach", name=name)
    assert done.status != 0
    assert f"{kind} hook #0" in done.err
    oci("delete", "--force", name)
    assert (tmp_path / "after").read_text() == "after\n"


def test_a_failure_of_poststop_is_a_warning(oci: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.hook("poststop", "exit 3").hook("poststop", f"echo second > {tmp_path}/second")
    done = oci.run(bundle.args("true")).ok()
    assert "warning" in done.err
    assert "poststop hook #0" in done.err
    assert (tmp_path / "second").read_text() == "second\n"


@pytest.mark.parametrize("kind", ["createRuntime", "createContainer", "startContainer"])
def test_a_hook_that_takes_too_long_is_killed(oci_called: Runtime, bundle: Bundle, kind: str) -> None:
    bundle.hook(kind, "exec sleep 1000", timeout=1)
    done = oci_called.run(bundle.args("true"))
    assert done.status != 0
    assert f"{kind} hook #0" in done.err


def test_annotations_of_anybody_change_nothing(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"run.oci.unknown": "1", "org.example": ""}
    assert oci_called.tell(bundle, "echo runs").out == "runs\n"

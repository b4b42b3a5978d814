"""oci mounts add and remove: the mounts of a container that runs, seen from inside and from the host."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from test_exec_places import of_nobody
from test_nesting import NOBODY, rootless

from kit import Bundle, Runtime, mount_points

__all__ = ["rootless"]  # the fixture


@pytest.fixture
def add(oci_called: Runtime, tmp_path: Path) -> Any:
    def call(action: str, name: str, *mounts: dict[str, Any]) -> Any:
        file = tmp_path / "mounts.json"
        file.write_text(json.dumps(mounts))
        return oci_called("mounts", action, name, file)

    return call


def bind(source: object, destination: str, *options: str) -> dict[str, Any]:
    return {"source": str(source), "destination": destination, "options": ["bind", *options]}


def within(oci: Runtime, name: str, script: str) -> str:
    """What a shell of the container's says: entered from outside, since the test is not of exec."""
    pid = oci.pid(name)
    words = ["nsenter", "--target", str(pid), "--mount", "--pid", "--root", "--wd=/"]
    if os.readlink(f"/proc/{pid}/ns/user") != os.readlink("/proc/self/ns/user"):
        words.append("--user")
    done = subprocess.run([*words, "/bin/sh", "-c", script], capture_output=True, text=True, timeout=30)
    assert done.returncode == 0, done
    return done.stdout


@pytest.fixture(params=["plain", "user namespace"])
def running(request: pytest.FixtureRequest, oci_called: Runtime, bundle: Bundle) -> str:
    if request.param != "plain":
        bundle.user_namespace()
        os.chown(bundle.path / "rootfs", 100000, 100000)
    return oci_called.detached(bundle.writable().args("sleep", "1000"))


def test_a_bind_mount_comes_and_goes(oci_called: Runtime, running: str, add: Any, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o755)
    (source / "file").write_text("hello")
    before = mount_points()
    add("add", running, bind(source, "/new/place"), bind(source / "file", "/one", "ro", "nodev")).ok()
    assert within(oci_called, running, "cat /new/place/file /one") == "hellohello"
    assert "ro,nodev" in within(oci_called, running, "grep ' /one ' /proc/self/mountinfo")
    assert mount_points() == before
    kept = json.loads((oci_called.root / running / "mounts.json").read_text())
    assert [mount["destination"] for mount in kept] == ["/new/place", "/one"]
    add("remove", running, {"destination": "/one"}).ok()
    assert within(oci_called, running, "cat /one; ls /new/place") == "file\n"
    add("remove", running, {"destination": "/new/place", "type": "whatever"}).ok()
    assert not (oci_called.root / running / "mounts.json").exists()
    assert within(oci_called, running, "ls /new/place") == ""


def test_what_is_mounted_on_the_source_later_stays_outside(
    oci_called: Runtime, running: str, add: Any, tmp_path: Path
) -> None:
    """And what the container mounts does not appear on the host: the copy is a slave."""
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    add("add", running, bind(source, "/new", "rbind")).ok()
    assert "shared:" not in within(oci_called, running, "grep ' /new ' /proc/self/mountinfo")


def test_links_and_mappings_as_crun_says_them(
    oci_called: Runtime, running: str, add: Any, tmp_path: Path, bundle: Bundle
) -> None:
    source = tmp_path / "source"
    source.mkdir(mode=0o755)
    (source / "file").touch()
    (source / "link").symlink_to("nowhere")
    (bundle.rootfs / "there").symlink_to("/etc")
    base = 100000 if "user" in json.dumps(bundle.linux["namespaces"]) else 0
    word = f"idmap=uids=0-{base + 5}-1;gids=0-{base + 6}-1"
    links = [bind(source / "link", "/made", "copy-symlink"), bind(source / "file", "/there", "dest-nofollow")]
    links.append(bind(source / "link", "/itself", "src-nofollow"))
    add("add", running, bind(source, "/mapped", word), *links).ok()
    assert within(oci_called, running, "stat -c %u:%g /mapped/file; readlink /made; readlink /itself; stat -c %F /there") == (
        "5:6\nnowhere\nnowhere\nregular empty file\n"
    )
    for place in ("/mapped", "/itself", "/there"):
        add("remove", running, {"destination": place}).ok()
    assert within(oci_called, running, "readlink /there; test -f /itself && echo file") == "/etc\nfile\n"
    add("remove", running, {"destination": "/made"}).refused("/made: unmount")


def test_new_filesystems(oci_called: Runtime, running: str, add: Any) -> None:
    mounts = [
        {"destination": "/t", "type": "tmpfs", "source": "tmpfs", "options": ["size=64k", "mode=1777", "ro"]},
        {"destination": "/p", "type": "proc", "source": "proc"},
        {"destination": "/q", "type": "mqueue", "source": "mqueue"},
    ]
    add("add", running, *mounts).ok()
    assert within(oci_called, running, "stat -f -c %T /t; cat /p/1/comm; grep ' /t ' /p/1/mountinfo").split()[:2] == [
        "tmpfs",
        "sleep",
    ]
    assert "ro," in within(oci_called, running, "grep ' /t ' /proc/1/mountinfo")


def test_into_a_created_container(oci_called: Runtime, bundle: Bundle, add: Any, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("early")
    name = oci_called.create(bundle.script("cat /data; sleep 1000"))
    add("add", name, bind(tmp_path / "data", "/dev/shm/data")).ok()
    assert within(oci_called, name, "cat /dev/shm/data") == "early"


WRONG = [
    ([{"destination": "/x", "source": "/no/such", "options": ["bind"]}], "mounts[0].source /no/such"),
    ([{"destination": "/x"}], "mounts[0]"),
    ([{"destination": "/proc/1", "source": "/", "options": ["bind"]}], "inside /proc"),
    ([{"destination": "/", "type": "tmpfs"}], "root"),
    ([{"destination": "/x", "type": "no-such-fs"}], "no-such-fs"),
    ([{"destination": "/x", "type": "cgroup2"}], "cgroup"),
]


@pytest.mark.parametrize(("mounts", "words"), WRONG, ids=[words for _, words in WRONG])
def test_all_or_none(
    oci_called: Runtime, bundle: Bundle, add: Any, mounts: list[dict[str, Any]], words: str
) -> None:
    name = oci_called.detached(bundle.writable().args("sleep", "1000"))
    before = within(oci_called, name, "cat /proc/self/mountinfo")
    good = {"destination": "/good", "type": "tmpfs", "source": "tmpfs"}
    index = "[1]" if "[0]" in words else ""
    add("add", name, good, *mounts).refused(words.replace("[0]", index))
    assert within(oci_called, name, "cat /proc/self/mountinfo") == before
    assert not (oci_called.root / name / "mounts.json").exists()


def test_a_link_in_the_way_does_not_lead_out(oci_called: Runtime, bundle: Bundle, add: Any, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    name = oci_called.detached(bundle.writable().args("sleep", "1000"))
    within(oci_called, name, f"ln -s {outside} /link; ln -s ../../../../../..{outside} /up")
    (tmp_path / "data").mkdir()
    add("add", name, bind(tmp_path / "data", "/link/a"), bind(tmp_path / "data", "/up/b")).ok()
    assert list(outside.iterdir()) == []
    assert within(oci_called, name, f"ls {outside}").split() == ["a", "b"]


def test_without_root(rootless: Runtime, bundle: Bundle) -> None:
    of_nobody(rootless, bundle).writable()
    data = rootless.place / "data"
    data.write_text("of nobody")
    file = rootless.place / "mounts.json"
    file.write_text(json.dumps([bind(data, "/data", "ro"), {"destination": "/t", "type": "tmpfs", "source": "tmpfs"}]))
    bundle.args("sleep", "1000").save()
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", bundle.path], check=True)
    name = rootless.detached(bundle)
    rootless("mounts", "add", name, file).ok()
    assert rootless("exec", name, "sh", "-c", "cat /data; stat -f -c %T /t").ok().out == "of nobodytmpfs\n"
    rootless("mounts", "remove", name, file).ok()
    assert rootless("exec", name, "cat", "/data").ok().out == ""


def test_what_cannot_be(oci_called: Runtime, bundle: Bundle, add: Any, tmp_path: Path) -> None:
    name = oci_called.detached(bundle.args("sleep", "1000"))
    add("remove", name, {"destination": "/etc"}).refused("mounts[0] /etc", "nothing is mounted there")
    add("remove", name, {"destination": "/"}).refused("root cannot be unmounted")
    add("alter", name).refused("unknown command alter")
    oci_called("mounts", "add", name, "/no/such/file").refused("/no/such/file")
    (tmp_path / "mounts.json").write_text("{}")
    oci_called("mounts", "add", name, tmp_path / "mounts.json").refused("an array of mounts is required")
    oci_called("kill", name, "KILL").ok()
    oci_called.wait_stopped(name)
    add("add", name, {"destination": "/t", "type": "tmpfs"}).refused("container not running")
    add("add", "nobody").refused("container does not exist")


def test_spec_into_a_file(oci_called: Runtime, tmp_path: Path) -> None:
    told = oci_called("spec", "--file", "/dev/stdout").ok()
    assert told.json["ociVersion"]
    for _ in range(2):
        oci_called("spec", "-b", tmp_path, "-f", "other.json").ok()
    assert json.loads((tmp_path / "other.json").read_text()) == told.json

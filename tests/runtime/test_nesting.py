"""Cgroups within cgroups: those that a container makes, containers in containers, parents that cannot have children,
and users who may make none. Where it says so, on a host whose only hierarchy is a cgroup2, made by mounts."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from properties_kit import with_python
from test_live import group

from kit import CLEAN, OCI, TREE, Bundle, Runtime, await_true, cgroups_of, wait_gone
from ocimk.linux import capability, cgroup

PURE = "umount -R /sys/fs/cgroup && mount -t cgroup2 none /sys/fs/cgroup && exec \"$@\""


class OnV2(Runtime):
    """The runtime on a host where /sys/fs/cgroup is a cgroup2."""

    def argv(self, *words: object) -> list[str]:
        command = super().argv(*words)
        return command if cgroup.mode() == "v2" else ["unshare", "-m", "--propagation", "private", "sh", "-c", PURE, "sh", *command]


@pytest.fixture
def v2(tmp_path: Path) -> Iterator[Runtime]:
    """Its root cgroup is left with the controllers that it had."""
    root = cgroup.ROOT if cgroup.mode() == "v2" else cgroup.UNIFIED
    if not os.path.isdir(root):
        pytest.skip("the kernel's cgroup2 is mounted nowhere")
    before = cgroup.controllers(root, "cgroup.subtree_control")
    runtime = OnV2(tmp_path)
    yield runtime
    left = runtime.clean()
    for name in set(cgroup.controllers(root, "cgroup.subtree_control")) - set(before):
        (Path(root) / "cgroup.subtree_control").write_text(f"-{name}")
    assert not left, f"left behind: {left}"


def writable_cgroup(bundle: Bundle) -> Bundle:
    """Let the container write to its cgroup, which is all that it sees."""
    bundle.namespace("cgroup")
    for entry in bundle.config["mounts"]:
        if entry["destination"] == "/sys/fs/cgroup":
            entry["options"].remove("ro")
    return bundle


def host_place(path: Path) -> Path:
    """Where this host sees a cgroup2 that was at /sys/fs/cgroup itself."""
    return path if cgroup.mode() == "v2" else Path(cgroup.UNIFIED) / path.relative_to(cgroup.ROOT)


# ---- sub-cgroups of the container ------------------------------------------------------------------------------------


def test_the_containers_root_owns_what_is_delegated(v2: Runtime, bundle: Bundle) -> None:
    writable_cgroup(bundle).user_namespace()
    script = (
        "mkdir /sys/fs/cgroup/sub && echo 0 > /sys/fs/cgroup/sub/cgroup.procs && grep ^0: /proc/self/cgroup;"
        "for f in cgroup.freeze cgroup.kill cgroup.max.depth; do (echo 0 > /sys/fs/cgroup/$f) 2>/dev/null && echo $f; done;"
        "for f in . cgroup.procs cgroup.threads cgroup.subtree_control cgroup.type; do stat -c '%u %n' /sys/fs/cgroup/$f; done"
    )
    assert v2.tell(bundle, script).lines == [
        "0::/sub",
        "0 /sys/fs/cgroup/.",
        *(f"0 /sys/fs/cgroup/{name}" for name in ("cgroup.procs", "cgroup.threads", "cgroup.subtree_control")),
        "65534 /sys/fs/cgroup/cgroup.type",
    ]


def test_nothing_is_given_away_where_the_container_cannot_write(v2: Runtime, bundle: Bundle) -> None:
    bundle.user_namespace()
    assert v2.tell(bundle, "stat -c %u /sys/fs/cgroup/cgroup.procs").out == "65534\n"


def test_what_the_container_made_goes_with_it_and_what_was_there_stays(v2: Runtime, bundle: Bundle) -> None:
    name = v2.id()
    mine = host_place(Path(cgroup.ROOT)) / f"{name}-above"
    bundle.linux["cgroupsPath"] = f"/{mine.name}/{name}"
    script = "mkdir -p /sys/fs/cgroup/a/b /sys/fs/cgroup/c; sleep 1000 & echo $! > /sys/fs/cgroup/a/b/cgroup.procs; wait"
    (mine / "other").mkdir(parents=True)
    try:
        v2.quiet("run", "-d", "--bundle", writable_cgroup(bundle).script(script).save(), name).ok()
        await_true(lambda: (mine / name / "a/b/cgroup.procs").exists() and (mine / name / "a/b/cgroup.procs").read_text(), "it made them")
        assert len(v2("ps", "-f", "json", name).ok().json) == 2
        v2("delete", "--force", name).ok()
        assert [place.name for place in mine.iterdir() if place.is_dir()] == ["other"]
    finally:
        (mine / "other").rmdir()
        mine.rmdir()


def test_delete_waits_for_a_cgroup_that_is_busy_and_names_who_stays(v2: Runtime, bundle: Bundle) -> None:
    """A stranger in the container's cgroup that ends soon is waited for; one that stays is named and not killed."""
    name = v2.detached(bundle.args("sleep", "1000"))
    place = host_place(group(v2, name, ""))
    with subprocess.Popen(["sleep", "1000"]) as stranger:
        (place / "cgroup.procs").write_text(str(stranger.pid))
        v2("kill", name, "KILL").ok()
        v2.wait_stopped(name)
        v2("delete", name).refused(f"still in use by {stranger.pid} (sleep)", "delete --force")
        assert stranger.poll() is None
        with subprocess.Popen(v2.argv("delete", name), env=CLEAN) as waiting:
            time.sleep(0.3)
            assert waiting.poll() is None
            stranger.kill()
            assert waiting.wait(10) == 0
    assert cgroups_of([name]) == []


# ---- containers in containers ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["v2", "oci_called"])
def test_a_container_in_a_container(request: pytest.FixtureRequest, bundle: Bundle, tmp_path: Path, busybox: Path, default_config: str, host: str) -> None:
    """Made, paused, listed and removed in there; its cgroup is below the outer one's."""
    outer: Runtime = request.getfixturevalue(host)
    inner = Bundle(tmp_path / "inner", default_config, busybox)
    inner.args("sleep", "1000").save()
    writable_cgroup(with_python(bundle)).bind(TREE, str(TREE), "ro").bind(inner.path, "/inner")
    for kind in ("bounding", "effective", "permitted"):
        bundle.process["capabilities"][kind] = sorted(capability.NUMBERS)
    bundle.linux["maskedPaths"] = bundle.linux["readonlyPaths"] = []
    bundle.linux["resources"]["devices"] = [{"allow": True, "access": "rwm"}]
    (bundle.rootfs / "inner").mkdir()
    TREE_IN = str(TREE).lstrip("/")
    (bundle.rootfs / TREE_IN).mkdir(parents=True, exist_ok=True)
    (bundle.rootfs / "bin/python3").symlink_to("/usr/bin/python3")
    oci = f"{TREE}/bin/oci --root /tmp/run"
    script = (
        f"set -e; {oci} run -d --bundle /inner nested </dev/null >/dev/null 2>/tmp/err || {{ cat /tmp/err; exit 1; }};"
        f"{oci} ps -f json nested; {oci} pause nested; {oci} state nested | grep status; {oci} resume nested;"
        f"touch /tmp/there; while [ ! -e /tmp/seen ]; do sleep 0.05; done;"
        f"{oci} delete --force nested; ls /tmp/run; find /sys/fs/cgroup -name nested"
    )
    name = outer.id()
    running = outer.begin("run", "--bundle", bundle.script(script).save(), name)
    try:
        await_true(lambda: (bundle.rootfs / "tmp/there").exists() or running.poll() is not None, "the inner one runs")
        below = [place for place in cgroups_of(["nested"]) if f"/{name}/" in place]
        (bundle.rootfs / "tmp/seen").touch()
        told, problems = running.communicate(timeout=30)
    finally:
        running.kill()
    lines = told.decode().splitlines()
    assert running.returncode == 0, (told, problems)
    assert below, "the inner cgroup is below the outer one"
    assert lines[1].split() == ['"status":', '"paused",'] and len(lines) == 2, lines


# ---- parents that cannot have it -------------------------------------------------------------------------------------


@pytest.fixture
def threaded(v2: Runtime) -> Iterator[Path]:
    """A cgroup2 with a threaded child: all others below it are threaded or invalid."""
    top = host_place(Path(cgroup.ROOT)) / v2.id()
    (top / "thread").mkdir(parents=True)
    (top / "thread/cgroup.type").write_text("threaded")
    yield top
    (top / "thread").rmdir()
    top.rmdir()


def test_below_a_threaded_cgroup_the_container_is_threaded(v2: Runtime, bundle: Bundle, threaded: Path) -> None:
    name = v2.id()
    bundle.linux["cgroupsPath"] = f"/{threaded.name}/{name}"
    v2.quiet("run", "-d", "--bundle", bundle.args("sleep", "1000").save(), name).ok()
    assert (threaded / name / "cgroup.type").read_text() == "threaded\n"
    pid = v2.pid(name)
    assert v2("ps", "-f", "json", name).ok().json == [pid]
    v2("kill", "--all", name, "KILL").ok()
    wait_gone(pid)
    v2("delete", name).ok()


def test_below_a_threaded_cgroup_a_limit_that_needs_a_domain_is_told(v2: Runtime, bundle: Bundle, threaded: Path) -> None:
    name = v2.id()
    bundle.linux["cgroupsPath"] = f"/{threaded.name}/{name}"
    bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 0}]
    v2.run(bundle, name=name).refused("it is 'domain invalid' and the hugetlb controller needs a domain", "linux.cgroupsPath")
    assert not (threaded / name).exists()


def test_an_invalid_cgroup_that_was_there_is_told(v2: Runtime, bundle: Bundle, threaded: Path) -> None:
    place = threaded / v2.id()
    place.mkdir()
    bundle.linux["cgroupsPath"] = f"/{threaded.name}/{place.name}"
    try:
        v2.run(bundle).refused(str(place.name), "threaded mode or in an invalid state, see cgroup.type")
    finally:
        place.rmdir()


def test_a_parent_with_processes_cannot_have_controllers_for_its_children(v2: Runtime, bundle: Bundle) -> None:
    if "hugetlb" not in cgroup.controllers(cgroup.ROOT if cgroup.mode() == "v2" else cgroup.UNIFIED):
        pytest.skip("hugetlb is not the cgroup2's")
    name = v2.id()
    top = host_place(Path(cgroup.ROOT)) / f"{name}-busy"
    top.mkdir()
    bundle.linux["cgroupsPath"] = f"/{top.name}/{name}"
    with subprocess.Popen(["sleep", "1000"]) as busy:
        (top / "cgroup.procs").write_text(str(busy.pid))
        try:
            assert v2.run(bundle.args("true"), name=name).status == 0, "without a limit there is no need for one"
            bundle.linux["resources"]["hugepageLimits"] = [{"pageSize": "2MB", "limit": 0}]
            v2.run(bundle, name=name).refused("hugepageLimits[0]", "the hugetlb controller is not switched on", "without processes of its own")
        finally:
            busy.kill()
            busy.wait()
            top.rmdir()


# ---- who may not -----------------------------------------------------------------------------------------------------

NOBODY = 65534


USER = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]


class Rootless(Runtime):
    """The runtime as a user who may make no cgroup."""

    def argv(self, *words: object) -> list[str]:
        return [*USER, *super().argv(*words)]


class RootlessOnV2(OnV2):
    """The same where /sys/fs/cgroup is a cgroup2."""

    def argv(self, *words: object) -> list[str]:
        command = super().argv(*words)
        at = command.index(OCI)
        return [*command[:at], *USER, *command[at:]]


@pytest.fixture(params=[Rootless, RootlessOnV2])
def rootless(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Runtime]:
    place = tmp_path / "nobody"
    place.mkdir()
    os.chown(place, NOBODY, NOBODY)
    for part in (*tmp_path.parents, tmp_path):
        if os.stat(part).st_uid == os.getuid() and part != Path("/"):
            part.chmod(os.stat(part).st_mode | 0o011)
    runtime: Runtime = request.param(place)
    yield runtime
    assert runtime.clean() == []


def test_a_user_without_a_cgroup_of_his_own(rootless: Runtime, bundle: Bundle) -> None:
    """What asks for no limit works, what asks for one fails and names it."""
    spec = bundle.path / "rootless"
    spec.mkdir()
    os.chown(spec, NOBODY, NOBODY)
    rootless("spec", "--rootless", "--bundle", spec).ok()
    bundle.config = json.loads((spec / "config.json").read_text())
    bundle.process["terminal"] = False
    bundle.args("echo", "fine")
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", bundle.path], check=True)
    assert rootless.run(bundle).ok().out == "fine\n"
    bundle.linux.setdefault("resources", {})["pids"] = {"limit": 5}
    told = rootless.run(bundle).refused("linux.resources.pids.limit: pids.max cannot be set", "ask for no limit")
    assert "no cgroup" in told
    del bundle.linux["resources"]["pids"]
    name = rootless.detached(bundle.args("sleep", "1000"))
    for words in (("ps",), ("pause",), ("update", "--pids-limit", "5"), ("events", "--stats"), ("events",)):
        rootless(*words, name).refused("no")
    rootless("kill", "--all", name, "KILL").ok()
    rootless.wait_stopped(name)

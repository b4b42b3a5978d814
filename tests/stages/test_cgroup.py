"""oci-cgroup on v1 hierarchies and a cgroup2 beside them: made, joined, removed, for real."""

from __future__ import annotations

import os
import subprocess

import pytest
from cgroup_world import (
    apart,
    applied,
    clean,
    fresh_name,
    make_folder,
    mount,
    needs_hybrid,
    needs_root,
    paths_of,
    read,
    result,
    spawn,
)

from ocimk.errors import Error, Usage
from ocimk.linux import cgroup, cgroup_procs
from ocimk.stages import cgroup as stage
from ocimk.stages import cgroups

pytestmark = [pytest.mark.root, needs_root, needs_hybrid]


def leaves(folder) -> list[str]:
    return [path for _, kind, path in folder.records(stage.NAME) if kind == "cgroup"]


# ---- making and removing -----------------------------------------------------------------------------------


def test_made_in_every_hierarchy_and_removed(tmp_path):
    folder = make_folder(tmp_path)
    stage.apply(folder, {}, [])
    found = paths_of(folder)

    assert {"memory", "cpu", "cpuset", "pids", "devices", "freezer", "blkio"} <= set(found)
    assert set(found.values()) == set(leaves(folder))
    assert all(os.path.isdir(path) and path.endswith(f"/{folder.id}") for path in found.values())

    stage.undo(folder)
    assert not any(os.path.exists(path) for path in found.values())
    assert folder.records(stage.NAME) == []
    stage.undo(folder)


def test_parents_are_made_and_go_when_empty(tmp_path):
    top = fresh_name()
    with applied(tmp_path, path=f"/{top}/a/b") as first:
        with applied(tmp_path, path=f"/{top}/c") as second:
            assert paths_of(second)["pids"] == f"/sys/fs/cgroup/pids/{top}/c"
            stage.undo(first)
            assert os.path.isdir(f"/sys/fs/cgroup/pids/{top}/c")
            assert not os.path.exists(f"/sys/fs/cgroup/pids/{top}/a")
    # The parent was the first one's, who could not remove it while the second was there.
    os.rmdir(f"/sys/fs/cgroup/pids/{top}")
    for path in {
        os.path.dirname(p) for p in [f"/sys/fs/cgroup/{h}/{top}/x" for h in os.listdir("/sys/fs/cgroup")]
    }:
        if os.path.isdir(path):
            os.rmdir(path)


def test_a_parent_is_removed_with_the_last_cgroup(tmp_path):
    top = fresh_name()
    with applied(tmp_path, path=f"/{top}/x"):
        assert os.path.isdir(f"/sys/fs/cgroup/memory/{top}/x")

    assert not any(os.path.exists(f"/sys/fs/cgroup/{h}/{top}") for h in os.listdir("/sys/fs/cgroup"))


def test_a_cgroup_that_was_there_stays(tmp_path):
    name = fresh_name()
    own = f"/sys/fs/cgroup/pids/{name}"
    os.mkdir(own)
    try:
        with applied(tmp_path, path=f"/{name}") as folder:
            assert own not in leaves(folder) and paths_of(folder)["pids"] == own
        assert os.path.isdir(own)
    finally:
        os.rmdir(own)


def test_a_cgroup_with_processes_is_refused(tmp_path):
    with applied(tmp_path) as folder:
        pid = spawn(folder, lambda: os.read(os.pipe()[0], 1))
        second = make_folder(tmp_path, path=f"/{folder.id}")

        with pytest.raises(Error, match=rf"cgroup is not empty: 1 process\(es\) found in .*pids {pid}"):
            stage.apply(second, {}, [])

        assert second.records(stage.NAME) == []
        assert all(os.path.isdir(path) for path in paths_of(folder).values())


@pytest.mark.parametrize("controller", ["freezer", ""])
def test_a_frozen_cgroup_is_refused(tmp_path, controller):
    top = fresh_name()
    base = f"/sys/fs/cgroup/{controller or 'unified'}/{top}"
    os.mkdir(base)
    with cgroup.Group(base) as group:
        group.write(*(("freezer.state", "FROZEN") if controller else ("cgroup.freeze", "1")))
    try:
        for path in (f"/{top}", f"/{top}/below"):
            folder = make_folder(tmp_path, path=path)
            with pytest.raises(Error, match="unexpectedly frozen"):
                stage.apply(folder, {}, [])
            assert folder.records(stage.NAME) == []
    finally:
        os.rmdir(base)


def test_an_interrupted_apply_can_be_undone(tmp_path, monkeypatch):
    folder = make_folder(tmp_path, path=f"/{fresh_name()}/x")
    real, made = cgroup.make, []

    def die_at_the_fifth(path):
        if len(made) == 5:
            raise KeyboardInterrupt
        result = real(path)
        made.append(path)
        return result

    monkeypatch.setattr(cgroup, "make", die_at_the_fifth)
    with pytest.raises(KeyboardInterrupt):
        stage.apply(folder, {}, [])
    assert all(os.path.isdir(path) for path in made)
    assert len(folder.records(stage.NAME)) == 6

    stage.undo(folder)
    assert not any(os.path.exists(path) for path in made)


def test_a_failing_limit_leaves_nothing(tmp_path):
    folder = make_folder(tmp_path, {"cpu": {"cpus": "4000"}}, path=f"/{fresh_name()}/x")

    with pytest.raises(
        Error, match=r"linux\.resources\.cpu\.cpus: write '4000' to .*/cpuset\.cpus: numerical result"
    ):
        stage.apply(folder, {}, [])

    assert folder.records(stage.NAME) == []
    assert not os.path.exists(f"{folder.path}/cgroup.json")


def test_undo_names_who_is_still_there_and_kills_nobody(tmp_path, monkeypatch):
    monkeypatch.setattr(stage, "_REMOVE_SECONDS", 0.05)
    with applied(tmp_path) as folder:
        ready, go = os.pipe()
        pid = spawn(folder, lambda: os.write(go, b"x") and os.execvp("sleep", ["sleep", "1000"]))
        os.read(ready, 1)
        with open(f"/proc/{pid}/comm") as comm:
            assert cgroup_procs.look_again(lambda: comm.seek(0) == 0 and comm.read() == "sleep\n", 5)

        with pytest.raises(Error, match=rf"still in use by {pid} \(sleep\)"):
            stage.undo(folder)

        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert leaves(folder)


def test_undo_removes_cgroups_that_the_container_made(tmp_path):
    with applied(tmp_path) as folder:
        for path in paths_of(folder).values():
            os.makedirs(f"{path}/a/b")
    assert not any(os.path.exists(path) for path in leaves(folder))


def test_undo_waits_for_processes_that_are_ending(tmp_path):
    with applied(tmp_path) as folder:
        pid = spawn(folder, lambda: os.read(os.pipe()[0], 1))
        found = list(paths_of(folder).values())
        os.kill(pid, 9)
        # Not reaped: a zombie does not hold its cgroup.
        stage.undo(folder)
        assert not any(os.path.exists(path) for path in found)
        os.waitpid(pid, 0)


# ---- where -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["../x", "/a/../../x", "/..", "/", ".", "//"])
def test_paths_that_lead_out_are_refused(tmp_path, path):
    folder = make_folder(tmp_path, path=path)

    with pytest.raises(Error, match=r"linux\.cgroupsPath"):
        stage.apply(folder, {}, [])
    assert any("linux.cgroupsPath" in line for line in stage.check(folder))


@pytest.mark.parametrize("path", ["", "a/b"])
def test_relative_is_below_our_own_cgroup_per_hierarchy(tmp_path, path):
    mine = f"/sys/fs/cgroup/pids/{fresh_name()}"
    os.mkdir(mine)
    before = f"/sys/fs/cgroup/pids{cgroup.memberships()['pids']}"
    try:
        with cgroup.Group(mine) as group:
            group.write("cgroup.procs", "0")
        with applied(tmp_path, path=path) as folder:
            found = paths_of(folder)
            assert found["pids"] == f"{mine}/{path or folder.id}"
            assert found["cpu"] == f"/sys/fs/cgroup/cpu/{path or folder.id}"
            assert found[""] == f"/sys/fs/cgroup/unified/{path or folder.id}"
    finally:
        with cgroup.Group(before) as group:
            group.write("cgroup.procs", "0")
        os.rmdir(mine)


def test_a_hierarchy_somewhere_unusual_is_found(tmp_path):
    def inside():
        os.mkdir(f"{tmp_path}/there")
        mount("none", f"{tmp_path}/there", "cgroup", "pids")
        mount("none", "/sys/fs/cgroup/pids", "tmpfs")
        for _ in range(2):
            # A hierarchy hidden below /sys/fs/cgroup, and one that is not a mount point there at all.
            from ocimk.stages.cgroups import paths

            if not os.path.ismount("/sys/fs/cgroup/pids"):
                assert paths.v1_paths("/x")["pids"] == f"{tmp_path}/there/x"
                return
            subprocess.run(["umount", "/sys/fs/cgroup/pids"], check=True)
            subprocess.run(["umount", "/sys/fs/cgroup/pids"], check=True)
        raise AssertionError("still mounted")

    apart(inside)


def test_mountinfo_of_a_nested_container():
    """Without a cgroup namespace, a container's mount shows only a part of the hierarchy that it is in."""
    from ocimk.stages.cgroups import paths

    assert paths.relative("/docker/abc/x", "/docker/abc") == "/x"
    assert paths.relative("/docker/abc", "/docker/abc") == "/"
    assert paths.relative("/docker/abc", "/") == "/docker/abc"
    assert paths.relative("/docker/abcd", "/docker/abc") == "/"


def test_escapes_of_mountinfo():
    assert cgroup.unescape(r"/a\040b\134c") == "/a b\\c"


# ---- joining -----------------------------------------------------------------------------------------------


def test_a_process_is_born_in_all(tmp_path):
    with applied(tmp_path) as folder:
        pid = spawn(folder, lambda: os.read(os.pipe()[0], 1))
        found = paths_of(folder)

        # Joined before the function runs, which cannot be seen from here; it blocks, so that it will be.
        assert cgroup_procs.look_again(lambda: is_in_all(pid, found), 5)


def is_in_all(pid: int, found: dict[str, str]) -> bool:
    there = cgroup.memberships(str(pid))
    return all(path.endswith(there[name]) and there[name] != "/" for name, path in found.items())


def test_a_living_process_is_attached(tmp_path):
    with applied(tmp_path) as folder:
        child = subprocess.Popen(["sleep", "1000"])
        try:
            cgroups.attach(folder, child.pid)
            assert is_in_all(child.pid, paths_of(folder))
        finally:
            child.kill()
            child.wait()


def test_sub_cgroups(tmp_path):
    with applied(tmp_path) as folder:
        found = paths_of(folder)
        for path in found.values():
            os.mkdir(f"{path}/sub")

        assert cgroups.places(cgroups.load(folder), {"*": "sub"})["pids"] == f"{found['pids']}/sub"
        with pytest.raises(Error, match=r'"\.\." is not allowed'):
            cgroups.join_fds(folder, {"pids": "../x"})
        with pytest.raises(Error, match="no cgroup of nonsense"):
            cgroups.clone_fd(folder, {"nonsense": "x"})


def test_joining_a_removed_cgroup_is_an_error(tmp_path):
    with applied(tmp_path) as folder:
        os.rmdir(paths_of(folder)["pids"])

        with pytest.raises(Error, match="no such file or directory.*was removed"):
            cgroups.join_fds(folder)


# ---- drivers, rights, words --------------------------------------------------------------------------------


def test_disabled_makes_nothing_and_says_so(tmp_path, capfd):
    folder = make_folder(tmp_path, {"memory": {"limit": 1 << 20}})
    stage.apply(folder, {"--manager": "disabled"}, [])

    assert (cgroups.load(folder).mode, paths_of(folder)) == ("none", {})
    assert folder.records(stage.NAME) == []
    assert "linux.resources.memory: not applied" in capfd.readouterr().err
    assert cgroups.clone_fd(folder) == -1 and cgroups.join_fds(folder) == []
    stage.undo(folder)


def test_disabled_is_silent_about_mere_device_rules(tmp_path, capfd):
    stage.apply(make_folder(tmp_path), {"--manager": "disabled"}, [])

    assert capfd.readouterr().err == ""


def test_unknown_words(tmp_path):
    folder = make_folder(tmp_path)

    with pytest.raises(Usage, match="--manager launchd: no such cgroup manager .cgroupfs or systemd or disabled"):
        stage.apply(folder, {"--manager": "launchd"}, [])
    with pytest.raises(Usage, match="unknown part everything"):
        stage.apply(folder, {}, ["everything"])
    with pytest.raises(Usage, match="true, false or auto"):
        stage.apply(folder, {"--rootless": "perhaps"}, [])


def test_parts_may_be_done_one_by_one(tmp_path):
    folder = make_folder(tmp_path, {"pids": {"limit": 7}, "cpu": {"shares": 512}})
    try:
        stage.apply(folder, {}, ["create"])
        assert read(folder, "devices", "devices.list") == "a *:* rwm"
        assert read(folder, "cpu", "cpu.shares") == "1024"
        stage.apply(folder, {}, ["limits"])
        assert "c 1:3 rwm" in read(folder, "devices", "devices.list")
        assert (read(folder, "cpu", "cpu.shares"), read(folder, "pids", "pids.max")) == ("512", "max")
        stage.apply(folder, {}, ["tight"])
        assert read(folder, "pids", "pids.max") == "7"
    finally:
        clean(folder)


def as_nobody(tmp_path, resources, path, check) -> None:
    os.chmod(tmp_path, 0o1777)
    for above in list(tmp_path.parents)[:3]:
        os.chmod(above, 0o755)
    apart(lambda: check(make_folder(tmp_path, resources, path)), user=True)


def test_rootless_without_limits_goes_without(tmp_path):
    def check(folder):
        stage.apply(folder, {}, [])
        assert cgroups.load(folder).mode == "none"
        stage.undo(folder)

    as_nobody(tmp_path, {}, "", check)


def test_rootless_with_limits_is_told_which(tmp_path):
    def check(folder):
        with pytest.raises(
            Error, match=r"linux\.resources\.pids\.limit: pids\.max cannot be set: there is no cgroup"
        ):
            stage.apply(folder, {}, [])

    as_nobody(tmp_path, {"pids": {"limit": 5}}, "", check)


def test_rootless_with_a_path_of_its_own_is_refused(tmp_path):
    def check(folder):
        with pytest.raises(Error, match="make cgroup .*permission denied"):
            stage.apply(folder, {}, [])
        assert any("permission denied" in line for line in stage.check(folder))

    as_nobody(tmp_path, {}, "/somewhere", check)


def test_explain_can_be_run_by_hand(tmp_path):
    wanted = {
        "pids": {"limit": 7},
        "cpu": {"shares": 512, "cpus": "0"},
        "memory": {"limit": 1 << 24, "swap": 1 << 25},
    }
    folder = make_folder(tmp_path, wanted)
    lines = stage.explain(folder, {}, [])
    assert not folder.records(stage.NAME)
    files = {
        "pids": "pids.max",
        "cpu": "cpu.shares",
        "cpuset": "cpuset.cpus",
        "memory": "memory.memsw.limit_in_bytes",
        "devices": "devices.list",
    }
    subprocess.run(["sh", "-e"], input="\n".join(lines), text=True, check=True)
    try:
        by_hand = {n: cgroup.read_file(f"/sys/fs/cgroup/{n}/{folder.id}/{file}") for n, file in files.items()}
        assert cgroup.read_file(f"/sys/fs/cgroup/cpuset/{folder.id}/cpuset.mems") != "\n"
    finally:
        for name in os.listdir("/sys/fs/cgroup"):
            if os.path.isdir(f"/sys/fs/cgroup/{name}/{folder.id}"):
                os.rmdir(f"/sys/fs/cgroup/{name}/{folder.id}")

    with applied(tmp_path, wanted) as made:
        assert by_hand == {name: read(made, name, file) + "\n" for name, file in files.items()}


def test_explain_of_disabled(tmp_path):
    assert "disabled" in stage.explain(make_folder(tmp_path), {"--manager": "disabled"}, [])[0]


def test_check_finds_nothing_to_say_of_a_plain_container(tmp_path):
    folder = make_folder(tmp_path, {"pids": {"limit": 5}})

    assert stage.check(folder) == []
    stage.apply(folder, {}, [])
    assert stage.check(folder) == []
    clean(folder)


def test_check_names_every_problem(tmp_path):
    wanted = {
        "rdma": {"mlx": {"hcaHandles": 1}},
        "cpu": {"quota": 1, "burst": 2},
        "unified": {"misc.max": "x 1"},
        "devices": [{"allow": True, "access": "q"}],
    }
    found = stage.check(make_folder(tmp_path, wanted))

    for word in ("rdma.mlx", "cpu.burst", "misc.max", "devices[0].access"):
        assert sum(word in line for line in found) == 1, (word, found)


def test_a_process_of_the_container_does_not_outlive_the_check(tmp_path):
    with applied(tmp_path) as folder:
        assert result(folder, lambda: 7) == 7

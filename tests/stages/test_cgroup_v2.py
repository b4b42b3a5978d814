"""oci-cgroup where there is nothing but a cgroup2: a mount namespace of our own stands in for such a host.

Which controllers it has is the real host's affair; hugetlb, which v1 rarely holds, is used where one is
needed.
"""

from __future__ import annotations

import os
import signal

import pytest
from cgroup_world import (
    DENY_ALL,
    applied,
    fresh_name,
    in_v2,
    make_folder,
    needs_root,
    openable,
    paths_of,
    read,
    result,
    spawn,
)

from ocimk.errors import Error
from ocimk.linux import bpf, cgroup
from ocimk.stages import cgroup as stage
from ocimk.stages import cgroups
from ocimk.stages.cgroups import create, delegate, live, resources

pytestmark = [pytest.mark.root, needs_root]

KMSG = {"allow": True, "type": "c", "major": 1, "minor": 11, "access": "r"}


def needs_hugetlb() -> None:
    if "hugetlb" not in cgroup.controllers("/sys/fs/cgroup"):
        pytest.skip("no controller in the cgroup2")


def test_made_and_removed(tmp_path):
    def check():
        folder = make_folder(tmp_path, path=f"/{fresh_name()}/a/b")
        stage.apply(folder, {}, [])
        layout = cgroups.load(folder)
        assert layout.mode == "v2" and list(layout.paths) == [""]
        assert result(folder, lambda: own_path() != layout.v2) == 0
        stage.undo(folder)
        assert not os.path.exists(os.path.dirname(os.path.dirname(layout.v2)))

    def own_path():
        return "/sys/fs/cgroup" + cgroup.memberships()[""]

    in_v2(check)


def test_relative_is_beside_us(tmp_path):
    def check():
        top = f"/sys/fs/cgroup/{fresh_name()}"
        os.makedirs(f"{top}/we")
        with cgroup.Group(f"{top}/we") as group:
            group.write("cgroup.procs", "0")
        try:
            with applied(tmp_path, path="") as folder:
                assert paths_of(folder) == {"": f"{top}/{folder.id}"}
            with applied(tmp_path, path="x/y") as folder:
                assert paths_of(folder) == {"": f"{top}/x/y"}
        finally:
            with cgroup.Group("/sys/fs/cgroup") as group:
                group.write("cgroup.procs", "0")
            os.rmdir(f"{top}/we")
            os.rmdir(top)

    in_v2(check)


def test_controllers_are_switched_on_down_to_the_cgroup_and_no_further(tmp_path):
    def check():
        needs_hugetlb()
        with applied(tmp_path, path=f"/{fresh_name()}/a") as folder:
            leaf = paths_of(folder)[""]
            assert cgroup.controllers(os.path.dirname(leaf), "cgroup.subtree_control") == ["hugetlb"]
            assert cgroup.controllers(leaf) == ["hugetlb"]
            assert cgroup.controllers(leaf, "cgroup.subtree_control") == []

    in_v2(check)


def test_controllers_that_are_on_already_are_not_written(tmp_path, monkeypatch):
    def check():
        needs_hugetlb()
        written = []
        real = cgroup.Group.write

        def note(group, name, value):
            written.append((group.path, name))
            real(group, name, value)

        monkeypatch.setattr(cgroup.Group, "write", note)
        with applied(tmp_path):
            # Another container of the host may have switched it on before us.
            assert written in ([], [("/sys/fs/cgroup", "cgroup.subtree_control")])
            written.clear()
            with applied(tmp_path):
                assert written == []

    in_v2(check)


def test_limits_are_in_the_files(tmp_path):
    def check():
        needs_hugetlb()
        wanted = {
            "hugepageLimits": [{"pageSize": "2MB", "limit": 4 << 20}],
            "unified": {"hugetlb.1GB.max": "1073741824"},
        }
        with applied(tmp_path, wanted) as folder:
            assert (
                read(folder, "", "hugetlb.2MB.max")
                == read(folder, "", "hugetlb.2MB.rsvd.max")
                == str(4 << 20)
            )
            assert read(folder, "", "hugetlb.1GB.max") == "1073741824"
            live.update(folder, {"hugepageLimits": [{"pageSize": "2MB", "limit": 2 << 20}]})
            assert read(folder, "", "hugetlb.2MB.max") == str(2 << 20)

    in_v2(check)


def test_a_file_that_we_do_not_know_is_written_too(tmp_path):
    def check():
        with applied(tmp_path, {"unified": {"cgroup.max.depth": "3"}}) as folder:
            assert read(folder, "", "cgroup.max.depth") == "3"

    in_v2(check)


@pytest.mark.parametrize(
    "wanted, named, file",
    [
        ({"pids": {"limit": 5}}, r"pids\.limit", r"pids\.max"),
        ({"memory": {"limit": 1 << 20}}, r"memory\.limit", r"memory\.max"),
        ({"cpu": {"shares": 512}}, r"cpu\.shares", r"cpu\.weight"),
        ({"cpu": {"cpus": "0"}}, r"cpu\.cpus", r"cpuset\.cpus"),
        ({"blockIO": {"weight": 10}}, r"blockIO\.weight", r"io\.weight"),
        ({"unified": {"memory.high": "max"}}, r"unified\['memory\.high'\]", r"memory\.high"),
    ],
)
def test_a_controller_that_the_cgroup2_lacks_is_told(tmp_path, wanted, named, file):
    def check():
        folder = make_folder(tmp_path, wanted)
        pattern = (
            rf"linux\.resources\.{named}: write .* to .*/{file}: the \w+ controller is not available \(.*v1"
        )
        with pytest.raises(Error, match=pattern):
            stage.apply(folder, {}, [])
        assert not os.path.exists(f"/sys/fs/cgroup/{folder.id}")
        assert any("controllers does not have" in line for line in stage.check(folder))

    if os.path.isdir("/sys/fs/cgroup/unified"):
        in_v2(check)
    else:
        pytest.skip("all controllers may be in the cgroup2 here")


def test_a_controller_that_cannot_be_switched_on_is_told_with_the_remedy(tmp_path):
    def check():
        needs_hugetlb()
        top = f"/sys/fs/cgroup/{fresh_name()}"
        os.mkdir(top)
        pid = os.fork()
        if pid == 0:
            signal.pause()
        with cgroup.Group(top) as group:
            group.write("cgroup.procs", str(pid))
        try:
            folder = make_folder(
                tmp_path, {"hugepageLimits": [{"pageSize": "2MB", "limit": 0}]}, path=f"{top[14:]}/x"
            )
            with pytest.raises(
                Error, match=rf"hugetlb controller is not switched on here.*\+hugetlb > {top}/cgroup.sub"
            ):
                stage.apply(folder, {}, [])
        finally:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            os.rmdir(top)

    in_v2(check)


# ---- devices -----------------------------------------------------------------------------------------------


def can_read_and_write(path: str) -> int:
    return openable(path, os.O_RDONLY) | (openable(path, os.O_WRONLY) << 1) | (openable(path, os.O_RDWR) << 2)


def test_devices_are_denied_but_the_common_ones(tmp_path):
    def check():
        with applied(tmp_path) as folder:
            assert result(folder, lambda: can_read_and_write("/dev/kmsg")) == 0
            for name in ("null", "zero", "full", "random", "urandom", "ptmx"):
                assert result(folder, lambda name=name: openable(f"/dev/{name}", os.O_RDWR)) == 1
            assert result(folder, lambda: os.mknod(f"{tmp_path}/node", 0o20600, os.makedev(1, 11)) or 7) == 7

    in_v2(check)


@pytest.mark.parametrize(
    "rules, expected",
    [
        ([DENY_ALL, KMSG], 0b001),
        ([DENY_ALL, {**KMSG, "access": "rw"}], 0b111),
        ([DENY_ALL, KMSG, {**KMSG, "access": "w"}], 0b111),
        ([KMSG, DENY_ALL], 0b000),
        # A hole in a wildcard, which v1 cannot make.
        ([DENY_ALL, {**KMSG, "minor": None, "access": "rw"}, {**KMSG, "allow": False, "access": "w"}], 0b001),
        ([{"allow": True, "access": "rwm"}, {**KMSG, "allow": False}], 0b010),
    ],
)
def test_rules_in_their_order(tmp_path, rules, expected):
    def check():
        with applied(tmp_path, {"devices": rules}) as folder:
            assert result(folder, lambda: can_read_and_write("/dev/kmsg")) == expected

    in_v2(check)


def attached(path: str) -> list[int]:
    fd = os.open(path, os.O_RDONLY)
    try:
        return bpf.attached(fd)
    finally:
        os.close(fd)


def test_new_rules_replace_the_program(tmp_path):
    def check():
        with applied(tmp_path) as folder:
            path = paths_of(folder)[""]
            (first,) = attached(path)
            folder.config["linux"]["resources"]["devices"] = [DENY_ALL, KMSG]
            stage.apply(folder, {}, ["limits"])
            (second,) = attached(path)
            assert first != second
            assert result(folder, lambda: can_read_and_write("/dev/kmsg")) == 0b001

    in_v2(check)


def test_several_programs_are_replaced_by_one(tmp_path):
    def check():
        with applied(tmp_path) as folder:
            path = paths_of(folder)[""]
            target = os.open(path, os.O_RDONLY)
            with bpf.loaded(bpf.device_program([], True)) as program:
                bpf.attach(target, program)
            os.close(target)
            assert len(attached(path)) == 2
            stage.apply(folder, {}, ["limits"])
            assert len(attached(path)) == 1

    in_v2(check)


def test_an_empty_cgroup_has_no_program(tmp_path):
    def check():
        path = f"/sys/fs/cgroup/{fresh_name()}"
        os.mkdir(path)
        assert attached(path) == []
        os.rmdir(path)

    in_v2(check)


def test_explain_tells_the_rules_in_words(tmp_path):
    def check():
        lines = stage.explain(make_folder(tmp_path), {}, [])
        assert "#   all other devices: deny" in lines and "#   allow c 1:3 rwm" in lines

    in_v2(check)


# ---- types -------------------------------------------------------------------------------------------------


def test_below_a_threaded_cgroup(tmp_path):
    def check():
        top = f"/sys/fs/cgroup/{fresh_name()}"
        os.makedirs(f"{top}/t")
        with cgroup.Group(f"{top}/t") as group:
            group.write("cgroup.type", "threaded")
        try:
            folder = make_folder(tmp_path, path=f"{top[14:]}/x")
            create.make_v2(folder, f"{top}/x", "v2", frozenset(("pids",)))
            assert cgroup.read_file(f"{top}/x/cgroup.type") == "threaded\n"
            stage.undo(folder)
            with pytest.raises(Error, match="memory controller needs a domain"):
                create.make_v2(folder, f"{top}/x", "v2", frozenset(("pids", "memory")))
            stage.undo(folder)
        finally:
            os.rmdir(f"{top}/t")
            os.rmdir(top)

    in_v2(check)


# ---- delegation --------------------------------------------------------------------------------------------

RW_MOUNT = {
    "destination": "/sys/fs/cgroup",
    "type": "cgroup",
    "source": "cgroup",
    "options": ["nosuid", "rw"],
}
MAPPED = {"uidMappings": [{"containerID": 0, "hostID": 100000, "size": 65536}]}


def config(mount=RW_MOUNT, namespaces=("cgroup", "user"), uid=0, **linux):
    return {
        "linux": {"namespaces": [{"type": name} for name in namespaces], **linux},
        "mounts": [mount] if mount else [],
        "process": {"user": {"uid": uid}},
    }


@pytest.mark.parametrize(
    "configuration, owner",
    [
        (config(**MAPPED), 100000),
        (config(uid=7, **MAPPED), 100007),
        (config(uid=70000, **MAPPED), -1),
        (config(), -1),
        (config(namespaces=("cgroup",), uid=1000), 1000),
        (config(namespaces=("user",), **MAPPED), -1),
        (config(mount=None, **MAPPED), -1),
        (config(mount={**RW_MOUNT, "options": ["ro"]}, **MAPPED), -1),
        (config(mount={**RW_MOUNT, "destination": "/sys/fs/cgroup/"}, **MAPPED), 100000),
        (config(mount={**RW_MOUNT, "source": "tmpfs"}, **MAPPED), -1),
    ],
)
def test_who_gets_the_cgroup(configuration, owner):
    assert delegate.wanted_owner(configuration) == owner


def test_a_cgroup_namespace_of_another_is_not_ours_to_give():
    configuration = config(**MAPPED)
    configuration["linux"]["namespaces"][0]["path"] = "/proc/1/ns/cgroup"

    assert delegate.wanted_owner(configuration) == -1


def test_only_the_delegated_files_change_hands(tmp_path):
    def check():
        folder = make_folder(tmp_path)
        folder.config.update(config(uid=5, cgroupsPath=f"/{folder.id}", **MAPPED))
        try:
            stage.apply(folder, {}, [])
            path = paths_of(folder)[""]
            owners = {name: os.stat(f"{path}/{name}").st_uid for name in os.listdir(path)}
            given = {name for name, uid in owners.items() if uid == 100005}
            assert os.stat(path).st_uid == 100005
            assert {"cgroup.procs", "cgroup.subtree_control", "cgroup.threads"} <= given
            assert given <= set(delegate.files()) and "cgroup.freeze" not in given
        finally:
            stage.undo(folder)

    in_v2(check)


def test_the_fallback_list(monkeypatch):
    monkeypatch.setattr(delegate, "LIST", "/nonexistent")

    assert delegate.files() == ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"]


# ---- updates that the cgroup2 would not refuse itself ------------------------------------------------------


def test_check_before_update(tmp_path, monkeypatch):
    from ocimk.stages.cgroups import update

    (tmp_path / "memory.current").write_text("5000\n")
    layout = cgroups.Layout("v2", {"": str(tmp_path)})

    update.check_usage(layout, {"memory": {"limit": 5001, "checkBeforeUpdate": True}})
    update.check_usage(layout, {"memory": {"limit": 1}})
    for name in ("limit", "swap"):
        with pytest.raises(Error, match=rf"memory\.{name}: rejecting 5000, for 5000 are in use"):
            update.check_usage(layout, {"memory": {name: 5000, "checkBeforeUpdate": True}})


def test_planned_files_of_v2_are_written_one_setting_a_write(tmp_path):
    """Against plain files, for the controllers that this host's cgroup2 does not have."""
    names = (
        "memory.max",
        "memory.swap.max",
        "memory.low",
        "pids.max",
        "cpu.weight",
        "cpu.max",
        "io.max",
        "cpu.max.burst",
    )
    for name in names:
        (tmp_path / name).write_text("")
    wanted = {
        "memory": {"limit": 100, "swap": 150, "reservation": 50},
        "pids": {"limit": 0},
        "cpu": {"shares": 1024, "quota": 5000, "burst": 0},
        "blockIO": {"throttleReadBpsDevice": [{"major": 8, "minor": 0, "rate": 1}]},
    }
    resources.apply(cgroups.Layout("v2", {"": str(tmp_path)}), wanted, resources.PARTS)

    assert {name: (tmp_path / name).read_text() for name in names} == {
        "memory.max": "100",
        "memory.swap.max": "50",
        "memory.low": "50",
        "pids.max": "0",
        "cpu.weight": "100",
        "cpu.max": "5000 100000",
        "io.max": "8:0 rbps=1",
        "cpu.max.burst": "0",
    }


def test_where_to_go_when_init_has_switched_controllers_on(tmp_path):
    def check():
        needs_hugetlb()
        with applied(tmp_path) as folder:
            path = paths_of(folder)[""]
            pid = spawn(folder, signal.pause)
            assert cgroups.beside_init(folder, pid) == {}
            os.mkdir(f"{path}/init.scope")
            for where, name, text in (
                ("/init.scope", "cgroup.procs", pid),
                ("", "cgroup.subtree_control", "+hugetlb"),
            ):
                with cgroup.Group(f"{path}{where}") as group:
                    group.write(name, str(text))

            sub = cgroups.beside_init(folder, pid)

            assert sub == {"": "init.scope"}
            cgroups.attach(folder, os.getpid(), sub)
            assert cgroup.memberships()[""].endswith("/init.scope")
            with cgroup.Group("/sys/fs/cgroup") as group:
                group.write("cgroup.procs", "0")

    in_v2(check)


def test_a_process_that_is_born_there_dies_there(tmp_path):
    def check():
        with applied(tmp_path) as folder:
            pid = spawn(folder, signal.pause)
            assert live.pids(folder) == [pid]
            live.kill_all(folder, signal.SIGKILL)
            assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
            assert live.await_empty(folder)

    in_v2(check)

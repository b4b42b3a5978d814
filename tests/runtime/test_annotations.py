"""Annotations of crun's that change what is done, with their effect seen from inside or by who receives something."""

from __future__ import annotations

import array
import base64
import os
import socket
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest
from properties_kit import ask
from test_properties_seccomp import ANSWER, Agent

from kit import CLEAN, LIBEXEC, OCI, Bundle, Runtime
from ocimk.spec import annotations
from ocimk.stages.rootfs.mounts import label_option


def noted(bundle: Bundle, name: str, value: object = "1") -> Bundle:
    bundle.config.setdefault("annotations", {})[f"run.oci.{name}"] = str(value)
    return bundle


# ---- seccomp ---------------------------------------------------------------------------------------------------------

ASKING = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["getcpu"], "action": "SCMP_ACT_NOTIFY"}]}


@pytest.mark.parametrize("how", ["annotation", "variable"])
def test_the_seccomp_agent(oci: Runtime, bundle: Bundle, how: str) -> None:
    path = oci.place / "agent"
    agent = Agent(path)
    bundle.linux["seccomp"] = dict(ASKING)
    env = dict(CLEAN)
    if how == "annotation":
        noted(bundle, "seccomp.receiver", path)
    else:
        env["RUN_OCI_SECCOMP_RECEIVER"] = str(path)
    try:
        found = ask(oci, bundle, "print(syscall(309, 0, 0, 0))", env=env)
        assert found == ANSWER
    finally:
        agent.close()


def test_an_unknown_system_call(oci: Runtime, bundle: Bundle) -> None:
    rule = {"names": ["no_such_call", "mkdir"], "action": "SCMP_ACT_ERRNO"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    oci.run(bundle.script("true")).ok()
    noted(bundle, "seccomp_fail_unknown_syscall")
    for _ in range(2):  # also with the filter in the cache
        oci.run(bundle).refused("oci-seccomp", "no_such_call", "run.oci.seccomp_fail_unknown_syscall")


MKDIR_FAILS = [(0x20, 0, 0, 0), (0x15, 0, 1, 83), (0x06, 0, 0, 0x50000 | 7), (0x06, 0, 0, 0x7FFF0000)]
"""struct sock_filter: load the number of the call; mkdir (of x86-64) is errno 7; any other is allowed."""
FILTER = base64.b64encode(b"".join(struct.pack("HBBI", *one) for one in MKDIR_FAILS)).decode()


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="the number of mkdir is another")
@pytest.mark.parametrize("beside", [None, {"defaultAction": "SCMP_ACT_KILL", "listenerPath": "/no/such"}])
def test_a_filter_as_it_is(oci: Runtime, bundle: Bundle, beside: object) -> None:
    bundle.linux.pop("seccomp", None)
    if beside:
        bundle.linux["seccomp"] = beside
    name = oci.create(noted(bundle.args("sleep", "1000"), "seccomp_bpf_data", FILTER))
    oci("start", name).ok()
    done = oci("exec", name, "mkdir", "/tmp/x")
    assert (done.status, done.err.split(": ")[-1]) == (1, "Argument list too long\n")
    assert "\nSeccomp:\t2\n" in Path(f"/proc/{oci.pid(name)}/status").read_text()
    told = subprocess.run([f"{LIBEXEC}/oci-seccomp", "explain", oci.root / name], capture_output=True, text=True)
    assert "seccomp_bpf_data: 4 instructions" in told.stdout


# ---- the process -----------------------------------------------------------------------------------------------------


def test_the_callers_groups(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["user"] = {"uid": 0, "gid": 0, "additionalGids": [77]}
    words = ("run", "--bundle", bundle.script("id -G").save())
    groups = {"extra_groups": [4, 5]}
    assert oci(*words, oci.id(), **groups).ok().out.split() == ["0", "77"]
    noted(bundle, "keep_original_groups").save()
    assert oci(*words, oci.id(), **groups).ok().out.split() == ["0", "4", "5"]


def test_a_pidfd_for_somebody(oci: Runtime, bundle: Bundle) -> None:
    place = str(oci.place / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(place)
        server.listen(1)
        name = oci.create(noted(bundle.args("sleep", "1000"), "pidfd_receiver", place))
        connection, _ = server.accept()
        with connection:
            _, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    (fd,) = array.array("i", ancillary[0][2])
    assert f"Pid:\t{oci.pid(name)}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
    os.close(fd)


# ---- hooks -----------------------------------------------------------------------------------------------------------


def test_what_hooks_print_goes_into_files(oci: Runtime, bundle: Bundle) -> None:
    for kind in ("prestart", "createRuntime", "createContainer", "poststart", "poststop"):
        bundle.hook(kind, f"echo {kind}; echo no {kind} >&2")
    out, err = oci.place / "out.log", oci.place / "err.log"
    out.write_text("before\n")
    noted(noted(bundle, "hooks.stdout", out), "hooks.stderr", err)
    for place in (oci.place, *list(oci.place.parents)[:2]):
        place.chmod(place.stat().st_mode | 0o055)  # the hook of the container's side works in the root filesystem
    oci.run(bundle.script("true").user_namespace()).ok()
    kinds = ["prestart", "createRuntime", "createContainer", "poststart", "poststop"]
    assert out.read_text().split() == ["before", *kinds]
    assert err.read_text().splitlines() == [f"no {kind}" for kind in kinds]


def test_what_is_not_in_a_file_is_in_the_error(oci: Runtime, bundle: Bundle) -> None:
    noted(bundle, "hooks.stdout", oci.place / "out.log").hook("createRuntime", "echo there; echo here >&2; exit 1")
    oci.run(bundle.script("true")).refused("output: here")
    assert (oci.place / "out.log").read_text() == "there\n"
    noted(bundle, "hooks.stdout", oci.place / "no/such").save()
    oci.run(bundle).refused("run.oci.hooks.stdout: open", "no/such")


# ---- cgroups ---------------------------------------------------------------------------------------------------------

UNIFIED = 'umount -R /sys/fs/cgroup; mount -t cgroup2 none /sys/fs/cgroup; exec sh -euc "$1" sh'


def unified(script: str) -> subprocess.CompletedProcess[str]:
    """A script where cgroup v2 is all that there is."""
    words = ["unshare", "--mount", "--propagation", "private", "sh", "-euc", UNIFIED, "sh", script]
    return subprocess.run(words, capture_output=True, text=True, env=CLEAN, check=False, timeout=60)


@pytest.mark.parametrize("kind", ["plain", "user namespace"])
def test_a_cgroup_of_its_own_below(oci_called: Runtime, bundle: Bundle, kind: str) -> None:
    noted(bundle, "delegate-cgroup", "mine/own").namespace("cgroup").args("sleep", "1000")
    if kind != "plain":
        bundle.user_namespace()
    name = oci_called.id()
    oci = f"{OCI} --root {oci_called.root}"
    done = unified(
        f"{oci} create --bundle {bundle.save()} {name} <&- >&- 2>&-; {oci} start {name}; {oci} ps --format json {name}\n"
        f"pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/' {oci_called.root}/{name}/state.json)\n"
        f"cat /proc/$pid/cgroup | grep ^0; nsenter -t $pid -C cat /proc/$pid/cgroup | grep ^0\n"
        f"stat -c %u /sys/fs/cgroup/{name}/mine/own/cgroup.procs\n"
        f"{oci} delete --force {name}; test ! -e /sys/fs/cgroup/{name}"
    )
    assert done.returncode == 0, done
    pids, outside, inside, owner = done.stdout.split()
    assert len(pids.strip("[]").split(",")) == 1
    assert outside == f"0::/{name}/mine/own"
    assert inside == "0::/mine/own"
    assert owner == ("0" if kind == "plain" else "100000")


def test_no_delegation_where_v1_is(oci: Runtime, bundle: Bundle) -> None:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        pytest.skip("cgroup v2 alone")
    noted(bundle, "delegate-cgroup", "x")
    oci.run(bundle.script("true")).refused("delegate-cgroup not supported on cgroup v1")


# ---- what is said ----------------------------------------------------------------------------------------------------


def test_the_kind_of_context() -> None:
    assert label_option({}, "a:b") == b"context=a:b"
    given: dict[str, Any] = {"annotations": {"run.oci.mount_context_type": "fscontext"}}
    assert label_option(given, "a:b") == b"fscontext=a:b"


WRONG = [
    ("mount_context_type", "nocontext"),
    ("seccomp.receiver", "relative"),
    ("pidfd_receiver", "relative"),
    ("hooks.stdout", "relative"),
    ("delegate-cgroup", "a/../../b"),
    ("seccomp_bpf_data", ""),
    ("seccomp_bpf_data", "AAAA"),
    ("seccomp_bpf_data", "not base64"),
]


@pytest.mark.parametrize(("name", "value"), WRONG)
def test_wrong_values_are_refused(oci_called: Runtime, bundle: Bundle, name: str, value: str) -> None:
    oci_called.run(noted(bundle, name, value).script("true")).refused(f"annotations.run.oci.{name}", value)
    assert oci_called.names() == []


def test_one_without_effect_is_told_and_a_strangers_is_not(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.config["annotations"] = {"run.oci.handler": "krun", "com.example.run.oci": "x"}
    found = oci_called.run(bundle.script("true")).ok()
    assert found.err == "oci: warning: config.json: annotations.run.oci.handler: has no effect: not supported by ocimk\n"


def test_features_name_those_that_are_obeyed(oci_called: Runtime) -> None:
    found = oci_called("features").ok().json["potentiallyUnsafeConfigAnnotations"]
    assert set(annotations.OBEYED) <= set(found)
    assert not any("handler" in name for name in found)


def test_a_receiver_that_is_not_there(oci: Runtime, bundle: Bundle) -> None:
    noted(bundle, "pidfd_receiver", "/no/such/socket").args("sleep", "1000")
    oci.run(bundle).refused("/no/such/socket")
    assert oci.names() == []

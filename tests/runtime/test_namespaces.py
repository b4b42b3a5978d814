"""linux.namespaces, and what belongs to them: as seen from inside."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import Bundle, Runtime

FILES = {
    "pid": "pid",
    "network": "net",
    "ipc": "ipc",
    "uts": "uts",
    "mount": "mnt",
    "cgroup": "cgroup",
    "user": "user",
    "time": "time",
}


def own(kind: str) -> str:
    """Our own namespace of this kind."""
    return os.readlink(f"/proc/self/ns/{FILES[kind]}")


def seen(runtime: Runtime, bundle: Bundle) -> dict[str, str]:
    """The namespaces of the program."""
    words = " ".join(f"/proc/self/ns/{name}" for name in FILES.values())
    lines = runtime.tell(bundle, f"for f in {words}; do readlink $f; done").lines
    return dict(zip(FILES, lines, strict=True))


@pytest.fixture
def other(bundle: Bundle, oci_holder: Runtime) -> Iterator[int]:
    """The process of another container, with every kind of namespace of its own."""
    bundle.user_namespace().namespace("cgroup").namespace("time")
    yield oci_holder.pid(oci_holder.detached(bundle.args("sleep", "1000")))


# ---- new ones --------------------------------------------------------------------------------------------------------


def test_new_namespaces_and_the_hosts(oci: Runtime, bundle: Bundle) -> None:
    bundle.namespace("cgroup").namespace("time")
    inside = seen(oci, bundle)
    assert {kind for kind, name in inside.items() if name != own(kind)} == set(FILES) - {"user"}


def test_left_out_they_are_the_callers(oci: Runtime, bundle: Bundle) -> None:
    bundle.without("pid", "network", "ipc", "uts")
    del bundle.config["hostname"]
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["destination"] in ("/proc", "/dev")]
    inside = seen(oci, bundle)
    assert {kind for kind, name in inside.items() if name != own(kind)} == {"mount"}


def test_the_program_is_process_one(oci: Runtime, bundle: Bundle) -> None:
    lines = oci.tell(bundle, "echo $$; ls -d /proc/[0-9]*").lines
    assert lines[0] == "1"
    assert len(lines) <= 3  # itself and ls


def test_the_loopback_is_up_and_nothing_else_there(oci: Runtime, bundle: Bundle) -> None:
    result = oci.tell(bundle, "ls /sys/class/net; ip addr show lo; echo x | nc -l -p 7 & sleep 0.1; nc 127.0.0.1 7")
    assert result.lines[0] == "lo"
    assert "UP" in result.out and "127.0.0.1/8" in result.out
    assert result.lines[-1] == "x"


def test_the_hosts_network(oci: Runtime, bundle: Bundle) -> None:
    bundle.without("network")
    bundle.config["mounts"] = [m for m in bundle.config["mounts"] if m["type"] != "sysfs"]
    assert oci.tell(bundle, "cat /proc/net/dev").out == Path("/proc/net/dev").read_text() or True
    names = {line.split(":")[0].strip() for line in oci.tell(bundle, "cat /proc/net/dev").lines[2:]}
    assert names == {line.split(":")[0].strip() for line in Path("/proc/net/dev").read_text().splitlines()[2:]}


def test_hostname_and_domainname(oci: Runtime, bundle: Bundle) -> None:
    before = Path("/proc/sys/kernel/hostname").read_text()
    bundle.config |= {"hostname": "inner.example", "domainname": "test.domain"}
    words = oci.tell(bundle, "hostname; cat /proc/sys/kernel/domainname").lines
    assert words == ["inner.example", "test.domain"]
    assert Path("/proc/sys/kernel/hostname").read_text() == before


def test_hostname_needs_a_uts_namespace(oci_called: Runtime, bundle: Bundle) -> None:
    oci_called.run(bundle.without("uts")).refused("hostname")
    assert oci_called.names() == []


def test_a_cgroup_namespace_shows_its_own_root(oci: Runtime, bundle: Bundle) -> None:
    bundle.namespace("cgroup")
    paths = {line.split(":")[2] for line in oci.tell(bundle, "cat /proc/self/cgroup").lines}
    assert paths == {"/"}


def test_without_a_cgroup_namespace_the_path_shows(oci: Runtime, bundle: Bundle) -> None:
    out = oci.tell(bundle, "cat /proc/self/cgroup").out
    assert oci.ids[-1] in out


def test_ipc_objects_are_apart(oci: Runtime, bundle: Bundle) -> None:
    made = subprocess.run(["ipcmk", "-Q"], capture_output=True, text=True, check=True).stdout.split()[-1]
    try:
        assert len(oci.tell(bundle, "cat /proc/sysvipc/msg").lines) == 1
    finally:
        subprocess.run(["ipcrm", "-q", made], check=True)


def test_time_offsets(oci: Runtime, bundle: Bundle) -> None:
    bundle.namespace("time")
    bundle.linux["timeOffsets"] = {"boottime": {"secs": 1_000_000, "nanosecs": 0}, "monotonic": {"secs": 5}}
    up = float(oci.tell(bundle, "cut -d' ' -f1 /proc/uptime").out)
    assert 999_000 < up - float(Path("/proc/uptime").read_text().split()[0]) < 1_000_100


# ---- joined ones -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in FILES if kind not in ("user", "mount")])
def test_join_by_path(oci: Runtime, bundle: Bundle, oci_holder: Runtime, kind: str) -> None:
    holder = bundle.namespace("cgroup").namespace("time")
    pid = oci_holder.pid(oci_holder.detached(holder.args("sleep", "1000")))
    path = f"/proc/{pid}/ns/{FILES[kind]}"
    theirs = os.readlink(path)
    assert theirs != own(kind)
    assert seen(oci, bundle.namespace(kind, path))[kind] == theirs


def test_join_a_mount_namespace(oci: Runtime, bundle: Bundle) -> None:
    """The container's own mounts go into it, over what is there."""
    holder = subprocess.Popen(["unshare", "-m", "--propagation", "private", "sleep", "1000"])
    try:
        path = f"/proc/{holder.pid}/ns/mnt"
        while os.readlink(path) == own("mount"):
            pass
        theirs = os.readlink(path)
        assert seen(oci, bundle.namespace("mount", path))["mount"] == theirs
    finally:
        holder.kill()
        holder.wait()


def test_join_all_of_another_container(oci: Runtime, bundle: Bundle, other: int) -> None:
    """As the containers of a pod do; with a user namespace, that is entered too."""
    linux = bundle.linux
    kinds = ("user", "network", "ipc", "uts", "pid")
    linux["namespaces"] = [{"type": kind, "path": f"/proc/{other}/ns/{FILES[kind]}"} for kind in kinds]
    linux["namespaces"].append({"type": "mount"})
    del bundle.config["hostname"], linux["uidMappings"], linux["gidMappings"]
    inside = seen(oci, bundle)
    for kind in kinds:
        assert inside[kind] == os.readlink(f"/proc/{other}/ns/{FILES[kind]}"), kind
    assert inside["mount"] not in (own("mount"), os.readlink(f"/proc/{other}/ns/mnt"))


def test_a_joined_pid_namespace_outlives_the_container(oci: Runtime, bundle: Bundle, other: int) -> None:
    linux = bundle.linux
    kinds = ("user", "pid")
    linux["namespaces"] = [{"type": kind, "path": f"/proc/{other}/ns/{FILES[kind]}"} for kind in kinds]
    linux["namespaces"] += [{"type": kind} for kind in ("mount", "uts", "ipc", "network")]
    del linux["uidMappings"], linux["gidMappings"]
    result = oci.run(bundle.script("echo $$; sleep 1000 & exit 3"))
    assert result.status == 3
    assert result.lines != ["1"]
    assert Path(f"/proc/{other}").exists()


# ---- what is refused -------------------------------------------------------------------------------------------------


def test_a_path_of_another_kind(oci: Runtime, bundle: Bundle) -> None:
    oci.run(bundle.namespace("ipc", "/proc/self/ns/uts")).refused("ipc", "/proc/self/ns/uts")
    assert oci.names() == []


def test_a_path_that_is_no_namespace(oci: Runtime, bundle: Bundle) -> None:
    oci.run(bundle.namespace("ipc", "/etc/passwd")).refused("ipc", "/etc/passwd")
    assert oci.names() == []


def test_a_path_that_is_not_there(oci: Runtime, bundle: Bundle) -> None:
    oci.run(bundle.namespace("network", "/run/no/such")).refused("network", "/run/no/such", "no such file or directory")
    assert oci.names() == []

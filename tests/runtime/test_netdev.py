"""linux.netDevices with real devices. The host that lends them is a network namespace of its own, so that nothing is
done to the machine's network."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from kit import CLEAN, LIBEXEC, Bundle, Runtime, fresh_id, kill
from ocimk.container.folder import Folder
from ocimk.linux import rtnetlink
from ocimk.stages import netdev


class Host:
    """A network namespace that stands for the host's: the runtime is run in it. Every kernel that runs containers has
    veth; the other ends of the pairs are kept in a namespace beside it, out of sight."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        for namespace in (name, f"{name}-far"):
            _ip("netns", "add", namespace)

    def delete(self) -> None:
        for namespace in (self.name, f"{self.name}-far"):
            subprocess.run(["ip", "netns", "delete", namespace], check=False, capture_output=True)

    def enter(self, *words: object) -> list[str]:
        return ["ip", "netns", "exec", self.name, *map(str, words)]

    def ip(self, *words: str) -> None:
        _ip("-n", self.name, *words)

    def device(self, name: str, *addresses: str) -> None:
        self.ip("link", "add", name, "type", "veth", "peer", "name", name, "netns", f"{self.name}-far")
        self.ip("link", "set", name, "up")
        for address in addresses:
            self.ip("address", "add", *address.split(), "dev", name)

    def links(self) -> dict[str, dict[str, Any]]:
        return _links("-n", self.name)


def _ip(*words: str) -> str:
    return subprocess.run(["ip", *words], check=True, capture_output=True, text=True, timeout=20).stdout


def _links(*where: str) -> dict[str, dict[str, Any]]:
    return {link["ifname"]: link for link in json.loads(_ip("-json", *where, "address", "show"))}


def permanent(link: dict[str, Any]) -> set[str]:
    """The addresses of global scope, with their labels' last part for those that have a peer."""
    return {f"{a['local']}/{a['prefixlen']}" for a in link["addr_info"] if a["scope"] == "global"}


@pytest.fixture
def host() -> Iterator[Host]:
    made = Host(f"h-{fresh_id()}")
    yield made
    made.delete()


@pytest.fixture
def lent(oci: Runtime, host: Host, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """The runtime in the namespace that stands for the host's. Its own view of /sys is not needed."""
    plain = oci.argv
    inside = ["nsenter", f"--net={host.path}"]
    monkeypatch.setattr(oci, "argv", lambda *words: [*inside, *plain(*words)])
    return oci


def devices(bundle: Bundle, **names: str) -> Bundle:
    bundle.linux["netDevices"] = {old: ({"name": new} if new else {}) for old, new in names.items()}
    return bundle


def inside(runtime: Runtime, name: str) -> dict[str, dict[str, Any]]:
    """The devices of a container, looked at with the host's ip."""
    listed = subprocess.run(
        ["nsenter", f"--net=/proc/{runtime.pid(name)}/ns/net", "ip", "-json", "address", "show"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return {link["ifname"]: link for link in json.loads(listed)}


def test_a_device_is_in_the_container_with_its_addresses_and_up(lent: Runtime, host: Host, bundle: Bundle) -> None:
    addresses = ("10.9.0.1/24 broadcast +", "10.9.1.1/32 peer 10.9.1.2", "fd00:9::1/64 nodad", "10.9.0.2/24")
    host.device("lent0", *addresses)
    host.ip("address", "add", "10.9.9.9/24", "dev", "lent0", "valid_lft", "1000", "preferred_lft", "1000")
    host.ip("address", "add", "10.9.8.8/24", "dev", "lent0", "scope", "link")
    host.ip("link", "set", "lent0", "mtu", "1400")
    before = host.links()["lent0"]

    name = lent.create(devices(bundle.args("sleep", "1000"), lent0=""))
    found = inside(lent, name)["lent0"]

    assert "lent0" not in host.links()
    assert "UP" in found["flags"]
    assert (found["mtu"], found["address"]) == (1400, before["address"])
    assert permanent(found) == {"10.9.0.1/24", "10.9.0.2/24", "10.9.1.1/32", "fd00:9::1/64"}
    by_local = {a["local"]: a for a in found["addr_info"]}
    assert by_local["10.9.0.1"]["broadcast"] == "10.9.0.255"
    assert by_local["10.9.1.1"]["address"] == "10.9.1.2"
    assert by_local["fd00:9::1"]["nodad"] is True


def test_the_program_sees_the_device_under_its_new_name(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("lent0", "10.9.0.1/24")
    host.ip("address", "add", "10.9.0.5/24", "dev", "lent0", "label", "lent0:five")
    told = lent.tell(devices(bundle, lent0="eth7"), "ls /sys/class/net; ip -4 addr show dev eth7; ip link show eth7")
    assert told.lines[:2] == ["eth7", "lo"]
    assert "inet 10.9.0.1/24" in told.out
    assert "eth7:five" in told.out
    assert ",UP" in told.out


def test_in_a_user_namespace(lent: Runtime, host: Host, bundle: Bundle) -> None:
    """The network namespace belongs to the container's root then; the device is moved from outside."""
    host.device("lent0", "10.9.0.1/24")
    told = lent.tell(devices(bundle.user_namespace(), lent0="eth7"), "ip -4 addr show dev eth7; id -u")
    assert "inet 10.9.0.1/24" in told.out
    assert told.lines[-1] == "0"


def test_a_pattern_gets_the_first_free_number(lent: Runtime, host: Host, bundle: Bundle) -> None:
    for name in ("one0", "two0"):
        host.device(name)
    told = lent.tell(devices(bundle, one0="port%d", two0="port%d"), "ls /sys/class/net")
    assert told.lines == ["lo", "port0", "port1"]


def test_with_a_pattern_a_name_that_is_taken_does_no_harm(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("one0")
    taken = Host(f"{host.name}-t")
    try:
        taken.device("port0")
        taken.device("one0")
        lent.tell(devices(bundle.namespace("network", taken.path), one0="port%d"), "ls /sys/class/net")
        assert set(taken.links()) == {"lo", "port0", "port1", "one0"}
    finally:
        taken.delete()


def test_after_deletion_a_virtual_device_is_gone_with_its_namespace(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.ip("link", "add", "here", "type", "veth", "peer", "name", "lent0")
    name = lent.create(devices(bundle.args("sleep", "1000"), lent0=""))
    assert "here" in host.links()
    watch = subprocess.Popen(
        host.enter("ip", "monitor", "link"), stdout=subprocess.PIPE, text=True, env={**CLEAN, "LC_ALL": "C"}
    )
    try:
        lent("delete", "--force", name).ok()
        assert watch.stdout is not None
        if "here" in host.links():
            assert any(line.startswith("Deleted") and "here" in line for line in watch.stdout)
    finally:
        watch.kill()
        watch.communicate()
    assert set(host.links()) == {"lo"}


def test_after_deletion_it_stays_in_a_namespace_that_was_joined(lent: Runtime, host: Host, bundle: Bundle) -> None:
    """The runtime MUST NOT move it out (config-linux.md, Namespace Lifecycle and Container Termination)."""
    host.device("lent0", "10.9.0.1/24")
    joined = Host(f"{host.name}-j")
    try:
        name = lent.create(devices(bundle.namespace("network", joined.path).args("sleep", "1000"), lent0="got"))
        assert permanent(joined.links()["got"]) == {"10.9.0.1/24"}
        lent("delete", "--force", name).ok()
        assert set(joined.links()) == {"lo", "got"}
        assert set(host.links()) == {"lo"}
    finally:
        joined.delete()


# ---- failures --------------------------------------------------------------------------------------------------------


def test_a_device_that_is_not_there(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("lent0", "10.9.0.1/24")
    refused = lent.run(devices(bundle, lent0="", absent=""))
    refused.refused('linux.netDevices["absent"]', "no such network device on the host")
    assert permanent(host.links()["lent0"]) == {"10.9.0.1/24"}


@pytest.mark.parametrize("new", ["lo", "twice"])
def test_a_name_that_is_taken(lent: Runtime, host: Host, bundle: Bundle, new: str) -> None:
    for name in ("one0", "two0"):
        host.device(name)
    refused = lent.run(devices(bundle, one0="twice", two0=new))
    refused.refused(f'linux.netDevices["two0"].name: {new}', "file exists", "%d")
    assert set(host.links()) == {"lo", "one0", "two0"}


def test_a_device_that_cannot_be_moved(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("good", "10.9.0.1/24")
    lent.run(devices(bundle, good="", lo="other")).refused('linux.netDevices["lo"]: move into the container')
    assert permanent(host.links()["good"]) == {"10.9.0.1/24"}
    assert "UP" in host.links()["good"]["flags"]


def test_another_name_needs_another_namespace(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("lent0")
    bundle.without("network").script("ls /sys/class/net")
    refused = lent.run(devices(bundle, lent0="eth0"))
    assert refused.status == 1
    warning, error = refused.err.splitlines()
    assert "stays where it is" in warning
    assert 'linux.netDevices["lent0"].name: eth0: the container has the host\'s network namespace' in error
    assert "lent0" in lent.run(devices(bundle, lent0="")).ok().lines


def test_a_name_that_the_kernel_refuses_after_the_move(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody takes the new name between our look and the move, which then ends half way: the device is over there
    under its old name. It is fetched back, and the next number is tried."""
    host.device("lent0", "10.9.0.1/24")
    target = Host(f"{host.name}-r")
    monkeypatch.setattr(rtnetlink.Route, "links", lambda self: {"lo": rtnetlink.Link(1, "lo", 1)})
    try:
        target.device("port0")
        folder = Folder("", "")
        recorded: list[str] = []
        monkeypatch.setattr(Folder, "record", lambda self, stage, kind, value: recorded.append(value))
        monkeypatch.setattr(Folder, "strike", lambda self, stage, kind, value: recorded.remove(value))
        with open(host.path) as here, open(target.path) as there, rtnetlink.Route(here.fileno()) as out:
            monkeypatch.setattr(netdev, "_home", lambda: os.dup(here.fileno()))
            with rtnetlink.Route(there.fileno()) as into:
                link = out.link("lent0")
                assert link is not None
                netdev.Move(folder, out, into, there.fileno(), "lent0", "port%d").carry_out(link)
        assert set(target.links()) == {"lo", "port0", "port1"}
        assert permanent(target.links()["port1"]) == {"10.9.0.1/24"}
        assert [line.split()[:3] for line in recorded] == [["lent0", "port1", "up"]]
    finally:
        target.delete()


@pytest.mark.parametrize("own", [True, False], ids=["new", "joined"])
def test_what_was_moved_comes_back_when_creating_fails(lent: Runtime, host: Host, bundle: Bundle, own: bool) -> None:
    host.device("lent0", "10.9.0.1/24", "fd00:9::1/64 nodad")
    host.device("still0")
    host.ip("link", "set", "still0", "down")
    joined = Host(f"{host.name}-f")
    try:
        bundle.hook("createRuntime", "exit 3")
        if not own:
            bundle.namespace("network", joined.path)
        lent.run(devices(bundle, lent0="eth0", still0="eth1")).refused("createRuntime")
        links = host.links()
        assert set(links) == {"lo", "lent0", "still0"}
        assert permanent(links["lent0"]) == {"10.9.0.1/24", "fd00:9::1/64"}
        assert ("UP" in links["lent0"]["flags"], "UP" in links["still0"]["flags"]) == (True, False)
        assert set(joined.links()) == {"lo"}
    finally:
        joined.delete()


def test_what_was_moved_comes_back_when_nobody_takes_the_terminal(lent: Runtime, host: Host, bundle: Bundle) -> None:
    """That shows only after the container was created."""
    host.device("lent0", "10.9.0.1/24")
    bundle.process["terminal"] = True
    lent("create", "--bundle", devices(bundle, lent0="eth0").save(), "--console-socket", "/absent", lent.id()).refused()
    assert permanent(host.links()["lent0"]) == {"10.9.0.1/24"}


def test_a_creation_killed_half_way_is_undone_by_delete(lent: Runtime, host: Host, bundle: Bundle) -> None:
    """The hook tells when the device has been moved; then all are killed at once. A namespace that was joined is still
    there and the device in it; a new one has ended with its last process, as any does."""
    host.device("lent0", "10.9.0.1/24")
    joined = Host(f"{host.name}-k")
    try:
        fifo = bundle.path / "fifo"
        os.mkfifo(fifo)
        bundle.namespace("network", joined.path).hook("createRuntime", f"echo > {fifo}; exec sleep 10")
        name = lent.id()
        creating = lent.begin("create", "--bundle", devices(bundle, lent0="eth0").save(), name, start_new_session=True)
        fifo.read_text()
        assert (set(host.links()), set(joined.links())) == ({"lo"}, {"lo", "eth0"})
        os.killpg(creating.pid, signal.SIGKILL)
        lent("delete", "--force", name).ok()
        assert permanent(host.links()["lent0"]) == {"10.9.0.1/24"}
        assert set(joined.links()) == {"lo"}
    finally:
        joined.delete()


# ---- the stage by itself ---------------------------------------------------------------------------------------------


def stage(host: Host, *words: object) -> subprocess.CompletedProcess[str]:
    argv = ["nsenter", f"--net={host.path}", f"{LIBEXEC}/oci-netdev", *map(str, words)]
    return subprocess.run(argv, capture_output=True, text=True, timeout=30, check=False)


def test_explain_prints_commands_that_do_the_same(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("lent0", "10.9.0.1/24")
    target = Host(f"{host.name}-e")
    try:
        devices(bundle.namespace("network", target.path), lent0="eth3").save()
        lines = stage(host, "explain", bundle.path).stdout.splitlines()
        script = "\n".join(lines).replace("ADDRESS", "10.9.0.1/24")
        subprocess.run(["nsenter", f"--net={host.path}", "sh", "-eu", "-c", script], check=True, capture_output=True)
        found = target.links()["eth3"]
        assert "UP" in found["flags"]
        assert permanent(found) == {"10.9.0.1/24"}
    finally:
        target.delete()


def test_check_names_what_is_missing(host: Host, bundle: Bundle) -> None:
    host.device("lent0")
    bundle.without("network")
    done = stage(host, "check", devices(bundle, lent0="eth0", absent="").save())
    assert done.returncode == 1
    assert done.stdout.splitlines() == [
        'linux.netDevices["lent0"].name: eth0: the container has the host\'s network namespace; add one to '
        "linux.namespaces",
        'linux.netDevices["absent"]: no such network device on this host (see ip link)',
    ]
    bundle.namespace("network")
    done = stage(host, "check", devices(bundle, lent0="eth0").save())
    assert (done.returncode, done.stdout) == (0, "")


def test_undo_twice_is_fine(lent: Runtime, host: Host, bundle: Bundle) -> None:
    host.device("lent0")
    name = lent.create(devices(bundle.args("sleep", "1000"), lent0=""))
    for _ in range(2):
        done = stage(host, "undo", lent.root / name)
        assert (done.returncode, done.stderr) == (0, "")
    assert "lent0" in inside(lent, name)
    kill(lent.pid(name))


def test_speaking_to_another_namespace_comes_back_home(host: Host) -> None:
    before = os.readlink("/proc/self/ns/net")
    with open(host.path) as namespace, rtnetlink.Route(namespace.fileno()) as there:
        assert set(there.links()) == {"lo"}
    assert os.readlink("/proc/self/ns/net") == before

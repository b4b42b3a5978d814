"""$NOTIFY_SOCKET: a service manager waits for the container, which says when it is ready."""

from __future__ import annotations

import array
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from kit import CLEAN, Bundle, Runtime, await_true, wait_gone

READY = """
ln -s /run/notify/notify.sock /dev/log
read go < /fifo/go
logger "$(printf 'x\\nMAINPID=1\\nREADY=1')"
"""
"""busybox has no other program that sends a datagram to a Unix socket; the first line of what it sends is a syslog head."""


class Manager:
    """What systemd does at its end."""

    def __init__(self, address: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + address[1:] if address.startswith("@") else address)
        self.socket.settimeout(10)
        self.env = {**CLEAN, "NOTIFY_SOCKET": address}
        self.barrier = -1

    def hear(self) -> str:
        data, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(4))
        for _, _, payload in ancillary:
            self.barrier = array.array("i", payload)[0]
        return data.decode()


@pytest.fixture(params=["file", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Manager]:
    found = Manager(str(tmp_path / "notify") if request.param == "file" else f"@{tmp_path}")
    yield found
    found.socket.close()


@pytest.fixture
def ready(bundle: Bundle, tmp_path: Path) -> Bundle:
    """A container that is ready when told to be, by a FIFO, and then sleeps."""
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/go")
    return bundle.bind(tmp_path / "fifo", "/fifo").script(READY + "exec sleep 1000")


def go(place: Path) -> None:
    (place / "fifo/go").write_text("\n")


def test_start_waits_until_it_is_ready(oci: Runtime, ready: Bundle, manager: Manager, tmp_path: Path) -> None:
    name = oci.id()
    oci.quiet("create", "--bundle", ready.save(), name, env=manager.env).ok()
    start = oci.begin("start", name, env=manager.env)
    await_true(lambda: oci.state(name)["status"] == "running", "running")
    assert start.poll() is None
    go(tmp_path)
    assert [manager.hear(), manager.hear(), manager.hear()] == [
        "READY=1\n",
        f"MAINPID={oci.pid(name)}\n",
        "BARRIER=1",
    ]
    assert start.poll() is None
    os.close(manager.barrier)
    assert start.wait(10) == 0


def test_detached_run(oci_called: Runtime, ready: Bundle, manager: Manager, tmp_path: Path) -> None:
    name = oci_called.id()
    run = oci_called.begin("run", "--detach", "--bundle", ready.save(), name, env=manager.env)
    go(tmp_path)
    assert manager.hear() == "READY=1\n"
    assert manager.hear() == f"MAINPID={oci_called.pid(name)}\n"
    assert manager.hear() == "BARRIER=1"
    os.close(manager.barrier)
    assert run.wait(10) == 0


def test_in_the_foreground_the_runtime_is_the_main_process(
    oci_called: Runtime, ready: Bundle, manager: Manager, tmp_path: Path
) -> None:
    name = oci_called.id()
    run = oci_called.begin("run", "--bundle", ready.save(), name, env=manager.env)
    go(tmp_path)
    assert manager.hear() == "READY=1\n"
    assert manager.hear() == f"MAINPID={run.pid}\n"
    oci_called("kill", name, "KILL").ok()
    assert run.wait(10) == 128 + 9


def test_start_returns_when_the_container_ends_without_a_word(
    oci_called: Runtime, bundle: Bundle, manager: Manager
) -> None:
    name = oci_called.id()
    oci_called.quiet("create", "--bundle", bundle.script("exit 3").save(), name, env=manager.env).ok()
    oci_called.quiet("start", name, env=manager.env).ok()
    wait_gone(oci_called.pid(name))


def test_the_container_finds_it_and_cannot_write_there(
    oci: Runtime, bundle: Bundle, manager: Manager
) -> None:
    script = "echo $NOTIFY_SOCKET; ls -ld $NOTIFY_SOCKET; touch /run/notify/x 2>&1"
    os.chown(bundle.path / "rootfs", 100000, 100000)
    found = oci("run", "--bundle", bundle.user_namespace().script(script).save(), oci.id(), env=manager.env)
    assert found.lines[0] == "/run/notify/notify.sock"
    assert found.lines[1].startswith("srwxrwxrwx")
    assert "Read-only" in found.lines[2]


def test_without_a_manager_there_is_nothing_of_it(oci_called: Runtime, bundle: Bundle) -> None:
    assert oci_called.tell(bundle, "echo [$NOTIFY_SOCKET]; ls /run 2>&-; true").out == "[]\n"


@pytest.mark.parametrize("options", [(), ("-d",)])
def test_run_goes_on_without_a_manager(oci_called: Runtime, bundle: Bundle, options: tuple[str, ...]) -> None:
    bundle.script("touch /tmp/ran").writable().save()
    name = oci_called.id()
    env = {**CLEAN, "NOTIFY_SOCKET": "/no/such/socket"}
    result = oci_called.quiet("run", *options, "--bundle", bundle.path, name, env=env).ok()
    assert result.err.startswith("oci: warning: NOTIFY_SOCKET /no/such/socket: connect: no such file")
    if options:
        oci_called.wait_stopped(name)
    assert (bundle.rootfs / "tmp/ran").exists()


def test_a_manager_that_is_not_there(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.create(bundle.script("true"), env={**CLEAN, "NOTIFY_SOCKET": "/no/such/socket"})
    words = ("NOTIFY_SOCKET /no/such/socket: connect", "no such file")
    oci_called("start", name, env={**CLEAN, "NOTIFY_SOCKET": "/no/such/socket"}).refused(*words)
    assert oci_called.state(name)["status"] == "created"
    oci_called("start", name).ok()

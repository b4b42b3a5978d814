"""oci-mount: /dev, linux.devices and the console."""

from __future__ import annotations

import array
import errno
import fcntl
import os
import socket
import termios
from collections.abc import Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

from ocimk.container.folder import Folder
from ocimk.linux import mount as m
from ocimk.stages.rootfs import plan

pytestmark = needs_root


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    before = lab.host_mounts()
    yield Bundle(tmp_path)
    assert lab.host_mounts() == before, "the host's mounts changed"


def device(bundle: Bundle, path: str, kind: str, **more: object) -> None:
    listed = bundle.config["linux"].setdefault("devices", [])
    listed.append({"path": path, "type": kind, **more})


def test_default_devices(bundle: Bundle) -> None:
    os.umask(0o077)
    try:
        out = bundle.run("cd /dev; stat -c '%n %F %a %u:%g %t:%T' null zero full random urandom tty").ok().out
    finally:
        os.umask(0o022)
    kind = "character special file 666 0:0"
    assert out.splitlines() == [
        f"null {kind} 1:3",
        f"zero {kind} 1:5",
        f"full {kind} 1:7",
        f"random {kind} 1:8",
        f"urandom {kind} 1:9",
        f"tty {kind} 5:0",
    ]


def test_links(bundle: Bundle) -> None:
    script = "for n in fd stdin stdout stderr ptmx core; do readlink /dev/$n; done"
    out = bundle.run(script).out.split()
    want = ["/proc/self/fd", "/proc/self/fd/0", "/proc/self/fd/1", "/proc/self/fd/2", "pts/ptmx"]
    assert out == want + (["/proc/kcore"] if os.path.exists("/proc/kcore") else [])


def test_devices_of_the_configuration(bundle: Bundle) -> None:
    device(bundle, "/dev/fuse", "c", major=10, minor=229, fileMode=0o600, uid=3, gid=4)
    device(bundle, "/dev/loop", "b", major=7, minor=0)
    device(bundle, "/dev/unbuffered", "u", major=1, minor=5, fileMode=0o020444)
    device(bundle, "/srv/deep/pipe", "p", fileMode=0o6711, uid=5)
    device(bundle, "/dev/big", "c", major=300, minor=70000)
    os.umask(0o077)
    try:
        names = "/dev/fuse /dev/loop /dev/unbuffered /srv/deep/pipe /dev/big"
        out = bundle.run(f"stat -c '%F %a %u:%g %t:%T' {names}").ok().out
    finally:
        os.umask(0o022)
    assert out.splitlines() == [
        "character special file 600 3:4 a:e5",
        "block special file 666 0:0 7:0",
        "character special file 444 0:0 1:5",
        "fifo 6711 5:0 0:0",
        "character special file 666 0:0 12c:11170",
    ]


def test_a_default_device_described_anew(bundle: Bundle) -> None:
    device(bundle, "/dev/null", "c", major=1, minor=3, fileMode=0o600, uid=9)
    assert bundle.run("stat -c '%a %u' /dev/null /dev/zero").ok().out.splitlines() == ["600 9", "666 0"]


def test_ptmx_cannot_be_described(bundle: Bundle) -> None:
    device(bundle, "/dev/ptmx", "c", major=5, minor=2)
    assert bundle.run("readlink /dev/ptmx").ok().out == "pts/ptmx\n"


def test_the_same_device_in_the_image_is_kept(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    os.mknod(bundle.rootfs / "dev/null", 0o020640, os.makedev(1, 3))
    os.chown(bundle.rootfs / "dev/null", 1, 2)
    assert bundle.run("stat -c '%a %u:%g' /dev/null").ok().out == "640 1:2\n"
    bundle.run("test -c /dev/zero").ok()


@pytest.mark.parametrize("what", ["file", "directory", "other", "kind"])
def test_something_else_in_its_place(bundle: Bundle, what: str) -> None:
    place = bundle.rootfs / "there"
    make = {
        "file": lambda: place.touch(),
        "directory": lambda: place.mkdir(),
        "other": lambda: os.mknod(place, 0o020666, os.makedev(1, 4)),
        "kind": lambda: os.mknod(place, 0o060666, os.makedev(1, 3)),
    }
    make[what]()
    device(bundle, "/there", "c", major=1, minor=3)
    found = {"other": "character device 1:4", "kind": "block device 1:3"}.get(what, what)
    want = f"linux.devices[0] /there: a {found} is there instead of character device 1:3"
    assert bundle.run().error == want


@pytest.mark.parametrize(
    ("raw", "want"),
    [
        ({"type": "c", "major": 1, "minor": 1}, "linux.devices[0].path: required"),
        ({"path": "/x", "type": "q"}, "linux.devices[0].type: 'q' is none of c, b, u, p"),
        ({"path": "/x", "type": "b"}, "linux.devices[0] /x: major and minor are required"),
        ({"path": "/x", "type": "b", "major": 5000, "minor": 0}, "linux.devices[0] /x: no such device number 5000:0"),
    ],
)
def test_wrong_devices(bundle: Bundle, raw: dict[str, object], want: str) -> None:
    bundle.config["linux"]["devices"] = [raw]
    assert bundle.run().error.startswith(want)


def test_dev_is_made_when_missing(bundle: Bundle) -> None:
    bundle.config["mounts"] = [lab.PROC]
    (bundle.rootfs / "dev").rmdir()
    bundle.run("test -c /dev/null").ok()


def test_where_mknod_is_refused_the_hosts_devices_are_bound(bundle: Bundle) -> None:
    """As in a user namespace that config.json does not speak of; a device is found by path or by its
    number."""
    device(bundle, "/dev/nothing", "c", major=1, minor=3)

    def before(folder: Folder) -> None:
        m.mount(None, b"/", None, m.MS_PRIVATE | m.MS_REC)
        m.mount(b"tmpfs", b"/dev", b"tmpfs", 0)
        for path, major, minor in plan.DEFAULT_DEVICES:
            os.mknod(path, 0o020666, os.makedev(major, minor))
        os.mknod("/dev/nothing", 0o020666, os.makedev(1, 5))
        os.mkdir("/dev/char")
        os.mknod("/dev/char/1:3", 0o020666, os.makedev(1, 3))
        lab.refuse(mknodat=errno.EPERM)

    script = "cat /proc/self/mountinfo; stat -c %t:%T /dev/nothing /dev/zero"
    result = bundle.run(script, before=before).ok()
    assert result.out.endswith("1:3\n1:5\n")
    assert result.mounts["/dev/nothing"].root == "/char/1:3"
    assert result.mounts["/dev/zero"].root == "/zero"


# ---- the console


def terminal(bundle: Bundle, **size: int) -> None:
    bundle.config["mounts"] = [lab.PROC, lab.DEV, lab.PTS]
    bundle.config["process"]["terminal"] = True
    if size:
        bundle.config["process"]["consoleSize"] = size


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    ours.settimeout(20)
    with ours, theirs:
        yield ours, theirs


def test_console(bundle: Bundle, pair: tuple[socket.socket, socket.socket]) -> None:
    terminal(bundle, height=33, width=121)
    ours, theirs = pair

    def after(folder: Folder) -> None:
        assert set(folder.fds) == {"root", "ptmx", "console"}
        for name in ("ptmx", "console"):
            assert not os.get_inheritable(folder.fds[name])
        os.set_inheritable(folder.fds["console"], True)
        os.dup2(folder.fds["console"], 0)
        socket.send_fds(theirs, [b"x"], [folder.fds["ptmx"]])

    script = "cat /proc/self/mountinfo; stat -c %F:%t:%T /dev/console /dev/pts/0; stty size > /dev/console"
    result = bundle.run(script, after=after).ok()
    assert result.mounts["/dev/console"].type == "devpts"
    assert result.mounts["/dev/console"].device == result.mounts["/dev/pts"].device
    assert result.out.splitlines()[-2:] == ["character special file:88:0"] * 2
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    try:
        assert os.read(fds[0], 100) == b"33 121\r\n"
        size = array.array("H", [0] * 4)
        fcntl.ioctl(fds[0], termios.TIOCGWINSZ, size)
        assert list(size[:2]) == [33, 121]
    finally:
        os.close(fds[0])


def test_console_size_without_a_terminal_is_ignored(bundle: Bundle) -> None:
    bundle.config["process"]["consoleSize"] = {"height": 70000, "width": 1}
    bundle.run().ok()


def test_console_of_unreasonable_size(bundle: Bundle) -> None:
    terminal(bundle, height=70000, width=1)
    assert bundle.run().error == "process.consoleSize: 1x70000 is out of range"


def test_console_of_the_image_is_covered(bundle: Bundle) -> None:
    terminal(bundle)
    bundle.config["mounts"] = [lab.PROC, lab.PTS]
    (bundle.rootfs / "dev/pts").mkdir()
    os.mknod(bundle.rootfs / "dev/console", 0o020600, os.makedev(5, 1))
    assert bundle.run("stat -c %t:%T /dev/console").ok().out == "88:0\n"


def test_console_without_devpts(bundle: Bundle) -> None:
    terminal(bundle)
    bundle.config["mounts"] = [lab.PROC, lab.DEV]
    want = "process.terminal: open /dev/pts/ptmx: no such file or directory"
    assert bundle.run().error == f"{want} (mounts[] needs an entry of type devpts at /dev/pts)"


def test_the_hosts_terminals_are_not_seen(bundle: Bundle) -> None:
    terminal(bundle)

    def after(folder: Folder) -> None:
        os.set_inheritable(folder.fds["ptmx"], True)

    assert bundle.run("ls /dev/pts", after=after).ok().out.split() == ["0", "ptmx"]

"""oci exec --tty: a terminal of the container's, given to a receiver or carried over to our own."""

from __future__ import annotations

import os
import select
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit import Bundle, Runtime, alive, await_true
from terminal_kit import Screen, master_of, read_until, receiver


@pytest.fixture
def name(oci_called: Runtime, bundle: Bundle) -> str:
    return oci_called.detached(bundle.args("sleep", "1000"))


@contextmanager
def screen(runtime: Runtime, *words: str) -> Iterator[Screen]:
    """``oci exec --tty WORDS`` on a terminal."""
    shown = Screen(runtime.argv("exec", "--tty", *words))
    try:
        yield shown
    finally:
        shown.close()


# ---- given to a receiver ---------------------------------------------------------------------------------------------


def test_console_socket(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    script = "tty; [ -t 0 ] && [ -t 2 ] && echo all; read line </dev/tty; echo got $line; stat -c %u $(tty); exec sleep 1000"
    with receiver(oci_called) as (place, server):
        words = ("--console-socket", place, "--pid-file", tmp_path / "pid", "--user", "1000")
        oci_called.quiet("exec", "--tty", "--detach", *words, name, "sh", "-c", script).ok()
        told, master = master_of(server)
    os.write(master, b"words\n")
    seen = read_until(master, b"1000\r\n")
    pid = int((tmp_path / "pid").read_text())

    assert b"ptmx" in told or b"pts" in told
    assert b"/dev/pts/0\r\nall\r\n" in seen
    assert b"got words\r\n" in seen
    os.close(master)
    await_true(lambda: not alive(pid), "hung up")


def test_the_size_of_a_process_file(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    (tmp_path / "process").write_text(
        '{"cwd": "/", "args": ["sh", "-c", "stty size; exec sleep 1000"], "terminal": true, "env": ["PATH=/bin"],'
        '"user": {"uid": 0, "gid": 0}, "consoleSize": {"height": 33, "width": 99}}'
    )
    with receiver(oci_called) as (place, server):
        words = ("--process", tmp_path / "process", "--console-socket", place)
        oci_called.quiet("exec", "--detach", *words, name).ok()
        _, master = master_of(server)
    assert b"33 99\r\n" in read_until(master, b"\n")
    os.close(master)


def test_in_a_user_namespace(oci_called: Runtime, bundle: Bundle) -> None:
    name = oci_called.detached(bundle.user_namespace().args("sleep", "1000"))
    with screen(oci_called, "--user", "1000:1000", name, "sh", "-c", "stat -c %u $(tty); echo x >/dev/tty") as shown:
        shown.expect(b"1000\r\nx\r\n")
        assert shown.end() == 0


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--tty", "--detach"), "without setting console socket"),
        (("--tty", "--console-socket", "/nonexistent"), "cannot use console socket"),
        (("--detach", "--console-socket", "/nonexistent"), "cannot use console socket"),
        (("--tty", "--detach", "--console-socket", "/nonexistent"), "/nonexistent"),
    ],
)
def test_rules_of_the_console_socket(oci_called: Runtime, name: str, words: tuple[str, ...], told: str) -> None:
    done = oci_called("exec", *words, name, "true")
    assert (done.status, told in done.err) == (255, True), done


def test_a_false_ptmx_is_not_opened(oci_called: Runtime, bundle: Bundle) -> None:
    """CVE-2025-52565: what the container has put in the place of its devpts."""
    bundle.config["mounts"] = [mount for mount in bundle.config["mounts"] if mount["destination"] != "/dev/pts"]
    name = oci_called.detached(bundle.script("mkdir -p /dev/pts; ln -s /dev/null /dev/pts/ptmx; echo x; sleep 1000"))
    with screen(oci_called, name, "true") as shown:
        assert shown.end() == 255
        assert b"process.terminal" in shown.seen
        assert termios.tcgetattr(shown.slave) == shown.before


# ---- carried over ----------------------------------------------------------------------------------------------------


def test_a_shell_with_job_control(oci_called: Runtime, name: str) -> None:
    with screen(oci_called, name, "sh") as shown:
        shown.type(b"echo $((40+2)); tty\n")
        shown.expect(b"\n42\r\n")
        shown.expect(b"/dev/pts/0\r\n")
        shown.type(b"sleep 999\n")
        states = ("exec", name, "ps", "-o", "stat,args")
        await_true(lambda: "S    sleep 999" in oci_called(*states).out, "in front")
        shown.type(b"\x1a")
        shown.expect(b"Stopped")
        shown.type(b"fg\n")
        shown.expect(b"fg\r\nsleep 999\r\n")
        await_true(lambda: "S    sleep 999" in oci_called(*states).out, "in front again")
        shown.type(b"\x03")
        shown.type(b"echo $? again\n")
        shown.expect(b"130 again\r\n")
        shown.type(b"exit 5\n")
        assert shown.end() == 5
        assert termios.tcgetattr(shown.slave) == shown.before


def test_the_window_has_our_size_and_follows_it(oci_called: Runtime, name: str) -> None:
    script = "trap 'stty size' WINCH; stty size; while :; do sleep 100 & wait; done"
    with screen(oci_called, name, "sh", "-c", script) as shown:
        shown.expect(b"40 132\r\n")
        shown.resize(20, 60)
        shown.expect(b"20 60\r\n")


def test_control_c_reaches_the_program_only(oci_called: Runtime, name: str) -> None:
    script = "trap 'echo int; exit 8' INT; echo ready; while :; do sleep 100 & wait; done"
    with screen(oci_called, name, "sh", "-c", script) as shown:
        shown.expect(b"ready\r\n")
        shown.type(b"\x03")
        shown.expect(b"int\r\n")
        assert shown.end() == 8


@pytest.mark.parametrize("end", ["exit", "killed", "terminated", "container", "not found"])
def test_our_terminal_is_given_back_as_it_was(oci_called: Runtime, name: str, end: str) -> None:
    words = ["nope"] if end == "not found" else ["sh", "-c", "echo ready $$; read line; exit 0"]
    with screen(oci_called, name, *words) as shown:
        if end != "not found":
            shown.expect(b"ready ")
            inner = int(shown.expect(b"\r\n"))
            raw = termios.tcgetattr(shown.slave)
            assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        if end == "exit":
            shown.type(b"\n")
        elif end == "killed":
            oci_called("exec", name, "kill", "-9", str(inner)).ok()
        elif end == "terminated":
            shown.process.terminate()  # passed on to the program, which it ends
        elif end == "container":
            oci_called("kill", name, "KILL").ok()
        statuses = {"exit": 0, "killed": 137, "terminated": 143, "container": 137, "not found": 255}
        assert shown.end() == statuses[end]
        assert termios.tcgetattr(shown.slave) == shown.before


def test_all_output_is_shown_and_a_background_process_does_not_keep_us(oci_called: Runtime, name: str) -> None:
    with screen(oci_called, name, "sh", "-c", "sleep 1000 & seq 1 20000; exit 4") as shown:
        shown.expect(b"\n20000\r\n", 30)
        assert shown.end() == 4


def test_ten_megabytes_through_it_unchanged(oci_called: Runtime, name: str, tmp_path: Path) -> None:
    """Every byte there is, typed in and shown again, with both terminals raw."""
    block = bytes(range(256)) * 4096
    total = 10 * len(block)
    with screen(oci_called, name, "sh", "-c", f"stty raw -echo; echo ready; exec head -c {total}") as shown:
        shown.expect(b"ready\n")
        tty.setraw(shown.slave)
        os.set_blocking(shown.master, False)
        poll = select.poll()
        typed, seen, deadline = 0, bytearray(), time.monotonic() + 90
        while len(seen) < total:
            poll.register(shown.master, select.POLLIN | (select.POLLOUT if typed < total else 0))
            (_, events), *_ = poll.poll(10_000)
            if events & select.POLLIN:
                seen += os.read(shown.master, 65536)
            elif typed < total:
                at = typed % len(block)
                typed += os.write(shown.master, block[at : at + 4096])
            assert time.monotonic() < deadline, (typed, len(seen))
        assert bytes(seen) == block * 10
        assert shown.end() == 0


def test_without_a_terminal_of_our_own(oci_called: Runtime, name: str) -> None:
    done = oci_called("exec", "--tty", name, "true", start_new_session=True)
    assert (done.status, "no terminal" in done.err) == (255, True), done


def test_streams_that_are_a_terminal_are_passed_on_as_they_are(oci_called: Runtime, name: str) -> None:
    """Without --tty: the program has our terminal as its streams, but not as its controlling one."""
    shown = Screen(oci_called.argv("exec", name, "sh", "-c", "[ -t 0 ] && echo terminal; echo x 2>&1 >/dev/tty; echo end"))
    try:
        shown.expect(b"terminal\r\n")
        assert b"/dev/tty" in shown.expect(b"end\r\n")
        assert shown.end() == 0
    finally:
        shown.close()

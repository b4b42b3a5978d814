"""process.terminal: given to a receiver, or carried over to our own terminal."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import socket
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from kit import Bundle, Runtime, alive, await_true
from terminal_kit import Screen, master_of, read_until, receiver


@contextmanager
def screen(runtime: Runtime, bundle: Bundle, *options: str) -> Iterator[Screen]:
    """``oci run`` on a terminal."""
    bundle.process["terminal"] = True
    found = Screen(runtime.argv("run", *options, "--bundle", bundle.save(), runtime.id()))
    try:
        yield found
    finally:
        found.close()


# ---- given to a receiver ---------------------------------------------------------------------------------------------


def test_console_socket(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    bundle.script(
        "tty; [ -t 0 ] && [ -t 1 ] && [ -t 2 ] && read line && echo got $line; ls -l /dev/console; exec sleep 100"
    )
    with receiver(oci) as (place, server):
        name = oci.create(bundle, "--console-socket", place)
        told, master = master_of(server)
    assert b"ptmx" in told or b"pts" in told
    oci("start", name).ok()
    os.write(master, b"words\n")
    seen = read_until(master, b"/dev/console")
    assert b"/dev/pts/0\r\n" in seen
    assert b"got words" in seen
    os.close(master)


def test_console_socket_of_a_detached_run(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    with receiver(oci) as (place, server):
        oci.detached(bundle.script("tty; exec sleep 1000"), "--console-socket", place)
        _, master = master_of(server)
    assert b"/dev/pts/0\r\n" in read_until(master, b"\n")
    os.close(master)


def test_the_console_is_the_controlling_terminal(oci: Runtime, bundle: Bundle) -> None:
    """^C at it interrupts the program; hanging it up ends it."""
    bundle.process["terminal"] = True
    bundle.without("pid").script("trap 'echo int' INT; echo ready; cat /dev/tty; exec sleep 1000")
    with receiver(oci) as (place, server):
        name = oci.create(bundle, "--console-socket", place)
        _, master = master_of(server)
    oci("start", name).ok()
    read_until(master, b"ready\r\n")
    pid = oci.pid(name)
    children = Path(f"/proc/{pid}/task/{pid}/children")
    await_true(lambda: [Path(f"/proc/{child}/comm").read_text() for child in children.read_text().split()] == ["cat\n"], "cat")
    os.write(master, b"\x03")
    read_until(master, b"int\r\n")
    os.close(master)
    oci.wait_stopped(name)


def test_console_size(oci: Runtime, bundle: Bundle) -> None:
    bundle.config["process"] |= {"terminal": True, "consoleSize": {"height": 33, "width": 99}}
    with receiver(oci) as (place, server):
        oci.detached(bundle.script("stty size; exec sleep 1000"), "--console-socket", place)
        _, master = master_of(server)
    assert b"33 99\r\n" in read_until(master, b"\n")
    os.close(master)


def test_the_terminal_belongs_to_the_user(oci: Runtime, bundle: Bundle) -> None:
    bundle.config["process"] |= {"terminal": True, "user": {"uid": 1000, "gid": 1000}}
    with receiver(oci) as (place, server):
        oci.detached(
            bundle.script("stat -c '%u %a' $(tty); echo x > /dev/tty; exec sleep 1000"), "--console-socket", place
        )
        _, master = master_of(server)
    assert b"1000 620\r\nx\r\n" in read_until(master, b"x\r\n")
    os.close(master)


def test_a_socket_that_nobody_listens_to(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(oci.place / "console"))
    words = ["create", "--console-socket", oci.place / "console", "--bundle", bundle.save(), oci.id()]
    oci.quiet(*words).refused(str(oci.place / "console"), "connection refused")
    assert oci.names() == []


@pytest.mark.parametrize(
    ("terminal", "words", "told"),
    [
        (True, ["create"], "without setting console socket"),
        (True, ["run", "--detach"], "without setting console socket"),
        (False, ["create", "--console-socket", "/nonexistent"], "cannot use console socket"),
        (True, ["run", "--console-socket", "/nonexistent"], "cannot use console socket"),
    ],
)
def test_rules_of_the_console_socket(
    oci_called: Runtime, bundle: Bundle, terminal: bool, words: list[str], told: str
) -> None:
    bundle.process["terminal"] = terminal
    oci_called(*words, "--bundle", bundle.save(), oci_called.id()).refused(told)
    assert oci_called.names() == []


# ---- carried over ----------------------------------------------------------------------------------------------------


def test_the_default_bundle_on_a_terminal(oci: Runtime, bundle: Bundle) -> None:
    with screen(oci, bundle.args("sh")) as shown:
        shown.type(b"echo $((40+2)); tty\n")
        shown.expect(b"\n42\r\n")
        shown.expect(b"/dev/pts/0\r\n")
        shown.type(b"exit 5\n")
        assert shown.end() == 5
        assert oci.names() == []


def test_the_window_has_our_size_and_follows_it(oci: Runtime, bundle: Bundle) -> None:
    with screen(oci, bundle.script("trap 'stty size' WINCH; stty size; while :; do sleep 100 & wait; done")) as shown:
        shown.expect(b"40 132\r\n")
        shown.resize(20, 60)
        shown.expect(b"20 60\r\n")


def test_control_c_reaches_the_program_only(oci: Runtime, bundle: Bundle) -> None:
    with screen(
        oci, bundle.script("trap 'echo int; exit 8' INT; echo ready; while :; do sleep 100 & wait; done")
    ) as shown:
        shown.expect(b"ready\r\n")
        shown.type(b"\x03")
        shown.expect(b"int\r\n")
        assert shown.end() == 8


@pytest.mark.parametrize("end", ["exit 0", "kill", "oci killed"])
def test_our_terminal_is_given_back_as_it_was(oci: Runtime, bundle: Bundle, end: str) -> None:
    with screen(oci, bundle.without("pid").script("echo ready; read line; exit 0")) as shown:
        shown.expect(b"ready")
        raw = termios.tcgetattr(shown.slave)
        assert not raw[3] & (termios.ICANON | termios.ECHO | termios.ISIG)
        if end == "exit 0":
            shown.type(b"\n")
        elif end == "kill":
            os.kill(oci.pid(oci.ids[-1]), signal.SIGKILL)
        else:
            shown.process.terminate()  # passed on to the program, which it ends
        shown.end()
        assert termios.tcgetattr(shown.slave) == shown.before


def test_our_terminal_is_taken_again_after_a_stop(oci_called: Runtime, bundle: Bundle) -> None:
    """A shell that we were stopped in has its own settings back; when we go on it must not echo for us."""
    with screen(oci_called, bundle.script("echo ready; read line; echo got $line; read line")) as shown:
        shown.expect(b"ready")
        raw = termios.tcgetattr(shown.slave)
        os.kill(shown.process.pid, signal.SIGSTOP)
        termios.tcsetattr(shown.slave, termios.TCSANOW, shown.before)
        shown.resize(21, 61)
        os.kill(shown.process.pid, signal.SIGCONT)
        await_true(lambda: termios.tcgetattr(shown.slave) == raw, "raw again")
        shown.type(b"words\r")
        shown.expect(b"got words\r\n")


def test_in_the_background_we_stop_at_the_terminal(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    words = " ".join(
        f"'{word}'" for word in oci_called.argv("run", "--bundle", bundle.script("tty").save(), oci_called.id())
    )
    shown = Screen(["bash", "-c", f"set -m; {words} & wait %1; jobs; fg %1; echo end $?"])
    try:
        shown.expect(b"Stopped")
        shown.expect(b"/dev/pts/0\r\n")
        shown.expect(b"end 0")
    finally:
        shown.close()


def test_our_terminal_is_given_back_when_the_program_cannot_run(oci: Runtime, bundle: Bundle) -> None:
    (bundle.rootfs / "bin/bad").write_text("#!/no/interpreter\n")
    (bundle.rootfs / "bin/bad").chmod(0o755)
    with screen(oci, bundle.args("/bin/bad")) as shown:
        assert shown.end() == 1
        assert b"no such file or directory" in shown.seen
        assert termios.tcgetattr(shown.slave) == shown.before


def test_a_terminal_that_is_gone_leaves_no_container(oci: Runtime, bundle: Bundle) -> None:
    with screen(oci, bundle.script("trap '' HUP; while :; do echo on and on; usleep 1000; done")) as shown:
        shown.expect(b"on and on")
        os.close(shown.slave)
        null = os.open("/dev/null", os.O_RDWR)
        os.dup2(null, shown.master)
        shown.slave = null
        assert shown.process.wait(10) == 1
        assert oci.names() == []


def test_all_output_is_shown(oci: Runtime, bundle: Bundle) -> None:
    """Also what was written just before the end."""
    with screen(oci, bundle.script("seq 1 20000")) as shown:
        shown.expect(b"\n20000\r\n", 30)
        assert shown.end() == 0


def test_much_typed_and_echoed_does_not_lock_up(oci_called: Runtime, bundle: Bundle) -> None:
    """While the program waits for room to write, what is typed must wait without keeping its output from us."""
    data = b"x" * 400_000 + b"END"
    with screen(oci_called, bundle.script("stty raw -echo; echo ready; exec cat")) as shown:
        shown.expect(b"ready")
        os.set_blocking(shown.master, False)
        rest, got = data, 0
        end = time.monotonic() + 20
        poll = select.poll()
        poll.register(shown.master, select.POLLIN | select.POLLOUT)
        while got < len(data):
            assert time.monotonic() < end, f"locked up with {len(data) - len(rest)} typed, {got} shown"
            for _, event in poll.poll(100):
                # The keyboard is faster than the eye: type first.
                if rest and event & select.POLLOUT:
                    rest = rest[os.write(shown.master, rest[:4096]) :]
                elif event & select.POLLIN:
                    got += os.read(shown.master, 4096).count(b"x") or 0
                if not rest:
                    poll.modify(shown.master, select.POLLIN)
            if got >= len(data) - 3:
                break


def test_input_that_ends_and_a_terminal_elsewhere(oci: Runtime, bundle: Bundle) -> None:
    """Standard input is /dev/null, output a pipe; the terminal is the controlling one."""
    bundle.process["terminal"] = True
    master, slave = pty.openpty()

    def take() -> None:
        os.setsid()
        fcntl.ioctl(slave, termios.TIOCSCTTY, 0)

    result = oci.run(bundle.script("tty; exit 3"), preexec_fn=take, pass_fds=(slave,))
    os.close(master)
    os.close(slave)
    assert (result.status, result.out) == (3, "/dev/pts/0\r\n")


def test_without_any_terminal(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["terminal"] = True
    oci.run(bundle.script("true"), start_new_session=True).refused("process.terminal", "no terminal")
    assert oci.names() == []


def test_a_background_process_does_not_keep_us(oci: Runtime, bundle: Bundle) -> None:
    with screen(oci, bundle.script("sleep 1000 & echo ready; exit 4")) as shown:
        assert shown.end() == 4
        assert not any(alive(pid) for pid in [shown.process.pid])

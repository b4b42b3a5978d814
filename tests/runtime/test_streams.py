"""Standard streams, signals and descriptors: what passes between the caller and the program."""

from __future__ import annotations

import array
import os
import random
import select
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from kit import CLEAN, Bundle, Result, Runtime, alive, await_true, of_status, status_words

LIST_FDS = "for f in /proc/self/fd/*; do readlink $f || true; done"


def line(stream) -> bytes:
    """The next line of a program's output; fails after ten seconds."""
    poll = select.poll()
    poll.register(stream, select.POLLIN)
    assert poll.poll(10_000), "no output within 10 s"
    return stream.readline()


# ---- streams ---------------------------------------------------------------------------------------------------------


def test_streams_are_binary_clean(oci: Runtime, bundle: Bundle) -> None:
    data = random.Random(1).randbytes(300_000)
    result = oci.run(bundle.script("tee /dev/stderr"), stdin=data).ok()
    assert result.raw == data
    assert result.err.encode("utf-8", "surrogateescape") == data


def test_output_and_errors_stay_apart(oci: Runtime, bundle: Bundle) -> None:
    result = oci.run(bundle.script("echo out; echo err >&2")).ok()
    assert (result.out, result.err) == ("out\n", "err\n")


def test_an_end_of_input_reaches_the_program(oci_called: Runtime, bundle: Bundle) -> None:
    process = oci_called.begin(
        "run", "--bundle", bundle.script("cat; echo end").save(), oci_called.id(), stdin=subprocess.PIPE
    )
    assert process.stdin and process.stdout
    process.stdin.write(b"one\n")
    process.stdin.flush()
    assert line(process.stdout) == b"one\n"
    process.stdin.close()
    assert line(process.stdout) == b"end\n"
    assert process.wait(10) == 0


def test_a_reader_that_goes_away_ends_the_program(oci_called: Runtime, bundle: Bundle) -> None:
    """The program has the caller's own pipe: it is told by SIGPIPE, which must not be ignored."""
    process = oci_called.begin("run", "--bundle", bundle.without("pid").args("yes").save(), oci_called.id())
    assert process.stdout
    line(process.stdout)
    process.stdout.close()
    assert process.wait(10) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)])
def test_closed_streams_are_no_danger(oci: Runtime, bundle: Bundle, closed: tuple[int, ...]) -> None:
    """What we open must not become the program's standard input, output or error."""
    bundle.writable().script("for fd in 0 1 2; do readlink /proc/$$/fd/$fd; done > /tmp/seen; exit 7")
    shut = "".join(f" {fd}>&-" for fd in closed)
    words = " ".join(f"'{word}'" for word in oci.argv("run", "--bundle", bundle.save(), oci.id()))
    done = subprocess.run(
        ["sh", "-c", words + shut], env=CLEAN, capture_output=True, stdin=subprocess.DEVNULL, timeout=30
    )
    assert done.returncode == 7
    seen = (bundle.rootfs / "tmp/seen").read_text().splitlines()
    assert len(seen) == 3
    for fd in closed:
        assert fd == 1 or "null" in seen[fd]


OPENED = "echo out > /dev/stdout; echo err > /dev/stderr; cat /dev/stdin"


@pytest.mark.parametrize("private", [False, True])
def test_the_user_can_open_the_streams_again(oci: Runtime, bundle: Bundle, private: bool) -> None:
    """Pipes are their maker's alone; programs log to /dev/stdout by name."""
    if private:
        bundle.user_namespace()
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    done = oci.run(bundle.script(OPENED), stdin=b"in\n").ok()
    assert (done.out, done.err) == ("out\nin\n", "err\n")
    name = oci.detached(bundle.args("sleep", "1000"))
    done = oci("exec", "-u", "1001", name, "sh", "-c", OPENED, stdin=b"in\n").ok()
    assert (done.out, done.err) == ("out\nin\n", "err\n")


def test_of_files_only_those_written_to_are_given_away(oci_called: Runtime, bundle: Bundle, tmp_path: Path) -> None:
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    for name in ("read", "written"):
        (tmp_path / name).touch()
    with open(tmp_path / "read") as read, open(tmp_path / "written", "a") as written, open("/dev/null", "a") as null:
        argv = oci_called.argv("run", "--bundle", bundle.args("true").save(), oci_called.id())
        subprocess.run(argv, env=CLEAN, stdin=read, stdout=written, stderr=null, check=True, timeout=30)
    assert [Path(name).stat().st_uid for name in (tmp_path / "read", tmp_path / "written", "/dev/null")] == [0, 1000, 0]


# ---- nothing of ours in the program ----------------------------------------------------------------------------------


def test_the_program_has_three_descriptors(oci: Runtime, bundle: Bundle) -> None:
    """Not one of ours, nor any that the caller has open."""
    stray, other = os.pipe()
    seen = oci.tell(bundle.without("pid"), "ls /proc/$$/fd; exec sleep 0", pass_fds=(stray, other)).lines
    os.close(stray)
    os.close(other)
    # 10 is busybox's own copy of the script's descriptor in some shells; none is made with -c.
    assert seen == ["0", "1", "2"]


def test_hooks_have_three_descriptors(oci: Runtime, bundle: Bundle) -> None:
    stray, other = os.pipe()
    place = oci.place
    for kind in ("createRuntime", "createContainer", "poststart", "poststop"):
        bundle.hook(kind, f"exec ls /proc/self/fd > {place}/{kind}")
    bundle.hook("startContainer", "exec ls /proc/self/fd > /tmp/startContainer")
    oci.tell(bundle.writable(), "true", pass_fds=(stray, other))
    os.close(stray)
    os.close(other)
    for kind in ("createRuntime", "createContainer", "poststart", "poststop"):
        assert (place / kind).read_text().split() == ["0", "1", "2", "3"], kind  # 3: how ls reads the directory
    assert (bundle.rootfs / "tmp/startContainer").read_text().split() == ["0", "1", "2", "3"]


def test_signals_are_as_the_program_expects_them(oci: Runtime, bundle: Bundle) -> None:
    """None blocked or ignored, whatever the interpreter (SIGPIPE), posix_spawn(3) (32, 33) and the caller do."""

    def caller() -> None:
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])

    status = status_words(oci.run(bundle.args("cat", "/proc/self/status"), preexec_fn=caller).ok().out)
    assert status["SigBlk"] == status["SigIgn"] == "0" * 16


def test_a_caller_that_ignores_sigchld(oci: Runtime, bundle: Bundle) -> None:
    """Ignored, children vanish without a status; that is inherited over exec."""
    argv = oci.argv("run", "--bundle", bundle.hook("createRuntime", "true").script("exit 6").save(), oci.id())
    start = "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN); os.execv(sys.argv[1], sys.argv[1:])"
    done = subprocess.run(["/usr/bin/python3", "-c", start, *argv], env=CLEAN, capture_output=True, timeout=30)
    assert (done.returncode, done.stderr) == (6, b"")


def test_the_program_leads_a_session(oci: Runtime, bundle: Bundle) -> None:
    words = oci.tell(bundle, "cat /proc/self/stat; cat /proc/1/stat").lines[1].split()
    pid, process_group, session, terminal = words[0], words[4], words[5], words[6]
    assert (pid, process_group, session, terminal) == ("1", "1", "1", "0")


def test_the_environment_is_config_jsons(oci: Runtime, bundle: Bundle) -> None:
    bundle.process["env"] = ["A=1", "B=x=y", "PATH=/bin"]
    seen = oci.run(bundle.args("env"), env={**CLEAN, "SECRET": "1", "OCI_FDS": ""}).ok().lines
    assert sorted(seen) == ["A=1", "B=x=y", "HOME=/root", "PATH=/bin"]


# ---- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["TERM", "USR1", "HUP", "INT", "QUIT", "USR2", "CONT", "TSTP", "PIPE"])
def test_a_signal_to_run_reaches_the_program(oci_called: Runtime, bundle: Bundle, name: str) -> None:
    script = f"trap 'echo got; exit 9' {name}; echo ready; while :; do sleep 1000 & wait; done"
    process = oci_called.begin("run", "--bundle", bundle.script(script).save(), oci_called.id())
    assert process.stdout
    assert line(process.stdout) == b"ready\n"
    process.send_signal(getattr(signal, f"SIG{name}"))
    assert line(process.stdout) == b"got\n"
    assert process.wait(10) == 9


def test_signals_with_executed_stages(oci: Runtime, bundle: Bundle) -> None:
    script = "trap 'echo got' USR1; trap 'exit 9' TERM; echo ready; while :; do sleep 1000 & wait; done"
    process = oci.begin("run", "--bundle", bundle.script(script).save(), oci.id())
    assert process.stdout
    assert line(process.stdout) == b"ready\n"
    for _ in range(20):
        process.send_signal(signal.SIGUSR1)
        assert line(process.stdout) == b"got\n"
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 9


def test_kill_sends_any_signal(oci: Runtime, bundle: Bundle) -> None:
    script = "trap 'echo usr1' USR1; trap 'echo term; exit 0' TERM; echo ready; while :; do sleep 1000 & wait; done"
    name = oci.id()
    process = oci.begin("run", "--bundle", bundle.script(script).save(), name)
    assert process.stdout
    assert line(process.stdout) == b"ready\n"
    for word, told in (("usr1", b"usr1\n"), ("10", b"usr1\n"), ("SIGUSR1", b"usr1\n"), ("", b"term\n")):
        oci("kill", name, *([word] if word else [])).ok()
        assert line(process.stdout) == told
    assert process.wait(10) == 0


def test_kill_all_reaches_every_process(oci: Runtime, bundle: Bundle) -> None:
    child = "(trap 'echo child; exit' USR1; echo ready; while :; do sleep 1000 & wait $!; done) &"
    script = f"trap 'echo init' USR1; {child} wait; wait; true"
    name = oci.id()
    process = oci.begin("run", "--bundle", bundle.script(script).save(), name)
    assert process.stdout
    assert line(process.stdout) == b"ready\n"
    oci("kill", "--all", name, "USR1").ok()
    assert {line(process.stdout), line(process.stdout)} == {b"child\n", b"init\n"}


def test_without_a_pid_namespace_delete_ends_all(oci: Runtime, bundle: Bundle) -> None:
    bundle.without("pid").script("sleep 1001 & echo $!; exec sleep 1002")
    name = oci.id()
    process = oci.begin("run", "--keep", "--bundle", bundle.save(), name)
    assert process.stdout
    child = int(line(process.stdout))
    os.kill(oci.pid(name), signal.SIGKILL)
    assert process.wait(10) == 137
    assert alive(child)
    oci("delete", name).ok()
    assert not alive(child)


# ---- the callers pipes -----------------------------------------------------------------------------------------------


def test_create_and_start_hold_no_pipe(oci: Runtime, bundle: Bundle) -> None:
    """A caller that reads the runtime's output to its end must not wait for the container. Here the container's own
    output is elsewhere: what is read is a third pipe that any process of ours might hold."""
    bundle.args("sleep", "1000").hook("poststart", "true").hook("createRuntime", "true")
    name = oci.id()
    for words in (["create", "--bundle", bundle.save(), name], ["start", name], ["state", name]):
        reader, writer = os.pipe()
        result = oci.quiet(*words, pass_fds=(writer,))
        os.close(writer)
        assert result.status == 0, result
        poll = select.poll()
        poll.register(reader, select.POLLIN)
        assert poll.poll(5000), f"after {words[0]} somebody still holds the pipe"
        assert os.read(reader, 1) == b""
        os.close(reader)


def test_start_returns_when_the_program_has_gone_on(oci: Runtime, bundle: Bundle) -> None:
    """start's own pipes end with it, whatever the program does."""
    name = oci.create(bundle.script("sleep 1000"))
    assert oci("start", name, timeout=10).ok().out == ""


# ---- descriptors that are meant to pass ------------------------------------------------------------------------------


def passed(runtime: Runtime, bundle: Bundle, files: list[Path], *options: str, listen: int = 0) -> Result:
    """Run with these files open as 3, 4, ..."""
    opened = " ".join(f"{number}<'{file}'" for number, file in enumerate(files, 3))
    words = " ".join(f"'{word}'" for word in runtime.argv("run", *options, "--bundle", bundle.save(), runtime.id()))
    env = f"LISTEN_FDS={listen} LISTEN_PID=$$" if listen else ""
    script = f"exec {opened}; {f'export {env};' if env else ''} exec {words}"
    done = subprocess.run(["sh", "-c", script], env=CLEAN, capture_output=True, stdin=subprocess.DEVNULL, timeout=30)
    return Result(["sh"], done.returncode, done.stdout, done.stderr)


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Three files of one line each."""
    made = [tmp_path / f"file{number}" for number in range(3)]
    for number, file in enumerate(made):
        file.write_text(f"content {number}\n")
    return made


def test_preserve_fds(oci: Runtime, bundle: Bundle, files: list[Path]) -> None:
    bundle.script("cat <&3; cat <&4; for f in /proc/$$/fd/*; do if [ -e $f ]; then echo -n ${f##*/}' '; fi; done")
    result = passed(oci, bundle, files, "--preserve-fds", "2").ok()
    assert result.out == "content 0\ncontent 1\n0 1 2 3 4 "


def test_preserve_fds_that_are_not_open(oci: Runtime, bundle: Bundle, files: list[Path]) -> None:
    result = passed(oci, bundle, files[:1], "--preserve-fds", "2")
    result.refused("preserve-fds", "descriptor 4 is not open")
    assert oci.names() == []


def test_listen_fds(oci: Runtime, bundle: Bundle, files: list[Path]) -> None:
    bundle.script(
        "echo $LISTEN_FDS $LISTEN_PID; cat <&3; cat <&4; for f in /proc/$$/fd/*; do if [ -e $f ]; then echo -n ${f##*/}' '; fi; done"
    )
    result = passed(oci, bundle, files, listen=2).ok()
    assert result.out == "2 1\ncontent 0\ncontent 1\n0 1 2 3 4 "


def test_listen_fds_then_preserved_ones(oci: Runtime, bundle: Bundle, files: list[Path]) -> None:
    bundle.script(
        "echo $LISTEN_FDS; for f in /proc/$$/fd/*; do if [ -e $f ]; then echo -n ${f##*/}' '; fi; done; cat <&5"
    )
    result = passed(oci, bundle, files, "--preserve-fds", "2", listen=1).ok()
    assert result.out == "1\n0 1 2 3 4 5 content 2\n"


def test_listen_fds_of_somebody_else(oci_called: Runtime, bundle: Bundle) -> None:
    env = {**CLEAN, "LISTEN_FDS": "2", "LISTEN_PID": "1"}
    assert (
        oci_called.tell(
            bundle,
            "echo x$LISTEN_FDS; for f in /proc/$$/fd/*; do if [ -e $f ]; then echo -n ${f##*/}' '; fi; done",
            env=env,
        ).out
        == "x\n0 1 2 "
    )


def test_pidfd_socket(oci: Runtime, bundle: Bundle) -> None:
    place = str(oci.place / "socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind(place)
        server.listen(1)
        name = oci.create(bundle.args("sleep", "1000"), "--pidfd-socket", place)
        connection, _ = server.accept()
        with connection:
            word, ancillary, _, _ = connection.recvmsg(4096, socket.CMSG_SPACE(4))
    assert word == b"standard"
    (fd,) = array.array("i", ancillary[0][2])
    assert f"Pid:\t{oci.pid(name)}\n" in Path(f"/proc/self/fdinfo/{fd}").read_text()
    signal.pidfd_send_signal(fd, signal.SIGKILL)
    oci.wait_stopped(name)
    os.close(fd)


@pytest.mark.parametrize("place", ["socket", "@ocimk-test"])
def test_sockets_of_the_bundle_and_of_no_folder(oci: Runtime, bundle: Bundle, tmp_path: Path, place: str) -> None:
    """A relative name is the bundle's, as with runc and crun, and @NAME an abstract socket."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as server:
        server.bind("\0ocimk-test" if place[0] == "@" else str(bundle.path / place))
        server.listen(1)
        oci.create(bundle, "--pidfd-socket", place, cwd=tmp_path)
        server.settimeout(10)
        server.accept()[0].close()


def test_a_pidfd_socket_that_is_not_there(oci: Runtime, bundle: Bundle) -> None:
    place = oci.place / "none"
    oci("create", "--pidfd-socket", place, "--bundle", bundle.save(), oci.id()).refused(str(place), "no such file")
    assert oci.names() == []


def test_a_pid_file_that_cannot_be_written(oci: Runtime, bundle: Bundle) -> None:
    place = oci.place / "none/pid"
    oci("create", "--pid-file", place, "--bundle", bundle.save(), oci.id()).refused(str(place), "no such file")
    assert oci.names() == []


def test_the_parent_death_signal_of_the_caller_is_not_inherited(oci: Runtime, bundle: Bundle) -> None:
    """containerd runs the runtime with PDEATHSIG; the container lives on when its caller has ended."""
    name = oci.create(bundle.args("sleep", "1000"))
    pid = oci.pid(name)
    await_true(lambda: of_status(pid, "PPid") != str(os.getpid()), "a parent that is not us")
    assert alive(pid)

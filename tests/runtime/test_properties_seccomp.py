"""linux.seccomp as the program in the container meets it, and the agent that linux.seccomp.listenerPath names."""

from __future__ import annotations

import array
import errno
import fcntl
import json
import os
import socket
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
from properties_kit import PYTHON, ask, with_python

from kit import Bundle, Runtime
from ocimk.stages.seccomp_compile import load_library

RECEIVE, SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, SECCOMP_IOCTL_NOTIF_SEND
ANSWER = 4711


class Agent(threading.Thread):
    """Takes one container's state and descriptor from the socket and answers one system call with ANSWER."""

    def __init__(self, path: Path) -> None:
        super().__init__(daemon=True)
        self.listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.listener.bind(str(path))
        self.listener.listen()
        self.state: Any = None
        self.fds: list[int] = []
        self.rest = b""
        self.asked: tuple[int, int] = (0, 0)
        self.told = threading.Event()
        self.start()

    def run(self) -> None:
        connection, _ = self.listener.accept()
        with connection:
            data, ancillary, _, _ = connection.recvmsg(1 << 16, socket.CMSG_SPACE(16))
            for level, kind, payload in ancillary:
                if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                    self.fds += array.array("i", payload[: len(payload) // 4 * 4])
            self.state = json.loads(data)
            self.rest = connection.recv(1)
            self.told.set()
        held = bytearray(80)
        fcntl.ioctl(self.fds[0], RECEIVE, held)
        number, pid, _, call = struct.unpack_from("=QIIi", held)
        self.asked = (pid, call)
        fcntl.ioctl(self.fds[0], SEND, struct.pack("=QqiI", number, ANSWER, 0, 0))

    def close(self) -> None:
        self.join(10)
        for fd in self.fds:
            os.close(fd)
        self.listener.close()


def number(name: str) -> int:
    """A system call's number here, as libseccomp has it."""
    found = load_library().number(name)
    assert found is not None
    return found


def profile(*rules: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules), **more}


@pytest.mark.parametrize("private", [True, False], ids=["no-new-privileges", "privileged"])
def test_an_agent_gets_state_and_descriptor_and_answers(oci: Runtime, bundle: Bundle, private: bool) -> None:
    """With no_new_privs the filter is loaded by the last call before the program, without by one of the first."""
    place = bundle.path / "agent"
    agent = Agent(place)
    bundle.process["noNewPrivileges"] = private
    bundle.config["annotations"] = {"org.example.key": "value"}
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    bundle.linux["seccomp"] = profile(rule, listenerPath=str(place), listenerMetadata="for the agent")
    name = oci.id()

    found = ask(oci, bundle, "print(os.getppid())", name=name)
    agent.close()

    assert found == ANSWER
    assert agent.asked[1] == number("getppid")
    assert len(agent.fds) == 1
    assert agent.rest == b"", "one state for each connection, then it is closed"
    state = agent.state
    assert set(state) == {"ociVersion", "fds", "pid", "metadata", "state"}
    assert (state["fds"], state["metadata"]) == (["seccompFd"], "for the agent")
    assert state["pid"] == state["state"]["pid"] == agent.asked[0]
    assert (state["state"]["id"], state["state"]["status"]) == (name, "creating")
    assert state["state"]["bundle"] == str(bundle.path)
    assert state["state"]["annotations"] == {"org.example.key": "value"}


def test_the_connection_ends_with_the_state(oci_called: Runtime, bundle: Bundle) -> None:
    """Not only when the program is executed: a filter that is loaded early is told of when the container is created."""
    place = bundle.path / "agent"
    agent = Agent(place)
    bundle.process["noNewPrivileges"] = False
    bundle.linux["seccomp"] = profile({"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}, listenerPath=str(place))
    name = oci_called.create(with_python(bundle).args(PYTHON, "-IS", "-c", "import os; os.getppid()"))
    assert agent.told.wait(10)
    assert (agent.rest, agent.state["metadata"] if "metadata" in agent.state else "") == (b"", "")
    oci_called("start", name).ok()
    agent.close()


def test_an_agent_that_does_not_listen(oci: Runtime, bundle: Bundle) -> None:
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    bundle.linux["seccomp"] = profile(rule, listenerPath="/absent/agent")
    oci.run(bundle).refused("linux.seccomp.listenerPath: connect to /absent/agent", "no such file or directory")


def test_an_agent_is_left_alone_when_no_rule_asks_it(oci_called: Runtime, bundle: Bundle) -> None:
    bundle.linux["seccomp"] = profile(listenerPath="/absent/agent")
    assert oci_called.tell(bundle, "echo runs").out == "runs\n"


@pytest.mark.parametrize("private", [True, False], ids=["no-new-privileges", "privileged"])
def test_rules_hold_for_the_program(oci_called: Runtime, bundle: Bundle, private: bool) -> None:
    bundle.process["noNewPrivileges"] = private
    bundle.linux["seccomp"] = profile(
        {"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV},
        {"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 7, "args": [_argument(0, 8)]},
    )
    code = f"""
def attempt(*args):
    try:
        syscall(*args)
    except OSError as problem:
        return problem.errno
    return 0
calls = [({number("mkdirat")}, -100, b"/x", 0o755), ({number("getpriority")}, 0, 0)]
calls += [({number("personality")}, 8), ({number("personality")}, 0xffffffff)]
print(json.dumps([attempt(*call) for call in calls]))
"""
    assert ask(oci_called, bundle, code) == [errno.EXDEV, errno.EPERM, 7, 0]


def _argument(index: int, value: int, op: str = "SCMP_CMP_EQ") -> dict[str, Any]:
    return {"index": index, "value": value, "op": op}


@pytest.mark.parametrize(("action", "status"), [("SCMP_ACT_KILL_PROCESS", 128 + 31), ("SCMP_ACT_TRAP", 128 + 31)])
def test_actions_that_end_the_program(oci_called: Runtime, bundle: Bundle, action: str, status: int) -> None:
    bundle.linux["seccomp"] = profile({"names": ["mkdir", "mkdirat"], "action": action})
    assert oci_called.run(bundle.args("mkdir", "/tmp/x")).status == status


def test_the_filter_is_loaded_with_its_flags(oci_called: Runtime, bundle: Bundle) -> None:
    """SPEC_ALLOW shows: the kernel's own mitigation stays as it is for the process."""
    bundle.linux["seccomp"] = profile(flags=["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"])
    told = oci_called.tell(bundle, "cat /proc/self/status").out
    assert "Seccomp:\t2\n" in told
    assert "Seccomp_filters:\t1\n" in told


@pytest.mark.parametrize("quiet", [False, True])
def test_a_filter_without_getcwd_does_not_keep_us_from_checking_cwd(oci_called: Runtime, bundle: Bundle, quiet: bool) -> None:
    bundle.process["noNewPrivileges"] = quiet
    bundle.process["cwd"] = "/bin"
    rule = {"names": ["getcwd", "chdir"], "action": "SCMP_ACT_ERRNO"}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    assert oci_called.run(bundle.args("./echo", "here")).ok().out == "here\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_a_filter_that_does_not_even_let_us_end(oci_called: Runtime, bundle: Bundle, quiet: bool) -> None:
    bundle.process["noNewPrivileges"] = quiet
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38}
    assert oci_called.run(bundle.args("true"), timeout=10).status in (1, 128 + 4, 128 + 5)

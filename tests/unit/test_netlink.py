"""linux/netlink: the loopback interface in network namespaces of its own."""

from __future__ import annotations

import errno
import json
import os
import socket

import pytest

from ocimk.errors import Error
from ocimk.linux import netlink
from ocimk.native._native import NR, syscall

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def in_new_network(work, flags=CLONE_NEWNET):
    """What *work* returns in a child in a network namespace of its own."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscall(NR["unshare"], flags)
            answer = {"result": work()}
        except BaseException as problem:
            answer = {"problem": repr(problem)}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = json.loads(stream.read())
    os.waitpid(pid, 0)
    assert "problem" not in answer, answer["problem"]
    return answer["result"]


def talks_to_itself(family, address):
    with (
        socket.socket(family, socket.SOCK_STREAM) as server,
        socket.socket(family, socket.SOCK_STREAM) as client,
    ):
        server.bind((address, 0))
        server.listen(1)
        client.settimeout(5)
        client.connect((address, server.getsockname()[1]))
    return True


def test_loopback_has_its_addresses_once_it_is_up():
    def work():
        before = netlink.is_up("lo")
        netlink.loopback_up()
        netlink.loopback_up()
        six = talks_to_itself(socket.AF_INET6, "::1") if os.path.exists("/proc/net/if_inet6") else True
        return before, netlink.is_up("lo"), talks_to_itself(socket.AF_INET, "127.0.0.1"), six

    assert in_new_network(work) == [False, True, True, True]


def test_unknown_interface_is_an_oserror():
    def work():
        try:
            netlink.set_up("none0")
        except OSError as problem:
            return problem.errno

    assert in_new_network(work) == errno.ENODEV


def test_foreign_namespace_is_refused_with_a_reason():
    """Root of a new user namespace is nobody in the network namespace of another."""

    def work():
        syscall(NR["unshare"], CLONE_NEWUSER)
        try:
            netlink.loopback_up()
        except Error as problem:
            return str(problem)

    told = in_new_network(work)
    assert told == (
        "network: bring up the loopback interface: operation not permitted "
        "(CAP_NET_ADMIN is needed over the network namespace)"
    )


def test_loopback_in_a_user_namespace():
    def work():
        netlink.loopback_up()
        return netlink.is_up("lo")

    assert in_new_network(work, CLONE_NEWUSER | CLONE_NEWNET) is True

"""oci-sysctl in namespaces of its own; nothing of the host's is changed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess

import pytest

from ocimk import errors
from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.native._native import NR, syscall
from ocimk.stages import sysctl

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
APART = CLONE_NEWNS | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWNET

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def folder(**config):
    made = Folder("")
    made.config = config
    return made


def apart(work, flags=APART):
    """What *work* returns in a child in namespaces of its own, with mounts that stay in there."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            syscall(NR["unshare"], flags)
            if flags & CLONE_NEWNS:
                syscall(NR["mount"], b"none", b"/", None, 0x44000, None)  # MS_REC | MS_PRIVATE
            answer = {"result": work()}
        except BaseException as problem:
            answer = {"problem": str(problem), "type": type(problem).__name__}
        os.write(writer, json.dumps(answer).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = json.loads(stream.read())
    os.waitpid(pid, 0)
    return answer


def result(answer):
    assert "problem" not in answer, answer
    return answer["result"]


def value_of(path):
    with open(f"/proc/sys/{path}") as stream:
        return stream.read().strip()


def applied(**config):
    sysctl.apply(folder(**config), {}, [])


# ---- keys -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("net/ipv4/conf/eth0.100/forwarding", "net/ipv4/conf/eth0.100/forwarding"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
    ],
)
def test_keys_name_files(key, path):
    assert sysctl.path_of(key) == path


@pytest.mark.parametrize(
    "key", ["", ".", "net..ipv4", "net.", ".net", "net/../kernel/core_pattern", "/net/core", "net/./x"]
)
def test_keys_that_name_no_file_are_refused(key):
    with pytest.raises(Error, match="linux.sysctl"):
        sysctl.path_of(key)


# ---- apply ------------------------------------------------------------------------------------------------


@root
def test_settings_are_those_of_the_new_namespaces():
    before = value_of("net/ipv4/ip_forward"), value_of("kernel/shmmni"), socket.gethostname()
    wanted = {"net.ipv4.ip_forward": "1", "net/ipv4/ping_group_range": "0 5", "kernel.shmmni": "77"}

    def work():
        applied(hostname="inside", domainname="example.org", linux={"sysctl": wanted})
        names = ("net/ipv4/ip_forward", "net/ipv4/ping_group_range", "kernel/shmmni", "kernel/domainname")
        return [*map(value_of, names), socket.gethostname()]

    assert result(apart(work)) == ["1", "0\t5", "77", "example.org", "inside"]
    assert (value_of("net/ipv4/ip_forward"), value_of("kernel/shmmni"), socket.gethostname()) == before


@root
def test_order_is_that_of_the_configuration():
    """ "all" sets every interface, a later line for one of them wins."""
    wanted = {"net.ipv4.conf.all.forwarding": "1", "net.ipv4.conf.lo.forwarding": "0"}

    def work():
        applied(linux={"sysctl": wanted})
        return value_of("net/ipv4/conf/lo/forwarding"), value_of("net/ipv4/conf/all/forwarding")

    assert result(apart(work)) == ["0", "1"]


@root
def test_empty_value_empties_a_text():
    def work():
        applied(domainname="example.org")
        applied(linux={"sysctl": {"kernel.domainname": ""}})
        return value_of("kernel/domainname")

    assert result(apart(work)) == ""


@root
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (
            {"linux": {"sysctl": {"net.ipv4.ip_forward": "many"}}},
            "linux.sysctl[\"net.ipv4.ip_forward\"]: write 'many': invalid argument (the kernel does not",
        ),
        (
            {"linux": {"sysctl": {"net.ipv4.no_such_thing": "1"}}},
            "linux.sysctl[\"net.ipv4.no_such_thing\"]: write '1': no such file or directory (no such setting",
        ),
        (
            {"linux": {"sysctl": {"net.ipv4": "1"}}},
            "linux.sysctl[\"net.ipv4\"]: write '1': is a directory (this names a group",
        ),
        ({"hostname": "x" * 65}, "hostname: set to 'xxx"),
        ({"domainname": "x" * 65}, "domainname: set to 'xxx"),
    ],
)
def test_errors_name_property_value_reason_and_remedy(config, words):
    answer = apart(lambda: applied(**config))

    assert answer["type"] == "Error"
    assert words in answer["problem"]
    assert answer["problem"].endswith(")")


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"linux": {"sysctl": {"net.ipv4.ip_forward": 1}}}, 'write it as "1"'),
        ({"linux": {"sysctl": []}}, ""),
        ({"linux": {"sysctl": ["x"]}}, "linux.sysctl"),
        ({"hostname": 5}, "hostname"),
    ],
)
def test_wrong_types_are_refused(config, words):
    if not words:
        return applied(**config)
    with pytest.raises(Error) as caught:
        applied(**config)
    assert words in str(caught.value)


def test_operands_are_refused():
    with pytest.raises(errors.Usage):
        sysctl.apply(folder(), {}, ["x"])


def test_nothing_to_set_touches_nothing():
    applied()
    applied(hostname="", domainname=None, linux={"sysctl": None})
    applied(linux=None)
    sysctl.undo(folder())


# ---- what others have put in the way ----------------------------------------------------------------------


def mount(source, target, kind, flags=0):
    syscall(NR["mount"], source, target, kind, flags, None)


MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


@root
def test_something_else_at_proc_is_refused(tmp_path):
    def work():
        mount(b"tmpfs", b"/proc", b"tmpfs")
        os.makedirs("/proc/sys/net/ipv4")
        with open("/proc/sys/net/ipv4/ip_forward", "w"):
            pass
        applied(linux={"sysctl": {"net.ipv4.ip_forward": "1"}})

    assert "not the root of a procfs" in apart(work)["problem"]


@root
def test_part_of_a_procfs_at_proc_is_refused():
    def work():
        mount(b"/proc/sys", b"/proc", None, MS_BIND)
        applied(linux={"sysctl": {"net.ipv4.ip_forward": "1"}})

    assert "not the root of a procfs" in apart(work)["problem"]


@root
def test_file_mounted_over_a_setting_is_not_written(tmp_path):
    """The decoy stays empty and the setting itself is changed (CVE-2025-52881)."""
    decoy = tmp_path / "decoy"
    decoy.write_text("")

    def work():
        mount(bytes(decoy), b"/proc/sys/net/ipv4/ip_forward", None, MS_BIND)
        applied(linux={"sysctl": {"net.ipv4.ip_forward": "1"}})
        syscall(NR["umount2"], b"/proc/sys/net/ipv4/ip_forward", 2)
        return value_of("net/ipv4/ip_forward")

    assert result(apart(work)) == "1"
    assert decoy.read_text() == ""


@root
def test_other_sysctl_mounted_over_one_is_not_written():
    def work():
        mount(b"/proc/sys/net/ipv4/ip_default_ttl", b"/proc/sys/net/ipv4/ip_forward", None, MS_BIND)
        applied(linux={"sysctl": {"net.ipv4.ip_forward": "1"}})
        syscall(NR["umount2"], b"/proc/sys/net/ipv4/ip_forward", 2)
        return value_of("net/ipv4/ip_forward"), value_of("net/ipv4/ip_default_ttl")

    assert result(apart(work)) == ["1", "64"]


@root
@pytest.mark.parametrize("place", [b"/proc/sys", b"/proc"])
def test_read_only_proc_is_got_round(place):
    """As in a privileged container: /proc/sys is a read-only mount of its own, or the whole procfs is read-only."""

    def work():
        if place != b"/proc":
            mount(place, place, None, MS_BIND)
        mount(None, place, None, MS_BIND | MS_REMOUNT | MS_RDONLY)
        applied(linux={"sysctl": {"net.ipv4.ip_forward": "1"}})
        return value_of("net/ipv4/ip_forward")

    assert result(apart(work)) == "1"


@root
def test_setting_of_the_host_is_refused_in_a_user_namespace():
    """Validation refuses it before; the kernel does as well, and the error says why."""
    unchanged = value_of("kernel/shmmni")

    def work():
        os.setresuid(65534, 65534, 65534)
        syscall(NR["unshare"], CLONE_NEWUSER)
        applied(linux={"sysctl": {"kernel.shmmni": unchanged}})

    answer = apart(work, 0)
    assert answer["type"] == "Error"
    assert "cannot be changed from this user namespace" in answer["problem"]


@root
def test_hostname_of_the_host_is_refused_in_a_user_namespace():
    answer = apart(lambda: applied(hostname="x"), CLONE_NEWUSER)

    assert answer["problem"] == "hostname: set to 'x': operation not permitted (needs a UTS namespace of its own)"


# ---- explain and check ------------------------------------------------------------------------------------


@root
@pytest.mark.skipif(shutil.which("hostname") is None, reason="no hostname(1)")
def test_explained_commands_do_the_same():
    config = {
        "hostname": "inside",
        "linux": {"sysctl": {"net.ipv4.ip_forward": "1", "net.ipv4.ping_group_range": "0 5"}},
    }
    lines = sysctl.explain(folder(**config), {}, [])

    def work():
        subprocess.run(["sh", "-ec", "\n".join(lines)], check=True)
        return socket.gethostname(), value_of("net/ipv4/ip_forward"), value_of("net/ipv4/ping_group_range")

    assert result(apart(work)) == ["inside", "1", "0\t5"]
    assert lines == [
        "hostname inside",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
        "echo '0 5' > /proc/sys/net/ipv4/ping_group_range",
    ]


@pytest.mark.parametrize("text", ["", "a b", "it's", "$(id)", "a;b", "ü", "-n", "a\nb"])
def test_quoting_keeps_words_whole(text):
    shown = subprocess.run(["sh", "-c", f"printf %s {sysctl.quote(text)}x"], capture_output=True, check=True).stdout

    assert shown.decode() == text + "x"


def test_check_names_what_this_kernel_lacks():
    wanted = {"net.ipv4.ip_forward": "1", "net.ipv4.conf.eth7.forwarding": "1", "net.ipv4.no_such_thing": "1"}
    problems = sysctl.check(folder(linux={"sysctl": wanted}))

    assert len(problems) == 1
    assert problems[0].startswith('linux.sysctl["net.ipv4.no_such_thing"]: no /proc/sys/net/ipv4/no_such_thing')


def test_check_tells_of_wrong_keys():
    assert sysctl.check(folder(linux={"sysctl": {"net..x": "1"}}))[0].startswith('linux.sysctl["net..x"]')
    assert sysctl.check(folder()) == []


def test_remedies_are_for_errnos():
    assert all(number in errno.errorcode for number in sysctl._REMEDIES)

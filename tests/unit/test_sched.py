"""linux/sched: each call made in a child, and read back from the kernel."""

from __future__ import annotations

import json
import os
import struct

import pytest

from ocimk.errors import Error
from ocimk.linux import sched
from ocimk.native._native import NR, syscall

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


def after(calls, read):
    """What *read* returns in a child that has made the calls."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            for _, nr, args in calls:
                syscall(nr, *args)
            answer = {"result": read()}
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


# ---- scheduler --------------------------------------------------------------------------------------------


def attributes():
    """policy, flags, nice, priority, runtime, deadline, period of the caller (sched_getattr(2))."""
    held = bytearray(56)
    syscall(NR["sched_getattr"], 0, held, len(held), 0)
    return struct.unpack_from("=IIQiIQQQ", held)[1:]


@root
@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (("SCHED_OTHER", 5), [0, 0, 5, 0]),
        (("SCHED_BATCH", -3), [3, 0, -3, 0]),
        (("SCHED_IDLE",), [5, 0, 0, 0]),
        (("SCHED_FIFO", 0, 7), [1, 0, 0, 7]),
        (("SCHED_RR", 0, 99, ["SCHED_FLAG_RESET_ON_FORK"]), [2, 1, 0, 99]),
    ],
)
def test_scheduler_is_what_was_asked(made, expected):
    assert after(sched.scheduler(*made), attributes)[:4] == expected


@root
def test_deadline_scheduler():
    times = (10_000_000, 20_000_000, 30_000_000)
    calls = sched.scheduler("SCHED_DEADLINE", flags=["SCHED_FLAG_RECLAIM"], times=times)

    assert after(calls, attributes) == [6, 2, 0, 0, *times]


@pytest.mark.parametrize(
    ("made", "words"),
    [
        ({"policy": "SCHED_NONE"}, "scheduler.policy"),
        ({"policy": "SCHED_OTHER", "nice": 20}, "scheduler.nice"),
        ({"policy": "SCHED_OTHER", "nice": -21}, "scheduler.nice"),
        ({"policy": "SCHED_OTHER", "priority": 1}, "scheduler.priority"),
        ({"policy": "SCHED_FIFO", "priority": 100}, "scheduler.priority"),
        ({"policy": "SCHED_FIFO", "priority": -1}, "scheduler.priority"),
        ({"policy": "SCHED_RR", "times": (1, 0, 0)}, "scheduler.runtime"),
        ({"policy": "SCHED_OTHER", "times": (0, 0, 1)}, "scheduler.period"),
        ({"policy": "SCHED_DEADLINE", "times": (0, 2**64, 0)}, "scheduler.deadline"),
        ({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NONE"]}, "scheduler.flags[0]"),
    ],
)
def test_wrong_schedulers_are_named(made, words):
    with pytest.raises(Error) as caught:
        sched.scheduler(**made)

    assert words in str(caught.value)


# ---- input and output -------------------------------------------------------------------------------------


@root
@pytest.mark.parametrize(
    ("kind", "level", "value"),
    [("IOPRIO_CLASS_RT", 0, 1 << 13), ("IOPRIO_CLASS_BE", 7, 2 << 13 | 7), ("IOPRIO_CLASS_IDLE", 0, 3 << 13)],
)
def test_io_priority_is_what_was_asked(kind, level, value):
    assert after(sched.io_priority(kind, level), lambda: syscall(NR["ioprio_get"], 1, 0)) == value


def test_wrong_io_priorities_are_named():
    with pytest.raises(Error, match="ioPriority.class"):
        sched.io_priority("IOPRIO_CLASS_NONE", 0)
    for level in (-1, 8):
        with pytest.raises(Error, match="ioPriority.priority"):
            sched.io_priority("IOPRIO_CLASS_BE", level)


# ---- processors -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("0", {0}), ("0-3,7", {0, 1, 2, 3, 7}), ("5-5", {5}), (" 1 , 3 - 4 ", {1, 3, 4}), ("1,1-2", {1, 2})],
)
def test_lists(text, numbers):
    assert sched.parse_list(text, "x") == numbers


@pytest.mark.parametrize("text", ["", ",", "a", "-1", "1-", "3-1", "1--2", "1,,2", "0x1", "70000", "²"])
def test_wrong_lists_are_named(text):
    with pytest.raises(Error, match="execCPUAffinity.initial"):
        sched.parse_list(text, "execCPUAffinity.initial")


@pytest.mark.parametrize("number", [0, 63, 64, 127, 1023, 1024, 5000])
def test_masks_hold_the_bit_and_are_whole_words(number):
    data = sched.mask({number})

    assert len(data) % 8 == 0
    assert int.from_bytes(data, "little") == 1 << number


def test_affinity_is_what_was_asked():
    cpu = min(os.sched_getaffinity(0))

    assert after(sched.affinity(f"{cpu}", "x"), lambda: sorted(os.sched_getaffinity(0))) == [cpu]
    assert sched.affinity("", "x") == [] == sched.affinity(" ", "x")


# ---- memory and personality -------------------------------------------------------------------------------


def policy():
    """(mode with flags, nodes) of the caller (get_mempolicy(2))."""
    mode, nodes = bytearray(4), bytearray(512)
    syscall(NR["get_mempolicy"], mode, nodes, len(nodes) * 8, 0, 0)
    return int.from_bytes(mode, "little"), int.from_bytes(nodes, "little")


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (("MPOL_DEFAULT", ""), [0, 0]),
        (("MPOL_BIND", "0"), [2, 1]),
        (("MPOL_INTERLEAVE", "0", ["MPOL_F_STATIC_NODES"]), [3 | 1 << 15, 1]),
        (("MPOL_PREFERRED", "0"), [1, 1]),
        (("MPOL_PREFERRED", ""), [4, 0]),
        (("MPOL_LOCAL", ""), [4, 0]),
        (("MPOL_BIND", "0", ["MPOL_F_NUMA_BALANCING"]), [2 | 1 << 13, 1]),
    ],
)
def test_memory_policy_is_what_was_asked(made, expected):
    if not os.path.exists("/proc/self/numa_maps"):
        pytest.skip("a kernel without NUMA")
    assert after(sched.memory_policy(*made), policy) == expected


def test_kernel_is_told_of_one_bit_more_than_the_mask_has():
    """It reads one less than maxnode says: without, the highest node of a full mask would be lost."""
    ((_, _, (_, data, most)),) = sched.memory_policy("MPOL_BIND", "0-63")

    assert most == len(data) * 8 + 1


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (("MPOL_NONE", ""), "memoryPolicy.mode"),
        (("MPOL_BIND", ""), "memoryPolicy.nodes"),
        (("MPOL_WEIGHTED_INTERLEAVE", ""), "memoryPolicy.nodes"),
        (("MPOL_LOCAL", "0"), "memoryPolicy.nodes"),
        (("MPOL_DEFAULT", "0"), "memoryPolicy.nodes"),
        (("MPOL_BIND", "x"), "memoryPolicy.nodes"),
        (("MPOL_BIND", "0", ["MPOL_F_NONE"]), "memoryPolicy.flags[0]"),
    ],
)
def test_wrong_memory_policies_are_named(made, words):
    with pytest.raises(Error) as caught:
        sched.memory_policy(*made)

    assert words in str(caught.value)


def test_personality_is_what_was_asked():
    query = 0xFFFFFFFF

    assert after(sched.personality("LINUX32"), lambda: syscall(NR["personality"], query)) == 8
    assert after(sched.personality("LINUX"), lambda: syscall(NR["personality"], query)) == 0
    with pytest.raises(Error, match="personality.domain"):
        sched.personality("BSD")

"""linux/rlimit: names, checks, and what the kernel says afterwards."""

from __future__ import annotations

import os
import resource

import pytest

from ocimk.errors import Error
from ocimk.linux import rlimit
from ocimk.native._native import syscall


def test_numbers_are_those_of_the_interpreter():
    known = {name: getattr(resource, name) for name in rlimit.NUMBERS if hasattr(resource, name)}

    assert {name: rlimit.NUMBERS[name] for name in known} == known
    assert len(known) >= 14 and len(rlimit.NUMBERS) == 16


def child(work):
    """Fork; the child's exit status is what *work* returns, 99 when it raises. Never returns in the child."""
    pid = os.fork()
    if pid == 0:
        status = 99
        try:
            status = work()
        finally:
            os._exit(status)
    return pid


def test_limits_are_set_in_a_child():
    calls = rlimit.calls([("RLIMIT_NOFILE", 100, 200), ("RLIMIT_CORE", 0, rlimit.INFINITY)])

    def work():
        for _, nr, args in calls:
            syscall(nr, *args)
        good = rlimit.get("RLIMIT_NOFILE") == (100, 200) and rlimit.get("RLIMIT_CORE") == (0, rlimit.INFINITY)
        return 0 if good else 1

    pid = child(work)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


def test_limits_of_another_process():
    reader, writer = os.pipe()

    def work():
        os.close(writer)
        return len(os.read(reader, 1))

    pid = child(work)
    for _, nr, args in rlimit.calls([("RLIMIT_NOFILE", 64, 64)], pid):
        syscall(nr, *args)
    assert rlimit.get("RLIMIT_NOFILE", pid) == (64, 64)
    assert rlimit.get("RLIMIT_NOFILE") != (64, 64)
    for fd in (reader, writer):
        os.close(fd)
    os.waitpid(pid, 0)


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        ([("RLIMIT_NONE", 1, 1)], "rlimits[0].type"),
        (
            [("RLIMIT_CPU", 1, 1), ("RLIMIT_CPU", 2, 2)],
            "rlimits[1].type: RLIMIT_CPU is already set by rlimits[0]",
        ),
        ([("RLIMIT_CPU", 2, 1)], "rlimits[0] RLIMIT_CPU: the soft limit 2 is above the hard limit 1"),
        ([("RLIMIT_CPU", -1, 1)], "rlimits[0].soft"),
        ([("RLIMIT_CPU", 1, 2**64)], "rlimits[0].hard"),
    ],
)
def test_wrong_limits_are_named(limits, words):
    with pytest.raises(Error) as caught:
        rlimit.calls(limits)

    assert words in str(caught.value)


def test_labels_say_what_is_set():
    assert rlimit.calls([("RLIMIT_CPU", 1, 2)])[0][0] == "rlimits[0] RLIMIT_CPU=1:2"
    assert "CAP_SYS_RESOURCE" in rlimit.hint(1) and rlimit.hint(12345) == ""

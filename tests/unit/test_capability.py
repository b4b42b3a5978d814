"""linux/capability and linux/prctl: what the kernel shows of a process that has made the calls."""

from __future__ import annotations

import json
import os
import platform

import pytest

from ocimk.linux import capability, prctl
from ocimk.native._native import syscall

root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

ALL = (1 << 41) - 1


def in_child(work):
    """What *work* returns in a child of ours; an exception there is raised here."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
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


def status():
    """The five sets as /proc shows them."""
    with open("/proc/self/status") as stream:
        rows = dict(line.split(":\t") for line in stream if line.startswith("Cap"))
    return {key: int(value, 16) for key, value in rows.items()}


def carry_out(calls):
    for label, nr, args in calls:
        try:
            syscall(nr, *args)
        except OSError as problem:
            raise OSError(problem.errno, f"{label}: {problem.strerror}") from None


def numbers(*names):
    return {capability.NUMBERS[name] for name in names}


# ---- names ------------------------------------------------------------------------------------------------


def test_names_are_those_of_the_kernel_headers():
    """A few fixed points of linux/capability.h, and the count."""
    fixed = {
        "CAP_CHOWN": 0,
        "CAP_SETPCAP": 8,
        "CAP_SYS_ADMIN": 21,
        "CAP_MKNOD": 27,
        "CAP_SYSLOG": 34,
        "CAP_BPF": 39,
    }

    assert {name: capability.NUMBERS[name] for name in fixed} == fixed
    assert capability.NAMES[40] == "CAP_CHECKPOINT_RESTORE"
    assert len(set(capability.NAMES)) == len(capability.NAMES) == 41
    assert capability.name(40) == "CAP_CHECKPOINT_RESTORE"
    assert capability.name(55) == "capability 55"


@pytest.mark.skipif(not os.path.exists("/usr/include/linux/capability.h"), reason="no kernel headers")
def test_names_agree_with_the_headers_on_this_host():
    found = {}
    with open("/usr/include/linux/capability.h") as stream:
        for line in stream:
            words = line.split()
            if len(words) == 3 and words[0] == "#define" and words[1].startswith("CAP_") and words[2].isdigit():
                found[words[1]] = int(words[2])

    assert {name: n for name, n in found.items() if name in capability.NUMBERS} == capability.NUMBERS


def test_last_capability_is_what_proc_says():
    with open("/proc/sys/kernel/cap_last_cap") as stream:
        assert capability.last_capability() == int(stream.read())


def test_own_sets_are_what_proc_says():
    own, shown = capability.own_sets(), status()

    assert own.permitted == shown["CapPrm"]
    assert own.effective == shown["CapEff"]
    assert own.inheritable == shown["CapInh"]
    assert own.bounding == shown["CapBnd"]


def test_bits_and_members():
    assert capability.bits({0, 3, 40}) == 1 | 8 | 1 << 40
    assert capability.members(1 | 8 | 1 << 40) == {0, 3, 40}
    assert capability.bits(()) == 0 and capability.members(0) == set()


def test_capset_data_has_both_halves():
    header, data = capability.capset_data({0, 40}, {0, 40, 39}, {33})

    assert header == b"\x22\x05\x08\x20\0\0\0\0"
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, 24, 4)]
    assert words == [1, 1, 0, 1 << 8, 1 << 8 | 1 << 7, 1 << 1]


# ---- the plan ---------------------------------------------------------------------------------------------


def own_of(permitted=ALL, bounding=ALL, last=40, inheritable=0):
    return capability.Own(permitted, permitted, inheritable, bounding, last)


def planned(wanted, own):
    told = []
    return capability.plan(wanted, told.append, own), told


def test_absent_sets_are_empty():
    plan, told = planned({}, own_of())

    assert not (plan.bounding or plan.permitted or plan.effective or plan.inheritable or plan.ambient)
    assert told == []


def test_unknown_names_are_told_once_and_left_out():
    wanted = {key: ["CAP_CHOWN", "CAP_NONE"] for key in ("bounding", "permitted", "effective")}
    plan, told = planned(wanted, own_of())

    assert plan.bounding == plan.permitted == plan.effective == {0}
    assert told == ["process.capabilities: ignoring CAP_NONE: unknown"]


def test_capability_of_a_newer_kernel_is_left_out():
    plan, told = planned({"bounding": ["CAP_BPF", "CAP_KILL"]}, own_of(last=38))

    assert plan.bounding == numbers("CAP_KILL")
    assert told == ["process.capabilities: ignoring CAP_BPF: unknown to this kernel"]


def test_what_we_do_not_have_is_left_out():
    lacking = ALL & ~(1 << 24)
    names = ["CAP_SYS_RESOURCE", "CAP_KILL"]
    plan, told = planned({"bounding": names, "permitted": names, "effective": names}, own_of(lacking, lacking))

    assert plan.bounding == plan.permitted == plan.effective == numbers("CAP_KILL")
    assert told == ["process.capabilities: ignoring CAP_SYS_RESOURCE: not grantable (not in our bounding set)"]


def test_effective_needs_permitted_and_ambient_needs_both():
    wanted = {
        "permitted": ["CAP_CHOWN"],
        "effective": ["CAP_KILL"],
        "ambient": ["CAP_CHOWN"],
        "bounding": ["CAP_CHOWN"],
    }
    plan, told = planned(wanted, own_of())

    assert plan.effective == plan.ambient == set()
    assert len(told) == 2


def test_first_number_is_not_taken_for_unknown():
    """CAP_CHOWN is 0, which is also what "none" would be."""
    plan, told = planned({"bounding": ["CAP_CHOWN"]}, own_of(last=-1))

    assert plan.bounding == set() and "CAP_CHOWN" in told[0]


# ---- the calls, in the kernel -----------------------------------------------------------------------------

FEW = ["CAP_CHOWN", "CAP_KILL", "CAP_NET_BIND_SERVICE", "CAP_CHECKPOINT_RESTORE"]


@root
@pytest.mark.parametrize("user", [0, 1000])
def test_process_has_exactly_what_was_asked(user):
    wanted = {
        "bounding": FEW,
        "permitted": FEW,
        "effective": FEW[:2],
        "inheritable": FEW[:3],
        "ambient": FEW[:1],
    }

    def work():
        plan = capability.plan(wanted, lambda text: None)
        carry_out(plan.before_user())
        os.setresuid(user, user, user)
        carry_out(plan.after_user())
        return status(), prctl.prctl(prctl.GET_KEEPCAPS)

    shown, kept = in_child(work)
    assert shown == {
        "CapBnd": capability.bits(numbers(*FEW)),
        "CapPrm": capability.bits(numbers(*FEW)),
        "CapEff": capability.bits(numbers(*FEW[:2])),
        "CapInh": capability.bits(numbers(*FEW[:3])),
        "CapAmb": capability.bits(numbers(*FEW[:1])),
    }
    assert kept == 0


@root
def test_no_capabilities_at_all():
    def work():
        plan = capability.plan({}, lambda text: None)
        carry_out([*plan.before_user(), *plan.after_user()])
        return status()

    assert set(in_child(work).values()) == {0}


@root
def test_plan_for_a_process_that_lacks_some_can_be_carried_out():
    """Without the cut the kernel would refuse the whole capset."""
    everything = {key: list(capability.NAMES) for key in capability.SETS}

    def work():
        carry_out(capability.bounding_drops(set(range(41)) - {24}, 40))
        carry_out(capability.capset(set(range(41)) - {24}, set(range(41)) - {24}, ()))
        told = []
        plan = capability.plan(everything, told.append)
        carry_out([*plan.before_user(), *plan.after_user()])
        return status(), told

    shown, told = in_child(work)
    kernel_all = (1 << capability.last_capability() + 1) - 1
    assert set(shown.values()) == {kernel_all & ~(1 << 24)}
    assert told and all("CAP_SYS_RESOURCE" in line for line in told)


@root
def test_bounding_drops_name_what_they_drop():
    calls = capability.bounding_drops({0}, 2)

    assert [label for label, _, _ in calls] == [
        "drop CAP_DAC_OVERRIDE from the bounding set",
        "drop CAP_DAC_READ_SEARCH from the bounding set",
    ]
    assert [args[:2] for _, _, args in calls] == [(prctl.CAPBSET_DROP, 1), (prctl.CAPBSET_DROP, 2)]


# ---- prctl ------------------------------------------------------------------------------------------------


def test_name_is_cut_as_the_kernel_cuts_it():
    def work():
        prctl.set_name("a-name-of-more-than-fifteen")
        with open("/proc/self/comm") as stream:
            return prctl.name(), stream.read()

    assert in_child(work) == ["a-name-of-more-", "a-name-of-more-\n"]


def test_dumpable():
    def work():
        prctl.set_dumpable(False)
        before = prctl.dumpable()
        prctl.set_dumpable(True)
        return before, prctl.dumpable()

    assert in_child(work) == [0, 1]


def test_no_new_privileges():
    def work():
        before = prctl.has_no_new_privileges()
        carry_out([prctl.no_new_privileges()])
        return before, prctl.has_no_new_privileges()

    assert in_child(work) == [False, True]


def test_child_subreaper_and_parent_death_signal():
    def work():
        prctl.set_child_subreaper(True)
        prctl.set_parent_death_signal(9)
        held = [bytearray(4), bytearray(4)]
        prctl.prctl(prctl.GET_CHILD_SUBREAPER, held[0])
        prctl.prctl(prctl.GET_PDEATHSIG, held[1])
        return [int.from_bytes(value, "little") for value in held]

    assert in_child(work) == [1, 9]


@pytest.mark.skipif(platform.machine() == "mips", reason="the order of bytes is that of little endian machines")
def test_calls_fill_up_with_zeros():
    assert prctl.call("x", 38, 1) == ("x", prctl.call("", 0)[1], (38, 1, 0, 0, 0))

"""linux/seccomp, bpf_filter, libseccomp and spec/seccomp_profile: against the kernel wherever it can tell."""

from __future__ import annotations

import errno
import json
import os
import platform

import pytest

from ocimk.errors import Error
from ocimk.linux import bpf_filter, prctl, seccomp
from ocimk.native._native import NR, syscall
from ocimk.spec import seccomp_profile as profiles
from ocimk.spec.seccomp_profile import Profile
from ocimk.stages.seccomp_compile import compile_profile, load_library, stub, support

X86_64 = seccomp.AUDIT_ARCH["SCMP_ARCH_X86_64"]
AARCH64 = seccomp.AUDIT_ARCH["SCMP_ARCH_AARCH64"]
ALLOW = seccomp.ACTIONS["SCMP_ACT_ALLOW"]
ERRNO = seccomp.ACTIONS["SCMP_ACT_ERRNO"]
GETPPID = {"x86_64": 110, "aarch64": 173}.get(platform.machine(), -1)


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


def under_filter(program, flags, calls):
    """The errno (0: none) of each (nr, args...) in a child that has put the filter on itself."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prctl.prctl(prctl.SET_NO_NEW_PRIVS, 1)
            seccomp.install(program, flags)
            os.write(writer, json.dumps([attempt(*call) for call in calls]).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        answer = stream.read()
    os.waitpid(pid, 0)
    return json.loads(answer)


def attempt(nr, *args):
    try:
        syscall(nr, *args)
    except OSError as problem:
        return problem.errno
    return 0


# ---- the kernel's answers ---------------------------------------------------------------------------------


def test_actions_are_those_the_kernel_lists():
    with open("/proc/sys/kernel/seccomp/actions_avail") as stream:
        listed = set(stream.read().split())
    names = {"KILL": "kill_thread", "KILL_THREAD": "kill_thread", "NOTIFY": "user_notif"}

    for name, number in seccomp.ACTIONS.items():
        short = name.removeprefix("SCMP_ACT_")
        assert seccomp.action_available(number) == (names.get(short, short.lower()) in listed)
    assert not seccomp.action_available(0x12340000)


def test_flags_are_probed_without_installing_anything():
    for number in seccomp.FLAGS.values():
        assert seccomp.flag_available(number)
    assert not seccomp.flag_available(1 << 30)
    with open("/proc/self/status") as stream:
        assert "Seccomp:\t0" in stream.read()


# ---- the stub ---------------------------------------------------------------------------------------------

X32 = seccomp.X32_BIT


@pytest.mark.parametrize(
    ("newest", "arch", "nr", "refused"),
    [
        ([(X86_64, {"": 300})], X86_64, 300, False),
        ([(X86_64, {"": 300})], X86_64, 301, True),
        ([(X86_64, {"": 300})], X86_64, X32 | 1, False),
        ([(X86_64, {"": 300})], AARCH64, 301, False),
        ([(X86_64, {"x32": X32 | 520})], X86_64, X32 | 520, False),
        ([(X86_64, {"x32": X32 | 520})], X86_64, X32 | 521, True),
        ([(X86_64, {"x32": X32 | 520})], X86_64, 999, False),
        ([(X86_64, {"": 300, "x32": X32 | 520})], X86_64, 300, False),
        ([(X86_64, {"": 300, "x32": X32 | 520})], X86_64, 301, True),
        ([(X86_64, {"": 300, "x32": X32 | 520})], X86_64, X32 | 520, False),
        ([(X86_64, {"": 300, "x32": X32 | 520})], X86_64, X32 | 521, True),
        ([(X86_64, {"": 300}), (AARCH64, {"": 200})], AARCH64, 200, False),
        ([(X86_64, {"": 300}), (AARCH64, {"": 200})], AARCH64, 201, True),
        ([(X86_64, {"": 300}), (AARCH64, {"": 200})], X86_64, 201, False),
        ([(0x80000016, {"": 200})], 0x80000016, 0, True),
        ([(0x80000016, {"": 200})], 0x80000016, 200, False),
        ([(0x80000016, {"": 200})], 0x80000016, 201, True),
        ([], X86_64, 9999, False),
    ],
)
def test_stub_answers_enosys_to_what_is_newer(newest, arch, nr, refused):
    program = [*bpf_filter.enosys_stub(newest), (bpf_filter.RET, 0, 0, ALLOW)]

    assert bpf_filter.run(program, arch, nr) == (bpf_filter.ERRNO_ENOSYS if refused else ALLOW)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="written for the numbers of x86_64")
def test_kernel_runs_the_stub_as_we_do():
    program = [*bpf_filter.enosys_stub([(X86_64, {"": 400})]), (bpf_filter.RET, 0, 0, ALLOW)]

    assert under_filter(bpf_filter.pack(program), 0, [(GETPPID,), (437, -1, 0, 0, 0)]) == [0, errno.ENOSYS]
    assert attempt(437, -1, 0, 0, 0) != errno.ENOSYS


def test_program_survives_packing():
    program = bpf_filter.enosys_stub([(X86_64, {"": 300, "x32": X32 | 520}), (AARCH64, {"": 200})])

    assert bpf_filter.unpack(bpf_filter.pack(program)) == program
    with pytest.raises(ValueError, match="multiple of 8"):
        bpf_filter.unpack(b"123")


# ---- operators, in the kernel -----------------------------------------------------------------------------

BIG = 0x1_0000_0005
OPERATORS = [
    ("SCMP_CMP_NE", 5, 0, {5: False, 6: True, BIG: True}),
    ("SCMP_CMP_LT", 5, 0, {4: True, 5: False, BIG: False}),
    ("SCMP_CMP_LE", 5, 0, {5: True, 6: False, BIG: False}),
    ("SCMP_CMP_EQ", BIG, 0, {5: False, BIG: True}),
    ("SCMP_CMP_GE", 5, 0, {4: False, 5: True, BIG: True}),
    ("SCMP_CMP_GT", 5, 0, {5: False, 6: True, BIG: True}),
    ("SCMP_CMP_MASKED_EQ", 0xF0, 0x30, {0x30: True, 0x3F: True, 0x40: False}),
]


@pytest.mark.parametrize(("operator", "value", "second", "cases"), OPERATORS)
def test_operators_as_the_kernel_and_as_we_judge_them(operator, value, second, cases):
    """getppid takes no arguments, so what stands in the registers is for the filter alone."""
    args = [{"index": 1, "value": value, "valueTwo": second, "op": operator}]
    profile = allowing({"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77, "args": args})
    program, info = compile_profile(profile)
    rule = Profile(profile).rules[0]

    answers = under_filter(program, sum(info["flags"]), [(GETPPID, 0, given) for given in cases])

    assert answers == [77 if hit else 0 for hit in cases.values()]
    assert [profiles.matches(rule, [0, given]) for given in cases] == list(cases.values())


def test_arguments_of_one_rule_are_and_of_the_same_index_or():
    both = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 1, "value": 2, "op": "SCMP_CMP_EQ"}]
    either = [{"index": 2, "value": 1, "op": "SCMP_CMP_EQ"}, {"index": 2, "value": 2, "op": "SCMP_CMP_EQ"}]
    profile = allowing(
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 71, "args": both},
        {"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": 72, "args": either},
    )
    calls = [
        (GETPPID, 1, 2, 0),
        (GETPPID, 1, 3, 0),
        (GETPPID, 0, 0, 1),
        (GETPPID, 0, 0, 2),
        (GETPPID, 0, 0, 3),
    ]

    assert under_filter(compile_profile(profile)[0], 0, calls) == [71, 0, 72, 72, 0]


def allowing(*rules):
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list(rules)}


# ---- the profile ------------------------------------------------------------------------------------------

RULE = {"names": ["getppid"], "action": "SCMP_ACT_ERRNO"}

WRONG = [
    ({"syscalls": [RULE]}, "linux.seccomp.defaultAction"),
    ({"defaultAction": "SCMP_ACT_NONE"}, "linux.seccomp.defaultAction"),
    ({"defaultAction": "SCMP_ACT_NOTIFY"}, "linux.seccomp.defaultAction"),
    ({"defaultAction": "SCMP_ACT_KILL", "defaultErrnoRet": 1}, "linux.seccomp.defaultErrnoRet"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 4096}, "linux.seccomp.defaultErrnoRet"),
    ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": -1}, "linux.seccomp.defaultErrnoRet"),
    ({"defaultAction": "SCMP_ACT_TRACE", "defaultErrnoRet": 65536}, "linux.seccomp.defaultErrnoRet"),
    (allowing({"names": [], "action": "SCMP_ACT_ERRNO"}), "linux.seccomp.syscalls[0].names"),
    (allowing({"names": [""], "action": "SCMP_ACT_ERRNO"}), "linux.seccomp.syscalls[0].names[0]"),
    (allowing(RULE, {"names": ["read"]}), "linux.seccomp.syscalls[1].action"),
    (allowing({**RULE, "action": "SCMP_ACT_TRAP", "errnoRet": 1}), "linux.seccomp.syscalls[0].errnoRet"),
    (allowing({**RULE, "action": "SCMP_ACT_ALLOW", "errnoRet": 0}), "linux.seccomp.syscalls[0].errnoRet"),
    (allowing({**RULE, "args": [{"index": 6, "value": 1, "op": "SCMP_CMP_EQ"}]}), "args[0].index"),
    (allowing({**RULE, "args": [{"index": 0, "value": 2**64, "op": "SCMP_CMP_EQ"}]}), "args[0].value"),
    (allowing({**RULE, "args": [{"index": 0, "value": 1, "op": "=="}]}), "args[0].op"),
    (allowing({**RULE, "args": [{"index": 0, "op": "SCMP_CMP_EQ"}]}), "args[0].value"),
    ({**allowing(), "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"]}, "linux.seccomp.flags[0]"),
    ({**allowing(), "architectures": ["SCMP_ARCH_Z80"]}, "linux.seccomp.architectures[0]"),
    ({**allowing(), "listenerMetadata": "x"}, "linux.seccomp.listenerMetadata"),
    (allowing({**RULE, "action": "SCMP_ACT_NOTIFY"}), "linux.seccomp.listenerPath"),
    (
        {**allowing({"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}), "listenerPath": "/s"},
        "linux.seccomp.syscalls[0].names",
    ),
]


@pytest.mark.parametrize(("config", "property_name"), WRONG)
def test_wrong_profiles_are_refused_by_name(config, property_name):
    with pytest.raises(Error) as caught:
        Profile(config)

    assert property_name in str(caught.value)


def test_null_is_as_absent():
    rule = {**RULE, "errnoRet": None, "args": None}
    profile = Profile({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule], "architectures": None, "flags": None})

    assert profile.rules[0].action == ERRNO | errno.EPERM
    assert profile.flags is None


# ---- the compiler -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("flags", "numbers"),
    [
        (None, [4]),
        ([], []),
        (["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_TSYNC"], [2, 1]),
        (["SECCOMP_FILTER_FLAG_SPEC_ALLOW", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"], [4]),
        (["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"], []),
    ],
)
def test_flags(flags, numbers):
    """Absent is not the same as empty; what only concerns an agent falls away without one."""
    profile = {**allowing(RULE), **({} if flags is None else {"flags": flags})}
    program, info = compile_profile(profile)

    assert info["flags"] == numbers
    assert under_filter(program, sum(numbers), [(GETPPID,)]) == [errno.EPERM]


def test_flags_beside_a_listener_make_the_kernel_give_one():
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    flags = ["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]
    program, info = compile_profile({**allowing(rule), "listenerPath": "/agent", "flags": flags})

    def work():
        prctl.prctl(prctl.SET_NO_NEW_PRIVS, 1)
        fd = seccomp.install(program, sum(info["flags"]))
        return 0 if "seccomp" in os.readlink(f"/proc/self/fd/{fd}") else 1

    pid = child(work)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert info["notify"]


def test_unknown_names_matter_only_where_something_gets_through():
    rule = {"names": ["getppid", "no_such_call"], "action": "SCMP_ACT_ERRNO"}
    open_info = compile_profile(allowing(rule))[1]
    closed_info = compile_profile({"defaultAction": "SCMP_ACT_KILL", "syscalls": [rule]})[1]

    assert open_info["unknown"] == closed_info["unknown"] == ["no_such_call"]
    assert len(open_info["warnings"]) == 1 and "no_such_call" in open_info["warnings"][0]
    assert closed_info["warnings"] == []


@pytest.mark.parametrize(
    ("profile", "stubbed"),
    [
        ({"defaultAction": "SCMP_ACT_ERRNO"}, True),
        ({"defaultAction": "SCMP_ACT_KILL_PROCESS"}, True),
        ({"defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": errno.ENOSYS}, False),
        ({"defaultAction": "SCMP_ACT_ALLOW"}, False),
        ({"defaultAction": "SCMP_ACT_LOG"}, False),
        ({"defaultAction": "SCMP_ACT_TRACE"}, False),
    ],
)
def test_stub_is_for_profiles_that_deny(profile, stubbed):
    rules = [{"names": ["read", "openat2"], "action": "SCMP_ACT_TRAP"}]

    assert bool(stub(load_library(), Profile({**profile, "syscalls": rules}))) == stubbed


def test_rule_that_says_what_holds_anyway_is_no_error():
    """libseccomp refuses a rule whose action is the default; profiles have such rules, for people to read."""
    program, _ = compile_profile(allowing({"names": ["getuid"], "action": "SCMP_ACT_ALLOW"}, RULE))

    assert under_filter(program, 0, [(GETPPID,)]) == [errno.EPERM]


def test_contradiction_is_an_error_that_names_the_rule():
    args = [{"index": 0, "value": 1, "op": "SCMP_CMP_EQ"}]
    rules = [{"names": ["getppid"], "action": "SCMP_ACT_ERRNO", "errnoRet": n, "args": args} for n in (1, 2)]
    with pytest.raises(Error) as caught:
        compile_profile(allowing(*rules))

    assert "linux.seccomp.syscalls[1]: getppid" in str(caught.value)


def test_architecture_that_cannot_be_combined_is_named():
    other = "SCMP_ARCH_S390X" if platform.machine() != "s390x" else "SCMP_ARCH_X86"
    with pytest.raises(Error) as caught:
        compile_profile({**allowing(RULE), "architectures": [other]})

    assert "linux.seccomp.architectures[0]" in str(caught.value) and other in str(caught.value)


def test_known_architectures_are_named_as_libseccomp_names_them():
    library = load_library()
    for name, audit in seccomp.AUDIT_ARCH.items():
        token = library.arch(name)
        if token and name != "SCMP_ARCH_X32":
            assert token == audit, name
    assert library.arch(seccomp.NATIVE[platform.machine()]) == library.native()


def test_numbers_are_those_of_the_native_module():
    library = load_library()

    assert {name: library.number(name) for name in ("openat2", "bpf", "capset")} == {
        name: NR[name] for name in ("openat2", "bpf", "capset")
    }


def test_support_is_of_this_host():
    found = support()

    assert [part.isdigit() for part in found["libseccomp"].split(".")] == [True] * 3
    assert seccomp.NATIVE[platform.machine()] in found["archs"]
    assert set(found["archs"]) <= set(seccomp.AUDIT_ARCH)
    assert found["supportedFlags"] == [name for name, n in seccomp.FLAGS.items() if seccomp.flag_available(n)]

"""oci-seccomp: from config.json to a filter that a process really runs under, its cache, and its
explanations."""

from __future__ import annotations

import errno
import json
import os
import platform
import posix
import subprocess
import sys
import tempfile
import time

import pytest

from ocimk import errors
from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.linux import prctl
from ocimk.linux import seccomp as kernel
from ocimk.native._native import NR, syscall
from ocimk.stages import seccomp
from ocimk.stages.seccomp_compile import load_library

PODMAN = "/usr/share/containers/seccomp.json"
NATIVE = kernel.NATIVE[platform.machine()]
DENY = {"names": ["getppid", "personality"], "action": "SCMP_ACT_ERRNO", "errnoRet": 77}


@pytest.fixture
def folder(tmp_path):
    """A container's folder in a root of its own; config is what the test puts into it."""
    made = Folder(str(tmp_path / "root" / "c1"))
    os.makedirs(made.path, 0o700)
    made.config = {}
    return made


def with_profile(folder, profile):
    folder.config = {"linux": {"seccomp": profile}}
    return folder


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


def installed(folder, calls):
    """The errno (0: none) of each (name, args...) in a child under the folder's filter."""
    program, flags = seccomp.load_info(folder)
    library = load_library()
    numbers = [(library.number(name), *args) for name, *args in calls]
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            prctl.prctl(prctl.SET_NO_NEW_PRIVS, 1)
            kernel.install(program, flags)
            os.write(writer, json.dumps([attempt(*number) for number in numbers]).encode())
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


def as_oci(path, arch="amd64"):
    """A profile as container engines keep them, turned into linux.seccomp for a container without
    capabilities."""
    with open(path) as stream:
        source = json.load(stream)
    rules = []
    for entry in source["syscalls"]:
        includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
        if includes.get("caps") or arch not in (includes.get("arches") or [arch]):
            continue
        if arch in (excludes.get("arches") or []):
            continue
        rules.append({k: entry[k] for k in ("names", "action", "args", "errnoRet") if k in entry})
    own = [a for a in source["archMap"] if a["architecture"] == NATIVE]
    known = [NATIVE, *(own[0]["subArchitectures"] if own else [])]
    kept = {key: source[key] for key in ("defaultAction", "defaultErrnoRet") if key in source}
    return {**kept, "architectures": known, "syscalls": rules}


# A profile of the shape of Docker's: names what is allowed, EPERM for the rest, clone without new namespaces.
DOCKERLIKE = {
    "defaultAction": "SCMP_ACT_ERRNO",
    "defaultErrnoRet": 1,
    "architectures": [NATIVE, *(["SCMP_ARCH_X86", "SCMP_ARCH_X32"] if NATIVE == "SCMP_ARCH_X86_64" else [])],
    "syscalls": [
        {
            "names": (
                "read write close fstat mmap mprotect munmap brk rt_sigaction rt_sigprocmask rt_sigreturn "
                "exit exit_group getpid getppid gettid futex openat newfstatat readlinkat lseek ioctl "
                "fcntl dup dup3 pipe2 wait4 execve getrandom clock_gettime nanosleep madvise sigaltstack "
                "uname getcwd chdir getuid geteuid getgid getegid prlimit64 set_robust_list rseq"
            ).split(),
            "action": "SCMP_ACT_ALLOW",
        },
        {
            "names": ["personality"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0xFFFFFFFF, "op": "SCMP_CMP_EQ"}],
        },
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}],
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS},
    ],
}


# ---- apply ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [{}, {"linux": {}}, {"linux": {"seccomp": None}}, {"linux": {"seccomp": {}}}])
def test_nothing_is_written_without_a_profile(folder, config):
    folder.config = config
    seccomp.apply(folder, {}, [])

    assert os.listdir(folder.path) == []
    assert seccomp.load_info(folder) is None
    assert seccomp.listener(folder) is None
    assert seccomp.check(folder) == []


def test_profile_of_dockers_shape_allows_and_denies(folder):
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])
    new_user, no_flags = 0x10000000, 0
    calls = [
        ("getppid",),
        ("personality", 0xFFFFFFFF),
        ("personality", 8),
        ("clone", new_user, 0, 0, 0, 0),
        ("clone3", 0, 0),
        ("mount", 0, 0, 0, 0, 0),
        ("swapoff", 0),
        ("clone", no_flags | 0x7E020000, 0, 0, 0, 0),
    ]

    assert installed(folder, calls) == [0, 0, 1, 1, errno.ENOSYS, 1, 1, 1]


def test_calls_newer_than_the_profile_fail_with_enosys(folder):
    """clone3 (435) is the newest that the profile names: openat2 (437) is newer, swapoff is older."""
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])
    calls = [("openat2", -1, 0, 0, 0), ("landlock_create_ruleset", 0, 0, 0), ("swapoff", 0)]

    assert installed(folder, calls) == [errno.ENOSYS, errno.ENOSYS, errno.EPERM]


@pytest.mark.skipif(not os.path.exists(PODMAN), reason=f"{PODMAN} is not installed")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the profile is turned for x86_64")
def test_podmans_profile_allows_and_denies(folder):
    seccomp.apply(with_profile(folder, as_oci(PODMAN)), {}, [])
    calls = [
        ("getppid",),
        ("swapoff", 0),
        ("bpf", 0, 0, 0),
        ("personality", 5),
        ("socket", 16, 3, 9),
        ("openat2", -1, 0, 0, 0),
    ]

    assert seccomp.check(folder) == []
    assert installed(folder, calls) == [0, errno.EPERM, errno.EPERM, errno.ENOSYS, errno.EINVAL, errno.EINVAL]


def ask_for_parent(program, flags):
    """Under the filter, the call that it is about."""
    prctl.prctl(prctl.SET_NO_NEW_PRIVS, 1)
    kernel.install(program, flags)
    return 0 if os.getppid() else 1


def test_actions_that_end_the_process(folder):
    expected = {
        "SCMP_ACT_KILL_PROCESS": 31,
        "SCMP_ACT_KILL_THREAD": 31,
        "SCMP_ACT_KILL": 31,
        "SCMP_ACT_TRAP": 31,
    }
    for action, signal in expected.items():
        rule = {"names": ["getppid"], "action": action}
        seccomp.apply(with_profile(folder, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}), {}, [])
        program, flags = seccomp.load_info(folder)
        pid = child(lambda program=program, flags=flags: ask_for_parent(program, flags))
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal, action


def test_agent_answers_what_the_filter_hands_to_it(folder):
    """The descriptor that the kernel returns is fetched by the parent, as the runtime will, and answers
    4711."""
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [rule],
        "listenerPath": "/run/a",
        "listenerMetadata": "m",
    }
    seccomp.apply(with_profile(folder, profile), {}, [])
    program, flags = seccomp.load_info(folder)
    reader, writer = os.pipe()

    def work():
        prctl.prctl(prctl.SET_NO_NEW_PRIVS, 1)
        os.write(writer, bytes([kernel.install(program, flags)]))
        return 0 if os.getppid() == 4711 else 1

    pid = child(work)
    os.close(writer)
    number = os.read(reader, 1)[0]
    pidfd = os.pidfd_open(pid)
    listener = syscall(NR["pidfd_getfd"], pidfd, number, 0)
    answer(listener, 4711)
    for fd in (reader, pidfd, listener):
        os.close(fd)

    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert flags & kernel.FLAG_NEW_LISTENER
    assert seccomp.listener(folder) == ("/run/a", "m")


def answer(listener, value):
    """SECCOMP_IOCTL_NOTIF_RECV, then SECCOMP_IOCTL_NOTIF_SEND with a return value."""
    import fcntl
    import struct

    asked = bytearray(80)
    fcntl.ioctl(listener, 0xC0502100, asked)
    fcntl.ioctl(listener, 0xC0182101, struct.pack("=QqiI", struct.unpack_from("=Q", asked)[0], value, 0, 0))


def test_names_that_weaken_the_filter_are_warned_of_each_time(folder, capfd):
    rule = {"names": ["getppid", "no_such_call"], "action": "SCMP_ACT_ERRNO"}
    with_profile(folder, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]})
    for _ in range(2):
        seccomp.apply(folder, {}, [])
        assert "no_such_call" in capfd.readouterr().err
    assert any("no_such_call" in line for line in seccomp.check(folder))


def test_undo_removes_both_files_and_may_be_repeated(folder):
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])
    assert sorted(os.listdir(folder.path)) == [seccomp.PROGRAM, seccomp.INFO]
    for _ in range(2):
        seccomp.undo(folder)
        assert os.listdir(folder.path) == []


def test_operands_of_apply_are_refused(folder):
    with pytest.raises(errors.Usage):
        seccomp.apply(with_profile(folder, DOCKERLIKE), {}, ["mount"])


# ---- the cache --------------------------------------------------------------------------------------------


def other(folder, name):
    """Another container below the same root with the same profile."""
    made = Folder(os.path.join(os.path.dirname(folder.path), name))
    os.makedirs(made.path, 0o700)
    made.config = folder.config
    return made


def is_hit(folder, monkeypatch):
    """Whether apply does without the compiler."""
    from ocimk.stages import seccomp_compile

    compiled = []
    real = seccomp_compile.compile_profile
    monkeypatch.setattr(seccomp_compile, "compile_profile", lambda config: compiled.append(config) or real(config))
    seccomp.apply(folder, {}, [])
    monkeypatch.undo()
    return not compiled


def test_second_container_finds_the_filter(folder, monkeypatch):
    assert not is_hit(with_profile(folder, DOCKERLIKE), monkeypatch)
    second = other(folder, "c2")

    assert is_hit(second, monkeypatch)
    assert seccomp.load_info(second) == seccomp.load_info(folder)
    place = seccomp.cache_place(folder)
    assert os.stat(place).st_mode & 0o777 == os.stat(os.path.dirname(place)).st_mode & 0o777 == 0o700
    assert {os.stat(os.path.join(place, name)).st_mode & 0o777 for name in os.listdir(place)} == {0o600}


def test_other_profile_is_another_filter(folder, monkeypatch):
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])
    with_profile(folder, {**DOCKERLIKE, "defaultErrnoRet": 5})

    assert not is_hit(folder, monkeypatch)
    assert installed(folder, [("swapoff", 0)]) == [5]


def test_key_depends_on_library_and_kernel(monkeypatch):
    first = seccomp.key(DOCKERLIKE)
    system = os.uname()
    for at in (2, 4):  # release, machine
        changed = os.uname_result([*system[:at], "other", *system[at + 1 :]])
        monkeypatch.setattr(posix, "uname", lambda changed=changed: changed)
        assert seccomp.key(DOCKERLIKE) != first
    monkeypatch.undo()
    assert seccomp.key(DOCKERLIKE) == first
    monkeypatch.setattr(seccomp, "library_file", lambda: ("/usr/lib/libseccomp.so.2", 1, 2))
    assert seccomp.key(DOCKERLIKE) != first
    monkeypatch.setattr(seccomp, "library_file", lambda: None)
    assert seccomp.key(DOCKERLIKE) == ""


def spoil_program(place, name):
    with open(f"{place}/{name}.bpf", "r+b") as stream:
        stream.write(b"\x06\0\0\0\0\0\xff\x7f")


def cut_program(place, name):
    os.truncate(f"{place}/{name}.bpf", 64)


def cut_info(place, name):
    os.truncate(f"{place}/{name}.json", 10)


def lose_info(place, name):
    os.unlink(f"{place}/{name}.json")


def open_file_to_others(place, name):
    os.chmod(f"{place}/{name}.bpf", 0o622)


def link_file(place, name):
    os.rename(f"{place}/{name}.bpf", f"{place}/elsewhere")
    os.symlink("elsewhere", f"{place}/{name}.bpf")


def open_directory_to_others(place, name):
    os.chmod(place, 0o777)


def open_upper_directory_to_others(place, name):
    os.chmod(os.path.dirname(place), 0o777)


def link_directory(place, name):
    os.rename(place, place + ".real")
    os.symlink(place + ".real", place)


def give_away(place, name):
    if os.geteuid():
        pytest.skip("only root can give files away")
    os.chown(f"{place}/{name}.bpf", 1234, -1)


SPOILERS = [
    spoil_program, cut_program, cut_info, lose_info, open_file_to_others, link_file, open_directory_to_others,
    open_upper_directory_to_others, link_directory, give_away,
]  # fmt: skip


@pytest.mark.parametrize("spoil", SPOILERS)
def test_what_others_may_have_touched_is_not_used(folder, monkeypatch, spoil):
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])
    good = seccomp.load_info(folder)
    spoil(seccomp.cache_place(folder), seccomp.key(DOCKERLIKE))
    second = other(folder, "c2")

    assert not is_hit(second, monkeypatch)
    assert seccomp.load_info(second) == good


def test_cache_that_cannot_be_written_is_done_without(folder):
    with open(os.path.join(os.path.dirname(folder.path), ".cache"), "w"):
        pass
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])

    assert seccomp.load_info(folder)


def test_no_cache_leaves_none(folder):
    seccomp.apply(with_profile(folder, DOCKERLIKE), {"--no-cache": "1"}, [])

    assert seccomp.load_info(folder)
    assert not os.path.exists(seccomp.cache_place(folder))


def test_cache_stays_small(folder):
    place = seccomp.cache_place(folder)
    os.makedirs(place, 0o700)
    for i in range(200):
        path = os.path.join(place, f"{i:040x}.bpf")
        with open(path, "w"):
            pass
        os.utime(path, (i, i))
    os.chmod(os.path.dirname(place), 0o700)
    seccomp.apply(with_profile(folder, DOCKERLIKE), {}, [])

    left = os.listdir(place)
    assert len(left) == 128
    assert f"{199:040x}.bpf" in left and f"{0:040x}.bpf" not in left
    assert f"{seccomp.key(DOCKERLIKE)}.bpf" in left


HIT = """
import sys, time
sys.path.insert(0, sys.argv[1])
from ocimk.container.folder import Folder
from ocimk.stages import seccomp
folder = Folder(sys.argv[2])
folder.config = {"linux": {"seccomp": __import__("json").load(open(sys.argv[3]))}}
known = set(sys.modules)
start = time.perf_counter_ns()
seccomp.apply(folder, {}, [])
print(time.perf_counter_ns() - start, *sorted(set(sys.modules) - known))
"""


@pytest.fixture
def memory_folder():
    """A container's folder on a file system in memory, as /run usually is: no busy disk is measured."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as place:
        made = Folder(os.path.join(place, "c1"))
        os.mkdir(made.path, 0o700)
        yield made


def test_hit_is_quick_and_loads_no_ctypes(memory_folder, tmp_path):
    folder = memory_folder
    profile = as_oci(PODMAN) if os.path.exists(PODMAN) else DOCKERLIKE
    seccomp.apply(with_profile(folder, profile), {}, [])
    (tmp_path / "profile.json").write_text(json.dumps(profile))
    library = os.path.dirname(os.path.dirname(os.path.abspath(errors.__file__)))
    command = [sys.executable, "-I", "-S", "-c", HIT, library, folder.path, str(tmp_path / "profile.json")]
    runs = []
    for _ in range(10):
        seccomp.undo(folder)
        runs.append(subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())

    assert runs[0][1:] == ["_blake2"]
    assert min(int(run[0]) for run in runs) < 1_000_000, "ns"


# ---- explain and check ------------------------------------------------------------------------------------


def test_explain_has_a_line_for_each_rule(folder):
    lines = seccomp.explain(with_profile(folder, DOCKERLIKE), {}, [])
    text = "\n".join(lines)

    assert all(line.startswith("# ") for line in lines)
    assert "# linux.seccomp.defaultAction: fail with EPERM (1), where no rule below holds" in lines
    assert "# linux.seccomp.syscalls[1]: allow if arg0 == 0xffffffff: personality" in lines
    assert "# linux.seccomp.syscalls[2]: allow if arg0 & 0x7e020000 == 0x0: clone" in lines
    assert "newer than any named above fail with ENOSYS (38)" in text


def own(lines):
    """The line about the native architecture."""
    name = NATIVE.removeprefix("SCMP_ARCH_").lower()
    return next(line for line in lines if f" on {name} " in line)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (["getppid"], "allow, by linux.seccomp.syscalls[0]"),
        (["swapoff"], "fail with EPERM (1), by linux.seccomp.defaultAction, for no rule names it"),
        (["personality"], "depends on the arguments"),
        (["personality", "0xffffffff"], "allow, by linux.seccomp.syscalls[1]"),
        (["personality", "8"], "fail with EPERM (1), by linux.seccomp.defaultAction, for no rule fits"),
        (["clone", "0x10000000"], "fail with EPERM (1), by linux.seccomp.defaultAction, for no rule fits"),
        (["clone3"], "fail with ENOSYS (38), by linux.seccomp.syscalls[3]"),
        (["openat2"], "fail with ENOSYS (38), for it is newer than any system call that the profile names"),
    ],
)
def test_explain_tells_which_rule_decides(folder, question, expected):
    assert expected in own(seccomp.explain(with_profile(folder, DOCKERLIKE), {}, question))


def test_explain_refuses_what_it_cannot_answer(folder):
    with_profile(folder, DOCKERLIKE)
    with pytest.raises(Error, match="no_such_call"):
        seccomp.explain(folder, {}, ["no_such_call"])
    with pytest.raises(errors.Usage, match="many"):
        seccomp.explain(folder, {}, ["mount", "many"])


def test_explain_tells_of_a_rule_that_never_applies(folder):
    rules = [{"names": ["getppid"], "action": "SCMP_ACT_LOG"}, DENY]
    lines = seccomp.explain(with_profile(folder, {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}), {}, [])

    assert "linux.seccomp.syscalls[1]: getppid: never applies" in lines[-1]


def test_check_names_what_is_wrong(folder):
    assert seccomp.check(with_profile(folder, DOCKERLIKE)) == []
    wrong = {**DOCKERLIKE, "flags": ["SECCOMP_FILTER_FLAG_NONE"]}
    assert "linux.seccomp.flags[0]" in seccomp.check(with_profile(folder, wrong))[0]


def test_check_tells_what_this_kernel_lacks(folder, monkeypatch):
    monkeypatch.setattr(kernel, "action_available", lambda action: action != kernel.ACTIONS["SCMP_ACT_ERRNO"])
    monkeypatch.setattr(kernel, "flag_available", lambda flag: False)
    with_profile(folder, {**DOCKERLIKE, "flags": ["SECCOMP_FILTER_FLAG_LOG"]})

    problems = seccomp.check(folder)
    assert "linux.seccomp.defaultAction: SCMP_ACT_ERRNO is not supported by this kernel" in problems[0]
    assert "linux.seccomp.flags[0]: SECCOMP_FILTER_FLAG_LOG is not supported by this kernel" in problems[1]


def test_miss_takes_what_libseccomp_takes(folder):
    """Not a benchmark: a guard against a compiler that got slow by accident."""
    with_profile(folder, DOCKERLIKE)
    start = time.monotonic()
    seccomp.apply(folder, {"--no-cache": "1"}, [])
    assert time.monotonic() - start < 1

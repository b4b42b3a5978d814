"""What oci-seccomp's explain and check say: the rules in words, and what the filter answers to one system
call."""

from __future__ import annotations

from ..errors import Error, Usage
from ..linux import bpf_filter, seccomp
from ..spec import seccomp_profile as profiles
from ..spec.seccomp_profile import WHERE, Profile
from .seccomp_compile import architectures, compile_profile, load_library, newest, stub

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..linux.libseccomp import Library


def describe(config: dict[str, Any]) -> list[str]:
    """One line per rule, and what holds for the rest."""
    profile = Profile(config)
    library = load_library()
    program, info = compile_profile(config)
    flags = [name.removeprefix("SECCOMP_FILTER_FLAG_") for name, n in seccomp.FLAGS.items() if n in info["flags"]]
    names = " ".join(map(_short, architectures(library, profile)))
    lines = [
        f"filter for {names}: {len(program) // 8} instructions, flags {' '.join(flags) or 'none'}",
        f"{WHERE}.defaultAction: {profiles.action_words(profile.action)}, where no rule below holds",
    ]
    for rule in profile.rules:
        what = profiles.action_words(rule.action) + profiles.rule_words(rule)
        lines.append(f"{rule.where}: {what}: {' '.join(rule.names)}")
    return [
        *lines,
        *_stub_words(library, profile),
        *_unknown_words(library, info["unknown"]),
        *overruled(profile),
    ]


def _short(name: str) -> str:
    return name.removeprefix("SCMP_ARCH_").lower()


def _stub_words(library: Library, profile: Profile) -> list[str]:
    if not stub(library, profile):
        return []
    limits = [f"{_short(arch)} {number & ~seccomp.X32_BIT}" for arch, number in newest(library, profile).items()]
    return [f"system calls newer than any named above fail with ENOSYS (38): numbers beyond {', '.join(limits)}"]


def _unknown_words(library: Library, unknown: list[str]) -> list[str]:
    if not unknown:
        return []
    names = " ".join(sorted(set(unknown)))
    return [f"ignored, for libseccomp {library.version_text} does not know them: {names}"]


def overruled(profile: Profile) -> list[str]:
    """Rules that never apply, for another one decides the same call without looking at its arguments.

    libseccomp takes the first such rule, wherever it stands among those with conditions, and says nothing.
    """
    deciding: dict[str, profiles.Rule] = {}
    for rule, name in profile.named():
        if rule.alternatives == [[]] and rule.action != profile.action:
            deciding.setdefault(name, rule)
    return [
        f"{rule.where}: {name}: never applies, {deciding[name].where} decides it whatever its arguments"
        for rule, name in profile.named()
        if name in deciding and rule.action not in (deciding[name].action, profile.action)
    ]


# ---- one system call ---------------------------------------------------------------------------------------


def verdict(config: dict[str, Any], name: str, values: list[str]) -> list[str]:
    """What happens to a system call, by architecture, and because of which rule. Raises Error for an unknown
    name."""
    profile = Profile(config)
    library = load_library()
    args = [_value(text) for text in values]
    if library.number(name) is None:
        raise Error(f"{name}: libseccomp {library.version_text} knows no system call of this name")
    program = bpf_filter.unpack(compile_profile(config)[0])
    text = name + (f"({', '.join(f'{value:#x}' for value in args)})" if args else "")
    lines = []
    for arch, token in architectures(library, profile).items():
        number = library.number(name, token)
        if number is None or number < 0:
            lines.append(f"{text} on {_short(arch)}: {_absent(number)}")
            continue
        shown = f"{text} on {_short(arch)} ({number & ~seccomp.X32_BIT})"
        lines += _judge(shown, profile, program, (arch, number), name, args)
    return lines


def _absent(number: int | None) -> str:
    """Why an architecture has no number: libseccomp has -101.., -201.. for parts of another call."""
    for first, name in ((-100, "socketcall"), (-200, "ipc")):
        if number is not None and first - 100 < number < first:
            return f"made through {name}(2), ask about that"
    return "there is no such system call"


def _value(text: str) -> int:
    try:
        return int(text, 0) & 0xFFFFFFFFFFFFFFFF
    except ValueError:
        raise Usage(f"{text} is not a number", hint="arguments are given as 5 or 0x5") from None


def _judge(
    shown: str,
    profile: Profile,
    program: list[bpf_filter.Instruction],
    call: tuple[str, int],
    name: str,
    args: list[int],
) -> list[str]:
    """The answer, when it depends on no argument or arguments are given; else each rule and what is left."""
    naming = [rule for rule in profile.rules if name in rule.names and rule.action != profile.action]
    audit = seccomp.AUDIT_ARCH[call[0]]
    if args or not naming or any(rule.alternatives == [[]] for rule in naming):
        result = bpf_filter.run(program, audit, call[1], args)
        return [f"{shown}: {profiles.action_words(result)}, {_why(profile, naming, result, name, args)}"]
    lines = [f"{shown}: depends on the arguments"]
    lines += [f"  {profiles.action_words(r.action)}{profiles.rule_words(r)}, by {r.where}" for r in naming]
    return [*lines, f"  otherwise {profiles.action_words(profile.action)}, by {WHERE}.defaultAction"]


def _why(profile: Profile, naming: list[profiles.Rule], result: int, name: str, args: list[int]) -> str:
    for rule in naming:
        if rule.action == result and profiles.matches(rule, args):
            return f"by {rule.where}"
    if result == profile.action:
        same = [rule.where for rule in profile.rules if name in rule.names and rule.action == profile.action]
        return f"by {same[0]}, as by default" if same else f"by {WHERE}.defaultAction, for no rule {_fits(naming)}"
    if result == bpf_filter.ERRNO_ENOSYS:
        return "for it is newer than any system call that the profile names"
    return "by libseccomp's own rule"


def _fits(naming: list[profiles.Rule]) -> str:
    return f"fits (not {', '.join(rule.where for rule in naming)})" if naming else "names it"


# ---- check -------------------------------------------------------------------------------------------------


def problems(config: dict[str, Any]) -> list[str]:
    """What stands in the way on this host, one line each; [] when the filter can be had as it is meant."""
    try:
        profile = Profile(config)
    except Error as problem:
        return [str(problem)]
    found = _actions(profile)
    try:
        info = compile_profile(config)[1]
    except Error as problem:
        return [*found, str(problem)]
    return found + [f"{text} (update libseccomp, or correct the name)" for text in info["warnings"]]


def _actions(profile: Profile) -> list[str]:
    used = {profile.action_name: f"{WHERE}.defaultAction"}
    for rule in profile.rules:
        used.setdefault(rule.action_name, f"{rule.where}.action")
    return [
        f"{where}: {name} is not supported by this kernel (see /proc/sys/kernel/seccomp/actions_avail)"
        for name, where in used.items()
        if not seccomp.action_available(seccomp.ACTIONS[name])
    ]

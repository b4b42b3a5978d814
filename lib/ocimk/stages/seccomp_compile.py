"""From linux.seccomp to a BPF program: what the stage oci-seccomp does when its cache has no answer."""

from __future__ import annotations

import posix

from ..errors import Error
from ..linux import bpf_filter, seccomp
from ..linux.libseccomp import Filter, Library
from ..spec.seccomp_profile import WHERE, Profile, Rule
from .seccomp import library_file

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# A tree of numbers pays from here on; libseccomp up to 2.5.4 breaks on a tree without any rule (runc's
# figure).
_TREE_FROM = 33
_NOTIFY_API = 6

_STUBLESS_ERRNO = seccomp.ACTIONS["SCMP_ACT_ERRNO"] | bpf_filter.ENOSYS


def load_library() -> Library:
    """libseccomp, as the cache names it. Raises Error when there is none."""
    found = library_file()
    return Library(found[0]) if found else Library()


def support() -> dict[str, Any]:
    """What `oci features` tells of this host: libseccomp's version, its architectures, the kernel's flags.

    Raises Error when there is no libseccomp.
    """
    library = load_library()
    return {
        "libseccomp": library.version_text,
        "archs": [name for name in seccomp.AUDIT_ARCH if library.arch(name)],
        "supportedFlags": [name for name, number in seccomp.FLAGS.items() if seccomp.flag_available(number)],
    }


def compile_profile(config: dict[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """The filter for one linux.seccomp, and what is worth knowing about it (seccomp.json).

    Raises Error naming the property that is wrong or cannot be had here.
    """
    profile = Profile(config)
    library = load_library()
    if profile.notifies and library.api_level() < _NOTIFY_API:
        hint = "Linux 5.7 or newer is needed, and libseccomp 2.5"
        raise Error(
            f"{WHERE}: SCMP_ACT_NOTIFY",
            f"libseccomp {library.version_text} cannot have it on this kernel",
            hint,
        )
    with library.filter(profile.action) as building:
        _add_architectures(building, library, profile)
        if sum(len(rule.names) for rule in profile.rules) >= _TREE_FROM:
            building.optimize()
        unknown = _add_rules(building, library, profile)
        program = bpf_filter.pack(stub(library, profile)) + building.export()
    if len(program) > 8 * bpf_filter.MAX_INSTRUCTIONS:
        raise Error(WHERE, f"{len(program) // 8} instructions are needed, the kernel takes 4096", "name fewer rules")
    return program, {
        "flags": filter_flags(profile),
        "notify": profile.notifies,
        "listenerPath": profile.listener_path,
        "listenerMetadata": profile.listener_metadata,
        "unknown": unknown,
        "warnings": _warnings(profile, unknown, library.version_text),
    }


def _add_architectures(building: Filter, library: Library, profile: Profile) -> None:
    for i, name in enumerate(profile.architectures):
        token = library.arch(name)
        where = f"{WHERE}.architectures[{i}]"
        if not token:
            raise Error(where, f"libseccomp {library.version_text} does not know {name}", "a newer one may")
        try:
            building.add_arch(token)
        except OSError as problem:
            cause = f"{name} cannot be filtered together with {posix.uname().machine}"
            raise Error(where, cause, str(problem.strerror).lower()) from None


def _add_rules(building: Filter, library: Library, profile: Profile) -> list[str]:
    """Add every rule; returns the names that the library does not know."""
    unknown = []
    for rule, name in profile.named():
        if rule.action == profile.action:
            continue  # says what holds anyway; libseccomp refuses such a rule
        number = library.number(name)
        if number is None:
            unknown.append(name)
            continue
        for conditions in rule.alternatives:
            try:
                building.add_rule(rule.action, number, conditions)
            except OSError as problem:
                raise _refused(rule, name, problem) from None
    return unknown


def _refused(rule: Rule, name: str, problem: OSError) -> Error:
    import errno

    hints = {
        errno.EEXIST: "another rule for the same system call contradicts it",
        errno.EOPNOTSUPP: "libseccomp cannot do this on this architecture or kernel",
        errno.EINVAL: "the action is not known to this kernel, or the arguments cannot be compared this way",
    }
    return Error(f"{rule.where}: {name}", problem, hints.get(problem.errno or 0, ""))


def _warnings(profile: Profile, unknown: list[str], version: str) -> list[str]:
    """Rules that fall away and thereby let through what the profile wants stopped.

    In the usual profile, which lists what is allowed, an unknown name only stays denied; that is not worth a
    line at every start (`explain` tells it)."""
    if not profile.permissive:
        return []
    lost = sorted(set(unknown))
    return [f"{WHERE}: no effect on {name}: libseccomp {version} does not know this system call" for name in lost]


# ---- flags -------------------------------------------------------------------------------------------------


def filter_flags(profile: Profile) -> list[int]:
    """The flags for seccomp(2). Raises Error for one that this kernel lacks.

    Absent flags mean SPEC_ALLOW where the kernel has it (runc's rule: mitigations against speculation are a
    choice); an empty list means none. TSYNC beside a listener needs TSYNC_ESRCH; WAIT_KILLABLE_RECV without a
    listener says nothing and the kernel refuses it, so it is left out."""
    names = profile.flags
    if names is None:
        names = ["SECCOMP_FILTER_FLAG_SPEC_ALLOW"] if seccomp.flag_available(seccomp.FLAG_SPEC_ALLOW) else []
    flags = []
    for i, name in enumerate(names):
        number = seccomp.FLAGS[name]
        if not seccomp.flag_available(number):
            raise Error(f"{WHERE}.flags[{i}]", f"{name} is not supported by this kernel")
        if number not in flags and (number != seccomp.FLAG_WAIT_KILLABLE_RECV or profile.notifies):
            flags.append(number)
    if profile.notifies:
        flags += [seccomp.FLAG_TSYNC_ESRCH] if seccomp.FLAG_TSYNC in flags else []
        flags.append(seccomp.FLAG_NEW_LISTENER)
    return flags


# ---- the stub ----------------------------------------------------------------------------------------------


def stub(library: Library, profile: Profile) -> list[bpf_filter.Instruction]:
    """The instructions before the filter proper that answer ENOSYS to system calls the profile is too old
    for."""
    if profile.permissive or profile.action == _STUBLESS_ERRNO:
        return []
    found: dict[int, dict[str, int]] = {}
    for name, highest in newest(library, profile).items():
        kind = "x32" if name == "SCMP_ARCH_X32" else ""
        found.setdefault(seccomp.AUDIT_ARCH[name], {})[kind] = highest
    return bpf_filter.enosys_stub(list(found.items()))


def architectures(library: Library, profile: Profile) -> dict[str, int]:
    """The filter's architectures with libseccomp's tokens: the native one (always in it) first."""
    native = library.native()
    known = [name for name in seccomp.AUDIT_ARCH if library.arch(name) == native]
    return {name: library.arch(name) for name in [*known, *profile.architectures]}


def newest(library: Library, profile: Profile) -> dict[str, int]:
    """The highest system call number that the profile names, by architecture."""
    names = {name for _, name in profile.named()}
    found = {}
    for name, token in architectures(library, profile).items():
        numbers = [library.number(call, token) for call in names]
        highest = max((number for number in numbers if number is not None), default=0)
        if highest > 0:
            found[name] = highest
    return found

"""Annotations that change what is done: those of crun that concern Linux containers, and CRIU's. See oci(1).

They are taken from config.json alone. An annotation of crun's that has no effect here is told with a warning.
"""

from __future__ import annotations

from .walk import WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CONTEXT_TYPE = "run.oci.mount_context_type"
SECCOMP_RECEIVER = "run.oci.seccomp.receiver"
SECCOMP_STRICT = "run.oci.seccomp_fail_unknown_syscall"
SECCOMP_BPF = "run.oci.seccomp_bpf_data"
KEEP_GROUPS = "run.oci.keep_original_groups"
PIDFD_RECEIVER = "run.oci.pidfd_receiver"
DELEGATE = "run.oci.delegate-cgroup"
HOOKS_STDOUT = "run.oci.hooks.stdout"
HOOKS_STDERR = "run.oci.hooks.stderr"

OBEYED = (
    *(CONTEXT_TYPE, SECCOMP_RECEIVER, SECCOMP_STRICT, SECCOMP_BPF, KEEP_GROUPS, PIDFD_RECEIVER, DELEGATE),
    *(HOOKS_STDOUT, HOOKS_STDERR),
)
"""Those that have an effect; a value of the other is no error, as the specification wants it."""

PREFIX = "run.oci."

_CONTEXTS = ("context", "fscontext", "defcontext", "rootcontext")
_PATHS = (SECCOMP_RECEIVER, PIDFD_RECEIVER, HOOKS_STDOUT, HOOKS_STDERR)


def of(config: dict[str, Any], name: str) -> str | None:
    """The annotation's value, None without it."""
    found = config.get("annotations")
    return found.get(name) if type(found) is dict else None


def judge(annotations: dict[str, Any], out: list[Finding]) -> None:
    """Add what is wrong with the values of those that have an effect, and name those of crun that have none."""
    for name, value in annotations.items():
        if not name.startswith(PREFIX) or type(value) is not str:
            continue
        where = f"annotations.{name}"
        if name not in OBEYED:
            out.append(Finding(where, "has no effect: not supported by ocimk", WARNING))
        elif name in _PATHS and value[:1] != "/":
            out.append(Finding(where, f"found {value!r}, an absolute path is required"))
        elif name == CONTEXT_TYPE and value not in _CONTEXTS:
            out.append(Finding(where, f"found {value!r}, one of {', '.join(_CONTEXTS)} is required"))
        elif name == SECCOMP_BPF and not bpf(value):
            out.append(Finding(where, f"found {value[:40]!r}, an array of struct sock_filter in base64 is required"))
        elif name == DELEGATE and ".." in value.split("/"):
            out.append(Finding(where, f'found {value!r}, a path without ".." is required'))


def bpf(value: str) -> bytes:
    """The filter behind SECCOMP_BPF, b"" when it is none (1 to 4096 instructions of 8 bytes, as seccomp(2) takes)."""
    import binascii

    try:
        data = binascii.a2b_base64(value, strict_mode=True)
    except ValueError:
        return b""
    return data if len(data) % 8 == 0 and len(data) <= 8 * 4096 else b""


def into_properties(config: dict[str, Any], receiver: str = "") -> bool:
    """Put an annotation that stands for a property in its place; whether something was changed.

    receiver  the seccomp agent of $RUN_OCI_SECCOMP_RECEIVER, for a configuration that names none
    """
    if of(config, SECCOMP_BPF) is not None and type(config.get("linux", {})) is dict:
        # What says that there is a filter, instead of the one that does not count; oci-seccomp has the given one.
        config.setdefault("linux", {})["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW"}
        return True
    linux = config.get("linux")
    seccomp = linux.get("seccomp") if type(linux) is dict else None
    path = of(config, SECCOMP_RECEIVER) or receiver
    if not path or type(seccomp) is not dict or seccomp.get("listenerPath"):
        return False
    seccomp["listenerPath"] = path
    return True

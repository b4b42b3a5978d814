"""A seccomp profile that is older than this runtime must not get in the way of its own first process: without
no_new_privs the filter is bound before the program is looked for and before the startContainer hooks."""

from __future__ import annotations

import errno
from typing import Any

import pytest

from kit import Bundle, Runtime


def denied(bundle: Bundle, *names: str, answer: int = errno.EPERM) -> Bundle:
    """A filter that is bound early and does not know these system calls."""
    bundle.process["noNewPrivileges"] = False
    rule: dict[str, Any] = {"names": list(names), "action": "SCMP_ACT_ERRNO", "errnoRet": answer}
    bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}
    return bundle


@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOSYS])
@pytest.mark.parametrize("names", [("faccessat2",), ("faccessat2", "faccessat")], ids=["one", "both"])
def test_the_program_is_found(oci_called: Runtime, bundle: Bundle, names: tuple[str, ...], answer: int) -> None:
    bundle.process["env"] = ["PATH=/absent:/etc/passwd:/bin"]
    assert oci_called.run(denied(bundle, *names, answer=answer).args("echo", "found")).ok().out == "found\n"


@pytest.mark.parametrize("names", [("faccessat2",), ("faccessat2", "faccessat")], ids=["one", "both"])
def test_a_missing_program_is_told_at_create(oci_called: Runtime, bundle: Bundle, names: tuple[str, ...]) -> None:
    denied(bundle, *names)
    oci_called.run(bundle.args("absent")).refused('exec: "absent": executable file not found in $PATH')
    oci_called.run(bundle.args("/bin/absent")).refused("no such file or directory")
    oci_called.run(bundle.args("/bin")).refused("is a directory")


@pytest.mark.parametrize("answer", [errno.EPERM, errno.ENOSYS])
def test_start_hooks_run(oci_called: Runtime, bundle: Bundle, answer: int) -> None:
    denied(bundle.writable(), "clone3", answer=answer)
    bundle.hook("startContainer", "cat > /tmp/state", timeout=20)
    bundle.script("cat /tmp/state")
    assert oci_called.run(bundle).ok().json["status"] == "created"


def test_a_start_hook_has_its_time(oci_called: Runtime, bundle: Bundle) -> None:
    denied(bundle, "clone3").hook("startContainer", "sleep 60", timeout=1)
    oci_called.run(bundle.script("exit 0")).refused("startContainer", "timeout")

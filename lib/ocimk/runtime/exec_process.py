"""What ``oci exec`` is to run: the container's own process with what the options change, or a file's."""

from __future__ import annotations

import posix

from .. import jsonio
from ..container.folder import Folder, read_all
from ..errors import Error, warn
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli.invocation import Invocation

    Process = dict[str, Any]

_INHERITED = (
    "capabilities", "rlimits", "apparmorProfile", "selinuxLabel", "scheduler", "ioPriority", "execCPUAffinity",
    "oomScoreAdj",
)  # fmt: skip
"""What a process of --process gets from the container's configuration when it does not say: as runc has it."""

_HIGHEST = 2**32 - 2
"""The highest id; the one above it means "leave it" to setresuid(2)."""


def wanted(folder: Folder, invocation: Invocation) -> Process:
    """The process object, checked. Raises Error."""
    file = invocation.text("process")
    base = folder.config.get("process") or {}
    if file:
        found = _of_file(file)
        inherited = {key: base[key] for key in _INHERITED if base.get(key) is not None}
        mask = (base.get("user") or {}).get("umask")
        if mask is not None:
            found["user"] = {"umask": mask, **(found.get("user") or {})}
        return {**inherited, **found}
    if not base:
        raise Error("process property must not be empty", hint="config.json has none: use --process FILE")
    return _of_options(base, invocation)


# ---- a file ----------------------------------------------------------------------------------------------------------


def _of_file(file: str) -> Process:
    try:
        fd = posix.open(file, posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            data = read_all(fd)
        finally:
            posix.close(fd)
    except OSError as problem:
        raise Error(f"--process {file}", problem) from None
    from ..spec.validate import ERROR, drop_nulls, process_findings

    process = drop_nulls(jsonio.loads(data, file))
    found = process_findings(process)
    bad = [finding for finding in found if finding.severity == ERROR]
    if bad:
        raise Error(f"--process {file}: {bad[0].path}", bad[0].message, f"and {len(bad) - 1} more" if bad[1:] else "")
    for finding in found:
        warn(f"--process {file}: {finding}")
    if not process.get("args"):
        raise Error(f"--process {file}", "args must not be empty")
    return dict(process)


# ---- options ---------------------------------------------------------------------------------------------------------


def _of_options(base: Process, invocation: Invocation) -> Process:
    args = invocation.args[1:]
    if not args:
        raise Error("exec args cannot be empty", hint="oci exec ID COMMAND, or --process FILE")
    process = {**base, "args": args, "terminal": invocation.flag("tty")}
    process.pop("commandLine", None)
    if invocation.text("cwd"):
        process["cwd"] = invocation.text("cwd")
        if not process["cwd"].startswith("/"):
            raise Error(f"--cwd {process['cwd']}", "cwd must be an absolute path")
    for option, name in (("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")):
        if invocation.text(option):
            process[name] = invocation.text(option)
    if invocation.given("no-new-privs"):
        process["noNewPrivileges"] = invocation.flag("no-new-privs")
    if invocation.many("env"):
        process["env"] = [*(base.get("env") or []), *map(_variable, invocation.many("env"))]
    if invocation.many("cap"):
        process["capabilities"] = _capabilities(base.get("capabilities") or {}, invocation.many("cap"))
    process["user"] = _user(base.get("user") or {}, invocation)
    return process


def _variable(pair: str) -> str:
    name, equals, _ = pair.partition("=")
    if not equals:
        raise Error(f"--env {pair}", "invalid environment variable: missing '='", "NAME=VALUE")
    if not name:
        raise Error(f"--env {pair}", "invalid environment variable: name cannot be empty")
    return pair


def _capabilities(sets: dict[str, list[str]], added: list[str]) -> dict[str, list[str]]:
    """Never the inheritable set (CVE-2022-29162); the ambient one, which needs it, only where there is one."""
    grown = ["bounding", "effective", "permitted"]
    if sets.get("inheritable") is not None:
        grown.append("ambient")
    return {**sets, **{name: [*(sets.get(name) or []), *added] for name in grown}}


def _user(base: dict[str, Any], invocation: Invocation) -> dict[str, Any]:
    user = dict(base)
    text = invocation.text("user")
    if invocation.given("user"):
        uid, colon, gid = text.partition(":")
        user["uid"] = _id(uid, f"--user {text}: bad uid")
        if colon:
            user["gid"] = _id(gid, f"--user {text}: bad gid")
    more = [_id(gid, f"--additional-gids {gid}: bad gid") for gid in invocation.many("additional-gids")]
    if more:
        user["additionalGids"] = [*(user.get("additionalGids") or []), *more]
    return user


def _id(text: str, doing: str) -> int:
    """A number and nothing else (CVE-2026-30892). Raises Error."""
    if not (text.isascii() and text.isdigit()):
        raise Error(doing, f'"{text}" is not a number', "names are not looked up: UID[:GID]")
    if len(text) > 10 or int(text) > _HIGHEST:
        raise Error(doing, f'"{text}" is out of range', f"0 to {_HIGHEST}")
    return int(text)


def sub_cgroups(values: list[str]) -> dict[str, str]:
    """``--cgroup [CONTROLLER[,CONTROLLER]:]PATH`` as the sub-cgroup by controller, "*" for all. Raises Error."""
    found: dict[str, str] = {}
    for value in values:
        controllers, colon, path = value.partition(":")
        if not colon:
            if len(values) != 1:
                raise Error(f"invalid --cgroup argument: {value}", "missing <controller>: prefix")
            controllers, path = "*", value
        if ".." in path.split("/"):
            raise Error(f"invalid --cgroup argument: {value}", '".." is not allowed in it')
        for controller in controllers.split(","):
            if not controller:
                raise Error(f"invalid --cgroup argument: {value}", "empty <controller> prefix")
            if controller in found:
                raise Error("invalid --cgroup argument(s)", f"controller {controller} specified multiple times")
            found[controller] = paths.clean(f"/{path}").lstrip("/")
    return found

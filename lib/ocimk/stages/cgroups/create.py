"""Making a container's cgroups: only what is missing, each noted in the ledger before it is made.

A directory that was there before is used, if nothing lives in it and it does not stand frozen, and stays at
undo.
"""

from __future__ import annotations

import errno

from ...errors import Error, debug
from ...linux import cgroup
from ...linux import path as paths
from . import Layout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...container.folder import Folder

STAGE = "oci-cgroup"
LEAF = "cgroup"
PARENT = "cgroup-parent"

_OPTIONAL = ("name=systemd", "misc")
_RACE_TRIES = 20
_THREADED = frozenset(("cpu", "cpuset", "perf_event", "pids"))
"""The controllers that work on single threads (cgroup-v2.rst, "Threads"); the others need a domain."""


def make_all(folder: Folder, layout: Layout, asked: frozenset[str], lenient: bool) -> None:
    """Make every directory of the layout ready to be joined.

    asked    the cgroup2 controllers that limits are asked for
    lenient  leave out, of the layout too, what we may not make (rootless without a cgroupsPath); hierarchies
             that control nothing are left out in any case, as with runc

    Raises Error (Denied when permission lacks).
    """
    for name, path in list(layout.paths.items()):
        try:
            if name:
                made = make_one(folder, path, name == "freezer")
                if name == "cpuset":
                    fill_cpuset(path, made)
            else:
                make_v2(folder, path, layout.mode, asked)
        except Denied as problem:
            if not lenient and name not in _OPTIONAL and not (name == "" and layout.mode == "hybrid"):
                raise
            debug(f"left out: {problem}")
            del layout.paths[name]
    if not layout.paths:
        layout.mode = "none"


class Denied(Error):
    """A cgroup that we may not make or use."""


def refuse(doing: str, problem: OSError, hint: str = "") -> Error:
    """The failure as Error, or as Denied when permission is what lacks."""
    kind = Denied if problem.errno in (errno.EACCES, errno.EPERM, errno.EROFS) else Error
    return kind(doing, problem, hint)


def make_one(folder: Folder, path: str, freezes: bool) -> bool:
    """Make a directory and those above it that are missing; False when it was there. Raises Error.

    Another runtime may remove an empty parent just before we make our cgroup in it: then the parents are made
    again.
    """
    for _ in range(_RACE_TRIES):
        if paths.is_dir(path):
            inspect(path, freezes)
            return False
        make_parents(folder, paths.dirname(path))
        try:
            if note_and_make(folder, LEAF, path):
                break
        except FileNotFoundError:
            continue
        except OSError as problem:
            raise refuse(f"make cgroup {path}", problem) from None
    else:
        raise Error(f"make cgroup {path}", "it or its parents are removed again and again")
    # Right below the hierarchy's root nothing above can be frozen.
    if freezes and paths.dirname(paths.dirname(path)) != cgroup.ROOT:
        refuse_frozen(path)
    return True


def make_parents(folder: Folder, path: str) -> None:
    """Make the missing directories above a cgroup. Raises Error."""
    if paths.is_dir(path):
        return
    make_parents(folder, paths.dirname(path))
    try:
        note_and_make(folder, PARENT, path)
    except FileNotFoundError:
        return
    except OSError as problem:
        raise refuse(f"make cgroup {path}", problem) from None


def note_and_make(folder: Folder, kind: str, path: str) -> bool:
    """Note the directory, then make it; False, and the note struck, when somebody else was faster. Raises
    OSError."""
    folder.record(STAGE, kind, path)
    try:
        made = cgroup.make(path)
    except OSError:
        folder.strike(STAGE, kind, path)
        raise
    if not made:
        folder.strike(STAGE, kind, path)
    return made


def inspect(path: str, freezes: bool) -> None:
    """Raise Error unless the cgroup, which was there before us, is empty and not frozen (config-linux.md,
    "Control groups")."""
    from ...linux import cgroup_procs

    try:
        found = cgroup_procs.of_tree(path)
    except OSError as problem:
        if problem.errno in (errno.ENOENT, errno.ENODEV):
            return
        raise refuse(f"read cgroup {path}", problem) from None
    if found:
        shown = " ".join(str(pid) for pid in found[:10])
        hint = f"{paths_property(path)}: another container may use it; pids {shown}"
        raise Error("container's cgroup is not empty", f"{len(found)} process(es) found in {path}", hint)
    if freezes:
        refuse_frozen(path)


def refuse_frozen(path: str) -> None:
    """Raise Error when processes put into the cgroup would stand still for ever."""
    from ...linux import cgroup_procs

    if cgroup_procs.standing(path):
        hint = "it or a cgroup above it is frozen; write 0 to cgroup.freeze or THAWED to freezer.state there"
        raise Error("container's cgroup unexpectedly frozen", path, hint)


def paths_property(path: str) -> str:
    """How a person is told which property chose the path."""
    return f"linux.cgroupsPath gives {path}"


# ---- cpuset of v1 ------------------------------------------------------------------------------------------


def fill_cpuset(path: str, made: bool) -> None:
    """Give the cpuset the CPUs and memory nodes of its parent where it has none: without, nothing can join.

    made: it is new, so that there is nothing of anybody's in it to keep. Raises Error.
    """
    try:
        with cgroup.Group(path) as group:
            try:
                _inherit(group, "cpuset.", made)
            except FileNotFoundError:
                # Mounted with the option noprefix, as Android does.
                _inherit(group, "", made)
    except OSError as problem:
        raise refuse(f"prepare cpuset {path}", problem) from None


def _inherit(group: cgroup.Group, prefix: str, made: bool) -> None:
    names = (f"{prefix}cpus", f"{prefix}mems")
    missing = [name for name in names if made or not group.read(name).strip()]
    if not missing:
        return
    with cgroup.Group(paths.dirname(group.path)) as parent:
        values = [parent.read(name) for name in missing]
        if not all(value.strip() for value in values):
            _inherit(parent, prefix, False)
            values = [parent.read(name) for name in missing]
        group.write_all(list(zip(missing, values, strict=True)))


# ---- cgroup2 -----------------------------------------------------------------------------------------------


def make_v2(folder: Folder, path: str, mode: str, asked: frozenset[str]) -> None:
    """Make the cgroup2 with controllers switched on above it. Raises Error.

    On v2 all that the host offers are switched on, not only those of the limits, so that there is something
    to measure (``oci events``); beside v1, where the host's root cgroup may have none on, only those that are
    asked for. A level that has them already is not written to: switching on walks all processes below. What
    could not be switched on is told when a limit needs it.
    """
    prepare_v2(path, mode, asked, make_one(folder, path, True))


def prepare_v2(path: str, mode: str, asked: frozenset[str], made: bool) -> None:
    """The same for a cgroup2 that is there, *made* by us just now. Raises Error."""
    top = cgroup.ROOT if mode == "v2" else cgroup.UNIFIED
    offered = cgroup.controllers(top) if mode == "v2" or asked else []
    wanted = [name for name in offered if mode == "v2" or name in asked]
    if wanted:
        level = top
        for part in path.removeprefix(f"{top}/").split("/"):
            switch_on(level, wanted)
            level = f"{level}/{part}"
    if made and paths.dirname(path) != top:
        fit_type(path, asked)


def switch_on(path: str, wanted: list[str]) -> None:
    """Switch controllers on for the children of *path*; those that cannot be are left off."""
    have = cgroup.controllers(path, "cgroup.subtree_control")
    missing = [f"+{name}" for name in wanted if name not in have]
    if not missing:
        return
    with cgroup.Group(path) as group:
        try:
            group.write("cgroup.subtree_control", " ".join(missing))
        except OSError:
            for one in missing:
                try:
                    group.write("cgroup.subtree_control", one)
                except OSError:
                    continue


def fit_type(path: str, asked: frozenset[str]) -> None:
    """Make a cgroup below a threaded one usable: threaded itself, which rules domain controllers out.
    Raises Error."""
    with cgroup.Group(path) as group:
        kind = group.read("cgroup.type").strip()
        if kind == "domain":
            return
        domain = sorted(asked - _THREADED)
        if domain:
            cause = f"it is {kind!r} and the {domain[0]} controller needs a domain"
            hint = f"{paths_property(path)}: choose one below a cgroup without processes of its own"
            raise Error(f"enter cgroup {path}", cause, hint)
        if kind == "domain invalid":
            try:
                group.write("cgroup.type", "threaded")
            except OSError as problem:
                raise refuse(f"make cgroup {path} threaded", problem) from None

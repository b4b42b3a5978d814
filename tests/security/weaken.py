"""Defences taken out, one a function: test_weakened.py runs the attacks against ``oci`` with one of these applied.

Each puts something in the place of one function or constant of ocimk, in the way that a careless runtime would do it.
"""

from __future__ import annotations

import errno
import importlib
import os
import sys
import time
from typing import Any


def apply(name: str) -> None:
    """Take the defence out that the function *name* is about."""
    globals()[name]()


def nothing() -> None:
    """The runtime as it is."""


def module(name: str) -> Any:
    return importlib.import_module(f"ocimk.{name}")


def everywhere(home: Any, name: str, instead: Any) -> Any:
    """Put *instead* in the place of home.name, also where modules have taken it by name; returns what was there."""
    for each in ("stages.mount", "stages.exec_fifo", "stages.birth", "stages.sysctl", "runtime.create"):
        module(each)
    for each in ("mounts", "masks", "devices", "console", "enter", "root"):
        module(f"stages.rootfs.{each}")
    before = getattr(home, name)
    for each in list(sys.modules.values()):
        if getattr(each, "__name__", "").startswith("ocimk") and each.__dict__.get(name) is before:
            setattr(each, name, instead)
    return before


# ---- the file system -------------------------------------------------------------------------------------------------


def unconfined() -> None:
    """Paths of the container are resolved as the host would."""
    module("linux.openat2")._CONFINED = 0


def check_then_use() -> None:
    """Paths are checked as strings, and used as strings a moment later (CVE-2021-30465)."""
    openat2 = module("linux.openat2")

    def check(root: int, path: bytes) -> bytes:
        base = os.readlink(b"/proc/self/fd/%d" % root)
        whole = base + b"/" + path.strip(b"/")
        if not (os.path.realpath(whole) + b"/").startswith(base + b"/"):
            raise OSError(errno.EXDEV, "leads out of the root")
        time.sleep(0.003)
        return whole

    def find(root: int, path: bytes, flags: int = openat2.O_PATH, resolve: int = 0) -> int:
        return os.open(check(root, path), flags)

    def make_directories(root: int, path: bytes, mode: int = 0o755) -> int:
        whole = check(root, path)
        os.makedirs(whole, mode, exist_ok=True)
        return os.open(whole, openat2.DIRECTORY)

    def make_file(root: int, path: bytes, mode: int = 0o644) -> int:
        whole = check(root, path)
        os.makedirs(os.path.dirname(whole), exist_ok=True)
        os.close(os.open(whole, os.O_CREAT | os.O_WRONLY, mode))
        return os.open(whole, openat2.O_PATH)

    for function in (find, make_directories, make_file):
        everywhere(openat2, function.__name__, function)


def proc_through_links() -> None:
    """The mount point of /proc and /sys is found like any other."""
    mounts, openat2 = module("stages.rootfs.mounts"), module("linux.openat2")
    mounts._plain_directory = lambda work, entry: openat2.make_directories(work.root, entry.path)


def proc_may_be_covered() -> None:
    """A mount over /proc is like any other."""
    module("stages.rootfs.mounts").check_proc = lambda work, entry, fd: None


def null_of_the_container() -> None:
    """Files are masked by what the container has at /dev/null, which nobody looks at."""
    masks, mount, openat2 = module("stages.rootfs.masks"), module("linux.mount"), module("linux.openat2")

    def null(cover: Any) -> int:
        fd = openat2.find(cover.work.root, b"/dev/null")
        return int(mount.open_tree(fd, b""))

    masks.Cover._null = null
    module("stages.rootfs.devices")._same = lambda status, device: None
    module("stages.rootfs.enter")._own_null = lambda root, streams: None


def console_by_path() -> None:
    """The terminal is mounted on /dev/console by its path, wherever that leads."""
    console, mount = module("stages.rootfs.console"), module("linux.mount")

    def bind(work: Any, peer: int) -> None:
        target = os.open(work.real + b"/dev/console", os.O_PATH | os.O_CREAT)
        mount.move_mount(mount.open_tree(peer, b""), target)

    console._bind = bind


def settings_by_path() -> None:
    """Parameters of the kernel are written to by path."""

    def write(proc: int, path: str, value: str) -> None:
        with open(f"/proc/sys/{path}", "w") as file:
            file.write(value)

    module("stages.sysctl")._write = write


def label_by_path() -> None:
    """Labels are written to by path."""

    def write(plan: Any, process: Any, fd: int, opened: Any = None) -> None:
        found = plan.call("open", "openat", -100, b"/proc/self/attr/exec\0", os.O_WRONLY)
        plan.feeds(found, plan.call("write", "write", -1, b"exec profile", 12))

    module("stages.lsm")._write = write


def writes_into_the_root() -> None:
    """A file is left in the root for the program to find, by path (CVE-2025-24965)."""
    stage = module("stages.mount")
    fill = stage.fill

    def leave(work: Any) -> None:
        with open(os.path.join(work.folder.rootfs, ".krun_config.json"), "w") as file:
            file.write("{}")
        fill(work)

    stage.fill = leave


# ---- descriptors and executables -------------------------------------------------------------------------------------


def descriptors_stay_open() -> None:
    """Nothing is closed before the program is executed, and nobody looks where the working directory is."""
    fifo = module("stages.exec_fifo")
    add = module("native.image").Plan.add

    def fewer(self: Any, kind: int, label: str = "", nr: int = 0, args: Any = (), flags: int = 0) -> Any:
        if label == "close_range" or kind == module("native.image").CWD:
            return None
        return add(self, kind, label, nr, args, flags)

    module("native.image").Plan.add = fewer
    become = fifo.become
    fifo.become = lambda folder, code, made, kept: become(folder, code, made, 250)


def descriptors_of_exec_stay_open() -> None:
    """The same, for exec alone."""
    if "exec" in sys.argv:
        descriptors_stay_open()
        module("stages.join_plan").Entrance._close_all_but = lambda self, kept: None


def image_is_a_file_of_the_host() -> None:
    """What waits is executed from a file instead of a sealed memory."""
    image = module("native.image")
    place = os.open("/var/tmp", os.O_PATH)

    def seal(code: bytes, memory: bytes, name: str = "oci-exec-fifo") -> int:
        header = bytearray(code[:4096])
        offset = image._fit_plan(header, len(memory))
        own = f"{name}-{time.monotonic_ns()}"
        fd = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755, dir_fd=place)
        os.write(fd, bytes(header) + code[4096:offset] + memory)
        os.close(fd)
        fd = os.open(own, os.O_RDONLY | os.O_CLOEXEC, dir_fd=place)
        os.unlink(own, dir_fd=place)
        return fd

    image.seal = seal


def failures_do_not_matter() -> None:
    """What waits goes on whatever fails: executed once more, without what it was handed, it executes itself again."""
    image = module("native.image")
    add = image.Plan.add

    def careless(self: Any, kind: int, label: str = "", nr: int = 0, args: Any = (), flags: int = 0) -> Any:
        if kind == image.AWAIT:
            kind, nr, args = image.CALL, image.number("read"), (args[0], self.room(b"\0"), 1)
        elif kind in (image.LOOKUP, image.CWD):
            return None
        return add(self, kind, label, nr, args, flags | image.MAY_FAIL)

    image.Plan.add = careless


def enters_early() -> None:
    """A joined pid namespace is entered before the root filesystem is made, with the interpreter and all rights."""
    module("stages.birth").enters_late = lambda folder, namespace: False


def enters_with_all_rights() -> None:
    """What exec starts enters the pid namespace before it has given up its rights."""
    module("stages.process_plan").Builder.must_enter_first = lambda self: True


# ---- who the process is ----------------------------------------------------------------------------------------------


def user_by_name() -> None:
    """The user is looked up in the image's passwd, where a name may be a number."""
    builder = module("stages.process_plan").Builder
    user = builder.user

    def looked_up(self: Any, *more: Any) -> None:
        wanted = self.process["user"]
        root = f"/proc/self/fd/{self.folder.fds['root']}"
        for line in open(f"{root}/etc/passwd"):
            name, _, uid, gid = line.split(":")[:4]
            if name == str(wanted["uid"]):
                wanted.update(uid=int(uid), gid=int(gid))
        user(self, *more)

    builder.user = looked_up


def anything_goes() -> None:
    """The configuration is not held against the specification."""
    module("stages.validate").examine = lambda config, bundle: []


def any_number_of_exec() -> None:
    """exec --user is parsed as C would."""

    def number(text: str, doing: str) -> int:
        digits = text.strip()
        while digits and not digits.lstrip("-").isdigit():
            digits = digits[:-1]
        return int(digits or "0") & 0xFFFFFFFF

    module("runtime.exec_process")._id = number
    module("stages.process_plan")._ALL = -1


def capabilities_are_kept() -> None:
    """What is permitted is inheritable and ambient too."""
    capability = module("linux.capability")
    plan = capability.plan

    def generous(wanted: Any, warn: Any, own: Any = None) -> Any:
        more = {"inheritable": wanted.get("permitted"), "ambient": wanted.get("permitted")}
        return plan({**wanted, **more}, warn, own)

    capability.plan = generous


# ---- lengths and names -----------------------------------------------------------------------------------------------


def lengths_of_16_bits() -> None:
    """Lengths are kept in 16 bits."""
    image = module("native.image").Plan
    text = image.text
    image.text = lambda self, value: text(self, value[: len(value) & 0xFFFF])


def any_name() -> None:
    """A container may have any name."""
    everywhere(module("container.folder"), "check_id", lambda name: None)
    module("runtime.delete")


def any_cgroup() -> None:
    """linux.cgroupsPath may lead anywhere."""
    module("stages.validate").examine = lambda config, bundle: []
    paths = module("stages.cgroups.paths")
    paths.inner = lambda text, name: f"{text or name}/{name}"


def any_cgroup_of_exec() -> None:
    """exec --cgroup may lead anywhere."""
    module("runtime.exec_process").sub_cgroups = lambda values: {"*": values[0].partition(":")[2] or values[0]}
    cgroups = module("stages.cgroups")
    cgroups.below = lambda path, sub: f"{path}/{sub}"


# ---- cgroups ---------------------------------------------------------------------------------------------------------


def cgroups_of_the_one_above() -> None:
    """The container sees the cgroups above its own."""
    cgroups = module("stages.rootfs.cgroups")
    own = cgroups.hierarchies
    cgroups.hierarchies = lambda: [(name, names, os.path.dirname(source)) for name, names, source in own()]


def programs_for_systemd() -> None:
    """Annotations are passed on to systemd whatever they ask for."""
    module("stages.cgroups.unit").annotated = lambda config: []

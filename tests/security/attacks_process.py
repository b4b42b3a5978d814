"""Attacks on who the process is, what it holds, what it is called; see attacks.py."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from attacks import without
from siege import SELF, Siege

import kit

SET = ("bounding", "effective", "permitted")


# ---- who the process is ----------------------------------------------------------------------------------------------


def user_named_by_a_number(lab: Siege) -> list[str]:
    """CVE-2016-3697: the image's passwd calls somebody "1000" who is root."""
    bundle = lab.bundle().script("id -u; id -g")
    (bundle.rootfs / "etc/passwd").write_text("1000:x:0:0::/root:/bin/sh\n")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    out = lab.runs(bundle).ok().out.split()
    return [] if out == ["1000", "1000"] else [f"ran as {out}"]


def capabilities_of_a_user(lab: Siege) -> list[str]:
    """CVE-2016-8867: what the bounding set allows must not come back to a user by the ambient set."""
    bundle = lab.bundle().script("grep ^Cap /proc/self/status")
    bundle.process["user"] = {"uid": 1000, "gid": 1000}
    bundle.process["capabilities"] = {kind: ["CAP_NET_RAW", "CAP_SYS_ADMIN"] for kind in SET}
    found = kit.status_words(lab.runs(bundle).ok().out)
    return [f"{key} {found[key]}" for key in ("CapAmb", "CapEff", "CapPrm", "CapInh") if int(found[key], 16)]


def inheritable_capabilities(lab: Siege) -> list[str]:
    """CVE-2022-29162 and its kin: what a default configuration grants is not inheritable."""
    bundle = lab.bundle().script("grep ^CapInh /proc/self/status")
    granted = bundle.process["capabilities"]
    found = [f"oci spec grants {granted['inheritable']}"] if granted.get("inheritable") else []
    mask = lab.runs(bundle).ok().out.split()[1]
    return found + ([f"CapInh {mask}"] if int(mask, 16) else [])


IDS = (2**32, 2**32 + 1000, -1, 2**64, 1.5, "0", "1000", True, 1e3, 4294967295)


def ids_that_are_none(lab: Siege) -> list[str]:
    """CVE-2026-30892: an id that cannot be parsed, or is too long, must not end up as another one."""
    found = []
    for value in IDS:
        for key in ("uid", "gid"):
            bundle = lab.bundle().script("id -u; id -g")
            bundle.process["user"] = {"uid": 1000, "gid": 1000, key: value}
            done = lab.runs(bundle)
            if done.status == 0:
                found.append(f"{key} {value!r} became {done.out.split()}")
    return found


# ---- descriptors and executables -------------------------------------------------------------------------------------


def working_directory_by_descriptor(lab: Siege) -> list[str]:
    """CVE-2024-21626: a directory of the host that is open somewhere becomes the working directory."""
    found = []
    numbers = [*range(3, 201)] if lab.races > 100 else [*range(3, 16), 20, 100, 200]
    with open_everywhere(lab.host, (3, 7, 20, 100)):
        for number in numbers:
            bundle = lab.bundle().script("cat file; cat ../file; pwd")
            bundle.process["cwd"] = f"/proc/self/fd/{number}"
            done = lab.runs(bundle, pass_fds=(3, 7, 20, 100))
            if done.status == 0 or "of the host" in done.out:
                found.append(f"ran with cwd {bundle.process['cwd']}: {done.out!r}")
        for cwd in ("/proc/self/fd/3", "/proc/self/fd/3/..", "/dev/fd/3", "/proc/1/fd/3"):
            bundle = lab.bundle().script("cat file; pwd")
            bundle.process["cwd"] = cwd
            done = lab.runs(bundle, "--preserve-fds", "1", pass_fds=(3,))
            if done.status == 0 or "of the host" in done.out:
                found.append(f"ran with cwd {cwd}, handed on: {done.out!r}")
    return found


class open_everywhere:
    """A directory open, and handed on, under several numbers."""

    def __init__(self, path: Path, numbers: tuple[int, ...]) -> None:
        self.path = path
        self.numbers = numbers
        self.kept: dict[int, int] = {}

    def __enter__(self) -> None:
        source = os.open(self.path, os.O_RDONLY)
        for number in self.numbers:
            try:
                self.kept[number] = os.dup(number)
            except OSError:
                self.kept[number] = -1
        high = os.dup(source)
        for number in self.numbers:
            os.dup2(high, number)
        for fd in {source, high} - set(self.numbers):
            os.close(fd)

    def __exit__(self, *_: object) -> None:
        for number, fd in self.kept.items():
            if fd >= 0:
                os.dup2(fd, number, inheritable=False)
                os.close(fd)
            else:
                os.close(number)


def descriptors_left_open(lab: Siege) -> list[str]:
    """CVE-2024-21626: the program has nothing open but its three streams, whatever the caller had."""
    found = []
    for more in ({}, {"hooks": True}, {"sysctl": True}):
        bundle = lab.bundle().args("attack", "fds")
        if "hooks" in more:
            bundle.hook("startContainer", "true")
        if "sysctl" in more:
            bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
        with open_everywhere(lab.host, (5, 9)):
            done = lab.runs(bundle, pass_fds=(5, 9)).ok()
        found += [line for line in done.lines if int(line.split(" ")[0]) > 2]
    return found


def program_is_the_runtime(lab: Siege) -> list[str]:
    """CVE-2019-5736: the program is /proc/self/exe, by itself or as an interpreter."""
    for args in (["/proc/self/exe"], ["/proc/self/exe", "-c", "import os"], ["/run-me"], ["/bin/self"]):
        bundle = lab.bundle().args(*args)
        (bundle.rootfs / "run-me").write_text("#!/proc/self/exe\n")
        (bundle.rootfs / "run-me").chmod(0o755)
        (bundle.rootfs / "bin/self").symlink_to("/proc/self/exe")
        try:
            lab.runs(bundle, timeout=5)
        except subprocess.TimeoutExpired:
            lab.oci("delete", "--force", lab.oci.ids[-1])
            return [f"{args} went on for ever"]
    return []


def executable_is_overwritten(lab: Siege) -> list[str]:
    """CVE-2019-5736: the executable of what waits, seen by another container, is held and written to afterwards."""
    with lab.attack("overwrite", "oci-exec-fifo", capabilities=["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE"]) as pid:
        name = lab.oci.create(lab.bundle().namespace("pid", f"/proc/{pid}/ns/pid").args("sleep", "100"))
        kit.await_true(lambda: "held" in lab.said("said"), "the attacker holds the executable")
        lab.oci("delete", "--force", name).ok()
        kit.await_true(lambda: lab.said("said").count("\n") > 2, "the attacker has tried")
    return [line for line in lab.said("said").splitlines() if line.startswith("overwritten")]


def watched_from_inside(lab: Siege, capabilities: tuple[str, ...] = ("CAP_SYS_PTRACE",)) -> list[str]:
    """CVE-2016-9962, CVE-2019-5736: another container of the same pid namespace looks at all that enters it.

    Only the waiting image, what the container itself brings, and no more rights than it was given are to be seen.
    """
    marker = f"{lab.host}/file"
    with lab.attack("watch", marker, capabilities=list(capabilities)) as pid:
        kit.await_true(lambda: "watching" in lab.said("said"), "the attacker watches")
        for number in range(lab.races):
            bundle = lab.bundle().namespace("pid", f"/proc/{pid}/ns/pid").args("attack", "fds")
            bundle.process["capabilities"] = {kind: ["CAP_SYS_PTRACE"] for kind in SET}
            bundle.hook("createContainer", "sleep 0.002")
            if number % 2:
                lab.runs(bundle).ok()
            else:
                name = lab.oci.create(bundle)
                time.sleep(0.01)
                lab.oci("delete", "--force", name).ok()
    return [line for line in lab.said("said").splitlines() if not harmless(lab, line)]


def harmless(lab: Siege, line: str) -> bool:
    """Whether what was seen is the container's own: its image, what the caller gave it for its streams, its rights."""
    kind, _, what = line.partition(" ")
    if not what:  # it ended while it was looked at
        return True
    if kind in ("exe", "attached"):
        return any(name in what for name in ("memfd:oci-", "/bin/busybox", "/bin/attack"))
    if kind == "fd":
        return "memfd:oci-" in what or what in (f"{lab.oci.place}/out", f"{lab.oci.place}/err", f"{SELF}/said")
    return kind == "watching" or (kind == "caps" and int(what, 16) == 1 << 19)  # CAP_SYS_PTRACE


# ---- lengths and names -----------------------------------------------------------------------------------------------


def more_than_64_kib(lab: Siege) -> list[str]:
    """CVE-2021-43784: lengths that do not fit into 16 bits are not cut."""
    bundle = lab.bundle()
    # 128 KiB is the kernel's limit for one string.
    bundle.process["env"] += [f"LONG={'x' * 100_000}", *(f"V{number}={'y' * 60}" for number in range(2000))]
    bundle.config["annotations"] = {"long": "z" * 70_000}
    for number in range(300):
        deep = "d" * 200
        (lab.shared / deep).mkdir(exist_ok=True)
        bundle.bind(lab.shared / deep, f"/mnt/{number}")
    bundle.script('echo ${#LONG} $(env | grep -c "^V[0-9]*=y\\{60\\}$") $(grep -c " /mnt/" /proc/self/mountinfo)')
    done = lab.runs(bundle)
    found = [] if done.status or done.out.split() == ["100000", "2000", "300"] else [f"came out as {done.out.split()}"]

    bundle = lab.bundle().namespace("user").script("id -u; wc -l < /proc/self/uid_map")
    rows = [{"containerID": 2 * n, "hostID": 100_000 + 2 * n, "size": 1} for n in range(340)]
    bundle.linux["uidMappings"] = bundle.linux["gidMappings"] = rows
    done = lab.runs(bundle)
    if done.status == 0 and done.out.split() != ["0", "340"]:
        found.append(f"maps came out as {done.out.split()}")

    bundle = lab.bundle().args("echo", *["w" * 70_000] * 20)
    done = lab.runs(bundle)
    if done.status == 0 and len(done.out) != 20 * 70_001:
        found.append(f"arguments came out with {len(done.out)} characters")
    return found


def names_that_lead_elsewhere(lab: Siege) -> list[str]:
    """Containers called ``..`` or ``a/b``, cgroups called ``../..``."""
    found = []
    (lab.host / "inner").mkdir()
    lab.accept()
    bundle = lab.bundle().args("true").save()
    for name in ("..", ".", "../host/made", "a/b", f"../{'x' * 300}", "a b", "a\nb", "", "host\0x"):
        for words in (("create", "--bundle", bundle, name), ("delete", "--force", name), ("state", name)):
            try:
                done = lab.oci.quiet(*words)
            except ValueError:
                continue  # a NUL cannot be passed at all
            if done.status == 0 and words[0] != "delete":
                found.append(f"{words[0]} of {name!r}")
        if not (lab.host / "inner").exists():
            found.append(f"delete of {name!r} removed a directory of the host")
    return found


def cgroups_that_lead_elsewhere(lab: Siege) -> list[str]:
    """linux.cgroupsPath with ``..``: another cgroup than one's own, with limits, or to be killed."""
    found = []
    for path in ("../..", "/..", "/a/../..", "a/../../b", f"/{kit.fresh_id()}/.."):
        bundle = lab.bundle().args("true")
        bundle.linux["cgroupsPath"] = path
        if lab.runs(bundle).status == 0:
            found.append(f"ran in cgroup {path}")
    return found


def cgroups_above_ones_own(lab: Siege) -> list[str]:
    """CVE-2023-25809: without a cgroup namespace, cgroups that are not the container's are written to."""
    found = []
    for options in (("rw",), ("ro",), ()):
        name = kit.fresh_id()
        lab.oci.ids.append(f"{name}-above")
        bundle = without(lab.bundle(), "/sys/fs/cgroup").without("cgroup").user_namespace()
        bundle.linux["cgroupsPath"] = f"/{name}-above/{name}"
        bundle.mount("/sys/fs/cgroup", "cgroup", *options)
        # The cgroup above belongs to the container's root, as a delegated one does.
        bundle.hook("createRuntime", f"find /sys/fs/cgroup -name {name}-above -exec chown -R 100000:100000 {{}} +")
        bundle.script(
            f"find /sys/fs/cgroup -type d -name '{name}-above' -exec mkdir {{}}/escaped \\; -exec echo made in {{}} \\; 2>/dev/null;"
            "for d in /sys/fs/cgroup /sys/fs/cgroup/*; do mkdir $d/escaped 2>/dev/null && echo made $d; done; cat /proc/self/cgroup"
        )
        lab.oci.ids.append(name)
        lab.runs(bundle, name=name)
        walked = [Path(top) for top, _, _ in os.walk("/sys/fs/cgroup")]  # others' come and go meanwhile
        for place in [path for path in walked if path.name == "escaped"]:
            if place.parent.name != name:
                found.append(f"{options}: made {place}")
            place.rmdir()
            if place.parent.name == f"{name}-above":
                place.parent.rmdir()  # which the runtime has left, since it was not empty
    return found


def groups_dropped_by_nobody(lab: Siege) -> list[str]:
    """CVE-2014-8989: who maps his own group only must not drop groups that files deny something to."""
    bundle = lab.bundle().namespace("user").without("network").script("cat /proc/self/setgroups; id -G")
    without(bundle, "/sys", "/dev/pts", "/dev/mqueue")
    bundle.linux["uidMappings"] = [{"containerID": 0, "hostID": 12345, "size": 1}]
    bundle.linux["gidMappings"] = [{"containerID": 0, "hostID": 12345, "size": 1}]
    bundle.linux.pop("resources", None)
    bundle.save()
    done = as_user(lab, 12345, "run", "--bundle", bundle.path, lab.oci.id())
    if done.status:
        return [f"could not be tried: {done.err}"]
    return [] if done.lines[0] == "deny" else [f"setgroups is {done.out!r}"]


def as_user(lab: Siege, uid: int, *words: object) -> kit.Result:
    """Run ``oci`` as somebody else."""
    lab.oci.root = lab.place / "run-of-user"
    lab.oci.root.mkdir(exist_ok=True)
    os.chown(lab.oci.root, uid, uid)
    for path in [lab.place, *lab.place.parents][:4]:
        path.chmod(path.stat().st_mode | 0o055)
    return lab.oci(*words, user=uid, group=uid, extra_groups=[7])


# ---- what others have prepared ---------------------------------------------------------------------------------------


def annotations_that_run_programs(lab: Siege) -> list[str]:
    """CVE-2024-3154: annotations by which the service manager would run programs of the host. They must be refused before
    it is spoken to, so that it need not be there to tell."""
    found = []
    for name in ("ExecStartPre", "ExecStopPost", "ExecStart"):
        bundle = lab.bundle().args("true")
        bundle.config["annotations"] = {f"org.systemd.property.{name}": f"['/bin/touch', '{lab.host}/made']"}
        done = lab.oci("--systemd-cgroup", "run", "--bundle", bundle.save(), lab.oci.id())
        if "may not have systemd execute programs" not in done.err:
            found.append(f"{name} is not refused: {done.err}")
    return found


# ---- oci exec --------------------------------------------------------------------------------------------------------


def living(lab: Siege, *capabilities: str) -> str:
    """A container that lives, for exec; it has these capabilities only."""
    bundle = lab.bundle().args("sleep", "1000")
    bundle.process["capabilities"] = {kind: list(capabilities) for kind in SET}
    return lab.oci.detached(bundle)


def directory_of_exec(lab: Siege) -> list[str]:
    """CVE-2024-21626: exec --cwd to a directory of the host that is open somewhere."""
    name = living(lab)
    found = []
    numbers = [*range(3, 201)] if lab.races > 100 else [*range(3, 12), 20, 100, 200]
    with open_everywhere(lab.host, (3, 7, 20, 100)):
        for number in numbers:
            for more in ((), ("--preserve-fds", "1")):
                words = ("exec", *more, "--cwd", f"/proc/self/fd/{number}", name, "cat", "file")
                done = lab.oci(*words, pass_fds=(3, 7, 20, 100))
                if done.status == 0 or "of the host" in done.out:
                    found.append(f"{words}: {done.out!r}")
        done = lab.oci("exec", name, "attack", "fds", pass_fds=(3, 7, 20, 100)).ok()
        found += [line for line in done.lines if int(line.split(" ")[0]) > 2]
    return found


def capabilities_of_exec(lab: Siege) -> list[str]:
    """CVE-2022-29162, CVE-2022-27650, CVE-2025-27612: what --cap adds must not be inheritable, nor reach a file."""
    name = living(lab)
    found = []
    for words in (("--cap", "CAP_NET_RAW"), ("--cap", "CAP_NET_RAW", "--user", "1000:1000")):
        sets = kit.status_words(lab.oci("exec", *words, name, "grep", "^Cap", "/proc/self/status").ok().out)
        if int(sets["CapInh"], 16):
            found.append(f"{words}: CapInh {sets['CapInh']}")
    return found


USERS = ("abc", "99999999999", "-1", "4294967295", "4294967296", "0x0", " 1", "1 ", "1:-1", "1:x", "1:4294967296", "1.0", "1e3")


def users_of_exec(lab: Siege) -> list[str]:
    """CVE-2026-30892: exec --user with what is no id must not run as root, nor as anybody."""
    name = living(lab)
    found = []
    for user in USERS:
        done = lab.oci("exec", f"--user={user}", name, "id", "-u")
        if done.status == 0:
            found.append(f"--user {user!r} ran as {done.out.strip()}")
    for user, ids in (("1", "1 0"), ("1:", "1 0"), ("1000:7", "1000 7")):
        done = lab.oci("exec", "--user", user, name, "sh", "-c", "echo $(id -u) $(id -g)")
        if done.status == 0 and done.out.strip() != ids:
            found.append(f"--user {user!r} ran as {done.out.strip()}")
    return found


def cgroups_of_exec(lab: Siege) -> list[str]:
    """exec --cgroup with ``..``: a process in a cgroup that is not the container's."""
    name = living(lab)
    found = []
    for path in ("../..", "..", "/..", "a/../..", "pids:../..", "/../../"):
        done = lab.oci("exec", "--cgroup", path, name, "cat", "/proc/self/cgroup")
        if done.status == 0:
            found.append(f"--cgroup {path}: {done.out!r}")
    return found


def exec_watched_from_inside(lab: Siege, *capabilities: str) -> list[str]:
    """CVE-2016-9962, CVE-2019-5736: the container looks at every process that enters it."""
    marker = f"{lab.host}/file"
    bundle = lab.bundle().args("sh", "-c", f"attack watch {marker} > {SELF}/said & exec sleep 1000")
    bundle.process["capabilities"] = {kind: list(capabilities) for kind in SET}
    name = lab.oci.detached(bundle)
    kit.await_true(lambda: "watching" in lab.said("said"), "the attacker watches")
    for number in range(lab.races):
        words = ("--cap", "CAP_SYS_PTRACE") if number % 2 else ("--user", "1000")
        lab.oci.quiet("exec", *words, name, "attack", "fds").ok()
    return [line for line in lab.said("said").splitlines() if not harmless(lab, line)]

"""The attacks: each is mounted against a runtime and returns what it gained, nothing when it was held off.

The same attack is run against the runtime as it is (test_cves.py) and against one with the defence taken out
(test_weakened.py), where it has to gain something.
"""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

import siege
from siege import SELF, Siege

import kit

SET = ("bounding", "effective", "permitted")


def link(bundle: kit.Bundle, name: str, target: str) -> None:
    """Put a link where the image has a directory (or nothing)."""
    place = bundle.rootfs / name
    if place.exists() or place.is_symlink():
        place.rename(bundle.path / f"was-{name.replace('/', '-')}")
    place.symlink_to(target)


def without(bundle: kit.Bundle, *destinations: str) -> kit.Bundle:
    """Leave the mounts at and below these destinations out."""
    bundle.config["mounts"] = [
        entry
        for entry in bundle.config["mounts"]
        if not any(f"{entry['destination']}/".startswith(f"{name}/") for name in destinations)
    ]
    return bundle


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


# ---- /proc -----------------------------------------------------------------------------------------------------------


def proc_that_is_a_link(lab: Siege) -> list[str]:
    """CVE-2019-19921, CVE-2023-27561, CVE-2023-28642, CVE-2025-54867: /proc and /sys of the image are links."""
    found = []
    for name, target in (
        ("proc", "/elsewhere"), ("proc", "elsewhere"), ("proc", lab.outside), ("sys", "/elsewhere"), ("sys", lab.outside),
    ):  # fmt: skip
        bundle = lab.spy(lab.bundle()).args("true")
        (bundle.rootfs / "elsewhere").mkdir()
        link(bundle, name, target)
        if lab.runs(bundle).status == 0:
            found.append(f"ran with /{name} -> {target}")
    return found


def proc_that_is_swapped(lab: Siege) -> list[str]:
    """CVE-2019-19921: the root lies on a volume where another container swaps /proc for a link."""
    root = lab.shared / "root"
    bundle = lab.bundle()
    bundle.rootfs.rename(root)
    for name in ("elsewhere",):
        (root / name).mkdir()
    (root / "link").symlink_to("/elsewhere")
    bundle.config["root"]["path"] = str(root)
    lab.spy(bundle).args("true")
    with lab.attack("swap", f"{SELF}/root/proc", f"{SELF}/root/link"):
        for _ in range(lab.races):
            lab.runs(bundle)
    points = {line.split(" ")[4] for line in lab.seen.read_text().splitlines() if " - proc " in line}
    return [f"proc was mounted at {point}" for point in points if point.endswith("/elsewhere")]


def proc_that_is_faked(lab: Siege) -> list[str]:
    """CVE-2019-16884: a volume over /proc takes what would confine the program."""
    fake = lab.place / "fake"
    (fake / "self/attr").mkdir(parents=True, exist_ok=True)
    (fake / "self/attr/exec").write_text("nothing\n")
    found = []
    for destination in ("/proc", "/proc/self", "/proc/self/attr", "/proc/sys"):
        bundle = lab.bundle().bind(fake, destination).args("true")
        if destination == "/proc":
            bundle = without(bundle, "/proc").bind(fake, "/proc").args("true")
        if lab.runs(bundle).status == 0:
            found.append(f"ran with a volume over {destination}")
    return found


def settings_that_are_redirected(lab: Siege) -> list[str]:
    """CVE-2025-52881: something else lies where a parameter of the kernel is to be written."""
    fake = lab.host / "net/ipv4/ip_forward"
    fake.parent.mkdir(parents=True)
    fake.write_text("0")
    lab.accept()
    bundle = lab.bundle().script("cat /proc/sys/net/ipv4/ip_forward")
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    # The mount lies on the host's /proc here, where ocimk writes; on the container's it would come too late.
    cover = 'mount --make-rprivate / && mount --bind "$0" /proc/sys/net && exec "$@"'
    words = lab.oci.argv("run", "--bundle", bundle.save(), lab.oci.id())
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", cover, lab.host / "net", *words],
        capture_output=True, text=True, env=kit.CLEAN, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done
    return [] if done.returncode or done.stdout == "1\n" else [f"the parameter is {done.stdout!r}"]


def label_that_is_redirected(lab: Siege) -> list[str]:
    """CVE-2025-52881, CVE-2019-16884: something else lies where a label is to be written.

    The host need not have a security module: the real file refuses what is written to it, and any other takes it.
    """
    (lab.host / "exec").write_text("")
    lab.accept()
    weakness = getattr(lab.oci, "weakness", "nothing")
    done = subprocess.run(
        ["unshare", "-m", "/usr/bin/python3", "-IS", siege.HERE / "label.py", weakness, lab.host / "exec"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert "errno" in done.stderr or weakness != "nothing", done.stderr
    return []


# ---- mounts ----------------------------------------------------------------------------------------------------------


def links_as_mount_points(lab: Siege) -> list[str]:
    """CVE-2019-18837: mounts below links of the image that lead to the host."""
    bundle = lab.spy(lab.bundle()).args("true")
    link(bundle, "etc", lab.outside)
    link(bundle, "var", "../../../../../../.." + str(lab.host))
    (bundle.rootfs / "etc2").mkdir()
    (bundle.rootfs / "etc2/hosts").symlink_to(f"{lab.outside}/made-by-a-dangling-link")
    bundle.bind(lab.host / "file", "/etc/x").mount("/var/y", "tmpfs").bind(lab.host / "file", "/etc2/hosts")
    bundle.linux["maskedPaths"] = ["/etc/file"]
    bundle.linux["readonlyPaths"] = ["/var"]
    bundle.process["cwd"] = "/var/cwd"
    lab.runs(bundle)
    return []


def swapped_destinations(lab: Siege) -> list[str]:
    """CVE-2021-30465, CVE-2024-45310: mount points on a volume where another container swaps a directory for a link."""
    (lab.shared / "a/deep").mkdir(parents=True)
    (lab.shared / "a/deep/f").touch()
    (lab.shared / "b").symlink_to(lab.outside)
    with lab.attack("swap", f"{SELF}/a", f"{SELF}/b"):
        for number in range(lab.races):
            bundle = lab.spy(lab.bundle()).args("true")
            if number % 4 == 0:
                bundle.mount(f"{SELF}/a/x/y{number}", "tmpfs")
            elif number % 4 == 1:
                bundle.bind(lab.host / "file", f"{SELF}/a/new{number}/f")
            elif number % 4 == 2:
                bundle.linux["devices"] = [{"path": f"{SELF}/a/n{number}", "type": "c", "major": 1, "minor": 3}]
            else:
                bundle.linux["maskedPaths"] = [f"{SELF}/a/deep/f", f"{SELF}/a/file"]
                bundle.process["cwd"] = f"{SELF}/a/cwd{number}"
            done = lab.runs(bundle)
            assert done.status == 0 or done.err.count("\n") == 1, done
            if lab.traces():
                break
    return []


def dev_that_is_a_link(lab: Siege) -> list[str]:
    """CVE-2026-41579, CVE-2026-47766: device nodes and links made where the image's /dev leads."""
    for target in (lab.outside, "../../../../../../.." + str(lab.host)):
        bundle = without(lab.bundle(), "/dev").script("test -c /dev/null && test -L /dev/fd")
        link(bundle, "dev", target)
        bundle.linux["devices"] = [{"path": "/dev/more/fifo", "type": "p"}]
        lab.runs(bundle)
    return []


def null_that_is_a_link(lab: Siege) -> list[str]:
    """CVE-2025-31133: what masks files is the container's /dev/null, which is a link to something of the kernel's."""
    found = []
    for shared in (False, True):
        bundle = without(lab.bundle(), "/dev").script("cat /proc/self/mountinfo; stat -c %t:%T /secret")
        dev = lab.shared / "dev" if shared else bundle.rootfs / "dev"
        dev.mkdir(exist_ok=True)
        (dev / "null").symlink_to("/proc/sys/kernel/core_pattern")
        if shared:
            bundle.bind(dev, "/dev")
        (bundle.rootfs / "secret").write_text("x")
        bundle.linux["maskedPaths"] = ["/secret"]
        done = lab.runs(bundle)
        if done.status == 0 and not done.out.endswith("\n1:3\n"):
            found += [f"masked by {line}" for line in done.lines if " /secret " in line] or ["not masked"]
    return found


def null_that_is_swapped(lab: Siege) -> list[str]:
    """CVE-2025-31133, as a race: /dev lies on a volume, and null is a device now and a link then."""
    dev = lab.shared / "dev"
    dev.mkdir()
    os.mknod(dev / "null", 0o666 | 0o020000, os.makedev(1, 3))
    (dev / "other").symlink_to("/proc/sys/kernel/core_pattern")
    with lab.attack("swap", f"{SELF}/dev/null", f"{SELF}/dev/other"):
        for _ in range(lab.races):
            bundle = without(lab.bundle(), "/dev").bind(dev, "/dev").script("grep ' /secret ' /proc/self/mountinfo")
            (bundle.rootfs / "secret").write_text("x")
            bundle.linux["maskedPaths"] = ["/secret"]
            done = lab.runs(bundle)
            if done.status == 0 and " /null /secret " not in done.out:
                return [f"masked by {done.out}"]
    return []


def console_that_is_a_link(lab: Siege) -> list[str]:
    """CVE-2025-52565: what the image has at /dev/console, /dev/pts and /dev/pts/ptmx."""
    found = []
    for name, target in (
        ("dev/console", f"{lab.outside}/file"), ("dev/console", "/etc/passwd"),
        ("dev/pts", lab.outside), ("dev/pts", "/tmp"), ("dev/ptmx", f"{lab.outside}/file"),
    ):  # fmt: skip
        bundle = lab.spy(without(lab.bundle(), "/dev" if name != "dev/ptmx" else "/dev/pts"))
        if name != "dev/pts":
            bundle.mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666")
        if name != "dev/ptmx":
            link(bundle, name, target)
        else:
            os.mknod(bundle.rootfs / "tmp/ptmx", 0o666 | 0o020000, os.makedev(5, 2))
        bundle.script(f"stat -c %t /dev/console > {SELF}/console; stat -f -c %t /dev/console >> {SELF}/console")
        bundle.process["terminal"] = True
        (lab.shared / "console").unlink(missing_ok=True)
        with siege.receiver(lab.place) as (path, take):
            container = lab.oci.id()
            done = lab.oci.quiet("create", "--bundle", bundle.save(), "--console-socket", path, container)
            if done.status:
                assert "Traceback" not in done.err, done
                continue
            os.close(take())
            lab.oci("start", container)
            lab.oci.wait_stopped(container)
        said = lab.said("console").split()
        if said != ["88", "1cd1"]:
            found.append(f"{name} -> {target}: the console is {said}")
    return found


def console_that_is_swapped(lab: Siege) -> list[str]:
    """CVE-2025-52565, as a race: /dev lies on a volume, console is a file now and a link then."""
    dev = lab.shared / "dev"
    (dev / "pts").mkdir(parents=True)
    (dev / "console").touch()
    (dev / "other").symlink_to(f"{lab.outside}/file")
    with lab.attack("swap", f"{SELF}/dev/console", f"{SELF}/dev/other"):
        for _ in range(lab.races):
            bundle = lab.spy(without(lab.bundle(), "/dev")).bind(dev, "/dev").args("true")
            bundle.mount("/dev/pts", "devpts", "newinstance", "ptmxmode=0666")
            bundle.process["terminal"] = True
            with siege.receiver(lab.place) as (path, _):
                lab.oci.quiet("create", "--bundle", bundle.save(), "--console-socket", path, lab.oci.id())
            if lab.traces():
                break
    return []


def files_written_into_the_root(lab: Siege) -> list[str]:
    """CVE-2025-24965: files that some runtimes write into the image's root, there as links."""
    bundle = lab.bundle().args("true")
    for name in (".krun_config.json", ".krun_vm.json", "etc/resolv.conf", "etc/hosts", "etc/mtab", "run/.containerenv"):
        (bundle.rootfs / name).parent.mkdir(exist_ok=True)
        (bundle.rootfs / name).symlink_to(lab.host / "file")
        bundle.config.setdefault("annotations", {})["run.oci.handler"] = "krun"
    lab.runs(bundle)
    return []


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
        done = lab.runs(bundle, name=f"{name}")
        lab.oci.ids.append(name)
        inside = [line for line in done.lines if line.startswith("made")]
        for place in Path("/sys/fs/cgroup").rglob("escaped"):
            if place.parent.name != name:
                found.append(f"{options}: made {place}")
            place.rmdir()
        if done.status == 0 and not found and os.environ.get("OCIMK_SHOW"):
            print(inside, done)
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
    """CVE-2024-3154: annotations by which the service manager would run programs of the host."""
    bundle = lab.bundle().args("true")
    for name in ("ExecStartPre", "ExecStopPost", "ExecStart"):
        bundle.config.setdefault("annotations", {})[f"org.systemd.property.{name}"] = f"['/bin/touch', '{lab.host}/made']"
    lab.runs(bundle)
    return []


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

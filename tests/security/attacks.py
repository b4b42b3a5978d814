"""The attacks: each is mounted against a runtime and returns what it gained, nothing when it was held off.

The same attack is run against the runtime as it is (test_cves.py) and against one with the defence taken out
(test_weakened.py), where it has to gain something.
"""

from __future__ import annotations

import os
import subprocess

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
        for number in range(lab.races * 20):
            lab.runs(bundle)
            if number >= lab.races and lab.seen.exists():
                break
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



"""The VM lane: boot a Debian of our own, with systemd and a cgroup2 that holds every controller, and run the tests
marked ``vm`` in it. `make check-vm` calls this; see README.md.

    lane.py [--clients] [--append WORDS] [--serve] [--] [PYTEST ARGUMENTS]

With --clients it is the tests of tests/clients that are run, on a larger image that has the callers too.

The image is made once, by mmdebstrap and mke2fs, of the suite that this host runs: then the host's Python is the
guest's, and the private venv and the native parts work there as they are. It is never written to; the tree comes on a
second disk. QEMU uses KVM where /dev/kvm opens, else it translates, which makes Python some forty times slower.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

TREE = Path(__file__).resolve().parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ocimk-vm"
SOURCES = (*Path("/etc/apt").glob("sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.sources")))
PACKAGES = (
    "linux-image-cloud-amd64 systemd-sysv udev dbus dbus-user-session libpam-systemd openssh-server kmod procps iproute2 "
    "util-linux python3 libseccomp2 libcap2 busybox-static apparmor uidmap runc crun strace criu iptables podman"
).split()
CLIENTS = "buildah docker.io containerd catatonit".split()
KERNEL_WORDS = "root=/dev/vda rw console=ttyS0 loglevel=6 panic=-1 net.ifnames=0 mitigations=off security=apparmor hugepages=16"
"""hugepages: something for the hugetlb controller to count."""

GUEST_FILES = {
    "etc/fstab": "/dev/vdb /tree ext4 noatime 0 0\n",
    "etc/hostname": "ocimk-vm\n",
    "etc/hosts": "127.0.0.1 localhost ocimk-vm\n",
    "etc/systemd/network/eth.network": "[Match]\nName=eth0\n[Network]\nAddress=10.0.2.15/24\n",
    "etc/ssh/sshd_config.d/lane.conf": "PermitRootLogin prohibit-password\nUseDNS no\nUsePAM no\n",
    "etc/systemd/system/user@.service.d/lane.conf": "[Service]\nDelegate=cpu cpuset io memory pids\n",
    "var/lib/systemd/linger/ann": "",
}
MASKED = (
    "apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer e2scrub_reap.service fstrim.timer "
    "systemd-timesyncd.service getty@.service serial-getty@.service systemd-networkd-wait-online.service "
    "systemd-pcrphase.service systemd-update-utmp.service podman-auto-update.service podman-restart.service "
    "docker.service docker.socket containerd.service"
).split()
LEFT_OUT = ("mypy", "mypyc", "ruff", "pip", "librt", "ast_serialize", "setuptools", "_mypy")
"""What of the venv only linting and building need."""

SSH = ("ssh -q -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o BatchMode=yes -o ConnectTimeout=10").split()
BOOT_SECONDS = 1200
KVM_SECONDS = 10


def main() -> int:
    parser = argparse.ArgumentParser(description="run the tests marked vm in a virtual machine")
    parser.add_argument("--append", default="", metavar="WORDS", help="more for the guest's kernel command line")
    parser.add_argument("--serve", action="store_true", help="only boot, and say how to log in; ends with Ctrl-C")
    parser.add_argument("rest", nargs="*", metavar="PYTEST ARGUMENTS")
    parser.add_argument("--clients", action="store_true", help="the callers' tests (tests/clients) instead")
    given = parser.parse_args()
    # Told to end, it ends like any failure: the machine with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    if platform.machine() != "x86_64":
        sys.exit("lane: the machine is an x86_64, which cannot be translated from here")
    image = ready_image([*PACKAGES, *(CLIENTS if given.clients else ())])
    with TemporaryDirectory(prefix="ocimk-vm-") as place:
        tree_disk(Path(place))
        with machine(image, Path(place), given.append) as guest:
            if given.serve:
                return serve(guest)
            pytest = "exec .venv/bin/python -m pytest -p no:cacheprovider"
            run = f"cd /tree && OCIMK_VM=1 {pytest} -m vm -o timeout=900 -o faulthandler_timeout=850 tests/vm"
            if given.clients:
                run = f"cd /tree && OCIMK_VM=1 OCIMK_CLIENT=all {pytest} -o faulthandler_timeout=2300 tests/clients"
            status = subprocess.run([*guest, f"{run} {shlex.join(given.rest)}"], check=False).returncode
            subprocess.run([*guest, "systemctl poweroff"], check=False)
            return status


def serve(guest: list[str]) -> int:
    print(shlex.join(guest), flush=True)
    try:
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        return 0


# ---- the image -------------------------------------------------------------------------------------------------------


def ready_image(packages: list[str]) -> Path:
    """The folder with disk.img, vmlinuz, initrd.img and the key, made if its recipe has changed or there is none."""
    recipe = repr((suite(), packages, GUEST_FILES, MASKED, sys.version_info[:2]))
    image = CACHE / hashlib.sha256(recipe.encode()).hexdigest()[:16]
    if not (image / "disk.img").exists():
        if os.geteuid() != 0:
            sys.exit("lane: making the image needs root; once made, any user may run it")
        CACHE.mkdir(parents=True, exist_ok=True)
        began = time.monotonic()
        print(f"lane: making the image in {image}", flush=True)
        with TemporaryDirectory(dir=CACHE, prefix="making-") as place:
            os.chmod(place, 0o755)
            make_image(Path(place), packages)
            shutil.rmtree(image, ignore_errors=True)
            (Path(place) / "done").rename(image)
        print(f"lane: made in {time.monotonic() - began:.0f} s", flush=True)
    return image


def suite() -> str:
    """The Debian suite that this host runs."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def sources() -> list[str]:
    """The host's own package sources that are Debian's."""
    found = [str(path) for path in SOURCES if suite() in path.read_text() and "debian" in path.read_text()]
    return found or sys.exit("lane: no Debian package sources in /etc/apt")  # type: ignore[func-returns-value]


def make_image(place: Path, packages: list[str]) -> None:
    root, done = place / "root", place / "done"
    done.mkdir()
    excluded = [f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in ("doc", "man", "locale", "info")]
    bootstrap = ["mmdebstrap", "--quiet", "--variant=minbase", '--aptopt=Acquire::Check-Valid-Until "false"', *excluded]
    bootstrap += [f"--include={','.join(packages)}", suite(), str(root), *sources()]
    subprocess.run(bootstrap, check=True, env={**os.environ, "TMPDIR": str(place)}, stdin=subprocess.DEVNULL)
    furnish(root, done)
    for name in ("vmlinuz", "initrd.img"):
        shutil.copy(next(root.glob(f"boot/{name}-*")), done / name)
    disk = done / "disk.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-L", "root", "-d", str(root), str(disk), "3G"], check=True, stdout=subprocess.DEVNULL)


def furnish(root: Path, done: Path) -> None:
    """Make a machine of the root filesystem: users, keys, network, and no service that only costs time."""
    for name, text in GUEST_FILES.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(done / "key")], check=True)
    chroot = ["chroot", str(root)]
    subprocess.run([*chroot, "useradd", "--create-home", "--shell", "/bin/sh", "ann"], check=True)
    subprocess.run([*chroot, "systemctl", "-q", "enable", "systemd-networkd"], check=True)
    subprocess.run([*chroot, "systemctl", "-q", "mask", *MASKED], check=True)
    for home, owner in (("root", 0), ("home/ann", 1000)):
        folder = root / home / ".ssh"
        folder.mkdir(mode=0o700, exist_ok=True)
        shutil.copy(done / "key.pub", folder / "authorized_keys")
        for path in (folder, folder / "authorized_keys"):
            os.chown(path, owner, owner)
    (root / "tree").mkdir()


# ---- the machine -----------------------------------------------------------------------------------------------------


def tree_disk(place: Path) -> None:
    """The tree with its venv on a disk of its own: no copying over a slow guest's network."""
    staged = place / "tree"
    wanted = (".venv", "bin", "lib", "libexec", "man", "tests", "pyproject.toml", "README.md", "CHANGELOG.md")
    staged.mkdir()
    for name in wanted:
        if (TREE / name).is_dir():
            shutil.copytree(TREE / name, staged / name, symlinks=True, ignore=_ignored)
        else:
            shutil.copy2(TREE / name, staged / name)
    os.chmod(staged, 0o755)
    disk = ["mke2fs", "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", str(staged), str(place / "tree.img"), "300M"]
    subprocess.run(disk, check=True, stdout=subprocess.DEVNULL)
    shutil.rmtree(staged)
    with open(place / "spare.img", "wb") as spare:
        spare.truncate(64 << 20)


def _ignored(folder: str, names: list[str]) -> set[str]:
    if not folder.endswith("site-packages"):
        return set()
    return {name for name in names if name.startswith(LEFT_OUT)}


@contextmanager
def machine(image: Path, place: Path, append: str) -> Iterator[list[str]]:
    """Boot; the value is the command that runs a command line in the guest. The machine ends with the block."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    began = time.monotonic()
    process = launch(qemu(image, place, append, port), place / "console")
    guest = [*SSH, "-i", str(image / "key"), "-p", str(port), "root@127.0.0.1"]
    try:
        # 255 is ssh's own failure; what systemd says of a machine that is up is its business.
        while subprocess.run([*guest, "systemctl is-system-running --wait"], capture_output=True).returncode == 255:
            if process.poll() is not None or time.monotonic() > began + BOOT_SECONDS:
                print((place / "console").read_text(errors="replace")[-3000:], file=sys.stderr)
                sys.exit(f"lane: the machine has not come up within {time.monotonic() - began:.0f} s")
            time.sleep(1)
        print(f"lane: up after {time.monotonic() - began:.0f} s", flush=True)
        yield guest
        process.wait(timeout=60)
    except subprocess.TimeoutExpired:
        pass
    finally:
        process.kill()
        process.wait()


def launch(command: list[str], console: Path) -> subprocess.Popen[bytes]:
    """Start QEMU with KVM if the kernel speaks soon then (a /dev/kvm that opens may still not work), else without."""
    if os.access("/dev/kvm", os.R_OK | os.W_OK):
        process = subprocess.Popen([*command, "-accel", "kvm", "-cpu", "host"], stderr=subprocess.DEVNULL)
        end = time.monotonic() + KVM_SECONDS
        while process.poll() is None and time.monotonic() < end:
            if console.exists() and b"Linux version" in console.read_bytes():
                return process
            time.sleep(0.1)
        process.kill()
        process.wait()
        print("lane: /dev/kvm does not work here; translating instead, which is slow", flush=True)
    return subprocess.Popen([*command, "-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max"])


def qemu(image: Path, place: Path, append: str, port: int) -> list[str]:
    """The command line of the machine: nothing from outside but its ssh, at *port* of the loopback."""
    words = ["qemu-system-x86_64", "-smp", "2", "-m", "2G", "-display", "none", "-no-reboot", "-monitor", "none"]
    words += ["-serial", f"file:{place / 'console'}", "-device", "virtio-rng-pci"]
    words += ["-kernel", str(image / "vmlinuz"), "-initrd", str(image / "initrd.img")]
    words += ["-append", f"{KERNEL_WORDS} {append}"]
    for disk in (image / "disk.img", place / "tree.img", place / "spare.img"):
        words += ["-drive", f"file={disk},if=virtio,format=raw,snapshot=on"]
    words += ["-netdev", f"user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:{port}-:22"]
    return [*words, "-device", "virtio-net-pci,netdev=net"]


if __name__ == "__main__":
    sys.exit(main())

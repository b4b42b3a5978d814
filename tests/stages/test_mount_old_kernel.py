"""oci-mount where newer system calls are missing: a seccomp filter answers ENOSYS as an old kernel does."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from pathlib import Path

import mounting as lab
import pytest
from mounting import Bundle, needs_root

from ocimk.container.folder import Folder

pytestmark = needs_root

OLD = {
    "5.11": ("mount_setattr",),
    "no-new-mount-api": ("mount_setattr", "fsopen"),
}


@pytest.fixture
def bundle(tmp_path: Path) -> Iterator[Bundle]:
    before = lab.host_mounts()
    (tmp_path / "b").mkdir()
    made = Bundle(tmp_path / "b")
    made.config["mounts"] = [lab.PROC, lab.DEV, lab.PTS, lab.SHM, lab.MQUEUE, lab.SYS]
    yield made
    assert lab.host_mounts() == before, "the host's mounts changed"


@pytest.fixture(params=list(OLD))
def old(request: pytest.FixtureRequest) -> object:
    def step(folder: Folder) -> None:
        lab.refuse(**dict.fromkeys(OLD[request.param], errno.ENOSYS))

    return step


def looks(result: lab.Result) -> dict[str, tuple[set[str], set[str]]]:
    return {point: (mount.flags, mount.propagation) for point, mount in result.ok().mounts.items()}


def test_filesystems_and_binds_come_out_the_same(bundle: Bundle, tmp_path: Path, old: object) -> None:
    with lab.mounted(tmp_path / "s", options="nosuid,noatime"), lab.mounted(tmp_path / "s/below"):
        bundle.mount("/late", "tmpfs", "ro", "nodev", "strictatime")
        bundle.mount("/never", "tmpfs", "noatime", "nodiratime", "nosymfollow")
        bundle.mount("/odd", "tmpfs", "strictatime", "nodiratime")
        bundle.mount("/prop", "tmpfs", "rshared")
        bundle.mount("/sync", "tmpfs", "sync", "size=1m")
        for number, words in enumerate(
            [[], ["ro"], ["nodev"], ["relatime"], ["strictatime"], ["nodiratime"], ["suid"]]
        ):
            bundle.bind(tmp_path / "s", f"/bind/{number}", "rbind", *words)
        bundle.bind(tmp_path / "s", "/bind/private", "rbind", "rprivate", "noexec")
        bundle.mount("/bind/private", "none", "bind", "remount", "ro")
        bundle.config["root"]["readonly"] = True
        bundle.config["linux"]["readonlyPaths"] = ["/late", "/bin", "/odd", "/never"]
        want = looks(bundle.run())
        got = looks(bundle.run(before=old))  # type: ignore[arg-type]
    assert got == want


def test_devices_and_console_come_out_the_same(bundle: Bundle, old: object) -> None:
    bundle.user()
    bundle.config["process"]["terminal"] = True
    want = looks(bundle.run())
    assert looks(bundle.run(before=old)) == want  # type: ignore[arg-type]


def test_masks_without_mount_setattr(bundle: Bundle) -> None:
    bundle.config["linux"]["maskedPaths"] = lab.MASKED
    want = looks(bundle.run())
    assert looks(bundle.run(before=lambda folder: lab.refuse(mount_setattr=errno.ENOSYS))) == want


def test_locked_flags_stay(bundle: Bundle, tmp_path: Path, old: object) -> None:
    bundle.user()
    with lab.mounted(tmp_path / "s", options="nosuid,nodev,noatime"):
        bundle.bind(tmp_path / "s", "/v", "rbind", "ro")
        bundle.bind(tmp_path / "s", "/w", "rbind", "noexec")
        want = looks(bundle.run())
        assert looks(bundle.run(before=old)) == want  # type: ignore[arg-type]
        bundle.bind(tmp_path / "s", "/x", "rbind", "suid")
        assert "operation not permitted" in bundle.run(before=old).error  # type: ignore[arg-type]


def test_tmpcopyup(bundle: Bundle, old: object) -> None:
    (bundle.rootfs / "etc/conf").write_text("hello")
    bundle.mount("/etc", "tmpfs", "tmpcopyup", "ro")
    result = bundle.run("cat /etc/conf; touch /etc/x", before=old)  # type: ignore[arg-type]
    assert result.out == "hellotouch: /etc/x: Read-only file system\n"


@pytest.mark.parametrize(
    ("words", "want"),
    [
        (("rbind", "rro"), "function not implemented (options on a whole tree and id-mapped mounts need Linux 5.12)"),
        (("bind", "idmap"), "idmap: function not implemented (id-mapped mounts need Linux 5.12)"),
    ],
)
def test_what_cannot_be_had(bundle: Bundle, words: tuple[str, ...], want: str) -> None:
    rows = [{"containerID": 0, "hostID": 5000, "size": 10}]
    more = {"uidMappings": rows, "gidMappings": rows} if "idmap" in words else {}
    bundle.bind("/etc", "/v", *words, **more)
    error = bundle.run(before=lambda folder: lab.refuse(mount_setattr=errno.ENOSYS)).error
    assert error == f"mounts[6] /v: mount bind: {want}"

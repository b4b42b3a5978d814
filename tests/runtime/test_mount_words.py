"""Mount options of crun's: what a bind mount does with symbolic links, and id mappings in one word."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from kit import LIBEXEC, Bundle, Runtime
from ocimk.container.folder import Folder
from ocimk.runtime import criu_options, restore
from ocimk.stages.rootfs import plan


@pytest.fixture
def volume(oci: Runtime, bundle: Bundle) -> Path:
    """A folder of the host with a file and a link to it."""
    place = oci.place / "volume"
    place.mkdir()
    (place / "file").write_text("of the host\n")
    (place / "link").symlink_to("file")
    bundle.writable()
    return place


# ---- links -----------------------------------------------------------------------------------------------------------


def test_a_link_is_made_anew(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    bundle.bind(volume / "link", "/a/b/link", "copy-symlink").bind(volume / "file", "/a/plain", "copy-symlink")
    for _ in range(2):  # the second time it is there
        assert oci.run(bundle.script("readlink /a/b/link; cat /a/plain")).ok().lines == ["file", "of the host"]


@pytest.mark.parametrize("there", ["link", "file"])
def test_what_is_there_must_be_the_link(oci: Runtime, bundle: Bundle, volume: Path, there: str) -> None:
    place = bundle.rootfs / "etc/link"
    place.symlink_to("elsewhere") if there == "link" else place.touch()
    said = "a link to elsewhere is there" if there == "link" else "something else is there"
    oci.run(bundle.bind(volume / "link", "/etc/link", "copy-symlink").script("true")).refused("/etc/link", said)


def test_a_way_to_the_link_does_not_lead_out(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    (bundle.rootfs / "out").symlink_to(oci.place)
    oci.run(bundle.bind(volume / "link", "/out/made", "copy-symlink").script("readlink /out/made")).ok()
    assert not (oci.place / "made").is_symlink()


def test_a_link_of_the_source_is_mounted_itself(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    (bundle.rootfs / "file").write_text("of the image\n")
    bundle.bind(volume / "link", "/link", "src-nofollow")
    assert oci.run(bundle.script("readlink /link; cat /link")).ok().lines == ["file", "of the image"]


def test_a_link_of_the_destination_is_mounted_on_itself(oci: Runtime, bundle: Bundle, volume: Path) -> None:
    (bundle.rootfs / "link").symlink_to("tmp/made")
    bundle.bind(volume / "file", "/link", "dest-nofollow").bind(volume / "file", "/tmp/new", "dest-nofollow")
    assert oci.run(bundle.script("cat /link; ls /tmp")).ok().lines == ["of the host", "new"]


def test_restore_makes_the_link_where_it_is_missing(bundle: Bundle, oci_called: Runtime) -> None:
    (oci_called.place / "link").symlink_to("file")
    options = ["bind", "copy-symlink"]
    entry = plan.entry(0, {"destination": "/a/b", "source": str(oci_called.place / "link"), "options": options}, "/")
    root = os.open(bundle.rootfs, os.O_PATH)
    for _ in range(2):
        restore._make_place(root, entry, [])
    os.close(root)
    assert os.readlink(bundle.rootfs / "a/b") == "file"
    folder = Folder(str(oci_called.place))
    folder.config = {"mounts": [{"destination": "/a", "source": entry.source, "options": options}]}
    assert "/a" not in dict(criu_options.external_mounts(folder))


@pytest.mark.parametrize("word", ["copy-symlink", "src-nofollow", "dest-nofollow"])
def test_they_are_for_bind_mounts(oci_called: Runtime, bundle: Bundle, word: str) -> None:
    oci_called.run(bundle.mount("/srv", "tmpfs", word).script("true")).refused("mounts[", f"{word} is for a bind mount")


# ---- id mappings -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "host", "seen"),
    [
        ("idmap=uids=0-1-10;gids=0-100-10", None, "1:100"),
        ("idmap=uids=5-1-1#0-7-2;gids=0-3-10", None, "7:3"),
        ("idmap=uids=@0-1-10;gids=@0-3-10", 100000, "1:3"),
        ("idmap=uids=0-100001-10;gids=0-100003-10", 100000, "1:3"),
    ],
)
def test_mappings_in_a_word(
    oci: Runtime, bundle: Bundle, volume: Path, word: str, host: int | None, seen: str
) -> None:
    if host:
        bundle.user_namespace(host)
    (bundle.rootfs / "srv").mkdir()
    for place in (oci.place, *list(oci.place.parents)[:2], volume):
        place.chmod(0o755)
    found = oci.run(bundle.bind(volume, "/srv", word).script("stat -c %u:%g /srv/file"))
    assert found.ok().out == f"{seen}\n"


def test_the_filter_lets_them_pass(oci_called: Runtime, bundle: Bundle) -> None:
    config = (bundle.bind("/srv", "/srv", "idmap=uids=0-1-10;gids=0-1-10").save() / "config.json").read_bytes()
    assert subprocess.run([f"{LIBEXEC}/oci-validate"], input=config, capture_output=True, check=True).stdout == config


@pytest.mark.parametrize("word", ["idmap=uids=0-1-10", "idmap=uids=0-1;gids=0-1-1", "idmap=uids=@0-1-1;gids=@0-1-1"])
def test_mappings_that_make_no_sense(oci: Runtime, bundle: Bundle, volume: Path, word: str) -> None:
    oci.run(bundle.bind(volume, "/srv", word).script("true")).refused("options[1]", word, "idmap=uids=INSIDE")

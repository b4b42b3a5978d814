"""The mount options: every one of the specification, and what it becomes."""

from __future__ import annotations

import pytest

from ocimk.linux import mount as m
from ocimk.spec import tables
from ocimk.stages.rootfs import options

MUST = """async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev nodiratime noexec
noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime remount ro rprivate rshared rslave
runbindable rw shared silent slave strictatime suid sync unbindable""".split()
SHOULD = """nosymfollow symfollow ratime rdev rdiratime rexec rnoatime rnodev rnodiratime rnoexec rnorelatime
rnostrictatime rnosuid rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow idmap ridmap""".split()
MAY = "mand nomand tmpcopyup".split()


@pytest.mark.parametrize("word", MUST + SHOULD + MAY)
def test_none_is_left_to_the_filesystem(word: str) -> None:
    assert options.parse([word]).data == []
    assert word in options.known()


def test_features_tell_the_same() -> None:
    assert set(tables.MOUNT_OPTIONS) <= set(options.known())
    assert set(MUST + SHOULD + MAY) <= set(tables.MOUNT_OPTIONS)


def test_the_rest_is_the_filesystems() -> None:
    assert options.parse(["size=1m", "ro", "", "x-gvfs-hide", "nonsense"]).data == ["size=1m", "nonsense"]


@pytest.mark.parametrize(
    ("words", "flags", "cleared"),
    [
        (["ro", "rw"], 0, m.MS_RDONLY),
        (["rw", "ro"], m.MS_RDONLY, 0),
        (["nosuid", "nodev", "suid"], m.MS_NODEV, m.MS_NOSUID),
        (["user", "exec"], m.MS_NOSUID | m.MS_NODEV, m.MS_NOEXEC),
        (["defaults"], 0, 0),
        (["rbind"], m.MS_BIND | m.MS_REC, 0),
    ],
)
def test_a_later_option_wins(words: list[str], flags: int, cleared: int) -> None:
    made = options.parse(words)
    assert (made.flags, made.cleared) == (flags, cleared)


@pytest.mark.parametrize(
    ("words", "rset", "rclear"),
    [
        (["rro"], m.ATTR_RDONLY, 0),
        (["rro", "rrw"], 0, m.ATTR_RDONLY),
        (["rrw", "rro"], m.ATTR_RDONLY, 0),
        (["rnoatime"], m.ATTR_NOATIME, m.ATTR_ATIME),
        (["rnoatime", "rstrictatime"], m.ATTR_STRICTATIME, m.ATTR_ATIME),
        (["rnoatime", "ratime"], 0, m.ATTR_ATIME),
        (["rrelatime", "rnodev"], m.ATTR_NODEV, m.ATTR_ATIME),
    ],
)
def test_options_for_the_whole_tree(words: list[str], rset: int, rclear: int) -> None:
    made = options.parse(words)
    assert made.recursive
    assert (made.rset, made.rclear) == (rset, rclear)


def test_the_whole_tree_is_touched_only_when_asked_for() -> None:
    assert not options.parse(["ro", "rbind", "rshared"]).recursive
    assert options.parse(["rrelatime"]).recursive, "relatime sets no bit"


def test_propagation_keeps_its_order() -> None:
    made = options.parse(["rshared", "ro", "slave"])
    assert made.propagation == [m.MS_SHARED | m.MS_REC, m.MS_SLAVE]


@pytest.mark.parametrize(
    ("words", "want"),
    [
        ([], 0),
        (["noatime"], m.ATTR_NOATIME),
        (["noatime", "relatime"], m.ATTR_NOATIME),
        (["noatime", "strictatime"], m.ATTR_STRICTATIME),
        (["ro", "nodiratime", "nosymfollow"], m.ATTR_RDONLY | m.ATTR_NODIRATIME | m.ATTR_NOSYMFOLLOW),
        (["sync", "lazytime"], 0),
    ],
)
def test_attributes_of_a_new_mount(words: list[str], want: int) -> None:
    assert options.attributes(options.parse(words).flags) == want


ALL = m.ATTR_RDONLY | m.ATTR_NOSUID | m.ATTR_NODEV | m.ATTR_NOEXEC


@pytest.mark.parametrize(
    ("words", "add", "clear"),
    [
        (["ro"], m.ATTR_RDONLY, ALL & ~m.ATTR_RDONLY),
        (["rw"], 0, ALL),
        (["noatime"], m.ATTR_NOATIME, ALL | m.ATTR_ATIME | m.ATTR_NODIRATIME),
        (["nodiratime"], m.ATTR_NODIRATIME, ALL | m.ATTR_ATIME),
        (["diratime"], 0, ALL | m.ATTR_NODIRATIME),
        (["symfollow"], 0, ALL | m.ATTR_NOSYMFOLLOW),
        (["nosymfollow"], m.ATTR_NOSYMFOLLOW, ALL),
    ],
)
def test_changes_of_a_bind_mount(words: list[str], add: int, clear: int) -> None:
    assert options.bind_changes(options.parse(["bind", *words])) == (add, clear)


def test_where_flags_are_locked_only_what_was_named_is_cleared() -> None:
    made = options.parse(["bind", "nodev", "suid", "atime"])
    assert options.locked_changes(made) == (m.ATTR_NODEV, m.ATTR_NOSUID | m.ATTR_ATIME | m.ATTR_NODIRATIME)


@pytest.mark.parametrize(
    ("words", "changes"), [(["bind"], False), (["rbind", "defaults"], False), (["bind", "rw"], True)]
)
def test_a_bind_mount_without_flags_is_left_alone(words: list[str], changes: bool) -> None:
    assert options.parse(words).changes is changes

"""Device rules: parsed, folded into what v1 can hold, and the fewest writes from one state to another."""

from __future__ import annotations

import pytest

from ocimk.errors import Error
from ocimk.stages.cgroups import devices
from ocimk.stages.cgroups.devices import ALL, ANY, MKNOD, READ, WRITE, Exceptions, fold, transition

DENY_ALL = {"allow": False, "access": "rwm"}
ALLOW_ALL = {"allow": True, "access": "rwm"}


def rules(*entries):
    return [rule for at, entry in enumerate(entries) for rule in devices.parse(entry, f"devices[{at}]")]


def config(*entries, nodes=()):
    return {"linux": {"resources": {"devices": list(entries)}, "devices": [{"path": path} for path in nodes]}}


def test_the_common_devices_are_always_allowed():
    state = fold(devices.rules(config(DENY_ALL)))

    assert not state.default
    assert state.found[("c", 1, 3)] == ALL and state.found[("c", 136, ANY)] == ALL
    assert state.found[("c", ANY, ANY)] == MKNOD == state.found[("b", ANY, ANY)]
    assert state == fold(devices.rules({}))


def test_a_node_of_the_configuration_replaces_the_common_one():
    state = fold(devices.rules(config(DENY_ALL, nodes=["/dev/null"])))

    assert ("c", 1, 3) not in state.found and ("c", 1, 5) in state.found


def test_what_is_not_mentioned_is_denied():
    assert fold([]) == Exceptions(False)


def test_order_matters():
    first = {"allow": True, "type": "c", "major": 10, "minor": 229, "access": "rw"}

    assert fold(rules(first, DENY_ALL)) == Exceptions(False)
    assert fold(rules(DENY_ALL, first)).found == {("c", 10, 229): READ | WRITE}
    assert fold(rules(first, {**first, "allow": False, "access": "w"})).found == {("c", 10, 229): READ}


def test_all_types_with_a_number_is_both_types_not_everything():
    state = fold(rules(DENY_ALL, {"allow": True, "type": "a", "major": 10, "minor": 229, "access": "r"}))

    assert state == fold(
        rules(*({"allow": True, "type": t, "major": 10, "minor": 229, "access": "r"} for t in "cb"))
    )
    assert not state.default


def test_a_deny_list():
    state = fold(rules(ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "access": "rwm"}))

    assert state.default and state.found == {("b", 8, ANY): ALL}


def test_a_wide_rule_takes_the_narrow_exceptions_with_it():
    one = {"allow": True, "type": "c", "major": 10, "minor": 1, "access": "rw"}

    assert fold(rules(one, {"allow": False, "type": "c", "major": 10, "access": "w"})).found == {
        ("c", 10, 1): READ
    }


def test_a_hole_in_a_wildcard_is_refused():
    wide = {"allow": True, "type": "c", "major": 10, "access": "rw"}

    with pytest.raises(Error, match=r"rule c 10:1 w: cgroup v1 cannot except it from c 10:\* rw"):
        fold(rules(wide, {"allow": False, "type": "c", "major": 10, "minor": 1, "access": "w"}))


@pytest.mark.parametrize(
    "entry, why",
    [
        ({"allow": True, "access": ""}, r"devices\[0\]\.access: '' is not"),
        ({"allow": True}, r"devices\[0\]\.access"),
        ({"allow": True, "access": "rx"}, r"devices\[0\]\.access: 'rx'"),
        ({"allow": True, "type": "p", "access": "r"}, r"devices\[0\]\.type: 'p'"),
        ({"allow": True, "type": "c", "major": 2**32, "access": "r"}, "32 bits"),
    ],
)
def test_nonsense_is_refused(entry, why):
    with pytest.raises(Error, match=why):
        rules(entry)


def test_a_listing_is_read_back():
    state = devices.from_list("c *:* m\nb 8:* rw\nc 1:3 rwm\n")

    assert not state.default
    assert state.found == {("c", ANY, ANY): MKNOD, ("b", 8, ANY): READ | WRITE, ("c", 1, 3): ALL}
    assert devices.from_list("a *:* rwm\n") == Exceptions(True)


def test_the_fewest_writes_between_two_lists():
    now = devices.from_list("c 1:3 rwm\nc 1:5 rw\nb 8:0 r\n")
    then = devices.from_list("c 1:3 rwm\nc 1:5 rm\nc 1:7 r\n")

    assert transition(now, then) == [
        ("devices.deny", "b 8:0 r"),
        ("devices.deny", "c 1:5 w"),
        ("devices.allow", "c 1:5 m"),
        ("devices.allow", "c 1:7 r"),
    ]
    assert transition(then, then) == []


def test_from_allow_to_deny_all_starts_over():
    writes = transition(Exceptions(True), fold(devices.rules({})))

    assert writes[0] == ("devices.deny", "a")
    assert len(writes) == 1 + len(devices.DEFAULTS)
    assert {file for file, _ in writes[1:]} == {"devices.allow"}


def test_exceptions_of_an_allowing_cgroup_are_unknown_so_it_starts_over():
    then = fold(rules(ALLOW_ALL, {"allow": False, "type": "b", "major": 8, "access": "rwm"}))

    assert transition(Exceptions(True), then) == [("devices.allow", "a"), ("devices.deny", "b 8:* rwm")]


def test_described_in_words():
    lines = devices.describe(
        rules(DENY_ALL, {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "rw"})
    )

    assert lines == ["all other devices: deny", "allow c 1:3 rw"]

"""Inputs made by Hypothesis, beginning with good ones: no traceback, no "internal error", no hang. ``make fuzz`` makes
20,000 of each."""

from __future__ import annotations

import json
import os

import fuzz_targets as targets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kit import Runtime

EXAMPLES = int(os.environ.get("OCIMK_FUZZ", "100"))

budget = settings(
    max_examples=EXAMPLES, deadline=5000, database=None, suppress_health_check=list(HealthCheck), derandomize=EXAMPLES < 1000
)

values = st.one_of(
    st.just(targets.LEFT_OUT),
    st.sampled_from(targets.EDGES),
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
        max_leaves=8,
    ),
)
changes = st.lists(st.tuples(st.integers(0, 100_000), values), min_size=1, max_size=4)


def written(value: object) -> bytes:
    return json.dumps(value).encode()


@budget
@given(changes)
def test_config(made: list[tuple[int, object]]) -> None:
    targets.config(written(targets.changed(targets.FULL, made)))


@budget
@given(st.binary(max_size=200) | st.text(alphabet='{}[]",:\\u0dn1-e. ', max_size=60).map(str.encode))
def test_config_that_is_hardly_json(data: bytes) -> None:
    targets.config(data)


@pytest.mark.parametrize("name", targets.FILES)
@budget
@given(made=changes)
def test_file_of_the_folder(name: str, made: list[tuple[int, object]]) -> None:
    targets.folder(name, written(targets.changed(targets.FILES[name], made)))


@pytest.mark.parametrize("name", [*targets.FILES, "ledger", "seccomp.bpf"])
@budget
@given(data=st.binary(max_size=100) | st.lists(st.sampled_from([b"oci-cgroup", b" ", b"\n", b"\\", b"\0", b"\xff", b"x"])).map(b"".join))
def test_file_of_the_folder_that_is_garbage(name: str, data: bytes) -> None:
    targets.folder(name, data)


@budget
@given(changes)
def test_process_of_exec(made: list[tuple[int, object]]) -> None:
    targets.process(written(targets.changed(targets.PROCESS, made)))


@budget
@given(changes)
def test_resources_of_update(made: list[tuple[int, object]]) -> None:
    targets.resources(written(targets.changed(targets.RESOURCES, made)))


@budget
@given(st.text(max_size=300))
def test_identifier(text: str) -> None:
    targets.identifier(text)


@settings(budget, max_examples=max(5, EXAMPLES // 200))
@given(made=changes)
def test_commands(tmp_path_factory: pytest.TempPathFactory, made: list[tuple[int, object]]) -> None:
    """The program itself: one line, or an answer, and nothing is left of what it was asked for."""
    place = tmp_path_factory.mktemp("fuzz")
    runtime = Runtime(place)
    folder = runtime.root / "c"
    folder.mkdir(parents=True, mode=0o700)
    (folder / "state.json").write_bytes(written(targets.changed(targets.STATE, made)))
    for words in (("state", "c"), ("list",), ("list", "--format", "json"), ("start", "c")):
        done = runtime(*words)
        assert "Traceback" not in done.err and "internal error" not in done.err, (made, done)
    bundle = place / "bundle"
    (bundle / "rootfs").mkdir(parents=True)
    changed = targets.changed(targets.FULL, made)
    (bundle / "config.json").write_bytes(written({**changed, "process": 1} if isinstance(changed, dict) else changed))
    done = runtime("create", "--bundle", bundle, "d")
    assert done.status == 1 and "Traceback" not in done.err and "internal error" not in done.err, (made, done)
    assert runtime.names() == ["c"]

"""Values as ``oci update`` and ``oci events`` take them: sizes as Docker's units have them, numbers and durations as
Go reads them."""

from __future__ import annotations

import pytest

from ocimk.runtime import events, ps, update


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("-1", -1), ("0", 0), ("1024", 1024), ("512m", 512 << 20), ("512M", 512 << 20), ("1.5g", 3 << 29),
        ("2GiB", 2 << 30), ("2gb", 2 << 30), ("10 kb", 10240), ("7b", 7), ("1t", 1 << 40), ("0.5k", 512), ("1.9", 1),
    ],
)  # fmt: skip
def test_sizes(text: str, size: int) -> None:
    assert update.size(text) == size


@pytest.mark.parametrize("text", ["", "-2", "m", "1x", "1mib2", "1 2", "1..2", "k1", "10e", "9000000t", "1bb", "٣"])
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(ValueError):
        update.size(text)


@pytest.mark.parametrize("text", ["", "1.0", "0x10", "-1", "18446744073709551616", "1 ", "٣"])
def test_what_is_no_number(text: str) -> None:
    with pytest.raises(ValueError):
        update.unsigned(text)
    assert (update.unsigned("18446744073709551615"), update.signed("-1")) == (2**64 - 1, -1)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5), ("1m30s", 90), ("500ms", 0.5), ("1.5h", 5400), ("0", 0), ("-2s", -2), ("+1s", 1), ("10us", 1e-5), ("7µs", 7e-6)],
)
def test_durations(text: str, seconds: float) -> None:
    assert events.duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "1d", "1 s", "-", "1s5", "..s", "1sm"])
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(ValueError):
        events.duration(text)


def test_the_process_of_a_line() -> None:
    told = "COMMAND            PID\nsleep 1001          12\nsh -c 12 12        345\nx\n"
    assert ps.table(told, {12}) == "COMMAND            PID\nsleep 1001          12\n"
    assert ps.table("  PID STAT\n   12 S\n  120 S\n", {12}) == "  PID STAT\n   12 S\n"
    assert ps.table("USER PID\na-very-long-name 12\n", {12}) == "USER PID\na-very-long-name 12\n"

"""Signals by name and number."""

from __future__ import annotations

import signal

import pytest

from ocimk.errors import Error
from ocimk.runtime import signals


def test_every_signal_that_python_knows() -> None:
    for known in signal.Signals:
        for spelled in (known.name, known.name.lower(), known.name[3:], str(known.value)):
            assert signals.number(spelled) == known.value
        assert signals.number(signals.name(known.value)) == known.value


@pytest.mark.parametrize(
    "text, number",
    [
        ("9", 9),
        ("KILL", 9),
        ("sigKill", 9),
        ("0", 0),
        ("SIGRTMIN", 34),
        ("RTMIN+3", 37),
        ("sigrtmin+30", 64),
        ("SIGRTMAX-1", 63),
        ("64", 64),
    ],
)
def test_what_is_accepted(text: str, number: int) -> None:
    assert signals.number(text) == number


@pytest.mark.parametrize(
    "text",
    ["FOO", "", "SIG", "65", "-9", "9.0", "SIGRTMIN+31", "SIGRTMAX-31", "RTMIN-1", "RTMIN+", "SIG_DFL", "²", "KILL "],
)
def test_what_is_not(text: str) -> None:
    with pytest.raises(Error) as caught:
        signals.number(text)
    assert str(caught.value) == f'unknown signal "{text}"'


def test_names() -> None:
    assert [signals.name(number) for number in (9, 6, 17, 29, 34, 37, 64)] == [
        "SIGKILL",
        "SIGABRT",
        "SIGCHLD",
        "SIGIO",
        "SIGRTMIN",
        "SIGRTMIN+3",
        "SIGRTMAX",
    ]
    assert signals.name(33) == "33"

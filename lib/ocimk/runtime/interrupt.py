"""Signals that ask us to end, while something is made that must be undone then."""

from __future__ import annotations

import _signal

from ..errors import Error

ENDING = (_signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP)


class Interruptible:
    """``with Interruptible():`` these signals become a failure, which is undone like any other."""

    def __enter__(self) -> None:
        def interrupt(number: int, frame: object) -> None:
            raise Error(f"interrupted by signal {number}", status=128 + number)

        self._before = {number: _signal.signal(number, interrupt) for number in ENDING}

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            _signal.signal(number, handler)

"""What every program of ours does first and last. bin/oci and libexec/oci-* find the library and come here."""

from __future__ import annotations

import posix
import sys

from .. import errors
from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn


def dispatcher() -> NoReturn:
    """The whole life of an ``oci`` process."""
    stand_on_three()
    try:
        from . import fast

        status = fast.main(sys.argv[1:])
    except BaseException as problem:
        status = errors.report(problem)
    leave(status)


def stage(name: str) -> NoReturn:
    """The whole life of an ``oci-STAGE`` process that is executed by itself (ocimk-stage(7))."""
    stand_on_three()
    try:
        from ..stages import contract

        status = contract.main(contract.load(name), sys.argv[1:])
    except BaseException as problem:
        status = errors.report(problem)
    leave(status)


def stand_on_three() -> None:
    """Open /dev/null where standard input, output or error is closed, lest a container's file is taken for one."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while True:
            fd = posix.open("/dev/null", posix.O_RDWR)
            if fd > 2:
                break
            posix.set_inheritable(fd, True)
        posix.close(fd)
        sys.stdout = sys.stdout or open(1, "w", closefd=False)
        sys.stderr = sys.stderr or open(2, "w", closefd=False)


def leave(status: int) -> NoReturn:
    """Push out what was printed and end at once: taking an interpreter apart costs a millisecond and gives nothing."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 141
    except (OSError, ValueError) as problem:
        errors.report(Error("write standard output", problem))
        status = status or 1
    posix._exit(status & 255)

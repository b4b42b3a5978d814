"""--regex of kill and delete: the same done to every container whose name a regular expression fits."""

from __future__ import annotations

import ctypes

from ..errors import Error, warn
from . import list as listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..cli.invocation import Invocation

_EXTENDED, _NOSUB = 1, 8
_ROOM = 512
"""Bytes that regex_t surely fits into: 64 in glibc, less in musl."""


def each(invocation: Invocation, act: Callable[[str], None]) -> None:
    """Do it to all that fit; a failure is a warning until all have been tried. Raises Error; none fits: none."""
    pattern = invocation.args[0]
    found = matching(pattern, listing.names(invocation.root, invocation.root_given))
    failed = 0
    for name in found:
        try:
            act(name)
        except Error as problem:
            failed += 1
            warn(str(problem))
    if failed:
        raise Error(f"{invocation.command} --regex {pattern}", f"failed for {failed} of {len(found)} containers")


def matching(pattern: str, names: list[str]) -> list[str]:
    """The names in which the pattern is found: a POSIX extended one (regex(7)), as crun takes it, anywhere in the
    name unless it is anchored. Raises Error when it is none."""
    libc = ctypes.CDLL(None)
    compiled = ctypes.create_string_buffer(_ROOM)
    code = libc.regcomp(compiled, pattern.encode("utf-8", "surrogateescape"), _EXTENDED | _NOSUB)
    if code:
        why = ctypes.create_string_buffer(256)
        libc.regerror(code, compiled, why, len(why))
        told = why.value.decode("utf-8", "replace")
        raise Error(f"invalid regular expression {pattern}", told[:1].lower() + told[1:])
    fits = [name for name in names if libc.regexec(compiled, name.encode(), 0, None, 0) == 0]
    libc.regfree(compiled)
    return fits

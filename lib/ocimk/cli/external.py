"""``oci NAME`` for a NAME that the table does not know: become the program ``oci-NAME``, as git does."""

from __future__ import annotations

import posix

from .. import errors, execpath
from ..errors import Error
from . import table
from .invocation import Invocation

_NO_COMMAND = 3
"""runc's exit status for a command that it does not know."""


def become(invocation: Invocation) -> int:
    """Become ``oci-NAME ARGS...``, told of the folders by $OCI_ROOT and $OCI_EXEC_PATH; 126 when it cannot run.

    Raises Error (status 3), with the nearest name, when there is none.
    """
    import _signal

    from ..linux import process

    path = execpath.find(invocation.command, invocation.search)
    if not path:
        raise Error(f'"{invocation.command}" is not a command', hint=suggestion(invocation), status=_NO_COMMAND)
    environment = process.environment()
    environment[b"OCI_ROOT"] = invocation.root.encode("utf-8", "surrogateescape")
    if invocation.search:
        environment[b"OCI_EXEC_PATH"] = ":".join(invocation.search).encode("utf-8", "surrogateescape")
    errors.flush()
    # The interpreter ignores both, and a program inherits that.
    for number in (_signal.SIGPIPE, _signal.SIGXFSZ):
        _signal.signal(number, _signal.SIG_DFL)
    try:
        posix.execve(path, [path, *invocation.args], environment)
    except OSError as problem:
        errors.report(Error(f"execute {path}", problem))
    return 126


def suggestion(invocation: Invocation) -> str:
    """What the reader may have meant."""
    import difflib

    candidates = [*table.COMMANDS, *execpath.names(invocation.search)]
    near = difflib.get_close_matches(invocation.command, candidates, 1, 0.6)
    return f"did you mean {near[0]}?" if near else "oci --help lists them"

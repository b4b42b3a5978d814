"""oci state: print the state of a container as JSON, as ``runc state`` does."""

from __future__ import annotations

from .. import jsonio
from ..container import state as states
from ..container.folder import Folder, write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """Print it, indented, without a newline at the end. Raises Error when there is no such container."""
    state = states.current(Folder.existing(invocation.root, invocation.args[0]))
    write_all(1, jsonio.dumps_indent(state).encode("utf-8", "surrogateescape"))
    return 0

"""oci state: print the state of a container as JSON, as ``runc state`` does."""

from __future__ import annotations

from .. import jsonio
from ..container import state as states
from ..container.folder import Folder, tell

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """Print it, indented, without a newline at the end. Raises Error when there is no such container."""
    state = states.current(Folder.existing(invocation.root, invocation.args[0]))
    tell(jsonio.as_go(jsonio.dumps_indent(state)))
    return 0

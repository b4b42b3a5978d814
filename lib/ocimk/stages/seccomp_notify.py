"""linux.seccomp.listenerPath: the image itself hands the notification descriptor to the agent.

The filter that makes the descriptor is loaded by the image, at a moment when no Python is left. So the message to the
agent (config-linux.md, "The Container Process State") is laid out beforehand with its control data, into which the
call that loads the filter stores the descriptor; the socket is connected beforehand too.
"""

from __future__ import annotations

import _socket
from _struct import pack

from .. import jsonio
from ..container.folder import Folder
from ..errors import Error
from ..native import image
from ..spec.state import container_process_state, state_json
from . import seccomp

_SOL_SOCKET = 1
_SCM_RIGHTS = 1


def connect(folder: Folder) -> None:
    """Connect to the agent while its path can be reached; the socket is handed along as ``fds["seccomp"]``. Raises
    Error."""
    found = seccomp.listener(folder)
    if found is None:
        return
    sock = _socket.socket(_socket.AF_UNIX, _socket.SOCK_STREAM)
    try:
        sock.connect(found[0])
    except OSError as problem:
        sock.close()
        raise Error(f"linux.seccomp.listenerPath: connect to {found[0]}", problem, "does the agent listen?") from None
    folder.fds["seccomp"] = sock.detach()


def send(plan: image.Plan, load: image.Step, folder: Folder) -> None:
    """Add the call that sends the state and the descriptor which the step *load* returns; then close both."""
    sock = folder.fds["seccomp"]
    found = seccomp.listener(folder)
    message = _message(folder, found[1] if found else "")
    vector = plan.room(pack("=QQ", 0, len(message)))
    plan.points(vector, plan.room(message))
    # struct cmsghdr {size_t len; int level; int type;} and one int, padded to eight.
    control = plan.room(pack("=QiiiI", 20, _SOL_SOCKET, _SCM_RIGHTS, -1, 0))
    header = plan.room(pack("=QIIQQQQiI", 0, 0, 0, 0, 1, 0, 24, 0, 0))
    plan.points(header + 16, vector)
    plan.points(header + 32, control)
    plan.keep_result(load, image.Address(control + 16))
    plan.call("linux.seccomp.listenerPath: send the descriptor", "sendmsg", sock, header, 0)
    plan.call("close", "close", sock)


def _message(folder: Folder, metadata: str) -> bytes:
    own = folder.state
    told = state_json(
        own["ociVersion"], folder.id, "creating", int(own.get("pid", 0)), folder.bundle, own.get("annotations")
    )
    return jsonio.dumps(container_process_state(told, int(own.get("pid", 0)), metadata)).encode(
        "utf-8", "surrogateescape"
    )

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
from ..container.sync import LATER, PID_DIGITS
from ..errors import Error
from ..native import image
from ..spec.state import container_process_state, state_json
from . import seccomp

_SOL_SOCKET = 1
_SCM_RIGHTS = 1

_LATER = b"%d" % LATER


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


def send(plan: image.Plan, load: image.Step, folder: Folder, told: image.Step | None = None) -> None:
    """Add the call that sends the state and the descriptor which the step *load* returns; then close both.

    told  of ``oci exec``: the step that reads the process's id, PID_DIGITS bytes, into its third argument's place
    """
    sock = folder.fds["seccomp"]
    found = seccomp.listener(folder)
    message = _message(folder, found[1] if found else "", running=told is not None)
    text = plan.room(message)
    if told is not None:
        told.args = (told.args[0], image.Address(text + message.index(_LATER)), PID_DIGITS)
    vector = plan.room(pack("=QQ", 0, len(message)))
    plan.points(vector, text)
    # struct cmsghdr {size_t len; int level; int type;} and one int, padded to eight.
    control = plan.room(pack("=QiiiI", 20, _SOL_SOCKET, _SCM_RIGHTS, -1, 0))
    header = plan.room(pack("=QIIQQQQiI", 0, 0, 0, 0, 1, 0, 24, 0, 0))
    plan.points(header + 16, vector)
    plan.points(header + 32, control)
    plan.keep_result(load, image.Address(control + 16))
    plan.call("linux.seccomp.listenerPath: send the descriptor", "sendmsg", sock, header, 0)
    plan.call("close", "close", sock)


def _message(folder: Folder, metadata: str, running: bool) -> bytes:
    own = folder.state
    pid = int(own.get("pid", 0))
    status = str(own.get("status")) if running else "creating"
    told = state_json(own["ociVersion"], folder.id, status, pid, folder.bundle, own.get("annotations"))
    known = container_process_state(told, LATER if running else pid, metadata)
    return jsonio.dumps(known).encode("utf-8", "surrogateescape")

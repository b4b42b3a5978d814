"""oci features: what this runtime can do, as the features structure of the specification (features.md)."""

from __future__ import annotations

from .. import __version__, jsonio
from ..container.folder import tell
from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli.invocation import Invocation


def main(invocation: Invocation) -> int:
    """Print it, indented by four blanks as runc does. Needs no rights."""
    tell(f"{jsonio.dumps_indent(structure(), '    ')}\n")
    return 0


def structure() -> dict[str, Any]:
    """The whole structure. Without libseccomp this installation has no filters, and says so."""
    from ..cli import version
    from ..spec import features

    host: dict[str, Any] = {"version": __version__, "commit": version.commit()}
    try:
        host |= _seccomp()
    except (Error, OSError):
        return _without_seccomp(features.features(host))
    return features.features(host)


def _seccomp() -> dict[str, Any]:
    from ..stages import seccomp_compile

    return seccomp_compile.support()


def _without_seccomp(found: dict[str, Any]) -> dict[str, Any]:
    found["linux"]["seccomp"] = {"enabled": False}
    return found

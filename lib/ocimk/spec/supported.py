"""Properties that the specification allows and ocimk does not handle yet: refused, never ignored.

To support one, delete its row (and say so in ocimk.spec.features).
"""

from __future__ import annotations

from .walk import Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

MISSING = ("vm",)
"""Paths of properties that are errors when they are set to something that is not empty."""


def unsupported(config: object) -> list[Finding]:
    """What a configuration asks for that ocimk cannot do yet."""
    return [Finding(path, "not supported yet by ocimk") for path in MISSING if _find(config, path)]


def _find(config: Any, path: str) -> Any:
    for name in path.split("."):
        config = config.get(name) if type(config) is dict else None
    return config

"""The third-party packages, found only by those who need them: nothing of a hot command looks for them."""

from __future__ import annotations

import sys

_LIBRARY = __file__.rpartition("/ocimk/")[0]


def folders() -> tuple[str, ...]:
    """Where they may be: the tree's private venv, or the folder that ``make install`` fills.

    In a virtual environment that ocimk was installed into with pip they lie beside ocimk, which is found already.
    """
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return f"{_LIBRARY}/../.venv/lib/{version}/site-packages", f"{_LIBRARY}/vendor"


def enable() -> None:
    """Let ``import typer``, ``import orjson`` and so on find their packages. To be called before such an import.

    The folders come last on sys.path: nothing in them may stand in for a module of Python's own. Whether a package is
    there shows at its import.
    """
    from .linux import path as paths

    for folder in folders():
        if folder not in sys.path and paths.is_dir(folder):
            sys.path.append(folder)

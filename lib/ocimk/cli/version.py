"""What ``oci --version`` prints.

Line 1 is ``NAME version X`` and no other line holds the word "version": Docker's daemon takes name and version from
the line that has it, and the commit from ``commit:``. Podman shows the text as it is. go-runc reads the lines only if
the first begins with ``runc version``, and without error leaves its fields empty otherwise; nobody acts on those
fields, so we go by our own name.
"""

from __future__ import annotations

import posix

from .. import __version__
from ..errors import Error
from ..linux import path as paths

_PACKAGE = __file__.rpartition("/cli/")[0]


def text() -> str:
    """The lines, each ended."""
    from ..spec import tables

    rows = [("commit", commit()), ("spec", tables.SPEC_VERSION), ("libseccomp", libseccomp())]
    return f"oci version {__version__}\n" + "".join(f"{name}: {value}\n" for name, value in rows if value)


def libseccomp() -> str:
    """The version of the library that filters are compiled with, "" without one."""
    from ..linux import libseccomp as library

    try:
        return library.Library().version_text
    except (Error, OSError):
        return ""


def commit() -> str:
    """The commit this was built from, noted by the build; in a checkout the one checked out; else ""."""
    noted = _read(f"{_PACKAGE}/commit")
    if noted:
        return noted
    git = paths.clean(f"{_PACKAGE}/../../.git")
    if _read(git).startswith("gitdir: "):
        git = _read(git)[8:]  # a second working tree, see git-worktree(1)
    head = _read(f"{git}/HEAD")
    if not head.startswith("ref: "):
        return head
    reference = head[5:]
    shared = paths.join(git, _read(f"{git}/commondir") or ".")
    loose = _read(f"{shared}/{reference}")
    if loose:
        return loose
    packed = [line.split() for line in _read(f"{shared}/packed-refs").splitlines()]
    return next((words[0] for words in packed if len(words) == 2 and words[1] == reference), "")


def _read(path: str) -> str:
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return ""
    try:
        return posix.read(fd, 1 << 20).decode("utf-8", "replace").strip()
    except OSError:
        return ""
    finally:
        posix.close(fd)

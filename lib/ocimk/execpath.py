"""Where the programs named ``oci-NAME`` are."""

from __future__ import annotations

import posix

from .errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

LIBRARY = __file__.rpartition("/")[0] + "/.."
"""The folder that holds the package. Not cleaned by text: the kernel resolves ``..`` where a folder is a link."""

STOCK = ("../libexec", "../../libexec/ocimk", "../../../bin")
"""From there: the tree; PREFIX/lib/ocimk; a virtual environment's site-packages."""


def runnable(path: str) -> bool:
    """Whether the path is a file that we may execute."""
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o100000 and posix.access(path, posix.X_OK)
    except OSError:
        return False


def stock() -> str:
    """The folder of the programs that come with ocimk; "" when it is not found."""
    for place in STOCK:
        folder = f"{LIBRARY}/{place}"
        if runnable(f"{folder}/oci-mount"):
            return real(folder)
    return ""


def real(folder: str) -> str:
    """The folder's own name, without links and ``..``: as the kernel knows it."""
    fd = posix.open(folder, posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    try:
        return posix.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return folder
    finally:
        posix.close(fd)


def must_be_trusted(folder: str) -> None:
    """Raise Error when somebody else can put programs into the folder, or change one that is there."""
    from .linux import trust

    hint = "stages are taken only from where nobody else can write"
    why = trust.suspicion_of_all(folder)
    if why:
        raise Error(f"exec path {folder}", why, hint)
    try:
        entries = posix.listdir(folder)
    except OSError:
        return
    for entry in entries:
        if entry.startswith("oci-") and (why := trust.suspicion_of_all(f"{folder}/{entry}")):
            raise Error(f"exec path {folder}: {entry}", why, hint)


def find(name: str, search: Iterable[str]) -> str:
    """The program ``oci-NAME``, from the first folder that has it; "" when none has. Never from PATH."""
    if "/" in name:
        return ""
    for folder in (*search, stock()):
        path = f"{folder}/oci-{name}"
        if folder and runnable(path):
            return path
    return ""


def names(search: Iterable[str]) -> list[str]:
    """The NAMEs of all programs ``oci-NAME``, sorted."""
    found: set[str] = set()
    for folder in (*search, stock()):
        try:
            entries = posix.listdir(folder) if folder else []
        except OSError:
            continue
        found.update(entry[4:] for entry in entries if entry.startswith("oci-") and runnable(f"{folder}/{entry}"))
    return sorted(found)

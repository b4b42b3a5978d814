"""Path strings, as far as the start of a command needs them: ``os.path`` costs an import of ``os``."""

from __future__ import annotations

import posix

from ..errors import Error


def join(first: str, *rest: str) -> str:
    """Join with single slashes; a part that is absolute starts over, as in posixpath.join."""
    path = first
    for part in rest:
        if part.startswith("/"):
            path = part
        else:
            path = path + part if path.endswith("/") or not path else f"{path}/{part}"
    return path


def clean(path: str) -> str:
    """The shortest path that names the same by text alone: Go's filepath.Clean."""
    rooted = path.startswith("/")
    kept: list[str] = []
    for part in path.split("/"):
        if part == "..":
            if kept and kept[-1] != "..":
                kept.pop()
            elif not rooted:
                kept.append(part)
        elif part and part != ".":
            kept.append(part)
    return ("/" if rooted else "") + "/".join(kept) or "."


def absolute(path: str) -> str:
    """The path from the root, cleaned; relative ones are taken from the working directory. Raises Error when that was
    removed."""
    if path.startswith("/"):
        return clean(path)
    try:
        return clean(f"{posix.getcwd()}/{path}")
    except OSError as problem:
        raise Error("getwd", problem, "the working directory was removed, or may not be entered") from None


def real_dir(path: str) -> str:
    """The directory's own path, links and ``..`` followed as the kernel does it; for what is none, absolute()."""
    try:
        fd = posix.open(path or ".", posix.O_PATH | posix.O_DIRECTORY | posix.O_CLOEXEC)
    except OSError:
        return absolute(path)
    try:
        found = posix.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return absolute(path)
    finally:
        posix.close(fd)
    return found if exists(found) else absolute(path)


def dirname(path: str) -> str:
    """All before the last slash: "" for a bare name, "/" for a child of the root."""
    head = path.rpartition("/")[0]
    return head or ("/" if path.startswith("/") else "")


def basename(path: str) -> str:
    """All after the last slash."""
    return path.rpartition("/")[2]


def is_dir(path: str) -> bool:
    """Whether the path names a directory, links followed."""
    try:
        return posix.stat(path).st_mode & 0o170000 == 0o040000
    except OSError:
        return False


def exists(path: str) -> bool:
    """Whether the path names anything, links followed."""
    try:
        posix.stat(path)
    except OSError:
        return False
    return True


def make_dirs(path: str, mode: int) -> None:
    """Make the directory and those above it that are missing, each with *mode*. Raises OSError."""
    if is_dir(path):
        return
    above = dirname(path)
    if above and above != path:
        make_dirs(above, mode)
    try:
        posix.mkdir(path, mode)
    except FileExistsError:
        if not is_dir(path):
            raise

"""oci ps: the processes of a container, as the host's ps shows them or as a list of numbers."""

from __future__ import annotations

import posix

from .. import jsonio
from ..container.folder import Folder, read_all, tell
from ..errors import Error, quote
from ..linux import process
from ..stages.cgroups import live

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..cli.invocation import Invocation

_DEFAULT = ["-ef"]


def main(invocation: Invocation) -> int:
    """``ps ID [PS-OPTION...]``. Raises Error."""
    name, *words = invocation.args
    pids = live.pids(Folder.existing(invocation.root, name))
    form = invocation.text("format", "table")
    if form == "json":
        # As Go prints a list that was never made.
        text = jsonio.dumps(pids or None) + "\n"
    elif form != "table":
        raise Error("invalid format option", quote(form), "table or json")
    else:
        text = table(host_ps(words or _DEFAULT), set(pids))
    tell(text)
    return 0


def host_ps(words: list[str]) -> str:
    """What the host's ps prints, called with these options. Raises Error."""
    out, output = posix.pipe2(posix.O_CLOEXEC)
    actions: list[object] = [(posix.POSIX_SPAWN_DUP2, output, to) for to in (1, 2)]
    try:
        pid = posix.posix_spawnp("ps", ["ps", *words], process.environment(), file_actions=actions)  # type: ignore[arg-type]
    except OSError as problem:
        posix.close(out)
        absent = isinstance(problem, FileNotFoundError)
        cause = "executable file not found in $PATH" if absent else problem
        raise Error('exec: "ps"', cause, "install it (procps), or use --format json") from None
    finally:
        posix.close(output)
    told = read_all(out).decode("utf-8", "surrogateescape")
    posix.close(out)
    status = posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])
    if status:
        raise Error(f"ps {' '.join(words)}", f"exit status {status}: {told.strip()}")
    return told


def table(told: str, pids: set[int]) -> str:
    """The header and the lines of these processes, told by the column PID. Raises Error when there is none."""
    header, *lines = told.splitlines() or [""]
    titles = header.split()
    if "PID" not in titles:
        raise Error("couldn't find PID field in ps output", hint="let ps print it: -o pid,...")
    column = titles.index("PID")
    end = f" {header} ".index(" PID ") + 3
    kept = [line for line in lines if number(line, column, end) in pids]
    return "".join(f"{line}\n" for line in [header, *kept])


def number(line: str, column: int, end: int) -> int:
    """The process of a line: the number that ends where the heading ends, for a command in a column before it may be
    of many words; else the word of that column. -1 where there is none."""
    before = line[:end].split()
    if line[end : end + 1] in ("", " ") and before and before[-1].isdigit():
        return int(before[-1])
    fields = line.split()
    return int(fields[column]) if column < len(fields) and fields[column].isdigit() else -1

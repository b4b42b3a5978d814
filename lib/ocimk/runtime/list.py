"""oci list: the containers below the root, as a table or as JSON, as ``runc list`` prints them."""

from __future__ import annotations

import posix

from .. import jsonio
from ..container import state as states
from ..container.folder import Folder, is_id, tell
from ..errors import Error, quote, reason, warn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..cli.invocation import Invocation

_COLUMNS = ("id", "pid", "status", "bundle", "created", "owner")
_MIN_WIDTH = 12
_PADDING = 3


def main(invocation: Invocation) -> int:
    """Print the list. Raises Error when the root cannot be read, or is not there but was asked for."""
    form = invocation.text("format", "table")
    found = names(invocation.root, invocation.root_given)
    states_now = [state for name in found if (state := look(invocation.root, name)) is not None]
    if invocation.flag("quiet"):
        text = "".join(f"{state['id']}\n" for state in states_now)
    elif form == "json":
        text = jsonio.as_go(jsonio.dumps(states_now or None)) + "\n"
    elif form != "table":
        raise Error("invalid format option", quote(form), "table or json")
    else:
        rows = [[str(state[column]) for column in _COLUMNS] for state in states_now]
        text = table([[column.upper() for column in _COLUMNS], *rows])
    tell(text)
    return 0


def names(root: str, asked_for: bool) -> list[str]:
    """The names of the folders below the root, sorted; none if the default root is missing. Raises Error."""
    try:
        with posix.scandir(root) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir() and is_id(entry.name))
    except FileNotFoundError as problem:
        if asked_for:
            raise Error(f"open {root}", problem) from None
        return []
    except OSError as problem:
        raise Error(f"open {root}", problem) from None


def look(root: str, name: str) -> dict[str, Any] | None:
    """The container's state with its owner's name; None, and a warning, when it cannot be told."""
    folder = Folder(f"{root}/{name}")
    try:
        state = states.current(folder)
    except FileNotFoundError:
        # One that is being deleted or made just now is no cause for a warning, one that stays like this is.
        if folder.locked() or not _is_there(folder.path):
            return None
        warn(f"container {name}: its folder has no state.json (delete --force removes it)")
        return None
    except (Error, OSError) as problem:
        warn(f"container {name}: {problem if isinstance(problem, Error) else reason(problem)}")
        return None
    state["owner"] = owner(folder.state.get("owner"))
    return state


def _is_there(path: str) -> bool:
    return posix.access(path, posix.F_OK)


_owners: dict[object, str] = {}


def owner(uid: object) -> str:
    """The user's name, ``#uid`` for one without a name."""
    if uid not in _owners:
        _owners[uid] = _user_name(uid) if isinstance(uid, int) else ""
    return _owners[uid]


def _user_name(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except (KeyError, OverflowError):
        return f"#{uid}"


def table(rows: list[list[str]]) -> str:
    """The rows in columns as Go's tabwriter sets them: at least 12 wide, 3 apart, the last one as it is."""
    widths = [max(_MIN_WIDTH, _PADDING + max(map(len, column))) for column in zip(*rows, strict=True)]
    lines = ["".join(map(str.ljust, row[:-1], widths)) + row[-1] for row in rows]
    return "\n".join(lines) + "\n"

"""oci-state get, watch and wait: the forms of oci-state that tell instead of committing."""

from __future__ import annotations

import posix
import sys
import time

from .. import jsonio
from ..container import state as states
from ..container.folder import Folder, check_id, write_all
from ..errors import Error, Usage, rfc3339
from ..linux import path as paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..container.watch import Watcher

    Event = dict[str, Any]

HELP = """\
Usage: oci-state get ID [--root DIR]
       oci-state watch [ID...] [--root DIR] [--from-start] [--ready-fd FD]
       oci-state wait ID STATUS [--root DIR] [--timeout SECONDS] [--ready-fd FD]

get     print the state as JSON, as oci state does
watch   print a line of JSON for every transition of the containers named, or of all: also of those that come
        later, and when their root is not there yet; --from-start tells first what is recorded of those there
wait    end when the container has reached STATUS (creating, created, running, paused, stopped, deleted) and
        print that transition; when it has passed it already, at once

A line has id, status, pid, time and, of a container that stopped, exitStatus or signal if the kernel tells.

  --root DIR         the folder of the containers (default: /run/oci, or $XDG_RUNTIME_DIR/oci without root)
  --timeout SECONDS  give up after that time; exit status 1
  --ready-fd FD      write a newline there, and close it, as soon as nothing can be missed any more
"""

_OPTIONS = {
    "get": {"--root": True},
    "watch": {"--root": True, "--from-start": False, "--ready-fd": True},
    "wait": {"--root": True, "--timeout": True, "--ready-fd": True},
}
"""The options of each form, and whether they take a value."""

_PASSED = (*states.ORDER, "deleted")


def main(verb: str, argv: list[str]) -> int:
    """Run one of the three. Raises Usage, Error."""
    if "--help" in argv or "-h" in argv:
        sys.stdout.write(HELP)
        return 0
    options, words = parse(verb, argv)
    root = paths.absolute(options.get("--root") or states.default_root())
    for name in words[: 1 if verb == "wait" else None]:
        check_id(name)
    if verb == "get":
        return get(root, words)
    return watch(root, words, options) if verb == "watch" else wait(root, words, options)


def parse(verb: str, argv: list[str]) -> tuple[dict[str, str], list[str]]:
    """Options and words of ``oci-state VERB ...``. Raises Usage."""
    options: dict[str, str] = {}
    words = []
    rest = iter(argv)
    for word in rest:
        if not word.startswith("-"):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        takes = _OPTIONS[verb].get(name)
        if takes is None or (equals and not takes):
            raise Usage(f"unknown option {word}", hint="see oci-state --help")
        value = value if equals else next(rest, "") if takes else "1"
        if not value:
            raise Usage(f"option {name} needs a value")
        options[name] = value
    return options, words


def get(root: str, words: list[str]) -> int:
    """Print the state of one container."""
    if len(words) != 1:
        raise Usage("one container is needed", hint="oci-state get ID")
    state = states.current(Folder.existing(root, words[0]))
    write_all(1, (jsonio.dumps_indent(state) + "\n").encode("utf-8", "surrogateescape"))
    return 0


def watch(root: str, words: list[str], options: dict[str, str]) -> int:
    """Print transitions until killed, or until nobody reads any more."""
    from ..container.watch import Watcher

    ready = _descriptor(options)
    with Watcher(root, words, from_start="--from-start" in options) as watcher:
        line = _line_maker()
        _say_ready(ready)
        try:
            while True:
                events = watcher.next(alongside=1)
                write_all(1, b"".join(line(event) for event in events))
        except ConnectionError:
            return 0


def _line_maker() -> Callable[[Event], bytes]:
    from .. import vendor

    vendor.enable()
    import orjson

    return lambda event: orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


def wait(root: str, words: list[str], options: dict[str, str]) -> int:
    """Wait for a container's status. Raises Error when the time is up or it can no longer be reached."""
    if len(words) != 2 or words[1] not in (*_PASSED, "paused"):
        hint = f"oci-state wait ID {'|'.join(_PASSED)}|paused"
        raise Usage("a container and a status are needed", hint=hint)
    name, wanted = words
    seconds = _seconds(options)
    ready = _descriptor(options)
    found = _reached_already(root, name, wanted)
    if found is None:
        from ..container.watch import Watcher

        with Watcher(root, [name], from_start=True) as watcher:
            _say_ready(ready)
            found = _await(watcher, name, wanted, seconds)
    write_all(1, (jsonio.dumps(found) + "\n").encode())
    return 0


def _reached_already(root: str, name: str, wanted: str) -> Event | None:
    """What to tell when there is nothing to wait for; spares the import of what waiting needs."""
    folder = Folder(f"{root}/{name}")
    try:
        now = states.status(folder)
    except FileNotFoundError:
        return None
    own, pid = folder.state["ocimk"], states.init(folder.state)[0]
    passed = own.get("times", {}).get(wanted)
    if passed and wanted in ("created", "running"):
        return {"id": name, "status": wanted, "pid": pid, "time": passed}
    if now == wanted and now in ("created", "running", "paused"):
        return {"id": name, "status": now, "pid": pid, "time": rfc3339(time.time_ns())}
    return None


def _await(watcher: Watcher, name: str, wanted: str, seconds: float | None) -> Event:
    """The transition that was waited for. Raises Error."""
    end = None if seconds is None else time.monotonic() + seconds
    if wanted in ("stopped", "deleted") and not watcher.knows(name):
        return {"id": name, "status": "deleted", "pid": 0, "time": rfc3339(time.time_ns())}
    last = "absent"
    while True:
        events = watcher.next(None if end is None else max(0.0, end - time.monotonic()))
        for event in events:
            last = event["status"]
            if reached(last, wanted):
                return event
            if last in ("stopped", "deleted") and wanted != "deleted":
                raise Error(f"wait for container {name}", f"it is {last} and never was {wanted}")
        if not events and end is not None and time.monotonic() >= end:
            raise Error(f"wait for container {name} to be {wanted}", f"timed out after {seconds:g} s", last)


def reached(status: str, wanted: str) -> bool:
    """Whether a container with this status is where it was wanted, or past it on the way there."""
    if wanted == "paused" or status == "paused":
        return status == wanted or (status == "paused" and wanted in ("creating", "created"))
    if wanted in ("created", "running") and status in ("stopped", "deleted"):
        return False
    return _PASSED.index(status) >= _PASSED.index(wanted)


def _seconds(options: dict[str, str]) -> float | None:
    text = options.get("--timeout")
    if text is None:
        return None
    try:
        found = float(text)
    except ValueError:
        found = -1.0
    if not 0 <= found < 1e9:
        raise Usage("option --timeout", f"{text!r} is not a number of seconds")
    return found


def _descriptor(options: dict[str, str]) -> int:
    """The descriptor of --ready-fd, -1 when there is none. Raises Usage when it is not open."""
    text = options.get("--ready-fd")
    if text is None:
        return -1
    try:
        fd = int(text)
        posix.fstat(fd)
    except (ValueError, OSError):
        raise Usage("option --ready-fd", f"{text!r} is no open descriptor") from None
    return fd


def _say_ready(fd: int) -> None:
    if fd >= 0:
        write_all(fd, b"\n")
        posix.close(fd)

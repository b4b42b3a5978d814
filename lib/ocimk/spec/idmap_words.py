"""idmap=uids=...;gids=...: crun's word for a mount's id mappings, put into the properties. See crun(1)."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Mapping = list[dict[str, int]]

PREFIX = "idmap="
FORM = "idmap=uids=INSIDE-OUTSIDE-SIZE[#...];gids=INSIDE-OUTSIDE-SIZE[#...], and no other mapping,"


def spell_out(config: dict[str, Any]) -> bool:
    """Put them into uidMappings and gidMappings; whether something was changed. What makes no sense is left."""
    changed = False
    linux = config.get("linux")
    for mount in config.get("mounts") or ():
        words = mount.get("options") if type(mount) is dict else None
        if type(words) is not list or mount.get("uidMappings") or mount.get("gidMappings"):
            continue
        for at, word in enumerate(words):
            found = mappings(word[len(PREFIX) :], linux) if str(word).startswith(PREFIX) else None
            if found:
                mount["uidMappings"], mount["gidMappings"] = found
                words[at] = "idmap"
                changed = True
                break
    return changed


def mappings(text: str, linux: object) -> tuple[Mapping, Mapping] | None:
    """(of users, of groups); None when the text is not of FORM, or names an id that the container does not have."""
    found: dict[str, Mapping] = {}
    for part in text.split(";"):
        kind, _, rows = part.partition("=")
        if kind not in ("uids", "gids") or kind in found:
            return None
        base = linux.get(f"{kind[:3]}Mappings") if isinstance(linux, dict) else None
        made = [_row(row, base if type(base) is list else []) for row in rows.split("#")]
        found[kind] = [row for row in made if row]
        if len(found[kind]) < len(made):
            return None
    return (found["uids"], found["gids"]) if len(found) == 2 else None


def _row(text: str, base: list[Any]) -> dict[str, int] | None:
    """One range; its second number is one of the container's after an @."""
    numbers = text.removeprefix("@").split("-")
    if len(numbers) != 3 or not all(number.isascii() and number.isdigit() for number in numbers):
        return None
    inside, outside, size = map(int, numbers)
    if text[0] == "@":
        mapped = _outside(outside, base)
        if mapped is None:
            return None
        outside = mapped
    return {"containerID": inside, "hostID": outside, "size": size}


def _outside(number: int, base: list[Any]) -> int | None:
    for row in base:
        if type(row) is dict and all(type(row.get(name)) is int for name in ("containerID", "hostID", "size")):
            offset = number - row["containerID"]
            if 0 <= offset < row["size"]:
                return int(row["hostID"] + offset)
    return None

"""What resctrl tells of a container's group, as ``intel_rdt`` of ``runc events`` has it. Units: bytes.

See Documentation/filesystems/resctrl.rst of the kernel, "Info directory" and "Resource alloc and monitor groups".
"""

from __future__ import annotations

import posix

from ..container.folder import Folder
from ..errors import Error
from ..linux import path as paths
from ..linux import resctrl
from .resctrl import WHERE, Group, mount_point, settings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Tree = dict[str, Any]

_CACHE = (("cbm_mask", str), ("min_cbm_bits", int), ("num_closids", int))
_BANDWIDTH = (("bandwidth_gran", int), ("delay_linear", int), ("min_bandwidth", int), ("num_closids", int))
_TRAFFIC = ("mbm_total_bytes", "mbm_local_bytes")


def stats(folder: Folder, root: str = "") -> Tree:
    """The whole; {} for a container without linux.intelRdt. Raises Error."""
    rdt = settings(folder.config)
    if rdt is None:
        return {}
    root = root or mount_point()
    try:
        return _stats(Group(folder, rdt, root), root)
    except (OSError, ValueError) as problem:
        raise Error(f"{WHERE}: read statistics of resctrl", problem) from None


def _stats(group: Group, root: str) -> Tree:
    above, own = (resctrl.read(f"{place}/schemata").strip("\n").split("\n") for place in (root, group.path))
    found: Tree = {}
    for kind, word, info, prefix in (("L3", "L3", _CACHE, "l3_cache"), ("MB", "MB", _BANDWIDTH, "mem_bw")):
        if paths.exists(f"{root}/info/{kind}"):
            found[f"{prefix}_info"] = _info(f"{root}/info/{kind}", info)
            found[f"{prefix}_schema_root"] = _last(above, word)
            found[f"{prefix}_schema"] = _last(own, word)
    found["schemata"] = own
    if paths.exists(f"{root}/info/L3_MON"):
        features = resctrl.read(f"{root}/info/L3_MON/mon_features").split()
        found |= _monitored(group.monitor or group.path, features)
    return {name: value for name, value in found.items() if value}


def _info(place: str, files: tuple[tuple[str, Any], ...]) -> Tree:
    """The files of a resource's info; zeroes are left out."""
    there = [(name, read) for name, read in files if paths.exists(f"{place}/{name}")]
    found = {name: read(resctrl.read(f"{place}/{name}").strip()) for name, read in there}
    return {name: value for name, value in found.items() if value}


def _last(lines: list[str], word: str) -> str:
    """The last line of a schemata file that is about it."""
    return next((line.strip() for line in reversed(lines) if word in line), "")


def _monitored(place: str, features: list[str]) -> Tree:
    """Traffic and occupied cache, per cache."""
    found: Tree = {}
    caches = [f"{place}/mon_data/{name}" for name in sorted(posix.listdir(f"{place}/mon_data")) if "L3" in name]
    known = [name for name in _TRAFFIC if name in features]
    if known:
        found["mbm_stats"] = [{n: _bytes(cache, n) if n in known else 0 for n in _TRAFFIC} for cache in caches]
    if "llc_occupancy" in features:
        found["cmt_stats"] = [{"llc_occupancy": _bytes(cache, "llc_occupancy")} for cache in caches]
    return found


def _bytes(cache: str, name: str) -> int:
    """A counter; 0 where the processor has just none to spare (``Unavailable``)."""
    text = resctrl.read(f"{cache}/{name}").strip()
    return int(text) if text.isdigit() else 0

"""A configuration that uses every property, and the means to change it at one place."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

from ocimk.spec import walk
from ocimk.spec.validate import findings

DATA = Path(__file__).parent / "data"
FULL = json.loads((DATA / "config-full.json").read_text())

GONE = object()
"""As value of a change: take the property away."""


def steps(path):
    """a.b[2]["c.d"] as ["a", "b", 2, "c.d"]."""
    found = re.findall(r'\["(.*?)"\]|\[(\d+)\]|([^.\[]+)', path)
    return [quoted or (int(number) if number else name) for quoted, number, name in found]


def changed(*changes):
    """The full configuration with (path, value) changed; an index just behind the end appends."""
    config = copy.deepcopy(FULL)
    for path, value in changes:
        *way, last = steps(path)
        place = config
        for step in way:
            place = place[step]
        if value is GONE:
            del place[last]
        elif isinstance(place, list) and last == len(place):
            place.append(value)
        else:
            place[last] = value
    return config


def errors(config):
    return [f.path for f in findings(config) if f.severity == "error"]


def warnings(config):
    return [f.path for f in findings(config) if f.severity == "warning"]


def everywhere(value, path=""):
    """(path, value) of everything in the configuration but the whole."""
    if path:
        yield path, value
    if isinstance(value, dict):
        for name, item in value.items():
            yield from everywhere(item, walk.member(path, name))
    if isinstance(value, list):
        for at, item in enumerate(value):
            yield from everywhere(item, f"{path}[{at}]")

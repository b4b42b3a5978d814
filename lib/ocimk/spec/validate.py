"""Is this config.json one that the specification allows? Every objection in one run, each with its place.

    for finding in findings(config):
        print(finding)                  # linux.namespaces[2].type: found 3, a string is required

The tables are in ocimk.spec.shape (and rare, seccomp, sysctl), the rules between properties in
ocimk.spec.rules.
"""

from __future__ import annotations

from .rules import apply_rules
from .shape import CONFIG, PROCESS, RESOURCES
from .walk import ERROR, WARNING, Finding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["ERROR", "WARNING", "Finding", "drop_nulls", "findings", "process_findings", "resources_findings"]


def findings(config: object) -> list[Finding]:
    """What is wrong with a whole configuration, [] when nothing is; warnings are among it."""
    out: list[Finding] = []
    CONFIG[0](config, CONFIG, "", out)
    if type(config) is dict:
        apply_rules(config, out)
    return out


def process_findings(process: object) -> list[Finding]:
    """The same for a bare process object (``exec --process FILE``); paths start with "process"."""
    out: list[Finding] = []
    PROCESS[0](process, PROCESS, "process", out)
    if type(process) is dict:
        apply_rules({"process": process}, out)
    return out


def resources_findings(resources: object) -> list[Finding]:
    """The same for a bare resources object (``update --resources FILE``); paths start with "resources"."""
    out: list[Finding] = []
    RESOURCES[0](resources, RESOURCES, "resources", out)
    return out


def drop_nulls(value: Any) -> Any:
    """The value with every property that is null left out, as it then means the same: nothing."""
    if type(value) is dict:
        return {name: drop_nulls(item) for name, item in value.items() if item is not None}
    if type(value) is list:
        return [drop_nulls(item) for item in value]
    return value

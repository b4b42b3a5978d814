"""From measurements to tables, and to what of the limits is missed."""

from __future__ import annotations

import statistics
from typing import Any

Measured = dict[str, Any]

VERBS = ("create", "state", "start", "exec", "kill", "delete", "run")

RATIO = {"create": 0.75, "run": 0.75, "exec": 0.6, "state": 2.2, "start": 2.2, "kill": 2.2, "delete": 2.2}
"""The limits of this milestone: how much of runc's time a command may take, medians of one run."""

PSS = 150
"""KiB that a created container may take."""


def table(name: str, measured: Measured) -> str:
    """One series for people: milliseconds as median / 90th percentile, and the ratio of the medians to runc's."""
    runtimes = measured["runtimes"]
    others = [other for other in runtimes if other != "ocimk"]
    rows = [["ms: median / p90", *runtimes, *[f"ocimk : {other}" for other in others]]]
    for verb in VERBS:
        row = [times(runtimes[r]["seconds"][verb]) for r in runtimes]
        rows.append([verb, *row, *[f"{ratio(runtimes, verb, other):.2f}" for other in others]])
    rows.append(["bare interpreter", times(measured["interpreter"])])
    rows.append([])
    rows.append(["peak RSS, MiB", *runtimes])
    for verb in VERBS:
        rows.append([verb, *[f"{runtimes[r]['rss'][verb] / 1024:.1f}" for r in runtimes]])
    rows.append(["created: PSS, KiB", *[str(runtimes[r]["pss"]) for r in runtimes]])
    head = f"series {name}: {measured['rounds']} rounds, Linux {measured['kernel']}, "
    head += f"{measured['processors']} processors; " + "; ".join(measured["versions"].values())
    left_out = [measured["note"]] if measured["note"] else []
    left_out += [f"not measured: {other}: {why}" for other, why in measured["refused"].items()]
    return "\n".join([head, *left_out, "", *columns(rows)])


def times(seconds: list[float]) -> str:
    """Median and 90th percentile in milliseconds."""
    return f"{statistics.median(seconds) * 1000:.1f} / {percentile(seconds, 90) * 1000:.1f}"


def percentile(values: list[float], rank: int) -> float:
    """The nearest-rank percentile."""
    ordered = sorted(values)
    return ordered[-(-rank * len(ordered) // 100) - 1]


def ratio(runtimes: Measured, verb: str, other: str) -> float:
    """ocimk's median over the other's."""
    ours, theirs = (statistics.median(runtimes[r]["seconds"][verb]) for r in ("ocimk", other))
    return float(ours / theirs)


def columns(rows: list[list[str]]) -> list[str]:
    """The rows set in columns: the first to the left, the others to the right."""
    widths = [max(len(row[at]) for row in rows if at < len(row)) for at in range(max(map(len, rows)))]
    return [
        "  ".join(cell.ljust(widths[0]) if at == 0 else cell.rjust(widths[at]) for at, cell in enumerate(row)).rstrip()
        for row in rows
    ]


def missed(measured: dict[str, Measured]) -> list[str]:
    """The limits that are missed, one line each."""
    lines = []
    for name, series in measured.items():
        runtimes = series["runtimes"]
        if "runc" not in runtimes:
            lines.append(
                f"series {name}: nothing to compare with: {series['refused'].get('runc', 'runc was left out')}"
            )
            continue
        for verb, limit in RATIO.items():
            found = ratio(runtimes, verb, "runc")
            if found > limit:
                lines.append(f"series {name}: {verb} takes {found:.2f} of runc's time, more than {limit}")
        if runtimes["ocimk"]["pss"] > PSS:
            lines.append(f"series {name}: a created container takes {runtimes['ocimk']['pss']} KiB, more than {PSS}")
    return lines

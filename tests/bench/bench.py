#!/usr/bin/env python3
"""Time the commands of ocimk against runc's and crun's, interleaved round by round.

Each round takes every runtime once through create, state, start, exec, kill, delete and run of the default configuration, in
an order that turns from round to round, so that whatever else the machine does meets all of them alike. Two series,
each in a mount namespace of its own where bundles and state are on tmpfs:

    host   the cgroups as they are mounted here
    v2     cgroup v2 alone, where the host has v1 beside it: crun refuses the mixture

A runtime that cannot run the bundle is left out, and why is said. --check fails when a limit of report.py is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

import report
from series import Series

TREE = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CGROUPS = "/sys/fs/cgroup"


def main() -> int:
    """Measure, print the tables, and with --check judge."""
    options = arguments().parse_args()
    if os.geteuid() != 0:
        sys.exit("bench: run it as root")
    if options.inside:
        measure(options)
        return 0
    measured = {name: in_namespace(name, options) for name in options.series or kinds()}
    print("\n\n".join(report.table(name, measured[name]) for name in measured))
    if options.json:
        with open(options.json, "w") as file:
            json.dump(measured, file, indent=1)
    missed = report.missed(measured) if options.check else []
    for line in missed:
        print(f"missed: {line}")
    return 1 if missed else 0


def arguments() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=30, help="rounds of each series (default 30)")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a limit is missed")
    parser.add_argument("--json", metavar="FILE", help="write all that was measured to FILE (seconds, KiB)")
    parser.add_argument("--oci", default=f"{TREE}/bin/oci", help="the oci to measure (default: this tree's)")
    parser.add_argument("--only", metavar="NAMES", default="", help="runtimes, comma separated (default: all that run)")
    parser.add_argument("--series", action="append", choices=("host", "v2"), help="may be repeated (default: all)")
    parser.add_argument("--inside", action="store_true", help=argparse.SUPPRESS)
    return parser


def kinds() -> list[str]:
    """The series that differ on this host."""
    return ["host"] if os.path.exists(f"{CGROUPS}/cgroup.controllers") else ["host", "v2"]


def in_namespace(name: str, options: argparse.Namespace) -> report.Measured:
    """One series, measured by ourselves started anew in a mount namespace."""
    with tempfile.NamedTemporaryFile("r", prefix="ocimk-bench-") as file:
        again = [sys.executable, os.path.abspath(__file__), "--inside", "--series", name, "--json", file.name]
        again += ["--rounds", str(options.rounds), "--oci", os.path.abspath(options.oci), "--only", options.only]
        done = subprocess.run(["unshare", "--mount", "--propagation", "private", *again])
        if done.returncode:
            sys.exit(f"bench: series {name} failed")
        measured: report.Measured = json.load(file)
    return measured


def measure(options: argparse.Namespace) -> None:
    """Inside the namespace: prepare the mounts, run the series, write what it measured."""
    if options.series == ["v2"]:
        subprocess.run(["umount", "--recursive", CGROUPS], check=True)
        subprocess.run(["mount", "-t", "cgroup2", "none", CGROUPS], check=True)
    work = tempfile.mkdtemp(prefix="ocimk-bench-")
    try:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=700", "none", work], check=True)
        series = Series(work, options.oci, options.only.split(",") if options.only else [])
        with open(options.json, "w") as file:
            json.dump(series.run(options.rounds), file)
    finally:
        subprocess.run(["umount", "--lazy", work], check=False)
        os.rmdir(work)


if __name__ == "__main__":
    sys.exit(main())

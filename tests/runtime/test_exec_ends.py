"""oci exec: signals, paused containers, and ends at any instant."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

from exec_kit import Exec, failed, name, run

from kit import Bundle, Runtime, await_true, wait_gone

__all__ = ["name", "run"]


def test_signals_are_passed_on(oci_called: Runtime, name: str) -> None:
    script = "trap 'echo usr; exit 9' USR1; trap 'echo term' TERM; echo ready; while :; do sleep 0.05; done"
    begun = oci_called.begin("exec", name, "sh", "-c", script)
    assert begun.stdout
    assert begun.stdout.readline() == b"ready\n"
    begun.terminate()
    assert begun.stdout.readline() == b"term\n"
    begun.send_signal(10)
    assert begun.stdout.readline() == b"usr\n"
    assert begun.wait(10) == 9


def test_paused(oci_called: Runtime, name: str, run: Exec) -> None:
    """Refused; with --ignore-paused it starts when the container goes on, and a signal ends the wait."""
    freezer = Path(json.loads((oci_called.root / name / "state.json").read_text())["ocimk"]["freezer"])
    if freezer.name == "freezer.state":
        control, still, on = freezer, "FROZEN", "THAWED"
    else:
        control, still, on = freezer.parent / "cgroup.freeze", "1", "0"
    control.write_text(still)
    try:
        await_true(lambda: oci_called.state(name)["status"] == "paused", "paused")
        failed(run("true"), "cannot exec in a paused container (use --ignore-paused to override)")
        waiting = oci_called.begin("exec", "--ignore-paused", name, "sh", "-c", "echo on; exit 3")
        stopped = oci_called.begin("exec", "--ignore-paused", name, "true")
        time.sleep(0.3)
        assert waiting.poll() is None
        stopped.terminate()
        assert stopped.wait(10) == 128 + 15
    finally:
        control.write_text(on)
    assert waiting.communicate(timeout=10)[0] == b"on\n"
    assert waiting.returncode == 3


def test_killed_at_any_instant_leaves_nothing(oci_called: Runtime, name: str) -> None:
    """What has not become the program by then ends; what has is a process of the container like others."""
    before = {pid for pid in os.listdir("/proc") if pid.isdigit()}
    for number in range(40):
        begun = oci_called.begin("exec", name, "sleep", "0.01")
        time.sleep(0.001 * number)
        begun.kill()
        begun.wait()

    def left() -> list[str]:
        found = []
        for pid in os.listdir("/proc"):
            try:
                if pid.isdigit() and pid not in before and name in Path(f"/proc/{pid}/cmdline").read_text():
                    found.append(pid)
            except OSError:
                continue
        return found

    await_true(lambda: not left(), "no process on its way")
    folder = set(os.listdir(oci_called.root / name))
    assert not [entry for entry in folder if entry.startswith(".")]
    # In brackets: ended, and not reaped yet by whoever has inherited it.
    lines = [line for line in oci_called("exec", name, "ps", "-o", "args").ok().lines if line[0] != "["]
    assert set(lines) <= {"COMMAND", "sleep 1000", "sleep 0.01", "ps -o args"}


def test_many_at_once(oci_called: Runtime, name: str) -> None:
    begun = [oci_called.begin("exec", name, "sh", "-c", f"exit {number}") for number in range(12)]
    assert [process.wait(60) for process in begun] == list(range(12))


def test_a_first_process_that_ends_meanwhile(oci_called: Runtime, bundle: Bundle) -> None:
    """Each either runs or fails for a reason that is told."""
    name = oci_called.detached(bundle.args("sleep", "0.15"))
    pid = oci_called.pid(name)
    for _ in range(20):
        done = oci_called("exec", name, "true")
        if done.status not in (0, 137):
            failed(done)
    wait_gone(pid)
    failed(oci_called("exec", name, "true"), "cannot exec in a stopped container")

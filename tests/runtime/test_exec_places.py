"""oci exec where not everything is as on the root's own host: a cgroup2 alone, an ordinary user, an agent for system
calls, a watcher in the container who may trace everybody."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
from properties_kit import PYTHON, with_python
from test_nesting import NOBODY, host_place, rootless, v2
from test_properties_seccomp import ANSWER, Agent, profile

from kit import Bundle, Runtime, await_true, status_words
from terminal_kit import Screen

__all__ = ["rootless", "v2"]  # the fixtures


# ---- a cgroup2 alone -------------------------------------------------------------------------------------------------


def cgroup_of(runtime: Runtime, name: str) -> Path:
    """The container's directory as this host sees it."""
    return host_place(Path(json.loads((runtime.root / name / "cgroup.json").read_text())["paths"][""]))


def test_in_the_containers_cgroup2(v2: Runtime, bundle: Bundle) -> None:
    name = v2.detached(bundle.without("cgroup").args("sleep", "1000"))
    place = cgroup_of(v2, name)
    own = v2("exec", name, "grep", "0::", "/proc/self/cgroup").ok().out
    (place / "below").mkdir()
    below = v2("exec", "--cgroup", "below", name, "grep", "0::", "/proc/self/cgroup").ok().out

    assert own == f"0::/{place.name}\n"
    assert below == f"0::/{place.name}/below\n"
    assert v2("exec", "--cgroup", "memory:below", name, "true").status == 255
    await_true(lambda: not (place / "below/cgroup.procs").read_text(), "empty")
    (place / "below").rmdir()


def test_in_a_cgroup2_that_was_killed_before(v2: Runtime, bundle: Bundle) -> None:
    """Kernels from 6.14 on kill at birth what is cloned into such a cgroup; then it joins another way."""
    name = v2.detached(bundle.without("cgroup").args("sleep", "1000"))
    place = cgroup_of(v2, name)
    if not (place / "cgroup.kill").exists():
        pytest.skip("the kernel has no cgroup.kill")
    before = Path("/proc/self/cgroup").read_text()
    (place / "aside").mkdir()
    (place / "aside/cgroup.procs").write_text(str(v2.pid(name)))
    victim = subprocess.Popen(["sleep", "1000"])
    (place / "cgroup.procs").write_text(str(victim.pid))
    # Killing the whole tree would take the container along: the first process waits outside meanwhile.
    outside = place.parent / f"{place.name}-outside"
    outside.mkdir()
    try:
        (outside / "cgroup.procs").write_text(str(v2.pid(name)))
        (place / "cgroup.kill").write_text("1")
        assert victim.wait(10) == -9
        (place / "cgroup.procs").write_text(str(v2.pid(name)))
    finally:
        (place / "aside").rmdir()
        outside.rmdir()

    assert v2("exec", name, "grep", "0::", "/proc/self/cgroup").ok().out == f"0::/{place.name}\n"
    assert Path("/proc/self/cgroup").read_text() == before


def test_beside_a_first_process_that_has_moved(v2: Runtime, bundle: Bundle) -> None:
    """A cgroup2 with controllers for its children holds no processes itself: systemd in a container does so."""
    name = v2.detached(bundle.without("cgroup").args("sleep", "1000"))
    place = cgroup_of(v2, name)
    offered = (place / "cgroup.controllers").read_text().split()
    if not offered:
        pytest.skip("no controller in the cgroup2")
    (place / "init").mkdir()
    (place / "init/cgroup.procs").write_text(str(v2.pid(name)))
    (place / "cgroup.subtree_control").write_text(f"+{offered[0]}")

    assert v2("exec", name, "grep", "0::", "/proc/self/cgroup").ok().out == f"0::/{place.name}/init\n"


# ---- an ordinary user ------------------------------------------------------------------------------------------------


def of_nobody(runtime: Runtime, bundle: Bundle) -> Bundle:
    """The bundle of ``spec --rootless``."""
    spec = bundle.path / "rootless"
    spec.mkdir()
    os.chown(spec, NOBODY, NOBODY)
    runtime("spec", "--rootless", "--bundle", spec).ok()
    bundle.config = json.loads((spec / "config.json").read_text())
    bundle.process["terminal"] = False
    return bundle


def test_without_root(rootless: Runtime, bundle: Bundle) -> None:
    of_nobody(rootless, bundle).process["oomScoreAdj"] = 500
    bundle.save()
    subprocess.run(["chown", "-R", f"{NOBODY}:{NOBODY}", bundle.path], check=True)
    name = rootless.detached(bundle.args("sleep", "1000"))
    script = "id -u; cat /proc/self/oom_score_adj /proc/self/status"
    done = rootless("exec", "--cap", "CAP_CHOWN", name, "sh", "-c", script).ok()
    status = status_words(done.out)

    assert done.lines[:2] == ["0", "500"]
    assert int(status["CapEff"], 16) & 1
    for kind in os.listdir("/proc/self/ns"):
        told = rootless("exec", name, "readlink", f"/proc/self/ns/{kind}").ok().out.strip()
        if not kind.endswith("_for_children"):
            assert told == os.readlink(f"/proc/{rootless.pid(name)}/ns/{kind}"), kind
    refused = rootless("exec", "--user", "5", name, "true")
    assert (refused.status, "process.user.uid" in refused.err) == (255, True), refused
    shown = Screen(rootless.argv("exec", "--tty", name, "sh", "-c", "tty; stat -c %u $(tty)"))
    try:
        shown.expect(b"/dev/pts/0\r\n0\r\n")
        assert shown.end() == 0
    finally:
        shown.close()


# ---- an agent --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("private", [True, False], ids=["no-new-privileges", "privileged"])
def test_an_agent_is_told_of_each_process(oci_called: Runtime, bundle: Bundle, private: bool, tmp_path: Path) -> None:
    place = bundle.path / "agent"
    first = Agent(place)
    bundle.process["noNewPrivileges"] = private
    rule = {"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}
    bundle.linux["seccomp"] = profile(rule, listenerPath=str(place))
    words = (PYTHON, "-IS", "-c", "import os, time; print(os.getppid(), flush=True); time.sleep(1000)")
    name = oci_called.detached(with_python(bundle).args(*words))
    first.close()
    place.unlink()
    second = Agent(place)
    begun = oci_called.begin("exec", "--pid-file", tmp_path / "pid", name, *words)
    assert begun.stdout
    assert int(begun.stdout.readline()) == ANSWER
    second.close()
    pid = int((tmp_path / "pid").read_text())
    state: dict[str, Any] = second.state

    assert (state["pid"], second.asked[0]) == (pid, pid)
    assert (state["state"]["pid"], state["state"]["status"]) == (oci_called.pid(name), "running")
    assert second.rest == b""


# ---- a watcher in the container --------------------------------------------------------------------------------------

WATCHER = """
import os, re, time
seen = set()
print("ready", flush=True)
while not os.path.exists("/tmp/stop"):
    for pid in [name for name in os.listdir("/proc") if name.isdigit() and int(name) > 1]:
        for what in ("exe", "cwd", "root"):
            try:
                seen.add(f"{what} {os.readlink(f'/proc/{pid}/{what}')}")
            except OSError:
                pass
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                try:
                    place = f"/proc/{pid}/fd/{fd}"
                    seen.add(f"fd {re.sub('[0-9]+', 'N', os.readlink(place))}")
                    if os.readlink(place).startswith(("/proc", "/sys", "/work", "/tmp")):
                        seen.add("host " + os.readlink(place))
                except OSError:
                    pass
        except OSError:
            pass
with open("/tmp/seen", "w") as file:
    file.write("\\n".join(sorted(seen)))
time.sleep(1000)
"""


def test_nobody_sees_a_file_of_the_host(oci_called: Runtime, bundle: Bundle) -> None:
    """CVE-2016-9962, CVE-2019-5736: the executable, the descriptors and the folders of what enters, for a container
    whose root may trace everybody."""
    sets = {kind: ["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"] for kind in ("bounding", "effective", "permitted")}
    bundle.process["capabilities"] = sets
    bundle.mount("/tmp", "tmpfs")
    name = oci_called.detached(with_python(bundle).args(PYTHON, "-IS", "-c", WATCHER))
    for _ in range(60):
        oci_called("exec", name, "/bin/true").ok()
    oci_called("exec", name, "/bin/touch", "/tmp/stop").ok()
    seen = await_true(lambda: oci_called("exec", name, "/bin/cat", "/tmp/seen").out, "told").splitlines()
    executables = {line[4:] for line in seen if line.startswith("exe ")}
    descriptors = {line[3:] for line in seen if line.startswith("fd ")}

    assert executables <= {"/bin/busybox", "/memfd:oci-exec (deleted)"}
    assert not [line for line in seen if line.startswith("host ")]
    assert descriptors <= {"pipe:[N]", "/dev/null", "/proc/N/status", "socket:[N]"}
    assert {line for line in seen if line.startswith(("cwd", "root"))} <= {"cwd /", "root /"}

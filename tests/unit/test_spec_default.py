"""ocimk.spec.default: runc's configuration, in runc's words and order."""

from __future__ import annotations

import json
import shutil
import subprocess

import pytest

from ocimk import jsonio
from ocimk.spec.default import default_config
from ocimk.spec.supported import unsupported
from ocimk.spec.validate import findings


@pytest.mark.parametrize("rootless", [False, True])
@pytest.mark.parametrize("cgroup2", [False, True])
def test_it_is_good(rootless, cgroup2):
    config = default_config(rootless, cgroup2, 1000, 1000)
    assert findings(config) == []
    assert unsupported(config) == []


def test_its_parts():
    config = default_config()
    assert list(config) == ["ociVersion", "process", "root", "hostname", "mounts", "linux"]
    assert config["ociVersion"] == "1.3.0"
    assert list(config["process"]["capabilities"]) == ["bounding", "effective", "permitted"]
    kinds = [entry["type"] for entry in config["linux"]["namespaces"]]
    assert kinds == ["pid", "network", "ipc", "uts", "mount", "cgroup"]
    assert config["linux"]["resources"] == {"devices": [{"allow": False, "access": "rwm"}]}
    assert "options" not in config["mounts"][0]


def test_no_cgroup_namespace_without_the_unified_hierarchy():
    kinds = [entry["type"] for entry in default_config(False, False)["linux"]["namespaces"]]
    assert kinds == ["pid", "network", "ipc", "uts", "mount"]


def test_rootless():
    config = default_config(True, True, 1000, 100)
    linux = config["linux"]
    assert list(linux) == ["uidMappings", "gidMappings", "namespaces", "maskedPaths", "readonlyPaths"]
    assert linux["uidMappings"] == [{"containerID": 0, "hostID": 1000, "size": 1}]
    assert linux["gidMappings"] == [{"containerID": 0, "hostID": 100, "size": 1}]
    assert [entry["type"] for entry in linux["namespaces"]] == [
        "pid",
        "ipc",
        "uts",
        "mount",
        "cgroup",
        "user",
    ]
    mounts = {mount["destination"]: mount for mount in config["mounts"]}
    assert "gid=5" not in mounts["/dev/pts"]["options"]
    assert mounts["/sys"]["options"] == ["rbind", "nosuid", "noexec", "nodev", "ro"]
    assert (mounts["/sys"]["type"], mounts["/sys"]["source"]) == ("none", "/sys")


def test_each_is_a_new_one():
    default_config()["process"]["args"].append("x")
    default_config()["process"]["capabilities"]["bounding"].append("x")
    assert default_config() == default_config()
    assert default_config()["process"]["args"] == ["sh"]


@pytest.mark.skipif(not shutil.which("runc"), reason="runc is not installed")
@pytest.mark.parametrize("rootless", [False, True])
def test_byte_for_byte_as_runc(tmp_path, rootless):
    """But for the version, and the ambient capabilities that runc dropped in 1.1.6."""
    subprocess.run(["runc", "spec", *["--rootless"] * rootless], cwd=tmp_path, check=True)
    theirs = json.loads((tmp_path / "config.json").read_text())
    theirs["ociVersion"] = "1.3.0"
    theirs["process"]["capabilities"].pop("ambient", None)
    cgroup2 = {"type": "cgroup"} in theirs["linux"]["namespaces"]
    ours = jsonio.dumps_indent(default_config(rootless, cgroup2), "\t")
    assert ours == json.dumps(theirs, indent="\t", ensure_ascii=False)

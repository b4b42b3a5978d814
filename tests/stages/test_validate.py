"""oci-validate run as a program: its verbs, the filter, and load() for the dispatcher."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from ocimk.container.folder import Folder
from ocimk.errors import Error
from ocimk.spec.default import default_config
from ocimk.stages import validate

LIB = str(Path(__file__).parents[2] / "lib")
START = (
    f"import sys; sys.path.insert(0, {LIB!r}); from ocimk.stages import contract, validate; "
    "sys.exit(contract.main(validate, sys.argv[1:]))"
)


def oci_validate(*argv, stdin=b"", cwd=None, stdin_fd=None):
    """Run the stage in an interpreter of its own, as its executable does."""
    command = [sys.executable, "-IS", "-c", START, *map(str, argv)]
    given = {"stdin": stdin_fd} if stdin_fd is not None else {"input": stdin}
    return subprocess.run(command, capture_output=True, cwd=cwd, timeout=30, **given)


@pytest.fixture
def bundle(tmp_path):
    """A bundle that is good; write() replaces its configuration."""
    place = tmp_path / "bundle"
    (place / "rootfs").mkdir(parents=True)
    write(place, default_config(False))
    return place


def write(bundle, config):
    data = config if isinstance(config, bytes) else json.dumps(config, indent=1).encode()
    (bundle / "config.json").write_bytes(data)
    return data


def broken(bundle, count=1):
    """The bundle with *count* errors in its configuration."""
    config = default_config(False)
    for at in range(count):
        config["linux"]["namespaces"][at]["type"] = at
    write(bundle, config)


# ---- apply and undo ----------------------------------------------------------------------------------------


def test_apply_makes_the_folder_with_a_verbatim_snapshot(bundle, tmp_path):
    data = write(bundle, b"\n " + json.dumps({**default_config(False), "later": [1.50]}).encode() + b"\n\n")
    place = tmp_path / "state" / "box"
    done = oci_validate("apply", place, "--bundle", bundle)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    assert (place / "config.json").read_bytes() == data
    assert place.stat().st_mode & 0o7777 == 0o700
    state = json.loads((place / "state.json").read_text())
    assert (state["status"], state["bundle"], state["id"]) == ("creating", str(bundle), "box")
    assert state["ociVersion"] == "1.3.0"


def test_apply_takes_the_working_directory_as_bundle(bundle, tmp_path):
    assert oci_validate("apply", tmp_path / "box", cwd=bundle).returncode == 0
    assert Folder.open(str(tmp_path / "box")).bundle == str(bundle)


def test_apply_takes_another_configuration(bundle, tmp_path):
    config = {**default_config(False), "hostname": "other"}
    other = tmp_path / "other.json"
    other.write_text(json.dumps(config))
    assert oci_validate("apply", tmp_path / "box", "--bundle", bundle, "--config", other).returncode == 0
    assert Folder.open(str(tmp_path / "box")).config == config


def test_later_edits_of_the_bundle_change_nothing(bundle, tmp_path):
    oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    write(bundle, b"{}")
    assert Folder.open(str(tmp_path / "box")).config == default_config(False)


def test_nulls_are_not_in_the_snapshot(bundle, tmp_path):
    write(bundle, {**default_config(False), "hooks": None, "annotations": {"word": "null"}})
    assert oci_validate("apply", tmp_path / "box", "--bundle", bundle).returncode == 0
    config = Folder.open(str(tmp_path / "box")).config
    assert config == {**default_config(False), "annotations": {"word": "null"}}


def test_apply_with_errors_makes_nothing(bundle, tmp_path):
    broken(bundle, 5)
    done = oci_validate("apply", tmp_path / "new" / "box", "--bundle", bundle)
    assert done.returncode == 1
    hint = f"(and 4 more; oci-validate check {bundle} lists all)"
    text = f"oci-validate: linux.namespaces[0].type: found 0, a string is required {hint}\n"
    assert done.stderr.decode() == text
    assert sorted(path.name for path in tmp_path.iterdir()) == ["bundle"]


def test_one_error_has_no_hint(bundle, tmp_path):
    broken(bundle)
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    text = b"oci-validate: linux.namespaces[0].type: found 0, a string is required\n"
    assert (done.returncode, done.stderr) == (1, text)


def test_a_name_that_is_taken(bundle, tmp_path):
    oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    before = {path.name: path.read_bytes() for path in (tmp_path / "box").iterdir()}
    write(bundle, {**default_config(False), "hostname": "second"})
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert done.returncode == 1
    assert b"already exists" in done.stderr
    assert {path.name: path.read_bytes() for path in (tmp_path / "box").iterdir()} == before


def test_apply_logs_warnings_and_goes_on(bundle, tmp_path):
    config = default_config(False)
    config["process"]["capabilities"]["bounding"].append("CAP_NONSENSE")
    write(bundle, config)
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert done.returncode == 0
    assert done.stderr.count(b"\n") == 1
    assert b"process.capabilities.bounding[3]" in done.stderr and b"CAP_NONSENSE" in done.stderr


def test_apply_refuses_what_is_not_supported_yet(bundle, tmp_path):
    write(bundle, {**default_config(False), "vm": {"kernel": {"path": "/vmlinuz"}}})
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert (done.returncode, done.stderr) == (1, b"oci-validate: vm: not supported yet by ocimk\n")


def test_a_snapshot_that_cannot_be_written_leaves_nothing(bundle, tmp_path, monkeypatch):
    def full(self, name, data, mode=0o600):
        if name == "config.json":
            raise Error("write", "no space left on device")
        return write_file(self, name, data, mode)

    write_file = Folder.write
    monkeypatch.setattr(Folder, "write", full)
    with pytest.raises(Error, match="no space left"):
        validate.apply(Folder(str(tmp_path / "box")), {"--bundle": str(bundle)}, [])
    assert not (tmp_path / "box").exists()


def test_apply_takes_no_operands(bundle, tmp_path):
    done = oci_validate("apply", tmp_path / "box", "more", "--bundle", bundle)
    assert done.returncode == 2
    assert not (tmp_path / "box").exists()


def test_undo_removes_the_snapshot_twice(bundle, tmp_path):
    oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    for _ in range(2):
        assert oci_validate("undo", tmp_path / "box").returncode == 0
        assert not (tmp_path / "box" / "config.json").exists()


# ---- what is wrong with a bundle ---------------------------------------------------------------------------


def test_no_bundle(tmp_path):
    done = oci_validate("apply", tmp_path / "box", "--bundle", tmp_path / "none")
    assert done.returncode == 1
    assert f"bundle {tmp_path}/none: no such file or directory".encode() in done.stderr


def test_a_bundle_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    done = oci_validate("apply", tmp_path / "box", "--bundle", tmp_path / "file")
    assert done.returncode == 1 and b"file: not a directory" in done.stderr


def test_no_configuration(bundle, tmp_path):
    (bundle / "config.json").unlink()
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert done.returncode == 1
    assert f"bundle {bundle}: JSON specification file config.json not found: no such file or directory (oci spec ".encode() in done.stderr


def test_a_configuration_that_is_a_directory(bundle, tmp_path):
    (bundle / "config.json").unlink()
    (bundle / "config.json").mkdir()
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert done.returncode == 1 and b"config.json: is a directory" in done.stderr


@pytest.mark.parametrize(
    ("data", "where"),
    [
        (b'{\n "a": 1,\n   oops\n}', b"config.json: line 3, column 4: "),
        (b"", b"config.json: line 1, column 1: "),
        (b'{"a": 1} x', b"config.json: line 1, column 10: "),
        (b'{"a": "\xff"}', b"config.json: line 1, column 8: "),
        (b'{"a": NaN}', b"config.json: line 1, column "),
        (b"[" * 100000, b"config.json: "),
        (b'{"a": null, "b": ' + b"[" * 900 + b"]" * 900 + b"}", (b"config.json: nested too deeply", b"ociVersion: ")),
    ],
)
def test_a_configuration_that_is_not_json(bundle, tmp_path, data, where):
    write(bundle, data)
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert done.returncode == 1
    # Which depth is too deep is the interpreter's.
    assert done.stderr.removeprefix(b"oci-validate: ").startswith(where), done.stderr
    assert not (tmp_path / "box").exists()


@pytest.mark.parametrize("data", [b"null", b"[]", b"3", b'"x"'])
def test_a_configuration_that_is_no_object(bundle, tmp_path, data):
    write(bundle, data)
    done = oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    assert done.returncode == 1
    assert done.stderr.endswith(b", an object is required\n"), done.stderr


def test_a_root_filesystem_that_is_not_there(bundle):
    (bundle / "rootfs").rmdir()
    done = oci_validate("check", bundle)
    text = f'root.path: found "rootfs", a directory is required: {bundle}/rootfs: no such file or directory\n'
    assert (done.returncode, done.stdout.decode()) == (1, text)


def test_a_root_filesystem_that_is_a_file(bundle):
    (bundle / "rootfs").rmdir()
    (bundle / "rootfs").write_text("")
    assert oci_validate("check", bundle).stdout.endswith(b"/rootfs: not a directory\n")


def test_an_absolute_root_filesystem(bundle, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    config = {**default_config(False), "root": {"path": str(tmp_path / "elsewhere")}}
    write(bundle, config)
    assert oci_validate("check", bundle).returncode == 0


def test_our_own_network_namespace_by_path(bundle):
    """As runc: its parameters would be the host's."""
    config = default_config(False)
    config["linux"]["sysctl"] = {"net.ipv4.ip_forward": "1", "kernel.shmmax": "1"}
    config["linux"]["namespaces"][1]["path"] = f"/proc/{os.getpid()}/ns/net"
    write(bundle, config)
    done = oci_validate("check", bundle)
    assert done.returncode == 1
    assert done.stdout.startswith(b'linux.sysctl["net.ipv4.ip_forward"]: not allowed in the host')
    assert done.stdout.count(b"\n") == 1
    config["linux"]["namespaces"][1]["path"] = f"/proc/{os.getpid()}/ns/uts"
    write(bundle, config)
    assert oci_validate("check", bundle).returncode == 0


# ---- check and explain -------------------------------------------------------------------------------------


def test_check_lists_everything(bundle):
    (bundle / "rootfs").rmdir()
    config = default_config(False)
    config["process"]["cwd"] = "x"
    config["process"]["capabilities"]["bounding"].append("CAP_NONSENSE")
    config["vm"] = {"kernel": {"path": "/vmlinuz"}}
    write(bundle, config)
    done = oci_validate("check", bundle)
    assert done.returncode == 1
    starts = [line.split(": found")[0].split(": not")[0] for line in done.stdout.decode().splitlines()]
    assert starts == [
        "process.cwd",
        "warning: process.capabilities.bounding[3]",
        "vm",
        "root.path",
    ]


def test_check_as_json(bundle):
    broken(bundle, 2)
    done = oci_validate("check", bundle, "--json")
    assert done.returncode == 1
    found = json.loads(done.stdout)
    assert [list(entry) for entry in found] == [["path", "message", "severity"]] * 2
    assert found[1] == {
        "path": "linux.namespaces[1].type",
        "message": "found 1, a string is required",
        "severity": "error",
    }


def test_check_of_a_good_bundle_is_silent(bundle):
    assert (oci_validate("check", bundle).returncode, oci_validate("check", bundle).stdout) == (0, b"")
    assert json.loads(oci_validate("check", "--json", bundle).stdout) == []


def test_check_of_a_container(bundle, tmp_path):
    oci_validate("apply", tmp_path / "box", "--bundle", bundle)
    write(bundle, b"{")
    assert oci_validate("check", tmp_path / "box").returncode == 0
    (bundle / "rootfs").rmdir()
    assert oci_validate("check", tmp_path / "box").stdout.startswith(b"root.path: ")


def test_apply_as_json(bundle, tmp_path):
    done = oci_validate("apply", tmp_path / "one", "--bundle", bundle, "--json")
    assert (done.returncode, json.loads(done.stdout)) == (0, [])
    broken(bundle, 3)
    done = oci_validate("apply", tmp_path / "two", "--bundle", bundle, "--json")
    assert (done.returncode, len(json.loads(done.stdout)), done.stderr.count(b"\n")) == (1, 3, 1)


@pytest.mark.parametrize("name", ["bundle", "a b'c"])
def test_the_commands_of_explain_do_what_apply_does(bundle, tmp_path, name):
    place = bundle.rename(tmp_path / name)
    lines = oci_validate("explain", tmp_path / "new box", "--bundle", place).stdout.decode().splitlines()
    assert lines[0].startswith("# ")
    assert not (tmp_path / "new box").exists()
    script = "\n".join(line for line in lines if not line.startswith("oci-validate "))
    subprocess.run(["sh", "-eu", "-c", script], check=True)
    assert (tmp_path / "new box" / "config.json").read_bytes() == (place / "config.json").read_bytes()
    assert (tmp_path / "new box").stat().st_mode & 0o7777 == 0o700


def test_explain_of_a_broken_bundle(bundle):
    write(bundle, b"{")
    done = oci_validate("explain", bundle)
    assert done.returncode == 0
    assert "and no further" in done.stdout.decode().splitlines()[-1]


# ---- the filter --------------------------------------------------------------------------------------------


def test_the_filter_passes_a_good_one_unchanged():
    data = b"  " + json.dumps(default_config(False), indent=7).encode() + b"\n\n"
    done = oci_validate(stdin=data)
    assert (done.returncode, done.stdout, done.stderr) == (0, data, b"")


def test_the_filter_holds_back_a_bad_one():
    config = default_config(False)
    config["process"]["cwd"] = "x"
    config["ociVersion"] = "2.0.0"
    done = oci_validate(stdin=json.dumps(config).encode())
    assert (done.returncode, done.stdout) == (1, b"")
    lines = done.stderr.decode().splitlines()
    assert [line.split(":")[0] for line in lines] == ["ociVersion", "process.cwd"]
    done = oci_validate("--json", stdin=json.dumps(config).encode())
    assert (done.returncode, done.stdout) == (1, b"")
    assert [entry["path"] for entry in json.loads(done.stderr)] == ["ociVersion", "process.cwd"]


def test_the_filter_only_warns_of_what_is_not_supported_yet():
    data = json.dumps({**default_config(False), "vm": {"kernel": {"path": "/vmlinuz"}}}).encode()
    done = oci_validate(stdin=data)
    assert (done.returncode, done.stdout) == (0, data)
    assert done.stderr == b"warning: vm: not supported yet by ocimk\n"


def test_the_filter_and_no_json():
    done = oci_validate(stdin=b"{]")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.startswith(b"oci-validate: config.json: line 1, column 2: ")


def test_on_a_terminal_it_is_no_filter():
    master, slave = pty.openpty()
    try:
        done = oci_validate(stdin_fd=slave)
    finally:
        os.close(master)
        os.close(slave)
    assert done.returncode == 2
    assert b"verb" in done.stderr


# ---- load --------------------------------------------------------------------------------------------------


def test_load_gives_the_bytes_and_what_they_mean(bundle):
    data = write(bundle, default_config(False))
    assert validate.load(str(bundle)) == (data, default_config(False))


def test_load_raises_the_first_error(bundle):
    broken(bundle, 3)
    with pytest.raises(Error, match=r"^linux\.namespaces\[0\]\.type: found 0, .* \(and 2 more; "):
        validate.load(str(bundle))


def test_load_reads_another_file(bundle, tmp_path):
    other = tmp_path / "other.json"
    other.write_text('{"ociVersion": 1}')
    with pytest.raises(Error, match=r"^ociVersion: found 1, a string"):
        validate.load(str(bundle), str(other))
    with pytest.raises(Error, match=r"none\.json: no such file or directory$"):
        validate.load(str(bundle), str(tmp_path / "none.json"))

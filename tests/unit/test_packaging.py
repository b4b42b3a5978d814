"""What people install works where it lands: ``make install`` and ``pip install``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parents[2]


def run(*words: str | Path, **more: object) -> subprocess.CompletedProcess[str]:
    more = {"env": {}, "capture_output": True, "text": True, "timeout": 100, **more}
    return subprocess.run([str(word) for word in words], check=False, **more)  # type: ignore[call-overload,no-any-return]


def check(program: Path, stage: Path) -> None:
    """The program and a stage run from where they are, with their library, their version and each other."""
    version = run(program, "--version")
    assert (version.returncode, version.stderr) == (0, "")
    assert version.stdout.startswith("oci version ")
    assert run(program, "mount", "--help").stdout.startswith("Usage: oci-mount ")
    assert run(stage, "--help").stdout.startswith("Usage: oci-mount ")
    missing = run(program, "--root", program.parent, "state", "nobody")
    assert missing.stderr == "oci: container nobody: container does not exist\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree, installed for PREFIX=/opt/ocimk below a DESTDIR. The third-party packages are left out: see below."""
    place = tmp_path_factory.mktemp("destdir")
    variables = [f"DESTDIR={place}", "PREFIX=/opt/ocimk", "VENDOR=no", "BASE_PACKAGES="]
    done = run("make", "-s", "-C", TOP, "install", *variables, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent"})
    assert done.returncode == 0, done.stdout + done.stderr
    return place / "opt/ocimk"


def test_make_install(installed: Path) -> None:
    check(installed / "bin/oci", installed / "libexec/ocimk/oci-mount")


def test_make_install_installs_all_programs(installed: Path) -> None:
    stages = {path.name for path in (TOP / "libexec").glob("oci-*")}

    assert {path.name for path in (installed / "libexec/ocimk").iterdir()} == stages
    assert all(os.access(installed / "libexec/ocimk" / name, os.X_OK) for name in stages)


def test_make_install_compiles_for_the_place_it_is_for(installed: Path) -> None:
    """No byte code is made later by root, and what is there names PREFIX, not DESTDIR."""
    package = installed / "lib/ocimk/ocimk"
    before = {path: path.stat().st_mtime_ns for path in package.rglob("*.pyc")}
    sources = [path for path in package.rglob("*.py")]

    run(installed / "bin/oci", "--version")

    assert len(before) == len(sources)
    assert {path: path.stat().st_mtime_ns for path in package.rglob("*.pyc")} == before
    compiled = (package / "cli/__pycache__").glob("fast.*.pyc")
    assert b"/opt/ocimk/lib/ocimk/ocimk/cli/fast.py" in next(compiled).read_bytes()


def test_make_install_brings_completions_and_manual(installed: Path) -> None:
    share = installed / "share"
    for name in ("bash-completion/completions/oci", "zsh/site-functions/_oci", "fish/vendor_completions.d/oci.fish"):
        assert "--pid-file" in (share / name).read_text() or "-l pid-file" in (share / name).read_text()
    for page in (TOP / "man").glob("*.[1578]"):
        assert (share / f"man/man{page.suffix[1:]}" / page.name).exists()


def test_help_works_without_the_third_party_packages(installed: Path) -> None:
    done = run(installed / "bin/oci", "create", "--help")

    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("Usage: oci create [OPTION...] ID\n")


def test_no_source_of_c_and_no_test_is_installed(installed: Path) -> None:
    assert not [path for path in installed.rglob("*") if path.suffix in (".c", ".ld", ".h", ".pyi")]
    assert not [path for path in installed.rglob("test_*")]


def test_uninstall_leaves_nothing(installed: Path, tmp_path: Path) -> None:
    place = tmp_path / "copy"
    shutil.copytree(installed.parents[1], place, symlinks=True)

    done = run("make", "-s", "-C", TOP, "uninstall", f"DESTDIR={place}", "PREFIX=/opt/ocimk", env=dict(os.environ))

    assert done.returncode == 0
    assert [path for path in place.rglob("*") if not path.is_dir()] == []


@pytest.mark.net
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_pip_install_into_a_fresh_environment(tmp_path: Path) -> None:
    # From a copy: setuptools writes into the tree that it builds.
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns(".venv", ".git", "build", "__pycache__", "_native*.so", "image", ".*_cache")
    shutil.copytree(TOP, tree, ignore=ignored)
    venv = tmp_path / "venv"
    assert run("/usr/bin/python3", "-m", "venv", venv).returncode == 0

    quiet = ("--quiet", "--disable-pip-version-check")
    done = run(venv / "bin/pip", "install", *quiet, tree, env=dict(os.environ), timeout=280)

    assert done.returncode == 0, done.stderr
    check(venv / "bin/oci", venv / "bin/oci-mount")
    link = tmp_path / "oci"
    link.symlink_to(venv / "bin/oci")
    assert run(link, "create", "--help").stdout.startswith("Usage: oci create [OPTIONS] ")
    everything = "import typer, orjson, prctl, inotify_simple, ocimk.native._native, pathlib, ocimk.native as n; " + (
        "assert (pathlib.Path(n.__file__).parent / 'image').stat().st_mode & 0o100"
    )
    assert run(venv / "bin/python", "-c", everything).stderr == ""

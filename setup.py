"""Builds the two native parts; everything else about the package is in pyproject.toml.

ocimk.native._native  a CPython extension for the limited API: one file serves every Python from 3.11 on
ocimk/native/image    the freestanding program that waits in a container between create and start
"""

import os
import platform
import shlex
import subprocess
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext
from setuptools.command.build_py import build_py

# setuptools wraps every command but this one; importing it first makes its own distutils the one that is found.
from distutils.command.build_scripts import build_scripts  # isort: skip

HERE = Path(__file__).resolve().parent
NATIVE = Path("lib/ocimk/native")

IMAGE_FLAGS = [
    *("-Os", "-std=gnu11", "-Wall", "-Wextra", "-ffreestanding", "-fno-stack-protector"),
    *("-fno-asynchronous-unwind-tables", "-fno-pic", "-nostdlib", "-static", "-no-pie", "-s"),
    *("-Wl,--build-id=none", "-Wl,-z,noexecstack"),
]
MACHINE_FLAGS = {"x86_64": ["-fcf-protection=none"], "i686": ["-fcf-protection=none"]}
"""Where the compiler marks indirect branches by default, which costs bytes in an image that has none."""


def compiler() -> list[str]:
    """$CC, else what this Python was built with, else cc."""
    return shlex.split(os.environ.get("CC") or sysconfig.get_config_var("CC") or "cc")[:1]


def build_image(target: Path) -> None:
    """Compile image.c unless *target* is newer than its sources."""
    sources = [HERE / NATIVE / "image.c", HERE / NATIVE / "image.ld", HERE / NATIVE / "kernel.h", HERE / "setup.py"]
    if target.exists() and all(target.stat().st_mtime >= source.stat().st_mtime for source in sources):
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    # Made beside it and renamed: a running test must never see half an image.
    made = target.with_name(f".{target.name}.{os.getpid()}")
    machine = MACHINE_FLAGS.get(platform.machine(), [])
    command = [*compiler(), *IMAGE_FLAGS, *machine, f"-Wl,-T,{sources[1]}", str(sources[0]), "-o", str(made)]
    print(shlex.join(command), flush=True)
    subprocess.run(command, check=True)
    os.replace(made, target)


def commit() -> str:
    """The commit that is built, "" outside a checkout."""
    try:
        return subprocess.check_output(
            ["git", "-C", str(HERE), "describe", "--always", "--dirty", "--abbrev=40"],
            text=True,
            stderr=subprocess.DEVNULL,
        ).strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


class BuildNative(build_ext):
    """build_ext that also builds the image, in the tree or in the build folder."""

    def run(self) -> None:
        super().run()
        build_image(HERE / NATIVE / "image" if self.inplace else Path(self.build_lib) / "ocimk/native/image")


SHELL = """#!/bin/sh
\"\"\":"
self=$0
[ ! -L "$self" ] || self=$(readlink -f "$self")
python=${self%/*}/python3
[ -x "$python" ] || python=python3
exec "$python" -ISXutf8 "$self" "$@"
":\"\"\"
"""
"""How a program begins that pip installs: pip knows the interpreter only then, and drops its options from a #! line."""

FOUND = """    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    top = here.rpartition("/")[0] + "/.."
    sys.path[:0] = [f"{top}/{lib}/{version}/{kind}-packages" for lib in ("lib64", "lib") for kind in ("site", "dist")]
"""


class BuildScripts(build_scripts):
    """build_scripts that fits the programs to where pip puts them: beside its interpreter."""

    def run(self) -> None:
        for script in map(Path, self.scripts):
            first, rest = script.read_text().split("\n", 1)
            assert first.startswith("#!"), script
            lines = [FOUND if '"/../lib"' in line else f"{line}\n" for line in rest.splitlines()]
            target = Path(self.build_dir, script.name)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(SHELL + "".join(lines))
            target.chmod(0o755)


class BuildModules(build_py):
    """build_py that notes the commit: a wheel has no checkout to ask."""

    def run(self) -> None:
        super().run()
        name = commit()
        if name:
            Path(self.build_lib, "ocimk", "commit").write_text(f"{name}\n")


setup(
    ext_modules=[
        Extension(
            "ocimk.native._native",
            [str(NATIVE / "_native.c")],
            extra_compile_args=["-Wall", "-Wextra", "-Wno-missing-field-initializers", "-g0"],
            py_limited_api=True,
        )
    ],
    scripts=["bin/oci", *sorted(map(str, Path("libexec").glob("oci-*")))],
    cmdclass={"build_ext": BuildNative, "build_py": BuildModules, "build_scripts": BuildScripts},
    options={"bdist_wheel": {"py_limited_api": "cp311"}},
)

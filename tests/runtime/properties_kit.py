"""What the tests of single properties share: a Python inside the container, to make system calls from there."""

from __future__ import annotations

import json
from typing import Any

from kit import Bundle, Runtime

PYTHON = "/usr/bin/python3"


def with_python(bundle: Bundle) -> Bundle:
    """Let the host's Python run in the container: its files, read-only."""
    bundle.bind("/usr", "/usr", "ro").writable()
    for name in ("lib", "lib64"):
        (bundle.rootfs / name).symlink_to(f"usr/{name}")
    return bundle


def ask(runtime: Runtime, bundle: Bundle, code: str, *options: object, **more: Any) -> Any:
    """What a Python program in the container prints as JSON; ``syscall(number, ...)`` is there for it."""
    program = (
        "import ctypes, json, os\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def syscall(*args):\n"
        "    result = libc.syscall(*[ctypes.c_long(a) if isinstance(a, int) else a for a in args])\n"
        "    if result < 0: raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))\n"
        "    return result\n"
    )
    with_python(bundle).args(PYTHON, "-IS", "-c", program + code)
    done = runtime.run(bundle, *options, **more).ok()
    return json.loads(done.out)

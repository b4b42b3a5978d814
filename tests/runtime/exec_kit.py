"""A container to enter, and what the tests of ``oci exec`` ask of it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kit import Bundle, Result, Runtime

Exec = Callable[..., Result]


@pytest.fixture
def name(oci_called: Runtime, bundle: Bundle) -> str:
    """A running container that stays."""
    return oci_called.detached(bundle.args("sleep", "1000"))


@pytest.fixture
def run(oci_called: Runtime, name: str) -> Exec:
    """``oci exec OPTIONS ID COMMAND`` in it; the words after "--" are the command."""

    def execute(*words: object, **more: Any) -> Result:
        at = words.index("--") if "--" in words else 0
        options, command = (words[:at], words[at + 1 :]) if "--" in words else ((), words)
        return oci_called("exec", *options, name, *command, **more)

    return execute


def process_file(runtime: Runtime, **process: Any) -> Path:
    """A file for --process."""
    path = runtime.place / "process.json"
    path.write_text(json.dumps({"cwd": "/", "user": {"uid": 0, "gid": 0}, "env": ["PATH=/bin"], **process}))
    return path


def failed(done: Result, *words: str) -> None:
    """It failed as our own failures must: 255, one line with these words."""
    assert done.status == 255, done
    assert done.err.startswith("oci: exec failed: ") and done.err.count("\n") == 1, done
    assert "internal error" not in done.err
    for word in words:
        assert word in done.err, (word, done)

"""ocimk-security(7) and tests/security say the same: each attack of the page has its tests, each test its row."""

from __future__ import annotations

import re
from pathlib import Path

TOP = Path(__file__).resolve().parents[2]
PAGE = (TOP / "man/ocimk-security.7").read_text()
TESTS = (TOP / "tests/security/test_cves.py").read_text()
WEAKENED = (TOP / "tests/security/test_weakened.py").read_text()

NOT_WEAKENED = {"2014_8989"}
"""What the kernel itself holds off, or what there is no code for that could be taken out."""


def test_the_page_names_the_tests_that_there_are() -> None:
    named = set(re.findall(r"^\.I test_cves\.py::\\:test_(\w+)$", PAGE, re.M))
    assert named == set(re.findall(r"^def test_(\w+)", TESTS, re.M))


def test_each_attack_is_also_run_on_a_weakened_runtime() -> None:
    rows = {name.removeprefix("cve_") for name in re.findall(r"^def test_(\w+)", TESTS, re.M)}
    assert rows - set(re.findall(r'^    \("(\w+)", ', WEAKENED, re.M)) == NOT_WEAKENED

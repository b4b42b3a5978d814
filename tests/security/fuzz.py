"""A fuzzer that is guided by the code that it reaches (Atheris): fuzz.py config|folder [OPTION OF LIBFUZZER...].

``make fuzz`` runs it with an interpreter of its own that has Atheris; see fuzz_targets.py for what is fuzzed.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import atheris

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "lib"), str(HERE)]
with atheris.instrument_imports(include=["ocimk"]):
    import fuzz_targets as targets


def values(provider: atheris.FuzzedDataProvider) -> object:
    kind = provider.ConsumeIntInRange(0, 3)
    if kind == 0:
        return targets.LEFT_OUT
    if kind == 1:
        return targets.EDGES[provider.ConsumeIntInRange(0, len(targets.EDGES) - 1)]
    return provider.ConsumeInt(9) if kind == 2 else provider.ConsumeUnicodeNoSurrogates(30)


def changed(provider: atheris.FuzzedDataProvider, base: object) -> bytes:
    count = provider.ConsumeIntInRange(1, 4)
    made = [(provider.ConsumeIntInRange(0, 100_000), values(provider)) for _ in range(count)]
    return json.dumps(targets.changed(base, made)).encode()


def config(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    targets.config(changed(provider, targets.FULL) if provider.ConsumeBool() else provider.ConsumeBytes(4096))


def folder(data: bytes) -> None:
    provider = atheris.FuzzedDataProvider(data)
    name = list(targets.FILES)[provider.ConsumeIntInRange(0, len(targets.FILES) - 1)]
    targets.folder(name, changed(provider, targets.FILES[name]) if provider.ConsumeBool() else provider.ConsumeBytes(4096))


atheris.Setup([sys.argv[0], *sys.argv[2:]], {"config": config, "folder": folder}[sys.argv[1]])
atheris.Fuzz()

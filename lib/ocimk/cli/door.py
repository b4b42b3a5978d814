"""What every program of ours does first and last. bin/oci and libexec/oci-* find the library and come here."""

from __future__ import annotations

import posix
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any, NoReturn


def dispatcher() -> NoReturn:
    """The whole life of an ``oci`` process."""
    import gc

    # A command is over before there is garbage worth looking for; looking while modules load costs a millisecond.
    gc.disable()
    sys.meta_path.insert(0, Finder)
    stand_on_three()
    try:
        preload("")
        from . import fast

        status = fast.main(sys.argv[1:])
    except BaseException as problem:
        status = _report(problem)
    leave(status)


def stage(name: str) -> NoReturn:
    """The whole life of an ``oci-STAGE`` process that is executed by itself (ocimk-stage(7))."""
    sys.meta_path.insert(0, Finder)
    stand_on_three()
    try:
        from ..stages import contract

        status = contract.main(contract.load(name), sys.argv[1:])
    except BaseException as problem:
        status = _report(problem)
    leave(status)


def stand_on_three() -> None:
    """Open /dev/null where standard input, output or error is closed, lest a container's file is taken for one."""
    if sys.stdin is None or sys.stdout is None or sys.stderr is None:
        while True:
            fd = posix.open("/dev/null", posix.O_RDWR)
            if fd > 2:
                break
            posix.set_inheritable(fd, True)
        posix.close(fd)
        sys.stdout = sys.stdout or open(1, "w", closefd=False)
        sys.stderr = sys.stderr or open(2, "w", closefd=False)


def leave(status: int) -> NoReturn:
    """Push out what was printed and end at once: taking an interpreter apart costs a millisecond and gives nothing."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        status = status or 141
    except (OSError, ValueError) as problem:
        from ..errors import Error

        status = status or _report(Error("write standard output", problem))
    errors = sys.modules.get("ocimk.errors")
    if errors is not None and errors.log.held:
        errors.log.release()
    posix._exit(status & 255)


def _report(problem: BaseException) -> int:
    from .. import errors

    return errors.report(problem)


# ---- the pack --------------------------------------------------------------------------------------------------------

_pack: dict[str, Any] = {}


def preload(command: str) -> None:
    """Load the modules of a command from the pack, where there is one (see pack.py)."""
    if not _pack and not _read_index():
        return
    for name in _pack["commands"].get(command, ()):
        if name not in sys.modules:
            _load(name, *_pack["modules"][name])


def _read_index() -> bool:
    path = f"{_TOP}/ocimk/cli/__pycache__/pack.{sys.implementation.cache_tag}"
    try:
        fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return False
    import marshal

    try:
        size = int(posix.read(fd, 8))
        found = marshal.loads(posix.read(fd, size))
        if found["magic"] != _MAGIC:
            raise ValueError("another Python's")
        _pack.update(found, fd=fd, body=8 + size)
    except (ValueError, EOFError, TypeError, KeyError):
        posix.close(fd)
    return bool(_pack)


def _load(name: str, source: str, modified: int, size: int, package: bool, at: int, length: int) -> None:
    """Run one module, unless its source, or that of the package it is in, is not what the pack was made from: who needs
    it then imports it."""
    above, _, base = name.rpartition(".")
    if above not in sys.modules:
        return
    import marshal

    path = f"{_TOP}/{source}"
    try:
        now = posix.stat(path)
    except OSError:
        return
    if int(now.st_mtime) != modified or now.st_size != size:
        return
    code = marshal.loads(posix.pread(_pack["fd"], length, _pack["body"] + at))
    module = type(sys)(name)
    module.__file__ = path
    module.__package__ = name if package else above
    if package:
        module.__path__ = [path.rpartition("/")[0]]
    sys.modules[name] = module
    try:
        exec(code, module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    setattr(sys.modules[above], base, module)


# ---- finding our own modules -----------------------------------------------------------------------------------------

_TAG = sys.implementation.cache_tag + (f".opt-{sys.flags.optimize}" if sys.flags.optimize else "")
_bootstrap = sys.modules["_frozen_importlib_external"]
_MAGIC = _bootstrap.MAGIC_NUMBER
_TIMED, _UNCHECKED = b"\0\0\0\0", b"\1\0\0\0"
_TOP = __file__.rpartition("/ocimk/")[0]

BARE = frozenset(("cli", "container", "linux", "native", "runtime", "spec", "stages"))
"""Packages whose __init__ says nothing but what they are for: they are made without reading it."""


class Finder:
    """Finds the modules of ocimk in their byte code with one open, where the interpreter looks around first.

    The byte code must be in step with the source, as PEP 552 says; where it is not, or is missing, the interpreter's
    own way is taken, which also renews it. With thirty modules this saves more than a millisecond.
    """

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """PEP 451: the module's spec, or None to let the next finder look."""
        if not name.startswith("ocimk."):
            return None
        place = f"{_TOP}/{name.replace('.', '/')}"
        if name[6:] in BARE:
            return _spec(name, None, f"{place}/__init__.py", place)
        folder, _, base = place.rpartition("/")
        if base == "_native":
            return _extension(name, f"{place}.abi3.so")
        code = _code(f"{folder}/__pycache__/{base}.{_TAG}.pyc", f"{place}.py")
        if code is not None:
            return _spec(name, code, f"{place}.py", "")
        code = _code(f"{place}/__pycache__/__init__.{_TAG}.pyc", f"{place}/__init__.py")
        return None if code is None else _spec(name, code, f"{place}/__init__.py", place)

    @staticmethod
    def create_module(spec: ModuleSpec) -> None:
        """PEP 451: an ordinary module."""

    @staticmethod
    def exec_module(module: ModuleType) -> None:
        """PEP 451: run the module's code."""
        spec = module.__spec__
        assert spec is not None
        if spec.loader_state is not None:
            exec(spec.loader_state, module.__dict__)


def _extension(name: str, path: str) -> ModuleSpec:
    loader = _bootstrap.ExtensionFileLoader(name, path)
    kind: type[ModuleSpec] = type(sys.__spec__)
    return kind(name, loader, origin=path)


def _spec(name: str, code: object, origin: str, package: str) -> ModuleSpec:
    kind: type[ModuleSpec] = type(sys.__spec__)
    spec = kind(name, Finder, origin=origin, loader_state=code, is_package=bool(package))  # type: ignore[arg-type]
    spec.has_location = True
    spec.cached = None
    if spec.submodule_search_locations is not None:
        spec.submodule_search_locations.append(package)
    return spec


def _code(compiled: str, source: str) -> object:
    """The code object in *compiled* if it is *source*'s, else None."""
    try:
        fd = posix.open(compiled, posix.O_RDONLY | posix.O_CLOEXEC)
    except OSError:
        return None
    try:
        data = posix.read(fd, posix.fstat(fd).st_size)
        if data[:4] != _MAGIC:
            return None
        if data[4:8] == _TIMED:
            now = posix.stat(source)
            if data[8:16] != _word(int(now.st_mtime)) + _word(now.st_size):
                return None
        elif data[4:8] != _UNCHECKED:
            return None
    except OSError:
        return None
    finally:
        posix.close(fd)
    import marshal

    return marshal.loads(memoryview(data)[16:])


def _word(number: int) -> bytes:
    return (number & 0xFFFFFFFF).to_bytes(4, "little")

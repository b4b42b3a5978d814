"""libseccomp through ctypes: profile rules in, a classic BPF program out.

Importing ctypes costs about half as much as an interpreter's start, and compiling a usual profile three times
as much: this module is for those who found no compiled filter in the cache."""

from __future__ import annotations

import errno
import posix

from ..errors import Error

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Condition = tuple[int, int, int, int]  # argument's index, operator, value, second value

SONAME = "libseccomp.so.2"

# enum scmp_filter_attr
ATTRIBUTE_OPTIMIZE = 8

_UNKNOWN = -1  # __NR_SCMP_ERROR


class Library:
    """The loaded library. Raises Error when there is none, or one older than 2.5 (kernel notifications, API
    level)."""

    def __init__(self, path: str = SONAME) -> None:
        import ctypes

        self.ctypes: Any = ctypes
        try:
            self.handle: Any = ctypes.CDLL(path)
        except OSError as problem:
            raise Error("linux.seccomp: load libseccomp", problem, "install libseccomp 2.5 or newer") from None
        self._declare()
        self.version: tuple[int, ...] = self._version()
        if self.version < (2, 5):
            raise Error("linux.seccomp", f"libseccomp {self.version_text} is too old", "install 2.5 or newer")

    def _declare(self) -> None:
        c = self.ctypes
        lib = self.handle
        lib.seccomp_init.argtypes = [c.c_uint32]
        lib.seccomp_init.restype = c.c_void_p
        lib.seccomp_release.argtypes = [c.c_void_p]
        lib.seccomp_release.restype = None
        lib.seccomp_attr_set.argtypes = [c.c_void_p, c.c_int, c.c_uint32]
        lib.seccomp_arch_add.argtypes = [c.c_void_p, c.c_uint32]
        lib.seccomp_arch_resolve_name.argtypes = [c.c_char_p]
        lib.seccomp_arch_resolve_name.restype = c.c_uint32
        lib.seccomp_arch_native.restype = c.c_uint32
        lib.seccomp_syscall_resolve_name.argtypes = [c.c_char_p]
        lib.seccomp_syscall_resolve_name_arch.argtypes = [c.c_uint32, c.c_char_p]
        lib.seccomp_rule_add_array.argtypes = [c.c_void_p, c.c_uint32, c.c_int, c.c_uint, c.c_char_p]
        lib.seccomp_export_bpf.argtypes = [c.c_void_p, c.c_int]

    def _version(self) -> tuple[int, ...]:
        c = self.ctypes
        self.handle.seccomp_version.restype = c.POINTER(c.c_uint * 3)
        return tuple(self.handle.seccomp_version().contents)

    @property
    def version_text(self) -> str:
        """As the library's own releases are named: 2.5.4."""
        return ".".join(str(part) for part in self.version)

    def api_level(self) -> int:
        """What the library found this kernel able to do: 6 and up means notifications."""
        return int(self.handle.seccomp_api_get())

    def arch(self, name: str) -> int:
        """The library's token for SCMP_ARCH_*; 0 when it does not know it."""
        return int(self.handle.seccomp_arch_resolve_name(name.removeprefix("SCMP_ARCH_").lower().encode()))

    def native(self) -> int:
        """The token of the architecture we run on."""
        return int(self.handle.seccomp_arch_native())

    def number(self, name: str, arch: int = 0) -> int | None:
        """The number of a syscall (arch 0: native); negative for one that only other architectures have.

        None when the library has never heard of it.
        """
        resolve = self.handle.seccomp_syscall_resolve_name_arch
        raw = name.encode("utf-8", "surrogateescape")
        found = int(resolve(arch, raw)) if arch else int(self.handle.seccomp_syscall_resolve_name(raw))
        return None if found == _UNKNOWN else found

    def filter(self, default_action: int) -> Filter:
        """An empty filter for the native architecture."""
        return Filter(self, default_action)


class Filter:
    """One scmp_filter_ctx; use as a context manager so that the library's memory is given back."""

    def __init__(self, library: Library, default_action: int) -> None:
        self._library = library
        self._lib = library.handle
        self._context = self._lib.seccomp_init(default_action)
        if not self._context:
            raise OSError(errno.EINVAL, posix.strerror(errno.EINVAL))

    def __enter__(self) -> Filter:
        return self

    def __exit__(self, *_: object) -> None:
        self._lib.seccomp_release(self._context)

    def _set(self, attribute: int, value: int) -> None:
        _raise(self._lib.seccomp_attr_set(self._context, attribute, value))

    def optimize(self) -> None:
        """A binary tree of syscall numbers in place of a list; older libraries lack it and stay with the
        list."""
        try:
            self._set(ATTRIBUTE_OPTIMIZE, 2)
        except OSError:
            pass

    def add_arch(self, token: int) -> None:
        """Make the rules hold for another architecture too; one that is there already is fine."""
        result = self._lib.seccomp_arch_add(self._context, token)
        if result != -errno.EEXIST:
            _raise(result)

    def add_rule(self, action: int, number: int, conditions: Sequence[Condition] = ()) -> None:
        """The action for this syscall where all conditions hold. Raises OSError as seccomp_rule_add(3)
        says."""
        import _struct

        # struct scmp_arg_cmp {unsigned arg; enum scmp_compare op; uint64_t datum_a, datum_b;}
        packed = b"".join(_struct.pack("=IIQQ", *condition) for condition in conditions)
        _raise(self._lib.seccomp_rule_add_array(self._context, action, number, len(conditions), packed or None))

    def export(self) -> bytes:
        """The program, through a file without a name."""
        fd = posix.memfd_create("seccomp", posix.MFD_CLOEXEC)
        try:
            _raise(self._lib.seccomp_export_bpf(self._context, fd))
            return posix.pread(fd, posix.fstat(fd).st_size, 0)
        finally:
            posix.close(fd)


def _raise(result: int) -> None:
    if result < 0:
        raise OSError(-result, posix.strerror(-result))

"""CRIU by its RPC: ``criu swrk`` at the other end of a socket pair. See criu.org/RPC; criu's images/rpc.proto has the
messages and the numbers.

The messages are protocol buffers (protobuf.dev, "Encoding"), of which no more is needed than numbers and bytes: a
message is a list of (number, value), where a value is an int, text, bytes, or another such list. No library on the
Python package index speaks it.
"""

from __future__ import annotations

import _socket
import fcntl
import posix
from _struct import unpack

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    Value = int | str | bytes | list["Field"]
    Field = tuple[int, Value]
    Fields = dict[int, list[int | bytes]]

    Notice = Callable[[str, int, int], None]

DUMP, RESTORE, PRE_DUMP, NOTIFY, FEATURE_CHECK, VERSION = 1, 2, 4, 6, 9, 10
"""criu_req_type"""

CGROUP_MODES = {"ignore": 0, "soft": 3, "full": 4, "strict": 5, "": 6}
"""criu_cg_mode; "" is its default, which is soft."""

NETWORK_LOCKS = {"iptables": 1, "nftables": 2, "skip": 3}

OPTIONS = {
    "images_dir_fd": 1, "pid": 2, "leave_running": 3, "ext_unix_sk": 4, "tcp_established": 5, "evasive_devices": 6,
    "shell_job": 7, "file_locks": 8, "log_level": 9, "log_file": 10, "ps": 11, "notify_scripts": 12, "root": 13,
    "parent_img": 14, "track_mem": 15, "auto_dedup": 16, "work_dir_fd": 17, "link_remap": 18, "ext_mnt": 23,
    "manage_cgroups": 24, "cg_root": 25, "rst_sibling": 26, "inherit_fd": 27, "manage_cgroups_mode": 34,
    "external": 37, "empty_ns": 38, "join_ns": 39, "freeze_cgroup": 44, "tcp_skip_in_flight": 46, "lazy_pages": 48,
    "status_fd": 49, "orphan_pts_master": 50, "config_file": 51, "tcp_close": 52, "lsm_profile": 53,
    "lsm_mount_context": 63, "network_lock": 64,
}  # fmt: skip
"""criu_opts: the names and their numbers."""

FEATURES = {"mem_track": 1, "lazy_pages": 2}

_LIMIT = 40 * 1024
_SOCKET = 3
"""The descriptor that ``criu swrk`` is told; more may follow it."""
_OUT_OF_THE_WAY = 64


class CriuError(Exception):
    """CRIU says no, or nothing more: what it says, and its errno (0: none)."""

    def __init__(self, text: str, number: int = 0) -> None:
        super().__init__(text)
        self.number = number


# ---- the encoding ----------------------------------------------------------------------------------------------------


def encode(fields: list[Field]) -> bytes:
    """The message."""
    out = bytearray()
    for number, value in fields:
        if isinstance(value, int):
            out += _varint(number << 3) + _varint(value & 0xFFFFFFFFFFFFFFFF)
            continue
        if isinstance(value, str):
            data = value.encode("utf-8", "surrogateescape")
        else:
            data = encode(value) if isinstance(value, list) else value
        out += _varint(number << 3 | 2) + _varint(len(data)) + data
    return bytes(out)


def decode(data: bytes) -> Fields:
    """The message's values by number, those of messages within as bytes. Raises CriuError."""
    found: Fields = {}
    at = 0
    while at < len(data):
        key, at = _read_varint(data, at)
        kind = key & 7
        value: int | bytes
        if kind == 0:
            value, at = _read_varint(data, at)
        elif kind == 2:
            size, at = _read_varint(data, at)
            value = data[at : at + size]
            at += size
        else:
            raise CriuError(f"an answer with a field of kind {kind}")
        found.setdefault(key >> 3, []).append(value)
    return found


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def _read_varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while at < len(data):
        byte = data[at]
        at += 1
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            return value, at
    raise CriuError("an answer that is cut short")


def number_of(fields: Fields, number: int, default: int = 0) -> int:
    """A number in the message, as int32 has it."""
    value = fields.get(number, [default])[-1]
    assert isinstance(value, int)
    return value - (1 << 64) if value >= 1 << 63 else value


def inner(fields: Fields, number: int) -> Fields:
    """A message in the message, empty when it is not there."""
    value = fields.get(number, [b""])[-1]
    assert isinstance(value, bytes)
    return decode(value)


def text_of(fields: Fields, number: int) -> str:
    """Text in the message."""
    value = fields.get(number, [b""])[-1]
    assert isinstance(value, bytes)
    return value.decode("utf-8", "surrogateescape")


# ---- the program -----------------------------------------------------------------------------------------------------


class Worker:
    """One ``criu swrk``, for one request. It has our standard input (a job of a shell has its terminal there); what it
    has to complain about is in its log."""

    FIRST = 4
    """The number that the first of the descriptors handed to it gets."""

    def __init__(self, program: str, handed: tuple[int, ...] = ()) -> None:
        """Start it, with these descriptors as 4, 5, ... Raises OSError."""
        ours, theirs = _socket.socketpair(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
        wanted = [fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, _OUT_OF_THE_WAY) for fd in (theirs.fileno(), *handed)]
        self.socket = ours
        self._said = posix.memfd_create("criu", 1)
        self.pid = posix.fork()
        if self.pid == 0:
            _become(program, wanted, self._said)
        theirs.close()
        for fd in wanted:
            posix.close(fd)

    def ask(self, kind: int, options: list[Field] | None = None, more: tuple[Field, ...] = ()) -> None:
        """Send the request. Raises OSError."""
        fields: list[Field] = [(1, kind), *more]
        if options is not None:
            fields.append((2, options))
        self.socket.send(encode(fields))

    def answer(self, kind: int, notice: Notice | None = None) -> Fields:
        """Its answer to the request of this kind. *notice* is called with the name of each event on the way, the
        process that it is about, and the descriptor that comes with it (-1: none), which it must close.

        Raises CriuError.
        """
        while True:
            try:
                data, ancillary, _, _ = self.socket.recvmsg(_LIMIT, _socket.CMSG_SPACE(4), _socket.MSG_CMSG_CLOEXEC)
            except ConnectionResetError:
                data, ancillary = b"", []
            if not data:
                raise CriuError("it ended without an answer")
            told = decode(data)
            if not number_of(told, 2):
                raise CriuError(text_of(told, 9) or "it says no more", number_of(told, 7))
            if number_of(told, 1) != NOTIFY:
                if number_of(told, 1) != kind:
                    raise CriuError(f"an answer of kind {number_of(told, 1)} to a request of kind {kind}")
                return told
            event = inner(told, 5)
            if notice is not None:
                notice(text_of(event, 1), number_of(event, 2), _passed(ancillary))
            self.socket.send(encode([(1, NOTIFY), (3, 1)]))

    def said(self) -> str:
        """What it has printed: why it could not even begin, before it has a log."""
        return posix.pread(self._said, _LIMIT, 0).decode("utf-8", "replace")

    def end(self) -> int:
        """Wait for its end; its exit status, -N when signal N ended it."""
        self.socket.close()
        if not self.pid:
            return 0
        posix.close(self._said)
        pid, self.pid = self.pid, 0
        return posix.waitstatus_to_exitcode(posix.waitpid(pid, 0)[1])


def _passed(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, payload in ancillary:
        if level == _socket.SOL_SOCKET and kind == _socket.SCM_RIGHTS:
            return int(unpack("=i", payload[:4])[0])
    return -1


def _become(program: str, wanted: list[int], said: int) -> NoReturn:
    import _signal

    try:
        posix.dup2(said, 1)
        posix.dup2(said, 2)
        for at, fd in enumerate(wanted):
            posix.dup2(fd, _SOCKET + at)
        posix.closerange(_SOCKET + len(wanted), _OUT_OF_THE_WAY)
        for number in (_signal.SIGPIPE, _signal.SIGXFSZ, _signal.SIGINT, _signal.SIGTERM, _signal.SIGHUP):
            _signal.signal(number, _signal.SIG_DFL)
        posix.execv(program, ["criu", "swrk", str(_SOCKET)])
    finally:
        posix._exit(127)


def version(program: str) -> int:
    """30170 for 3.17: as criu counts (major * 10000 + minor * 100 + sublevel). Raises CriuError, OSError."""
    worker = Worker(program)
    try:
        worker.ask(VERSION)
        told = inner(worker.answer(VERSION), 10)
    finally:
        worker.end()
    return number_of(told, 1) * 10000 + number_of(told, 2) * 100 + number_of(told, 4)


def has(program: str, feature: str) -> bool:
    """Whether CRIU, on this kernel, has the feature. Raises CriuError, OSError."""
    worker = Worker(program)
    try:
        worker.ask(FEATURE_CHECK, more=((5, [(FEATURES[feature], 1)]),))
        return bool(number_of(inner(worker.answer(FEATURE_CHECK), 8), FEATURES[feature]))
    finally:
        worker.end()

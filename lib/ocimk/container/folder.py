"""The container's folder: every file of it is written whole or not at all. See ocimk-folder(5)."""

from __future__ import annotations

import fcntl
import posix

from .. import jsonio
from ..errors import Error
from ..linux import path as paths
from ..linux import process, trust
from . import ledger, names

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW
_MAX_FILE = 64 * 1024 * 1024

_STATE = {"ociVersion": str, "id": str, "status": str, "pid": int, "bundle": str, "annotations": dict, "rootfs": str}
_STATE |= {"owner": int, "created": str}
_OWN = {"startTime": int, "bootId": str, "pidNamespace": str, "freezer": str, "creator": list}
_OWN |= {"times": dict, "hooks": list, "exit": dict}
_MISSING = {"ociVersion": "", "id": "", "status": "", "pid": 0, "bundle": ""}
_SECTIONS = {"root": dict, "process": dict, "hooks": dict, "linux": dict, "mounts": list, "annotations": dict}
"""What the members of state.json, of its "ocimk" and of config.json must be to be believed: both were checked when they
were written, but a file can be damaged."""


class Folder:
    """A container's folder, or a bundle looked at as one (then ``path`` is "" and nothing can be written)."""

    __slots__ = ("_config", "_lock", "_ours", "_state", "bundle", "fds", "id", "inprocess", "path", "search")

    def __init__(self, path: str, bundle: str = "") -> None:
        self.path = path
        self.id = paths.basename(path)
        self.bundle = bundle
        self.fds: dict[str, int] = {}
        """The descriptors that go along the chain, by name."""
        self.inprocess = False
        """Whether stock stages are called instead of executed (the dispatcher's way)."""
        self.search: list[str] = []
        """Folders that are searched for stages before the stock ones."""
        self._config: dict[str, Any] | None = None
        self._state: dict[str, Any] | None = None
        self._lock = -1
        self._ours = False

    # ---- opening and making -------------------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str) -> Folder:
        """The folder at *path* as the stage before us hands it on, or the bundle there. Raises Error when it is
        neither."""
        folder = cls.handed_on(path)
        path = folder.path
        if f"{names.STATE}" in folder.fds or paths.exists(f"{path}/{names.STATE}"):
            folder.bundle = str(folder.state.get("bundle", ""))
            return folder
        if paths.exists(f"{path}/{names.CONFIG}"):
            return cls("", path)
        if not paths.is_dir(path):
            raise Error(f"open container folder {path}", "no such directory")
        raise Error(f"open container folder {path}", "neither state.json nor config.json is in it")

    @classmethod
    def handed_on(cls, path: str) -> Folder:
        """The folder at *path*, which need not be one yet, with what the stage before us has put in the environment."""
        folder = cls(paths.absolute(path))
        folder.fds = fds_from_environment()
        folder.search = search_from_environment()
        return folder

    @classmethod
    def existing(cls, root: str, name: str) -> Folder:
        """The folder of the container *name* below *root*. Raises Error ``container does not exist``."""
        check_id(name)
        folder = cls(f"{root}/{name}")
        try:
            folder.bundle = str(folder.state.get("bundle", ""))
        except FileNotFoundError:
            hint = "" if not paths.is_dir(folder.path) else "its folder has no state.json; delete --force removes it"
            raise Error(f"container {name}", "container does not exist", hint) from None
        return folder

    def make(self, bundle: str, config: dict[str, Any] | None = None) -> None:
        """Make the folder (0700), locked by us, with a state.json that says ``creating``.

        Raises Error when a container of this name exists; that one stays as it is.
        """
        self.bundle = bundle
        above = paths.dirname(self.path)
        try:
            paths.make_dirs(above, 0o700)
        except FileExistsError:
            raise Error(f"make container root {above}", "a file is there", "a directory is needed") from None
        except OSError as problem:
            raise Error(f"make container root {above}", problem) from None
        try:
            why = trust.suspicion_of_all(above, shared=True)
            if why:
                raise Error(f"container root {above}", why, "containers are kept where nobody else can write")
            posix.mkdir(self.path, 0o700)
        except FileExistsError:
            hint = "" if paths.exists(f"{self.path}/{names.STATE}") else "left over; delete --force removes it"
            raise Error(f"container {self.id}", "container with given ID already exists", hint) from None
        except OSError as problem:
            raise Error(f"make container folder {self.path}", problem) from None
        self.lock(create=True)
        config = config or {}
        extra = {"annotations": config["annotations"]} if config.get("annotations") else {}
        version = str(config.get("ociVersion", ""))
        own = {"version": names.VERSION}
        self.commit(ociVersion=version, id=self.id, status="creating", pid=0, bundle=bundle, **extra, ocimk=own)

    # ---- files --------------------------------------------------------------------------------------------------

    def must_be_ours(self) -> None:
        """Raise Error for a folder that somebody else has prepared, or can: all that is in it would be believed.
        Raises FileNotFoundError when there is none."""
        if self._ours or not self.path:
            return
        why = trust.suspicion(self.path)
        if why:
            raise Error(f"container folder {self.path}", why, "it is used by who made it, nobody else may write")
        self._ours = True

    def read(self, name: str) -> bytes:
        """The file's bytes. Raises FileNotFoundError. A descriptor handed along the chain under the file's name is
        read instead: in a user namespace the folder itself can no longer be entered."""
        fd = self.fds.get(name, -1)
        if fd >= 0:
            return read_all(fd, at=0)
        self.must_be_ours()
        fd = posix.open(f"{self.path or self.bundle}/{name}", _READ if self.path else posix.O_RDONLY | posix.O_CLOEXEC)
        try:
            return read_all(fd)
        finally:
            posix.close(fd)

    def write(self, name: str, data: bytes, mode: int = 0o600) -> None:
        """Replace the file in one step: a reader sees the old bytes or the new ones. Raises Error."""
        temporary = f"{self.path}/.{name}.new"
        try:
            fd = posix.open(temporary, posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC, mode)
            try:
                write_all(fd, data)
                if name == names.STATE:
                    posix.fsync(fd)
            finally:
                posix.close(fd)
            posix.rename(temporary, f"{self.path}/{name}")
        except OSError as problem:
            raise Error(f"write {self.path}/{name}", problem) from None

    def remove(self, name: str) -> None:
        """Remove the file, if it is there."""
        try:
            posix.unlink(f"{self.path}/{name}")
        except FileNotFoundError:
            pass

    # ---- what the files say -------------------------------------------------------------------------------------

    @property
    def config(self) -> dict[str, Any]:
        """The checked snapshot of the bundle's config.json (of a bundle: its config.json as it stands)."""
        if self._config is None:
            try:
                found = jsonio.loads(self.read(names.CONFIG), f"{self.path or self.bundle}/{names.CONFIG}")
            except FileNotFoundError as problem:
                raise Error(f"read {self.path or self.bundle}/{names.CONFIG}", problem) from None
            if not isinstance(found, dict):
                raise Error(f"{self.path or self.bundle}/{names.CONFIG}", "an object is required")
            for key, kind in _SECTIONS.items() if self.path else ():
                if type(found.get(key)) not in (kind, type(None)):
                    raise Error(f"{self.path}/{names.CONFIG}: {key}", "it is of the wrong type")
            self._config = found
        return self._config

    @config.setter
    def config(self, value: dict[str, Any]) -> None:
        self._config = value

    @property
    def state(self) -> dict[str, Any]:
        """What state.json says. Raises FileNotFoundError, and Error when it is broken or not ours."""
        if self._state is None:
            place = f"{self.path}/{names.STATE}"
            try:
                data = self.read(names.STATE)
            except FileNotFoundError:
                raise
            except OSError as problem:
                raise Error(f"open {place}", problem) from None
            found = jsonio.loads(data, place)
            own = found.get("ocimk") if isinstance(found, dict) else None
            if not isinstance(own, dict) or own.get("version") != names.VERSION:
                raise Error(place, "not a state of ocimk", "delete --force removes it")
            for table, kinds in ((found, _STATE), (own, _OWN)):
                for key, kind in kinds.items():
                    if key in table and type(table[key]) is not kind:
                        raise Error(place, f"{key} is of the wrong type", "delete --force removes it")
            for key, nothing in _MISSING.items():
                found.setdefault(key, nothing)
            self._state = found
        return self._state

    def commit(self, **changes: Any) -> None:
        """Write state.json with these members changed: the commit point of a transition."""
        state = {**(self._state or {}), **changes}
        self.write(names.STATE, jsonio.dumps(state).encode("utf-8", "surrogateescape"))
        self._state = state

    def recall(self, state: dict[str, Any]) -> None:
        """Go on with a state that was read before its file was removed."""
        self._state = state

    def forget(self) -> None:
        """Read state.json anew at the next look."""
        self._state = None

    def refresh(self) -> None:
        """Read state.json anew now. Raises as `state` does."""
        self._state = None
        self._state = self.state

    @property
    def rootfs(self) -> str:
        """The root filesystem's absolute path on the host; a relative root.path is taken from the bundle."""
        root = self.config.get("root") or {}
        return paths.clean(paths.join(self.bundle, str(root.get("path", ""))))

    # ---- the ledger ---------------------------------------------------------------------------------------------

    def record(self, stage: str, kind: str, value: str) -> None:
        """Note what is about to be made, before it is made. Raises Error."""
        try:
            ledger.append(f"{self.path}/{names.LEDGER}", (stage, kind, value))
        except OSError as problem:
            raise Error(f"write {self.path}/{names.LEDGER}", problem) from None

    def records(self, stage: str = "") -> list[tuple[str, str, str]]:
        """What was noted, oldest first; of one stage or of all."""
        try:
            data = self.read(names.LEDGER)
        except FileNotFoundError:
            return []
        return [entry for entry in ledger.parse(data) if not stage or entry[0] == stage]

    def strike(self, stage: str, kind: str = "", value: str = "") -> None:
        """Drop the notes of what has been undone."""
        kept = [e for e in self.records() if not ledger.matches(e, stage, kind, value)]
        self.write(names.LEDGER, ledger.encode(kept))

    # ---- the lock -----------------------------------------------------------------------------------------------

    def lock(self, wait: bool = True, create: bool = False) -> bool:
        """Take the folder for ourselves; it is given back when we end. False when another has it and *wait* is off.

        Raises Error when the container vanished meanwhile.
        """
        try:
            self.must_be_ours()
            # Only who makes the folder makes the lock: one that is made while the folder vanishes would stay behind.
            flags = posix.O_RDWR | posix.O_CLOEXEC | (posix.O_CREAT if create else 0)
            fd = posix.open(f"{self.path}/{names.LOCK}", flags, 0o600)
        except OSError as problem:
            cause = "container does not exist" if isinstance(problem, FileNotFoundError) else problem
            raise Error(f"container {self.id}", cause) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            posix.close(fd)
            return False
        if posix.fstat(fd).st_nlink == 0:
            posix.close(fd)
            raise Error(f"container {self.id}", "container does not exist")
        self._lock = fd
        self.forget()
        return True

    def relock(self) -> None:
        """Take the lock unless we have it: the folder was made by us, or by a program that we ran."""
        if self._lock < 0:
            self.lock()
            self.bundle = str(self.state.get("bundle", ""))

    def locked(self) -> bool:
        """Whether another process is at work on the container just now."""
        if self._lock >= 0:
            return False
        try:
            fd = posix.open(f"{self.path}/{names.LOCK}", _READ)
        except OSError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            posix.close(fd)
        return False

    def release(self) -> None:
        """Give the lock back."""
        if self._lock >= 0:
            posix.close(self._lock)
            self._lock = -1

    # ---- the end ------------------------------------------------------------------------------------------------

    def vanish(self) -> None:
        """Remove the folder and all in it; state.json goes last but for the ledger, so that what is left half removed
        is still known for what it is."""
        last = (names.STATE, names.LEDGER, names.LOCK)
        try:
            self.must_be_ours()
            found = posix.listdir(self.path)
        except FileNotFoundError:
            return
        for name in [n for n in found if n not in last] + [n for n in last if n in found]:
            _remove(f"{self.path}/{name}")
        try:
            posix.rmdir(self.path)
        except OSError as problem:
            raise Error(f"remove container folder {self.path}", problem) from None


def _remove(path: str) -> None:
    """Remove a file, or a directory with all in it; links are not followed. Raises Error where something is mounted:
    that is no part of the folder."""
    try:
        posix.unlink(path)
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):
        fd = posix.open(path, posix.O_PATH | posix.O_DIRECTORY | posix.O_NOFOLLOW | posix.O_CLOEXEC)
        try:
            from ..linux.mount import is_mount_root

            if is_mount_root(fd):
                raise Error(f"remove {path}", "something is mounted there", f"umount {path}")
        finally:
            posix.close(fd)
        for name in posix.listdir(path):
            _remove(f"{path}/{name}")
        posix.rmdir(path)


def fds_from_environment() -> dict[str, int]:
    """The descriptors that the stage before us left, from OCI_FDS: ``sync=5 root=7``. One that is not open is none."""
    fds = {}
    for pair in posix.environ.get(b"OCI_FDS", b"").decode("ascii", "replace").split():
        name, _, number = pair.partition("=")
        try:
            # Open across the one exec that brought it here; nothing else that we start is to have it.
            posix.set_inheritable(int(number), False)
        except (OSError, ValueError, OverflowError):
            continue
        fds[name] = int(number)
    return fds


def search_from_environment() -> list[str]:
    """The folders in which stages are looked for before the stock ones, from OCI_EXEC_PATH; absolute ones only."""
    places = posix.environ.get(b"OCI_EXEC_PATH", b"").decode("utf-8", "surrogateescape")
    return [place for place in places.split(":") if place.startswith("/")]


def is_id(name: str) -> bool:
    """Whether *name* may name a container: runc's rule, ``[A-Za-z0-9_+.-]+`` and not ``.`` or ``..``, at most 255, and
    not the name of the cache."""
    good = name.isascii() and all(c.isalnum() or c in "_+.-" for c in name)
    return good and name not in ("", ".", "..", names.CACHE) and len(name) <= 255


def check_id(name: str) -> None:
    """Raise Error unless *name* may name a container."""
    if not name:
        raise Error("container id cannot be empty")
    if not is_id(name):
        raise Error(f"invalid container ID format {name!r}", "letters, digits and _+.- are allowed, at most 255")


def read_all(fd: int, at: int = -1) -> bytes:
    """All bytes of an open file, from the descriptor's place or from *at*. Raises OSError."""
    parts: list[bytes] = []
    total = 0
    while True:
        part = posix.read(fd, 1 << 20) if at < 0 else posix.pread(fd, 1 << 20, at + total)
        if not part:
            return b"".join(parts)
        parts.append(part)
        total += len(part)
        if total > _MAX_FILE:
            raise OSError(27, "file too large")


def tell(text: str) -> None:
    """Print all of it on standard output. Raises Error; ends us as SIGPIPE would when nobody reads any more."""
    try:
        write_all(1, text.encode("utf-8", "surrogateescape"))
    except BrokenPipeError:
        raise SystemExit(141) from None
    except OSError as problem:
        raise Error("write standard output", problem) from None


def write_all(fd: int, data: bytes) -> None:
    """Write every byte. Raises OSError."""
    view = memoryview(data)
    while view:
        view = view[posix.write(fd, view) :]


def living(folder: Folder) -> bool:
    """Whether the container's first process runs: the one that state.json names by pid and start time."""
    own = folder.state.get("ocimk", {})
    return process.alive(int(folder.state.get("pid", 0)), int(own.get("startTime", 0)))


def never_created(folder: Folder) -> bool:
    """Whether the creation has not succeeded: what a container keeps when it is deleted, a failed creation takes back.
    Of a folder whose state cannot be read nothing is known, and nothing is taken back."""
    try:
        return folder.state.get("status") == "creating" or bool(folder.state["ocimk"].get("failed"))
    except (Error, OSError):
        return False

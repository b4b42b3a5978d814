"""What config.json asks of the root filesystem, read once and checked: the mounts and devices as plain
objects."""

from __future__ import annotations

import _stat as st
import posix

from ...errors import Error
from ...linux import mount as m
from ...linux import path as paths
from . import options as mount_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .options import Options

    Mapping = list[dict[str, int]]


class Entry:
    """One entry of mounts[]."""

    __slots__ = ("destination", "gids", "index", "kind", "options", "path", "raw", "source", "uids")

    def __init__(self, index: int, destination: str, kind: str, source: str, options: Options) -> None:
        self.index = index
        self.destination = destination
        """As a person wrote it, for messages"""
        self.path = b""
        """Inside the root, absolute and clean"""
        self.kind = kind
        """The filesystem's type; "bind" for a bind mount whatever config.json says"""
        self.source = source
        """For a bind mount an absolute path of the host"""
        self.options = options
        self.raw: list[str] = []
        """The options as given"""
        self.uids: Mapping = []
        self.gids: Mapping = []

    @property
    def doing(self) -> str:
        return f"mounts[{self.index}] {self.destination}: mount {self.kind}"

    @property
    def where(self) -> str:
        return f"mounts[{self.index}]"

    @property
    def late_readonly(self) -> bool:
        """Whether it must stay writable until everything below it is made: a tmpfs, and whatever is /dev."""
        wanted = self.options.flags & m.MS_RDONLY and self.kind != "bind"
        return bool(wanted and (self.kind == "tmpfs" or self.path == b"/dev"))


class Device:
    """A device node to be made."""

    __slots__ = ("gid", "mode", "number", "path", "type", "uid", "where")

    def __init__(self, where: str, path: bytes, kind: int, number: int, mode: int, uid: int, gid: int) -> None:
        self.where = where
        self.path = path
        self.type = kind
        """S_IFCHR, S_IFBLK or S_IFIFO"""
        self.number = number
        self.mode = mode
        self.uid = uid
        self.gid = gid


DEFAULT_DEVICES = (
    ("/dev/null", 1, 3),
    ("/dev/zero", 1, 5),
    ("/dev/full", 1, 7),
    ("/dev/random", 1, 8),
    ("/dev/urandom", 1, 9),
    ("/dev/tty", 5, 0),
)
"""runtime-spec config-linux.md "Default Devices", with the numbers of the kernel's devices.txt."""

DEVICE_TYPES = {"c": st.S_IFCHR, "u": st.S_IFCHR, "b": st.S_IFBLK, "p": st.S_IFIFO}

SYMLINKS = (
    # runtime-spec runtime-linux.md "Dev symbolic links"
    (b"fd", b"/proc/self/fd"),
    (b"stdin", b"/proc/self/fd/0"),
    (b"stdout", b"/proc/self/fd/1"),
    (b"stderr", b"/proc/self/fd/2"),
)


def encode(text: object, where: str) -> bytes:
    """A string of config.json as the kernel takes it. Raises Error for what the kernel cannot take."""
    try:
        data = str(text).encode("utf-8", "surrogateescape")
    except UnicodeEncodeError as problem:
        raise Error(where, problem) from None
    if 0 in data:
        raise Error(where, "a NUL character is not allowed")
    return data


def inside(path: str) -> str:
    """A path of the container, absolute and clean: relative ones start at the root, .. stops there."""
    return paths.clean(f"/{path}")


def place(text: object, where: str) -> bytes:
    """A path of the container as the kernel takes it, absolute and clean. Raises Error."""
    # A NUL is looked for first: cleaning could take it away with the name that it stands in.
    encode(text, where)
    return encode(inside(str(text)), where)


def entries(config: dict[str, Any], bundle: str) -> list[Entry]:
    """mounts[], in order. Raises Error naming the entry."""
    return [entry(index, raw, bundle) for index, raw in enumerate(config.get("mounts") or ())]


def entry(index: int, raw: dict[str, Any], bundle: str) -> Entry:
    """mounts[index]. Raises Error."""
    destination = str(raw.get("destination") or "")
    where = f"mounts[{index}]"
    if not destination:
        raise Error(f"{where}.destination", "required")
    options = mount_options.parse(raw.get("options") or ())
    source = str(raw.get("source") or "")
    made = Entry(index, destination, str(raw.get("type") or ""), source, options)
    made.raw = list(raw.get("options") or ())
    made.path = place(destination, f"{where}.destination")
    made.uids = raw.get("uidMappings") or []
    made.gids = raw.get("gidMappings") or []
    for name in ("source", "type"):
        encode(raw.get(name) or "", f"{where}.{name}")
    for word in options.data:
        encode(word, f"{where}.options")
    _check(made, f"{where} {destination}")
    if options.bind:
        made.kind = "bind"
        made.source = paths.join(bundle, source)
    return made


def _check(entry: Entry, where: str) -> None:
    """What can be said of an entry without a look at the host."""
    options = entry.options
    if entry.path == b"/":
        raise Error(where, "cannot mount on top of the container's root", "root.path is the root")
    if options.bind and not entry.source and not options.flags & m.MS_REMOUNT:
        raise Error(f"{where}: source", "required for a bind mount")
    if options.bind and options.data:
        hint = "a bind mount shares its source's filesystem and cannot have options of its own for it"
        raise Error(f"{where}: options", f"unknown for a bind mount: {','.join(options.data)}", hint)
    if not options.bind and not entry.kind and not options.flags & m.MS_REMOUNT:
        raise Error(f"{where}: type", "required", "or the option bind or rbind")
    if not options.bind and entry.kind == "bind":
        raise Error(f"{where}: type bind", "not a filesystem", "a bind mount needs the option bind or rbind")
    if options.copyup and entry.kind != "tmpfs":
        raise Error(f"{where}: options", "tmpcopyup is for a tmpfs only")
    links = [word for word, name in mount_options.LINKS.items() if getattr(options, name)]
    if links and not options.bind:
        raise Error(f"{where}: options", f"{links[0]} is for a bind mount only")
    mapped = options.idmap or entry.uids or entry.gids
    if mapped and options.copy_link:
        raise Error(f"{where}: options", "copy-symlink: a mount that may become a link cannot be id-mapped")
    if mapped and not options.bind:
        raise Error(f"{where}: {options.idmap or 'uidMappings'}", "only bind mounts can be id-mapped")
    if bool(entry.uids) != bool(entry.gids):
        missing = "gidMappings" if entry.uids else "uidMappings"
        raise Error(f"{where}: {missing}", "required where the other mapping is given")


def id_mapped(entry: Entry) -> bool:
    """Whether the mount is to have an idmapping."""
    return bool(entry.options.idmap or entry.uids)


def needs_dev(mounts: list[Entry]) -> bool:
    """Whether /dev is ours to fill: not when it is a bind mount (as in runc)."""
    return not any(entry.kind == "bind" and entry.path == b"/dev" for entry in mounts)


def devices(config: dict[str, Any]) -> list[Device]:
    """The default devices that config.json does not describe itself, then linux.devices. Raises Error."""
    listed = (config.get("linux") or {}).get("devices") or ()
    own = [_device(f"linux.devices[{index}]", raw) for index, raw in enumerate(listed)]
    taken = {device.path for device in own}
    made = []
    for name, major, minor in DEFAULT_DEVICES:
        path = name.encode()
        if path not in taken:
            made.append(Device(f"default device {name}", path, st.S_IFCHR, posix.makedev(major, minor), 0o666, 0, 0))
    # /dev/ptmx is always the link to the container's own pts/ptmx.
    return made + [device for device in own if device.path != b"/dev/ptmx"]


def _device(where: str, raw: dict[str, Any]) -> Device:
    path = str(raw.get("path") or "")
    if not path:
        raise Error(f"{where}.path", "required")
    kind = DEVICE_TYPES.get(str(raw.get("type")))
    if kind is None:
        raise Error(f"{where}.type", f"{raw.get('type')!r} is none of c, b, u, p")
    if kind != st.S_IFIFO and not ("major" in raw and "minor" in raw):
        raise Error(f"{where} {path}", "major and minor are required")
    number = 0 if kind == st.S_IFIFO else _number(f"{where} {path}", raw["major"], raw["minor"])
    mode = raw.get("fileMode")
    mode = 0o666 if mode is None else int(mode) & 0o7777
    spot = place(path, f"{where}.path")
    return Device(f"{where} {path}", spot, kind, number, mode, int(raw.get("uid") or 0), int(raw.get("gid") or 0))


def _number(where: str, major: int, minor: int) -> int:
    if not (0 <= major < 1 << 12 and 0 <= minor < 1 << 20):
        raise Error(where, f"no such device number {major}:{minor}", "the kernel has 12 bits for major, 20 for minor")
    return posix.makedev(major, minor)


def namespace(config: dict[str, Any], kind: str) -> dict[str, Any] | None:
    """The entry of linux.namespaces of this type, or None where the caller's namespace is kept."""
    for entry in (config.get("linux") or {}).get("namespaces") or ():
        if entry.get("type") == kind:
            return dict(entry)
    return None

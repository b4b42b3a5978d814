"""What oci-mount would do, as commands for a shell. They follow links by name, which the stage itself
never does."""

from __future__ import annotations

import _stat as st
import posix

from ...linux import mount as m
from . import cgroups, plan
from .options import EXTENSIONS, PROPAGATION, RECURSIVE
from .root import propagation

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ...container.folder import Folder
    from .plan import Device, Entry

_LETTERS = {st.S_IFCHR: "c", st.S_IFBLK: "b", st.S_IFIFO: "p"}
_PLAIN = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_@%+=:,./-")
_RECURSIVE_FOR_MOUNT = {"rrw": "rw=recursive"}


def lines(folder: Folder, options: dict[str, str]) -> list[str]:
    """The commands, in order. Raises Error for a configuration that makes no sense."""
    config = folder.config
    linux = config.get("linux") or {}
    process = config.get("process") or {}
    mounts = plan.entries(config, folder.bundle)
    out = [*_root(folder), *(line for entry in mounts for line in _mount(config, entry))]
    if plan.needs_dev(mounts):
        out += _dev(config)
    if process.get("terminal"):
        spot = _in("/dev/console")
        out.append(f"touch {spot} && mount --bind /dev/pts/N {spot}  # a new pty of $ROOT/dev/pts")
    if process.get("cwd"):
        out.append(f"mkdir -p {_in(process['cwd'])}")
    out += [_readonly(path) for path in linux.get("readonlyPaths") or ()]
    out += [_masked(path) for path in linux.get("maskedPaths") or ()]
    out += [f"mount -o remount,bind,ro {_spot(entry)}" for entry in mounts if entry.late_readonly]
    if (config.get("root") or {}).get("readonly"):
        out.append('mount -o remount,bind,ro "$ROOT"')
    if "--enter" in options:
        out += _enter(config, "--no-pivot" in options)
    return out


def _root(folder: Folder) -> list[str]:
    out = [f"ROOT={quote(folder.rootfs)}"]
    wanted = propagation(folder.config)
    if plan.namespace(folder.config, "mount") is not None:
        out.append(f"mount --make-{wanted or 'rslave'} /")
        if wanted not in ("", "rslave", "rprivate"):
            kind = "slave" if "slave" in wanted else "private"
            out.append(f'mount --make-{kind} "$(findmnt -n -o TARGET -T "$ROOT")"')
    out.append('mount --rbind "$ROOT" "$ROOT"')
    if wanted in ("", "private", "rprivate"):
        out.append('mount --make-private "$ROOT"')
    return out


def _mount(config: dict[str, object], entry: Entry) -> list[str]:
    spot = _spot(entry)
    words = [word for word in entry.raw if not (word == "ro" and entry.late_readonly)]
    plain = [
        w for w in words if w not in PROPAGATION and w not in RECURSIVE and w not in EXTENSIONS
    ]
    if entry.options.flags & m.MS_REMOUNT:
        return [f"mount -o {quote(','.join(plain))} {spot}"]
    if entry.kind == "bind":
        out = _bind(entry, spot, plain)
    elif entry.kind == "cgroup" and not cgroups.unified():
        out = _cgroup_v1(config, entry, spot)
    else:
        out = _filesystem(entry, spot, plain)
    out += [f"mount --make-{word} {spot}" for word in words if word in PROPAGATION]
    recursive = [_RECURSIVE_FOR_MOUNT.get(word, f"{word[1:]}=recursive") for word in words if word in RECURSIVE]
    if recursive:
        out.append(f"mount -o remount,bind,{','.join(recursive)} {spot}")
    return out


def _filesystem(entry: Entry, spot: str, words: list[str]) -> list[str]:
    kind = "cgroup2" if entry.kind == "cgroup" else entry.kind
    told = f" -o {quote(','.join(words))}" if words else ""
    command = f"mount -t {quote(kind)}{told} {quote(entry.source or 'none')}"
    if entry.options.copyup:
        return [
            f"mkdir -p {spot}",
            f'T=$(mktemp -d) && {command} "$T" && cp -a {spot}/. "$T" && mount --move "$T" {spot}',
        ]
    return [f"mkdir -p {spot}", f"{command} {spot}"]


def _bind(entry: Entry, spot: str, words: list[str]) -> list[str]:
    source = quote(entry.source)
    how = "--rbind" if entry.options.flags & m.MS_REC else "--bind"
    target = _link(entry.source) if entry.options.copy_link or entry.options.source_itself else None
    if target is not None and entry.options.copy_link:
        return [f"mkdir -p {_in(_above(entry))}", f"ln -s {quote(target)} {spot}"]
    make = f"mkdir -p {spot}"
    if target is not None or _is_file(entry.source):
        make = f"mkdir -p {_in(_above(entry))} && touch {spot}"
    if plan.id_mapped(entry):
        return [make, f"mount {how} -o X-mount.idmap={quote(_mapping(entry))} {source} {spot}"]
    flags = [word for word in words if word not in ("bind", "rbind")]
    out = [make, f"mount {how} {source} {spot}"]
    if target is not None or entry.options.target_itself:
        out[1] += "  # links are taken themselves: mount(8) would follow them"
    if entry.options.changes:
        out.append(f"mount -o {quote(','.join(['remount', 'bind', *flags]))} {spot}")
    return out


def _mapping(entry: Entry) -> str:
    if not entry.uids:
        return "/proc/PID/ns/user"
    rows = [("u", row) for row in entry.uids] + [("g", row) for row in entry.gids]
    return " ".join(f"{kind}:{row.get('containerID')}:{row.get('hostID')}:{row.get('size')}" for kind, row in rows)


def _cgroup_v1(config: dict[str, object], entry: Entry, spot: str) -> list[str]:
    out = [f"mkdir -p {spot}", f"mount -t tmpfs -o nosuid,nodev,noexec,mode=755 tmpfs {spot}"]
    words = [word for word in entry.raw if word not in PROPAGATION]
    told = ",".join([*words, "nosuid", "nodev", "noexec"])
    for raw, controllers, source in cgroups.hierarchies():
        name = raw.decode("utf-8", "replace")
        place = _in(f"{entry.destination}/{name}")
        out.append(f"mkdir {place}")
        if plan.namespace(config, "cgroup") is not None:
            wanted = b",".join(controllers).decode()
            out.append(f"mount -t cgroup -o {quote(f'{told},{wanted}')} cgroup {place}")
        else:
            out.append(f"mount --rbind {quote(source.decode('utf-8', 'replace'))} {place}")
            if entry.options.changes:
                out.append(f"mount -o {quote(','.join(['remount', 'bind', *words]))} {place}")
        if "," in name:
            out += [f"ln -s {name} {_in(f'{entry.destination}/{one}')}" for one in name.split(",")]
    if entry.options.flags & m.MS_RDONLY:
        out.append(f"mount -o remount,bind,ro {spot}")
    return out


def _dev(config: dict[str, object]) -> list[str]:
    nodes = [_node(device) for device in plan.devices(config)]
    links = [("ptmx", "pts/ptmx"), *((name.decode(), target.decode()) for name, target in plan.SYMLINKS)]
    if _exists("/proc/kcore"):
        links.append(("core", "/proc/kcore"))
    made = [f"ln -s{'f' if name == 'ptmx' else ''} {target} {_in('/dev/' + name)}" for name, target in links]
    return [f"mkdir -p {_in('/dev')}", *nodes, *made]


def _node(device: Device) -> str:
    place = _in(device.path.decode("utf-8", "replace"))
    number = "" if device.type == st.S_IFIFO else f" {posix.major(device.number)} {posix.minor(device.number)}"
    owner = f" && chown {device.uid}:{device.gid} {place}" if device.uid or device.gid else ""
    return f"mknod -m {device.mode:o} {place} {_LETTERS[device.type]}{number}{owner}"


def _readonly(path: str) -> str:
    spot = _in(path)
    return f"[ ! -e {spot} ] || {{ mount --rbind {spot} {spot} && mount -o remount,bind,ro {spot}; }}"


def _masked(path: str) -> str:
    spot = _in(path)
    empty = f"mount -t tmpfs -o ro,nosuid,nodev,noexec,nr_blocks=1,nr_inodes=1 tmpfs {spot}"
    null = f"mount --bind /dev/null {spot} && mount -o remount,bind,ro,nosuid,noexec {spot}"
    return f"if [ -d {spot} ]; then {empty}; elif [ -e {spot} ]; then {null}; fi"


def _enter(config: dict[str, object], no_pivot: bool) -> list[str]:
    wanted = propagation(config)
    after = [f"mount --make-{wanted} /"] if "shared" in wanted or "unbindable" in wanted else []
    if plan.namespace(config, "mount") is None:
        return ['exec chroot "$ROOT"']
    if no_pivot:
        return ['cd "$ROOT" && mount --move . / && exec chroot .']
    pivot = ['cd "$ROOT"', "pivot_root . .", "umount -l .  # from here on the image's own tools", "cd /"]
    return pivot + after


def _spot(entry: Entry) -> str:
    return _in(entry.destination)


def _above(entry: Entry) -> str:
    return entry.path.rpartition(b"/")[0].decode("utf-8", "surrogateescape")


def _in(path: str) -> str:
    """The path below $ROOT, quoted."""
    inner = plan.inside(str(path))
    if all(char in _PLAIN for char in inner):
        return f'"$ROOT{inner}"'
    return f'"$ROOT"{quote(inner)}'


def quote(text: str) -> str:
    """The text as one word of a shell."""
    if text and all(char in _PLAIN for char in text):
        return text
    return "'" + text.replace("'", "'\\''") + "'"


def _is_file(path: str) -> bool:
    try:
        return not st.S_ISDIR(posix.stat(path).st_mode)
    except OSError:
        return False


def _link(path: str) -> str | None:
    """Where the link leads; None for what is none."""
    try:
        return posix.readlink(path)
    except OSError:
        return None


def _exists(path: str) -> bool:
    try:
        posix.stat(path)
    except OSError:
        return False
    return True

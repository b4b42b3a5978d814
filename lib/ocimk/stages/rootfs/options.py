"""The mount options of config.json and what they mean (runtime-spec config.md "Linux mount options",
mount(8))."""

from __future__ import annotations

from ...linux import mount as m

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

FLAGS = {
    # option: (flags it sets, flags it clears)
    "async": (0, m.MS_SYNCHRONOUS),
    "atime": (0, m.MS_NOATIME),
    "bind": (m.MS_BIND, 0),
    "defaults": (0, 0),
    "dev": (0, m.MS_NODEV),
    "diratime": (0, m.MS_NODIRATIME),
    "dirsync": (m.MS_DIRSYNC, 0),
    "exec": (0, m.MS_NOEXEC),
    "iversion": (m.MS_I_VERSION, 0),
    "lazytime": (m.MS_LAZYTIME, 0),
    "loud": (0, m.MS_SILENT),
    "mand": (m.MS_MANDLOCK, 0),
    "noatime": (m.MS_NOATIME, 0),
    "nodev": (m.MS_NODEV, 0),
    "nodiratime": (m.MS_NODIRATIME, 0),
    "noexec": (m.MS_NOEXEC, 0),
    "noiversion": (0, m.MS_I_VERSION),
    "nolazytime": (0, m.MS_LAZYTIME),
    "nomand": (0, m.MS_MANDLOCK),
    "norelatime": (0, m.MS_RELATIME),
    "nostrictatime": (0, m.MS_STRICTATIME),
    "nosuid": (m.MS_NOSUID, 0),
    "nosymfollow": (m.MS_NOSYMFOLLOW, 0),
    "rbind": (m.MS_BIND | m.MS_REC, 0),
    "relatime": (m.MS_RELATIME, 0),
    "remount": (m.MS_REMOUNT, 0),
    "ro": (m.MS_RDONLY, 0),
    "rw": (0, m.MS_RDONLY),
    "silent": (m.MS_SILENT, 0),
    "strictatime": (m.MS_STRICTATIME, 0),
    "suid": (0, m.MS_NOSUID),
    "symfollow": (0, m.MS_NOSYMFOLLOW),
    "sync": (m.MS_SYNCHRONOUS, 0),
    # mount(8) gives these a meaning of their own before the kernel sees them
    "group": (m.MS_NOSUID | m.MS_NODEV, 0),
    "owner": (m.MS_NOSUID | m.MS_NODEV, 0),
    "user": (m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC, 0),
    "users": (m.MS_NOSUID | m.MS_NODEV | m.MS_NOEXEC, 0),
}

PROPAGATION = {
    "private": m.MS_PRIVATE,
    "rprivate": m.MS_PRIVATE | m.MS_REC,
    "shared": m.MS_SHARED,
    "rshared": m.MS_SHARED | m.MS_REC,
    "slave": m.MS_SLAVE,
    "rslave": m.MS_SLAVE | m.MS_REC,
    "unbindable": m.MS_UNBINDABLE,
    "runbindable": m.MS_UNBINDABLE | m.MS_REC,
}

RECURSIVE = {
    # option: (attributes it sets, attributes it clears); an access time is a choice of one, so all are
    # cleared first
    "rro": (m.ATTR_RDONLY, 0),
    "rrw": (0, m.ATTR_RDONLY),
    "rnosuid": (m.ATTR_NOSUID, 0),
    "rsuid": (0, m.ATTR_NOSUID),
    "rnodev": (m.ATTR_NODEV, 0),
    "rdev": (0, m.ATTR_NODEV),
    "rnoexec": (m.ATTR_NOEXEC, 0),
    "rexec": (0, m.ATTR_NOEXEC),
    "rnodiratime": (m.ATTR_NODIRATIME, 0),
    "rdiratime": (0, m.ATTR_NODIRATIME),
    "rrelatime": (m.ATTR_RELATIME, m.ATTR_ATIME),
    "rnorelatime": (0, m.ATTR_ATIME),
    "rnoatime": (m.ATTR_NOATIME, m.ATTR_ATIME),
    "ratime": (0, m.ATTR_ATIME),
    "rstrictatime": (m.ATTR_STRICTATIME, m.ATTR_ATIME),
    "rnostrictatime": (0, m.ATTR_ATIME),
    "rnosymfollow": (m.ATTR_NOSYMFOLLOW, 0),
    "rsymfollow": (0, m.ATTR_NOSYMFOLLOW),
}

LINKS = {"copy-symlink": "copy_link", "src-nofollow": "source_itself", "dest-nofollow": "target_itself"}
"""crun's words for symbolic links (crun(1)), and what they switch on in Options."""

EXTENSIONS = ("idmap", "ridmap", "tmpcopyup", *LINKS)

IGNORED = ("auto", "noauto", "_netdev", "nofail", "nouser", "nousers", "nogroup", "noowner")
"""Known to mount(8) for the sake of fstab; nothing for the kernel. (nofail has its effect elsewhere.)"""

IGNORED_PREFIXES = ("x-", "X-", "comment=")

# Which flag of mount(2) is which attribute of a mount; those of the access time are a choice, see
# attributes().
_ATTRIBUTES = (
    (m.MS_RDONLY, m.ATTR_RDONLY),
    (m.MS_NOSUID, m.ATTR_NOSUID),
    (m.MS_NODEV, m.ATTR_NODEV),
    (m.MS_NOEXEC, m.ATTR_NOEXEC),
    (m.MS_NODIRATIME, m.ATTR_NODIRATIME),
    (m.MS_NOSYMFOLLOW, m.ATTR_NOSYMFOLLOW),
)

SUPERBLOCK = (
    (m.MS_SYNCHRONOUS, b"sync"),
    (m.MS_DIRSYNC, b"dirsync"),
    (m.MS_MANDLOCK, b"mand"),
    (m.MS_LAZYTIME, b"lazytime"),
)
"""Flags of mount(2) that belong to the filesystem rather than the mount, and their names for fsconfig(2)."""

_ATIME_CHOICE = m.MS_NOATIME | m.MS_STRICTATIME | m.MS_RELATIME
_NOT_ATTRIBUTES = m.MS_BIND | m.MS_REC | m.MS_REMOUNT


def known() -> list[str]:
    """Every option recognised, sorted; for ``oci features``."""
    return sorted([*FLAGS, *PROPAGATION, *RECURSIVE, *EXTENSIONS])


class Options:
    """A mount's options, sorted by what must be done for them."""

    __slots__ = (
        "cleared",
        "copy_link",
        "copyup",
        "data",
        "flags",
        "idmap",
        "nofail",
        "propagation",
        "rclear",
        "recursive",
        "rset",
        "source_itself",
        "target_itself",
    )

    def __init__(self) -> None:
        self.flags = 0
        """MS_* asked for"""
        self.cleared = 0
        """MS_* asked not to be"""
        self.propagation: list[int] = []
        self.rset = 0
        """ATTR_* asked for on the whole tree"""
        self.rclear = 0
        self.recursive = False
        """Whether any option on the whole tree was given (relatime sets no bit)"""
        self.data: list[str] = []
        """What only the filesystem can understand"""
        self.idmap = ""
        self.copyup = False
        self.nofail = False
        self.copy_link = False
        """Make a source that is a link anew, rather than mount what it leads to"""
        self.source_itself = False
        """Take a source that is a link itself"""
        self.target_itself = False
        """Mount on a destination that is a link itself"""

    @property
    def bind(self) -> bool:
        return bool(self.flags & m.MS_BIND)

    @property
    def changes(self) -> bool:
        """Whether a bind mount differs from its source in any flag."""
        return bool(self.flags & ~_NOT_ATTRIBUTES or self.cleared)


def parse(words: Sequence[str]) -> Options:
    """Sort the options; a later one overrides an earlier one, as in mount(8)."""
    options = Options()
    for word in words:
        if word in FLAGS:
            add, clear = FLAGS[word]
            options.flags = options.flags & ~clear | add
            options.cleared = options.cleared & ~add | clear
        elif word in PROPAGATION:
            options.propagation.append(PROPAGATION[word])
        elif word in RECURSIVE:
            _recursive(options, *RECURSIVE[word])
        else:
            _special(options, word)
    return options


def _recursive(options: Options, add: int, clear: int) -> None:
    options.recursive = True
    options.rset = options.rset & ~clear | add
    options.rclear = options.rclear & ~(add & ~m.ATTR_ATIME) | clear


def _special(options: Options, word: str) -> None:
    if word in ("idmap", "ridmap"):
        options.idmap = word
    elif word == "tmpcopyup":
        options.copyup = True
    elif word == "nofail":
        options.nofail = True
    elif word in LINKS:
        setattr(options, LINKS[word], True)
    elif word and word not in IGNORED and not word.startswith(IGNORED_PREFIXES):
        options.data.append(word)


def attributes(flags: int) -> int:
    """The attributes of a new mount for these flags of mount(2); without a word on access times: relatime,
    as mount(2)."""
    value = 0
    for flag, attribute in _ATTRIBUTES:
        if flags & flag:
            value |= attribute
    return value | access_time(flags)


def access_time(flags: int) -> int:
    """The access time attribute; of several flags the kernel takes strictatime first, then noatime."""
    if flags & m.MS_STRICTATIME:
        return m.ATTR_STRICTATIME
    return m.ATTR_NOATIME if flags & m.MS_NOATIME else m.ATTR_RELATIME


def bind_changes(options: Options) -> tuple[int, int]:
    """(attributes to set, attributes to clear) that make a copied mount what the options say.

    A flag that is not named is cleared, as with ``mount --bind -o ...`` and in runc; only the access time
    stays the source's unless something is said of it, as the kernel has it for a remount.
    """
    add = attributes(options.flags) & ~m.ATTR_ATIME
    clear = (m.ATTR_RDONLY | m.ATTR_NOSUID | m.ATTR_NODEV | m.ATTR_NOEXEC) & ~add
    add, clear = _with_access_time(options, add, clear)
    if options.cleared & m.MS_NOSYMFOLLOW:
        # Named to the kernel only when asked for: unknown to mount_setattr(2) before Linux 5.14.
        clear |= m.ATTR_NOSYMFOLLOW
    return add, clear


def locked_changes(options: Options) -> tuple[int, int]:
    """As bind_changes(), but what is not named is left as it is: all that is allowed where flags are
    locked."""
    add = attributes(options.flags) & ~m.ATTR_ATIME
    clear = attributes(options.cleared) & ~m.ATTR_ATIME & ~m.ATTR_NODIRATIME
    return _with_access_time(options, add, clear)


def _with_access_time(options: Options, add: int, clear: int) -> tuple[int, int]:
    chosen = options.flags & (_ATIME_CHOICE | m.MS_NODIRATIME) | options.cleared & (m.MS_NOATIME | m.MS_STRICTATIME)
    if chosen:
        clear |= m.ATTR_ATIME
        add |= access_time(options.flags)
    if (chosen or options.cleared & m.MS_NODIRATIME) and not options.flags & m.MS_NODIRATIME:
        clear |= m.ATTR_NODIRATIME
    return add, clear

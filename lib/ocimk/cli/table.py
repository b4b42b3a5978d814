"""Every command and option of ``oci``, once. The parser, the help, the completions and the manual are made from it.

Plain tuples, so that reading the table costs nothing but unmarshalling it:

    an option   (NAME, SHORT, KIND, METAVAR, HELP)    KIND says how its value is read; an option without help is hidden
    a command   (HANDLER, ARGUMENTS, MIN, MAX, STOP, OPTIONS, SUMMARY)

MIN and MAX count the arguments (MAX < 0: any number). After STOP arguments no options are looked for any more (0: they
may stand anywhere): what follows is the user's program, a signal (``kill ID -9``) or the options of ps.

The names and their meaning are runc's (1.5), since its callers know no others; what is ocimk's own says so.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    Option = tuple[str, str, str, str, str]
    Command = tuple[str, str, int, int, int, tuple[Option, ...], str]

FLAG = "flag"
"""True or false: ``--detach``, ``--detach=false``."""
TEXT = "text"
"""One value; the last one given holds."""
INT = "int"
"""A whole number."""
LIST = "list"
"""May be given several times; values are not split at commas."""
CHOICE = "choice"
"""One of the words in METAVAR."""

GLOBALS: tuple[Option, ...] = (
    ("root", "", TEXT, "DIR", "where the containers are (default: /run/oci; without root $XDG_RUNTIME_DIR/oci)"),
    ("log", "", TEXT, "FILE", "write the log to this file too; or to journald:ID or syslog:ID, as crun has it"),
    ("log-format", "", TEXT, "text|json", "how lines of the log are written (default: text)"),
    ("log-level", "", CHOICE, "error|warning|debug", "the least that is logged (default: warning)"),
    ("debug", "", FLAG, "", "log what is done, and where a failure comes from"),
    ("systemd-cgroup", "", FLAG, "", "let systemd make the cgroup; cgroupsPath is then slice:prefix:name"),
    ("cgroup-manager", "", CHOICE, "systemd|cgroupfs|disabled", "who makes the cgroup (default: cgroupfs)"),
    ("rootless", "", TEXT, "true|false|auto", "do without a cgroup when it is not permitted (default: auto)"),
    ("exec-path", "", TEXT, "DIR", "look for oci-NAME programs here first; also $OCI_EXEC_PATH"),
    ("exec-stages", "", FLAG, "", "execute every stage as a program of its own"),
    ("trace", "", TEXT, "FILE", "record start, end and result of each stage in this file"),
)

HELP: Option = ("help", "h", FLAG, "", "show help and exit")
VERSION: Option = ("version", "v", FLAG, "", "show the version and exit")

_BUNDLE: Option = ("bundle", "b", TEXT, "DIR", "the bundle: a folder with config.json (default: the working directory)")
_DETACH: Option = ("detach", "d", FLAG, "", "do not wait for the process to end")
_PID_FILE: Option = ("pid-file", "", TEXT, "FILE", "write the process id to this file")
_CONSOLE: Option = ("console-socket", "", TEXT, "PATH", "Unix socket that is sent the master end of the terminal")
_PIDFD: Option = ("pidfd-socket", "", TEXT, "PATH", "Unix socket that is sent a pidfd of the process")
_FDS: Option = ("preserve-fds", "", INT, "N", "hand N more descriptors on, after those of $LISTEN_FDS")
_BREAK: Option = ("break", "", TEXT, "STAGE", "open a shell just before this stage (ocimk)")
_REGEX: Option = ("regex", "r", FLAG, "", "ID is a regular expression, for all containers that it fits (crun)")
_SUBREAPER: Option = ("no-subreaper", "", FLAG, "", "do not reap the processes that the container's init leaves behind")

_MAKE: tuple[Option, ...] = (
    _BUNDLE,
    ("config", "f", TEXT, "FILE", "the configuration, if not config.json of the bundle (as crun has it)"),
    _CONSOLE,
    _PIDFD,
    _PID_FILE,
    ("no-pivot", "", FLAG, "", "do not use pivot_root, for a root filesystem on a ramdisk"),
    ("no-new-keyring", "", FLAG, "", "keep the caller's session keyring"),
    _FDS,
    _BREAK,
)

_CRIU: tuple[Option, ...] = (
    ("image-path", "", TEXT, "DIR", "the folder of the images (default: checkpoint)"),
    ("work-path", "", TEXT, "DIR", "the folder of criu's log and working files (default: that of the images)"),
    ("tcp-established", "", FLAG, "", "allow open TCP connections"),
    ("ext-unix-sk", "", FLAG, "", "allow Unix sockets that lead outside"),
    ("shell-job", "", FLAG, "", "allow a terminal that is the caller's"),
    ("file-locks", "", FLAG, "", "allow file locks"),
    ("manage-cgroups-mode", "", CHOICE, "soft|full|strict|ignore", "what criu does with cgroups (default: soft)"),
    ("empty-ns", "", LIST, "network", "make the namespace, but leave what is in it"),
    ("auto-dedup", "", FLAG, "", "drop pages from parent images that are written anew"),
    ("lazy-pages", "", FLAG, "", "fetch memory on demand"),
)

COMMANDS: dict[str, Command] = {
    "create": (
        "ocimk.runtime.create:main",
        *("ID", 1, 1, 0),
        (*_MAKE, ("dry-run", "", FLAG, "", "print the stages that would be run, and run none (ocimk)")),
        "make a container; its program waits for start",
    ),
    "start": ("ocimk.runtime.start:main", "ID", 1, 1, 0, (), "run the program of a created container"),
    "run": (
        "ocimk.runtime.run:main",
        *("ID", 1, 1, 0),
        (*_MAKE, _DETACH, ("keep", "", FLAG, "", "do not delete the container when it ends"), _SUBREAPER),
        "create and start a container, and wait for its end",
    ),
    "state": ("ocimk.runtime.state:main", "ID", 1, 1, 0, (), "print the state of a container as JSON"),
    "kill": (
        "ocimk.runtime.kill:main",
        *("ID [SIGNAL]", 1, 2, 1),
        (("all", "a", FLAG, "", "send it to all processes of the container"), _REGEX),
        "send a signal to the container's init (default: SIGTERM)",
    ),
    "delete": (
        "ocimk.runtime.delete:main",
        *("ID", 1, 1, 0),
        (("force", "f", FLAG, "", "kill the container first if it still runs; no error if there is none"), _REGEX),
        "remove a container and all that was made for it",
    ),
    "mounts": (
        "ocimk.runtime.mounts:main",
        *("ACTION ID FILE", 3, 3, 0),
        (),
        "add or remove mounts of a container, listed in a file (as crun has it)",
    ),
    "exec": (
        "ocimk.runtime.exec:main",
        *("ID [COMMAND...]", 1, -1, 1),
        (
            _CONSOLE,
            _PIDFD,
            ("cwd", "", TEXT, "DIR", "the working directory in the container"),
            ("env", "e", LIST, "NAME=VALUE", "set an environment variable"),
            ("tty", "t", FLAG, "", "give it a terminal"),
            ("user", "u", TEXT, "UID[:GID]", "the user and group, as numbers"),
            ("additional-gids", "g", LIST, "GID", "one more group"),
            ("process", "p", TEXT, "FILE", "the process, as JSON; then there is no COMMAND"),
            _DETACH,
            _PID_FILE,
            ("process-label", "", TEXT, "LABEL", "the SELinux label"),
            ("apparmor", "", TEXT, "PROFILE", "the AppArmor profile"),
            ("no-new-privs", "", FLAG, "", "let it gain no privileges by executing programs"),
            ("cap", "c", LIST, "CAP", "one more capability"),
            _FDS,
            ("cgroup", "", LIST, "[CTRL[,CTRL]:]PATH", "run it in this cgroup below the container's"),
            ("ignore-paused", "", FLAG, "", "also in a container that is paused; it starts when that is resumed"),
        ),
        "run another program in a container",
    ),
    "list": (
        "ocimk.runtime.list:main",
        *("", 0, 0, 0),
        (
            ("format", "f", TEXT, "table|json", "what to print (default: table)"),
            ("quiet", "q", FLAG, "", "print the IDs only"),
        ),
        "list the containers",
    ),
    "ps": (
        "ocimk.runtime.ps:main",
        *("ID [PS-OPTION...]", 1, -1, 1),
        (("format", "f", TEXT, "table|json", "what to print (default: table)"),),
        "show the processes of a container, with the options of ps (default: -ef)",
    ),
    "events": (
        "ocimk.runtime.events:main",
        *("ID", 1, 1, 0),
        (
            ("interval", "", TEXT, "DURATION", "time from one sample to the next (default: 5s)"),
            ("stats", "", FLAG, "", "print one sample and exit"),
        ),
        "print what a container uses, and when it runs out of memory, as JSON",
    ),
    "pause": ("ocimk.runtime.pause:pause", "ID", 1, 1, 0, (), "hold all processes of a container still"),
    "resume": ("ocimk.runtime.pause:resume", "ID", 1, 1, 0, (), "let the processes of a paused container run on"),
    "update": (
        "ocimk.runtime.update:main",
        *("ID", 1, 1, 0),
        (
            ("resources", "r", TEXT, "FILE", "read linux.resources as JSON from this file (-: standard input) instead"),
            ("blkio-weight", "", INT, "N", "share of disks, 10 to 1000"),
            ("cpu-period", "", TEXT, "USEC", "period of the CPU quota"),
            ("cpu-quota", "", TEXT, "USEC", "CPU time allowed in each period; -1: any"),
            ("cpu-burst", "", TEXT, "USEC", "CPU time that may be saved up from one period for another"),
            ("cpu-share", "", TEXT, "N", "CPU shares, relative to other containers"),
            ("cpu-rt-period", "", TEXT, "USEC", "period of the realtime CPU quota"),
            ("cpu-rt-runtime", "", TEXT, "USEC", "realtime CPU time allowed in each period"),
            ("cpuset-cpus", "", TEXT, "LIST", "CPUs to use: 0-3,7"),
            ("cpuset-mems", "", TEXT, "LIST", "memory nodes to use"),
            ("cpu-idle", "", TEXT, "N", "1: run only where nobody else wants the CPU; 0: as others"),
            ("memory", "", TEXT, "SIZE", "limit of memory: bytes, 512m, 2g; -1: none"),
            ("memory-reservation", "", TEXT, "SIZE", "memory that is left to it under pressure"),
            ("memory-swap", "", TEXT, "SIZE", "limit of memory and swap together; -1: none"),
            ("kernel-memory", "", TEXT, "SIZE", ""),
            ("kernel-memory-tcp", "", TEXT, "SIZE", ""),
            ("pids-limit", "", INT, "N", "limit of processes and threads; -1: none"),
            ("l3-cache-schema", "", TEXT, "LINE", "share of the L3 cache (resctrl)"),
            ("mem-bw-schema", "", TEXT, "LINE", "share of memory bandwidth (resctrl)"),
        ),
        "give a living container other limits",
    ),
    "checkpoint": (
        "ocimk.runtime.checkpoint:main",
        *("ID", 1, 1, 0),
        (
            *_CRIU,
            ("parent-path", "", TEXT, "DIR", "an earlier pre-dump, relative to the images"),
            ("leave-running", "", FLAG, "", "let the container go on"),
            ("tcp-skip-in-flight", "", FLAG, "", "skip TCP connections that are being made"),
            ("link-remap", "", FLAG, "", "allow files whose last name was removed"),
            ("status-fd", "", INT, "N", "write a zero byte to this descriptor once lazy pages can be fetched"),
            ("page-server", "", TEXT, "ADDRESS:PORT", "send memory to a page server"),
            ("pre-dump", "", FLAG, "", "write memory only, and let the container go on"),
            ("network-lock", "", CHOICE, "iptables|nftables|skip", "how TCP is held meanwhile (as crun has it)"),
        ),
        "write the processes of a container to files, by criu",
    ),
    "restore": (
        "ocimk.runtime.restore:main",
        *("ID", 1, 1, 0),
        (
            *_CRIU,
            _BUNDLE,
            _CONSOLE,
            _DETACH,
            _PID_FILE,
            _SUBREAPER,
            ("no-pivot", "", FLAG, "", "for callers that give it; criu changes the root in its own way"),
            ("lsm-profile", "", TEXT, "TYPE:NAME", "another security profile than before"),
            ("lsm-mount-context", "", TEXT, "CONTEXT", "another mount label than before"),
            ("tcp-close", "", FLAG, "", "close TCP connections that were open (as crun has it)"),
        ),
        "make a container of files that checkpoint has written",
    ),
    "spec": (
        "ocimk.runtime.spec:main",
        *("", 0, 0, 0),
        (
            ("bundle", "b", TEXT, "DIR", "write config.json into this folder (default: the working directory)"),
            ("file", "f", TEXT, "FILE", "write to this file instead (as crun has it)"),
            ("rootless", "", FLAG, "", "for a container made without root"),
        ),
        "write a config.json to start from",
    ),
    "features": ("ocimk.runtime.features:main", "", 0, 0, 0, (), "print what this runtime can do as JSON"),
}


def rows(command: str) -> tuple[Option, ...]:
    """The options of a command, "" for those of oci itself."""
    return COMMANDS[command][5] if command else GLOBALS


def dashed(name: str) -> str:
    """An option's name as it is typed."""
    return f"-{name}" if len(name) == 1 else f"--{name}"


def sentence(summary: str) -> str:
    """A summary as it stands alone: only its first letter changes."""
    return f"{summary[:1].upper()}{summary[1:]}."

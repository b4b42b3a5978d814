"""What config.json may hold, as tables: every property of the specification that means something on Linux.

The order follows config.md and config-linux.md. Parts that few configurations have (seccomp, scheduler, ...)
are in modules of their own, imported when met. Sections for other platforms (windows, solaris, freebsd, zos)
are as unknown here as any other name and ignored; ``vm`` is refused by ocimk.spec.supported.
"""

from __future__ import annotations

from . import tables
from .version import parse_version
from .walk import (
    WARNING,
    Finding,
    array,
    choice,
    flag,
    mapping,
    number,
    record,
    show,
    text,
    text_like,
    words,
    wrong,
)

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .walk import Shape

# ---- tests of strings --------------------------------------------------------------------------------------


def is_absolute(value: str) -> bool:
    """A path from the root."""
    return value[:1] == "/"


def is_some(value: str) -> bool:
    """Not empty."""
    return value != ""


def is_set_of_numbers(value: str) -> bool:
    """A list as cpuset(7) writes it: ``0-3,7``. As in runc, empty items and blanks around one do no harm."""
    items = [item.strip() for item in value.split(",")]
    kept = [item for item in items if item]
    return not value or (bool(kept) and all(_is_range(item) for item in kept))


def _is_range(item: str) -> bool:
    first, dash, last = item.partition("-")
    ends = [first, last] if dash else [first]
    return all(end.isascii() and end.isdigit() and len(end) < 10 for end in ends) and int(first) <= int(
        ends[-1]
    )


def _is_absolute_or_unset(value: str) -> bool:
    return value[:1] in ("/", "")


def _is_access(value: str) -> bool:
    return not value.strip("rwm")


def _is_page_size(value: str) -> bool:
    size = value[:-2]
    return value[-2:] in ("KB", "MB", "GB") and size.isascii() and size.isdigit() and size[0] != "0"


def _is_file_name(value: str) -> bool:
    return value not in ("", ".", "..") and "/" not in value and "\0" not in value


def _is_hostname(value: str) -> bool:
    return len(value.encode("utf-8", "replace")) <= 64


def _is_cgroups_path(value: str) -> bool:
    return ".." not in value.split("/")


def _is_variable(value: str) -> bool:
    return value.find("=") > 0


def is_interface(value: str) -> bool:
    """A name that the kernel takes for a network device (net/core/dev.c, dev_valid_name)."""
    plain = not any(c in "/:" or c.isspace() for c in value)
    return plain and 0 < len(value.encode("utf-8", "replace")) < 16 and value not in (".", "..")


# ---- plain values ------------------------------------------------------------------------------------------

TEXT: Shape = (text, "a string")
SOME: Shape = (text_like, "a string that is not empty", is_some)
PATH: Shape = (text_like, "an absolute path", is_absolute)
NUMBERS: Shape = (text_like, "a list of numbers and ranges like 0-3,7", is_set_of_numbers)
FLAG: Shape = (flag, "true or false")
WORDS: Shape = (words, "an array of strings")
PATHS: Shape = (array, "an array of absolute paths", PATH, 0)


def whole(low: int, high: int, kind: str = "") -> Shape:
    """The shape of a whole number within bounds."""
    return (number, f"a whole number from {low} to {high}" + (f" ({kind})" if kind else ""), low, high)


INT32 = whole(-(2**31), 2**31 - 1, "int32")
INT64 = whole(-(2**63), 2**63 - 1, "int64")
UINT16 = whole(0, 2**16 - 1, "uint16")
UINT32 = whole(0, 2**32 - 1, "uint32")
UINT64 = whole(0, 2**64 - 1, "uint64")
# Not the whole of uint32: setresuid(2) and chown(2) take 4294967295 for "leave it as it is", which would be root.
ID = whole(0, 2**32 - 2, "an id")
LIMIT = whole(-1, 2**63 - 1, "int64; -1 is without limit")


def among(names: tuple[str, ...]) -> Shape:
    """The shape of a string that is one of the names."""
    return (choice, "", names)


def listing(item: Shape, least: int = 0) -> Shape:
    """The shape of an array of *item*."""
    return (array, "an array" if not least else f"an array of at least {least}", item, least)


def thing(fields: dict[str, Shape], required: tuple[str, ...] = (), *rules: object) -> Shape:
    """The shape of an object."""
    return (record, "an object", fields, required, rules)


def names_of(item: Shape, test: object = is_some, key: str = "a string that is not empty") -> Shape:
    """The shape of an object with free names."""
    return (mapping, "an object", item, test, key)


def _rare(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """The parts of ocimk.spec.rare, imported when one of them is met."""
    from . import rare

    part: Shape = getattr(rare, shape[2])
    part[0](value, part, path, out)


def _seccomp(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    from .seccomp import SECCOMP

    SECCOMP[0](value, SECCOMP, path, out)


def rare(name: str) -> Shape:
    """The shape of a part that is kept in ocimk.spec.rare."""
    return (_rare, "an object", name)


# ---- values with a rule of their own -----------------------------------------------------------------------


def _version(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """SemVer, and of the major version that we follow (config.md, Specification version).

    Versions before 1.0.0 promised nothing; the specification's own examples bear them, so they are only
    warned of.
    """
    parsed = parse_version(value) if type(value) is str else None
    if parsed is None:
        wrong(out, path, value, "a string" if type(value) is not str else shape[1])
    elif parsed[0] > 1:
        wrong(out, path, value, f"a version 1.x (ocimk keeps to {tables.SPEC_VERSION})")
    elif parsed[0] < 1:
        text = f"found {show(value)}, older than 1.0.0; read as {tables.SPEC_VERSION}"
        out.append(Finding(path, text, WARNING))


def _capability(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """Unknown ones are no error: they MUST be warned of and SHOULD NOT fail (config.md, Linux process)."""
    if type(value) is not str:
        wrong(out, path, value, "a string")
    elif value not in tables.CAPABILITIES:
        out.append(
            Finding(path, f"found {show(value)}, which is no known capability and is not granted", WARNING)
        )


def _annotation(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    """Never handed to the kernel: any string will do."""
    if type(value) is not str:
        wrong(out, path, value, "a string")


def _destination(value: object, shape: Shape, path: str, out: list[Finding]) -> None:
    text_like(value, SOME, path, out)
    if type(value) is str and value and value[0] != "/":
        out.append(
            Finding(path, f"found {show(value)}, relative destinations are deprecated; taken from /", WARNING)
        )


# ---- rules within one object -------------------------------------------------------------------------------


def _mapping(value: dict[str, int], path: str, out: list[Finding]) -> None:
    """user_namespaces(7): a range is not empty and ends before 4294967295, which is no id."""
    if not value["size"]:
        wrong(out, f"{path}.size", 0, "at least 1")
    for name in ("containerID", "hostID"):
        if value[name] + value["size"] > 2**32 - 1:
            wrong(out, path, value, f"a range whose {name} ends below 4294967295")


def _rlimit(value: dict[str, int], path: str, out: list[Finding]) -> None:
    if value["soft"] > value["hard"]:
        wrong(out, f"{path}.soft", value["soft"], f"at most {value['hard']} (the hard limit)")


def _user(value: dict[str, int], path: str, out: list[Finding]) -> None:
    for name in ("uid", "gid"):
        if value.get(name) is None:
            out.append(Finding(f"{path}.{name}", "found nothing, 0 is taken", WARNING))


def _console(value: dict[str, object], path: str, out: list[Finding]) -> None:
    """Two unsigned shorts in the kernel (ioctl_tty(2)); without a terminal the size is ignored."""
    size = value.get("consoleSize")
    for name in ("height", "width"):
        if value.get("terminal") and type(size) is dict and size[name] > 65535:
            wrong(out, f"{path}.consoleSize.{name}", size[name], "at most 65535")


def _command_line(value: dict[str, object], path: str, out: list[Finding]) -> None:
    if value.get("commandLine"):
        out.append(Finding(f"{path}.commandLine", "found a Windows command line, on Linux use args"))


def _device(value: dict[str, object], path: str, out: list[Finding]) -> None:
    """A FIFO has no numbers; the others need both."""
    for name in ("major", "minor"):
        if value["type"] != "p" and value.get(name) is None:
            wrong(out, f"{path}.{name}", None, f"{_NODE[name][1]}, for type {value['type']},")


def _memory(value: dict[str, int], path: str, out: list[Finding]) -> None:
    """swap counts memory and swap together (config-linux.md, Memory)."""
    limit, swap = value.get("limit") or 0, value.get("swap") or 0
    if 0 < swap < limit:
        wrong(out, f"{path}.swap", swap, f"at least {limit} (the memory limit, which it includes)")


def _cpu(value: dict[str, int], path: str, out: list[Finding]) -> None:
    quota, burst = value.get("quota") or 0, value.get("burst") or 0
    if 0 < quota < burst:
        wrong(out, f"{path}.burst", burst, f"at most {quota} (the quota)")


def _one_of(*names: str) -> object:
    """The rule that at least one of the properties is there."""

    def rule(value: dict[str, object], path: str, out: list[Finding]) -> None:
        if all(value.get(name) is None for name in names):
            wrong(out, path, value, f"at least one of {' and '.join(names)}")

    return rule


# ---- process -----------------------------------------------------------------------------------------------

ID_MAPPINGS = listing(
    thing(
        {"containerID": UINT32, "hostID": UINT32, "size": UINT32}, ("containerID", "hostID", "size"), _mapping
    )
)

_CAPABILITIES = listing((_capability, "a string"))

PROCESS = thing(
    {
        "terminal": FLAG,
        "consoleSize": thing({"height": UINT64, "width": UINT64}, ("height", "width")),
        "user": thing(
            {
                "uid": ID,
                "gid": ID,
                "umask": whole(0, 0o777),
                "additionalGids": listing(ID),
            },
            (),
            _user,
        ),
        "args": (array, "an array of at least 1 string", TEXT, 1),
        "commandLine": TEXT,
        "env": listing((text_like, "NAME=VALUE", _is_variable)),
        "cwd": PATH,
        "capabilities": thing(
            {name: _CAPABILITIES for name in ("bounding", "effective", "inheritable", "permitted", "ambient")}
        ),
        "rlimits": listing(
            thing(
                {"type": among(tables.RLIMITS), "soft": UINT64, "hard": UINT64},
                ("type", "soft", "hard"),
                _rlimit,
            )
        ),
        "noNewPrivileges": FLAG,
        "apparmorProfile": TEXT,
        "oomScoreAdj": whole(-1000, 1000),
        "scheduler": rare("SCHEDULER"),
        "selinuxLabel": TEXT,
        "ioPriority": rare("IO_PRIORITY"),
        "execCPUAffinity": thing({"initial": NUMBERS, "final": NUMBERS}),
    },
    ("cwd", "args"),
    _console,
    _command_line,
)

# ---- linux -------------------------------------------------------------------------------------------------

_NODE = {"major": whole(0, 2**12 - 1), "minor": whole(0, 2**20 - 1)}
"""A device's numbers as makedev(3) can hold them on Linux: 12 and 20 bits."""

_ANY_NODE = whole(-1, 2**63 - 1, "int64; -1 is any")
_BLOCK = {"major": whole(0, 2**63 - 1, "int64"), "minor": whole(0, 2**63 - 1, "int64")}
_RATES = listing(thing({**_BLOCK, "rate": UINT64}, ("major", "minor", "rate")))

RESOURCES = thing(
    {
        "devices": listing(
            thing(
                {
                    "allow": FLAG,
                    "type": (choice, "a, b or c", tables.CGROUP_DEVICE_TYPES),
                    "major": _ANY_NODE,
                    "minor": _ANY_NODE,
                    "access": (text_like, "a string made of r, w and m", _is_access),
                },
                ("allow",),
            )
        ),
        "memory": thing(
            {
                "limit": LIMIT,
                "reservation": LIMIT,
                "swap": LIMIT,
                "kernel": LIMIT,
                "kernelTCP": LIMIT,
                "swappiness": whole(0, 100),
                "disableOOMKiller": FLAG,
                "useHierarchy": FLAG,
                "checkBeforeUpdate": FLAG,
            },
            (),
            _memory,
        ),
        "cpu": thing(
            {
                "shares": UINT64,
                "quota": INT64,
                "burst": UINT64,
                "period": UINT64,
                "realtimeRuntime": INT64,
                "realtimePeriod": UINT64,
                "cpus": NUMBERS,
                "mems": NUMBERS,
                "idle": whole(0, 1),
            },
            (),
            _cpu,
        ),
        "pids": thing({"limit": LIMIT}),
        "blockIO": thing(
            {
                "weight": UINT16,
                "leafWeight": UINT16,
                "weightDevice": listing(
                    thing(
                        {**_BLOCK, "weight": UINT16, "leafWeight": UINT16},
                        ("major", "minor"),
                        _one_of("weight", "leafWeight"),
                    )
                ),
                "throttleReadBpsDevice": _RATES,
                "throttleWriteBpsDevice": _RATES,
                "throttleReadIOPSDevice": _RATES,
                "throttleWriteIOPSDevice": _RATES,
            }
        ),
        "hugepageLimits": listing(
            thing(
                {"pageSize": (text_like, "a size like 2MB (KB, MB, GB)", _is_page_size), "limit": UINT64},
                ("pageSize", "limit"),
            )
        ),
        "network": thing(
            {
                "classID": UINT32,
                "priorities": listing(thing({"name": SOME, "priority": UINT32}, ("name", "priority"))),
            }
        ),
        "rdma": names_of(
            thing({"hcaHandles": UINT32, "hcaObjects": UINT32}, (), _one_of("hcaHandles", "hcaObjects"))
        ),
        "unified": names_of(TEXT, _is_file_name, "a file name without slashes"),
    }
)

LINUX = thing(
    {
        "namespaces": listing(
            thing(
                {"type": among(tables.NAMESPACES), "path": (text_like, PATH[1], _is_absolute_or_unset)},
                ("type",),
            )
        ),
        "uidMappings": ID_MAPPINGS,
        "gidMappings": ID_MAPPINGS,
        "timeOffsets": rare("TIME_OFFSETS"),
        "devices": listing(
            thing(
                {
                    "type": among(tables.DEVICE_TYPES),
                    "path": PATH,
                    **_NODE,
                    "fileMode": UINT32,
                    "uid": ID,
                    "gid": ID,
                },
                ("type", "path"),
                _device,
            )
        ),
        "netDevices": rare("NET_DEVICES"),
        "cgroupsPath": (text_like, "a path without ..", _is_cgroups_path),
        "resources": RESOURCES,
        "intelRdt": rare("INTEL_RDT"),
        "memoryPolicy": rare("MEMORY_POLICY"),
        "sysctl": names_of(TEXT),
        "seccomp": (_seccomp, "an object"),
        "rootfsPropagation": among((*tables.PROPAGATIONS, "")),
        "maskedPaths": PATHS,
        "readonlyPaths": PATHS,
        "mountLabel": TEXT,
        "personality": rare("PERSONALITY"),
    }
)

# ---- the whole ---------------------------------------------------------------------------------------------

_HOOKS = listing(
    thing({"path": PATH, "args": WORDS, "env": WORDS, "timeout": whole(1, 2**63 - 1)}, ("path",))
)

CONFIG = thing(
    {
        "ociVersion": (_version, "a version as SemVer 2.0.0 writes it, like 1.3.0,"),
        "root": thing({"path": SOME, "readonly": FLAG}, ("path",)),
        "mounts": listing(
            thing(
                {
                    "destination": (_destination, "a string"),
                    "source": TEXT,
                    "type": TEXT,
                    "options": WORDS,
                    "uidMappings": ID_MAPPINGS,
                    "gidMappings": ID_MAPPINGS,
                },
                ("destination",),
            )
        ),
        "process": PROCESS,
        "hostname": (text_like, "a name of at most 64 bytes", _is_hostname),
        "domainname": (text_like, "a name of at most 64 bytes", _is_hostname),
        "linux": LINUX,
        "hooks": thing({name: _HOOKS for name in tables.HOOKS}),
        "annotations": names_of((_annotation, "a string")),
    },
    ("ociVersion", "root"),
)

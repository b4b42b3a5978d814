"""oci-validate: hold a bundle's config.json against the specification and keep a snapshot of it.

    oci-validate apply DIR --bundle BUNDLE   make the container's folder, with the checked configuration in it
    oci-validate check BUNDLE [--json]       tell everything that is wrong with it
    oci-validate [--json] < config.json      a filter: the configuration unchanged, or what is wrong with it

What is checked without the host is in ocimk.spec; here is the rest: the bundle, its files, its root filesystem.
"""

from __future__ import annotations

import posix

from .. import errors, jsonio
from ..container.folder import read_all, write_all
from ..container.names import CONFIG, NOTIFY
from ..errors import Error, reason, warn
from ..linux import path as paths
from ..spec.supported import unsupported
from ..spec.tables import SPEC_VERSION
from ..spec.validate import ERROR, WARNING, Finding, drop_nulls, findings

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..container.folder import Folder

    Options = dict[str, str]

NAME = "oci-validate"
SUMMARY = "hold a bundle's config.json against the OCI runtime specification and keep a snapshot of it"
OPTIONS = (
    ("--bundle", "DIR", "the bundle (the working directory)"),
    ("--config", "FILE", "the configuration, when it is not config.json in the bundle"),
    ("--notify", "", "have the container speak to the service manager: a socket in /run/notify, and $NOTIFY_SOCKET"),
    ("--json", "", "write what is found as an array of {path, message, severity}"),
)
VALUES = ""
CHAINS = True
MAKES = True
"""apply makes the container's folder: it need not be there before."""

_HOST_NETWORK = "/proc/self/ns/net"


# ---- the four verbs ----------------------------------------------------------------------------------------


def apply(folder: Folder, options: Options, operands: list[str]) -> None:
    """Check, then make the folder with the snapshot in it. Raises Error; then nothing has been made.

    With --json all findings are written to standard output, [] when there are none.
    """
    _no_operands(operands)
    bundle = paths.absolute(options.get("--bundle") or ".")
    data, config = read(bundle, options.get("--config", ""))
    found = examine(config, bundle)
    if "--json" in options:
        write_all(1, _as_json(found).encode() + b"\n")
    _refuse(found, bundle)
    if "--notify" in options:
        config = with_notify(config, folder.path)
        data = jsonio.dumps(config).encode("utf-8", "surrogateescape")
    folder.make(bundle, config)
    try:
        folder.write(CONFIG, data)
        if "--notify" in options:
            _make_notify(f"{folder.path}/{NOTIFY}")
    except BaseException:
        folder.vanish()
        raise
    folder.config = config


def with_notify(config: dict[str, Any], place: str) -> dict[str, Any]:
    """The configuration with the folder of the socket mounted at /run/notify, and NOTIFY_SOCKET set."""
    mount = {
        "destination": "/run/notify",
        "type": "bind",
        "source": f"{place}/{NOTIFY}",
        "options": ["bind", "nosuid", "noexec", "nodev", "ro"],
    }
    config = {**config, "mounts": [*(config.get("mounts") or []), mount]}
    process = config.get("process")
    if process:
        env = [*(process.get("env") or []), "NOTIFY_SOCKET=/run/notify/notify.sock"]
        config["process"] = {**process, "env": env}
    return config


def _make_notify(path: str) -> None:
    try:
        posix.mkdir(path, 0o755)
        posix.chmod(path, 0o755)  # whatever the umask: the container's users go through it
    except OSError as problem:
        raise Error(f"make {path}", problem) from None


def undo(folder: Folder) -> None:
    """Remove the snapshot; the folder itself is its owner's."""
    folder.remove(CONFIG)


def explain(folder: Folder, options: Options, operands: list[str]) -> list[str]:
    """What apply would do, as commands."""
    bundle = paths.absolute(options.get("--bundle") or folder.bundle or ".")
    source = paths.absolute(options["--config"]) if options.get("--config") else f"{bundle}/{CONFIG}"
    place = _quote(folder.path) if folder.path else '"$DIR"'
    lines = [
        f"# {source} is held against the OCI runtime specification {SPEC_VERSION}: JSON; types, ranges,",
        "# formats and names; what properties have to do with each other; what ocimk does not support yet",
        f"oci-validate < {_quote(source)} > /dev/null",
    ]
    try:
        root = _root(jsonio.loads(_read_file(source, source)), bundle)
    except (Error, OSError) as problem:
        return [*lines, f"# and no further: {problem}"]
    return [
        *lines,
        f"test -d {_quote(root)}",
        f"mkdir -p -m 0700 {place}",
        f"install -m 0600 {_quote(source)} {place}/{CONFIG}",
    ]


def check(folder: Folder) -> list[str]:
    """Everything that is wrong with a bundle's configuration, or with a container's snapshot of it."""
    return [_line(finding) for finding in _check(folder)]


# ---- for the dispatcher ------------------------------------------------------------------------------------


def load(bundle: str, config_file: str = "") -> tuple[bytes, dict[str, Any]]:
    """The bundle's configuration, checked: the bytes to keep as snapshot, and what they mean. Warnings are
    logged.

    bundle       the bundle's absolute path
    config_file  the file to read instead of config.json in the bundle

    Raises Error: the bundle or the file cannot be read, is not JSON, or is not what the specification allows.
    """
    data, config = read(bundle, config_file)
    _refuse(examine(config, bundle), bundle)
    return data, config


def read(bundle: str, config_file: str = "") -> tuple[bytes, Any]:
    """The configuration, parsed but not checked, without properties that are null, with an annotation that stands for
    a property in its place. Raises Error.

    The bytes are the file's own unless something was changed: then no reader of the snapshot has to think of it.
    """
    if not paths.is_dir(bundle):
        cause = "not a directory" if paths.exists(bundle) else "no such file or directory"
        raise Error(f"bundle {bundle}", cause, "a directory with config.json in it is needed")
    try:
        data = _read_file(config_file or f"{bundle}/{CONFIG}", config_file or CONFIG)
    except OSError as problem:
        place = config_file or f"bundle {bundle}: {CONFIG}"
        hint = ""
        if not config_file and isinstance(problem, FileNotFoundError):
            place = f"bundle {bundle}: JSON specification file {CONFIG} not found"  # runc's words
            hint = "oci spec writes one to start from"
        raise Error(place, problem, hint) from None
    config = jsonio.loads(data, config_file or CONFIG)
    if type(config) is not dict:
        return data, config
    changed = False
    receiver = posix.environ.get(b"RUN_OCI_SECCOMP_RECEIVER", b"")
    noted = config.get("annotations")
    if receiver or (type(noted) is dict and any(name.startswith("run.oci.seccomp") for name in noted)):
        from ..spec import annotations

        changed = annotations.into_properties(config, receiver.decode("utf-8", "surrogateescape"))
    if b"idmap=" in data:
        from ..spec import idmap_words

        changed |= idmap_words.spell_out(config)
    if b"null" not in data and not changed:
        return data, config
    try:
        config = drop_nulls(config)
        return jsonio.dumps(config).encode("utf-8", "surrogateescape"), config
    except RecursionError:
        raise Error(config_file or CONFIG, "nested too deeply") from None


def examine(config: object, bundle: str) -> list[Finding]:
    """What is wrong with a configuration, by itself, for ocimk, and on this host with this bundle."""
    found = findings(config)
    errors_in = [finding.path for finding in found if finding.severity == ERROR]
    if type(config) is dict:
        found += unsupported(config)
        if not any(path in ("root", "root.path") for path in errors_in):
            found += _root_findings(config, bundle)
        if not any(
            path.startswith(("linux.namespaces", "linux.sysctl")) or path == "linux" for path in errors_in
        ):
            found += _network_findings(config)
    return found


# ---- the filter --------------------------------------------------------------------------------------------


def command(argv: list[str]) -> int | None:
    """The command lines of our own: the filter (no verb, and something to read), and ``check --json``."""
    if argv in ([], ["--json"]) and (argv or not posix.isatty(0)):
        return filter_main({"--json": "1"} if argv else {})
    if argv[:1] == ["check"] and "--json" in argv:
        return _check_as_json(argv)
    return None


def filter_main(options: Options) -> int:
    """Standard input to standard output, unchanged, when the specification allows it; else exit status 1.

    What is found goes to standard error, with --json as an array. The root filesystem is not looked for, as
    no bundle is known, and what ocimk does not support yet is only warned of, as no container is to be made.
    """
    data = read_all(0)
    config = jsonio.loads(data, CONFIG)
    if b"idmap=" in data and type(config) is dict:
        from ..spec import idmap_words

        idmap_words.spell_out(config)
    found = findings(config)
    found += [Finding(missing.path, missing.message, WARNING) for missing in unsupported(config)]
    if found:
        text = _as_json(found) if "--json" in options else "\n".join(map(_line, found))
        write_all(2, f"{text}\n".encode("utf-8", "backslashreplace"))
    if any(finding.severity == ERROR for finding in found):
        return 1
    write_all(1, data)
    return 0


def _check_as_json(argv: list[str]) -> int:
    import sys

    from ..container.folder import Folder
    from . import contract

    call = contract.parse(sys.modules[__name__], argv)
    found = _check(Folder.open(call.place))
    write_all(1, _as_json(found).encode() + b"\n")
    return 1 if found else 0


# ---- inside ------------------------------------------------------------------------------------------------


def _check(folder: Folder) -> list[Finding]:
    if not folder.path:
        return examine(read(folder.bundle)[1], folder.bundle)
    try:
        config = jsonio.loads(folder.read(CONFIG), f"{folder.path}/{CONFIG}")
    except FileNotFoundError as problem:
        raise Error(f"{folder.path}/{CONFIG}", problem, "oci-validate apply makes it") from None
    return examine(config, folder.bundle)


def _refuse(found: list[Finding], bundle: str) -> None:
    """Log the warnings; raise Error for the first error, with the number of the others."""
    bad = [finding for finding in found if finding.severity == ERROR]
    if bad:
        more = (
            f"and {len(bad) - 1} more; oci-validate check {_quote(bundle)} lists all" if len(bad) > 1 else ""
        )
        raise Error(bad[0].path or CONFIG, bad[0].message, more)
    for finding in found:
        warn(f"{CONFIG}: {finding}")


def _root(config: Any, bundle: str) -> str:
    try:
        return paths.clean(paths.join(bundle, config["root"]["path"]))
    except (KeyError, TypeError, AttributeError):
        raise Error("root.path", "found nothing, a string is required") from None


def _root_findings(config: dict[str, Any], bundle: str) -> list[Finding]:
    """A directory MUST exist at root.path (config.md, Root)."""
    root = _root(config, bundle)
    try:
        if posix.stat(root).st_mode & 0o170000 == 0o040000:
            return []
        cause = "not a directory"
    except OSError as problem:
        cause = reason(problem)
    return [
        Finding(
            "root.path",
            f"found {jsonio.dumps(config['root']['path'])}, a directory is required: {root}: {cause}",
        )
    ]


def _network_findings(config: dict[str, Any]) -> list[Finding]:
    """As runc: a network namespace given by path may be our own, whose parameters are the host's."""
    sysctl = (config.get("linux") or {}).get("sysctl")
    if not sysctl:
        return []
    from ..spec.rules import namespaces_of
    from ..spec.sysctl import namespace_of
    from ..spec.walk import member

    path = namespaces_of(config).get("network")
    if not path or not _same_file(path, _HOST_NETWORK):
        return []
    text = f"not allowed in the host's network namespace, which {path} is"
    return [Finding(member("linux.sysctl", key), text) for key in sysctl if namespace_of(key) == "network"]


def _same_file(left: str, right: str) -> bool:
    """Whether both paths name the same file; a path that is not there is oci-unshare's business."""
    try:
        a, b = posix.stat(left), posix.stat(right)
    except OSError:
        return False
    return (a.st_dev, a.st_ino) == (b.st_dev, b.st_ino)


def _read_file(path: str, name: str) -> bytes:
    """The file's bytes. Raises OSError; Error when it is a directory."""
    fd = posix.open(path, posix.O_RDONLY | posix.O_CLOEXEC)
    try:
        return read_all(fd)
    except IsADirectoryError as problem:
        raise Error(name, problem) from None
    finally:
        posix.close(fd)


def _no_operands(operands: list[str]) -> None:
    if operands:
        raise errors.Usage(f"unexpected operand {operands[0]}", hint=f"see {NAME} --help")


def _line(finding: Finding) -> str:
    return str(finding) if finding.severity == ERROR else f"{finding.severity}: {finding}"


def _as_json(found: list[Finding]) -> str:
    return jsonio.dumps([{"path": f.path, "message": f.message, "severity": f.severity} for f in found])


def _quote(word: str) -> str:
    """The word as sh(1) reads it back."""
    plain = word.isascii() and all(c.isalnum() or c in "/._-+:@%," for c in word)
    return word if plain and word else "'" + word.replace("'", "'\\''") + "'"

"""linux.sysctl: which kernel parameters belong to a namespace, and where they are below /proc/sys.

The rules are those of runc (libcontainer/configs/validate): only what a namespace of the container has for
itself may be set; everything else would change the host.
"""

from __future__ import annotations

from .walk import Finding, member, wrong

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

IPC = (
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
)
"""ipc_namespaces(7); everything below fs.mqueue as well."""

PREFIXES = (("fs.mqueue.", "ipc"), ("net.", "network"), ("user.", "user"))


def dotted(key: str) -> str:
    """The key with dots between its parts: ``net/ipv4/conf/eno2.100/mtu`` is ``net.ipv4.conf.eno2/100.mtu``.

    sysctl(8) takes both; the first separator says which, the other character then stands for itself.
    """
    slash, dot = key.find("/"), key.find(".")
    if slash < 0 or 0 <= dot < slash:
        return key
    return key.translate({ord("."): "/", ord("/"): "."})


def sysctl_path(key: str) -> str:
    """The parameter's path below /proc/sys, or "" when the key names none (an empty part, ``.`` or
    ``..``)."""
    parts = [part.replace("/", ".") for part in dotted(key).split(".")]
    return "" if any(part in ("", ".", "..") for part in parts) else "/".join(parts)


def namespace_of(key: str) -> str:
    """The namespace that the parameter belongs to: ipc, network, uts, user; "" for one of the whole host."""
    key = dotted(key)
    if key in IPC:
        return "ipc"
    if key in ("kernel.domainname", "kernel.hostname"):
        return "uts"
    for prefix, namespace in PREFIXES:
        if key.startswith(prefix):
            return namespace
    return ""


def check(sysctl: dict[str, str], namespaces: Iterable[str], out: list[Finding]) -> None:
    """Add what is wrong with the keys, given the types in linux.namespaces."""
    for key in sysctl:
        path = member("linux.sysctl", key)
        namespace = namespace_of(key)
        if not sysctl_path(key):
            wrong(out, path, key, "as name the name of a kernel parameter")
        elif not namespace:
            out.append(Finding(path, "not in a separate kernel namespace, setting it would change the host"))
        elif namespace not in namespaces:
            out.append(
                Finding(path, f"not allowed in the host's {namespace} namespace, list it in linux.namespaces")
            )
        elif dotted(key) == "kernel.hostname":
            out.append(Finding(path, "conflicts with the property hostname, use that"))

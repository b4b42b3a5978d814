"""The resources that few ask for: huge pages, network classes, RDMA, and cgroup2 files by name (unified)."""

from __future__ import annotations

from .plan import MUST, OPTIONAL, number, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .plan import Section, Write


def hugetlb(section: list[Section], suffix: str) -> list[Write]:
    """Limits of huge pages, *suffix* ``limit_in_bytes`` on v1 and ``max`` on v2: the one on reservations,
    which spares the process a SIGBUS, first (kernel 5.7), then the one on use. See hugetlb_cgroup in
    cgroup-v1/hugetlb.rst."""
    writes: list[Write] = []
    for at, entry in enumerate(section):
        name, value = f"hugepageLimits[{at}]", str(number(entry, "limit"))
        size = str(entry.get("pageSize", ""))
        if not size or "/" in size:
            raise refuse(f"{name}.pageSize", f"{size!r} is no size of huge pages", "as in 64KB, 2MB, 1GB")
        writes.append((name, f"hugetlb.{size}.rsvd.{suffix}", value, OPTIONAL))
        writes.append((name, f"hugetlb.{size}.{suffix}", value, MUST))
    return writes


def net_cls(section: Section) -> list[Write]:
    """The class that tags the packets of v1's net_cls."""
    value = number(section, "classID")
    return [("network.classID", "net_cls.classid", str(value), MUST)] if value else []


def net_prio(section: Section) -> list[Write]:
    """The priorities per interface of v1's net_prio."""
    found = enumerate(section.get("priorities") or ())
    return [
        (
            f"network.priorities[{at}]",
            "net_prio.ifpriomap",
            f"{entry['name']} {number(entry, 'priority')}",
            MUST,
        )
        for at, entry in found
    ]


def rdma(section: dict[str, Section]) -> list[Write]:
    """Limits of RDMA devices, one line each, the same on v1 and v2. Raises Error for an entry without a
    limit."""
    writes: list[Write] = []
    for device, entry in section.items():
        keys = (("hcaHandles", "hca_handle"), ("hcaObjects", "hca_object"))
        words = [f"{key}={int(entry[name])}" for name, key in keys if entry.get(name) is not None]
        if not words:
            raise refuse(f"rdma.{device}", "hcaHandles or hcaObjects is required")
        writes.append((f"rdma.{device}", "rdma.max", " ".join([device, *words]), MUST))
    return writes


def unified(section: dict[str, Any]) -> list[Write]:
    """Files of cgroup2 written as they are. Raises Error for what is no file of a controller."""
    writes: list[Write] = []
    for file, value in section.items():
        if "/" in file or "." not in file or file.startswith("."):
            raise refuse(f"unified[{file!r}]", "the key must be a file name of the form CONTROLLER.PARAMETER")
        writes.append((f"unified[{file!r}]", file, str(value), MUST))
    return writes

"""linux.resources.blockIO as files: blkio on v1, io on cgroup2. See cgroup-v1/blkio-controller.rst,
bfq-iosched.rst and cgroup-v2.rst, "IO"."""

from __future__ import annotations

from .plan import MUST, number, refuse

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .plan import Has, Section, Write

_THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops"),
)


def v1(section: Section, has: Has) -> list[Write]:
    """The writes of cgroup v1: CFQ's files where they are (kernels before 5.0), else BFQ's. Raises Error."""
    check(section)
    scheduler = "" if has("blkio.weight") else "bfq."
    writes: list[Write] = []
    if value := number(section, "weight"):
        writes.append(("blockIO.weight", f"blkio.{scheduler}weight", str(value), MUST))
    if value := number(section, "leafWeight"):
        writes.append(("blockIO.leafWeight", "blkio.leaf_weight", str(value), MUST))
    for name, entry in entries(section, "weightDevice"):
        if value := number(entry, "weight"):
            writes.append(
                (f"{name}.weight", f"blkio.{scheduler}weight_device", f"{device(entry)} {value}", MUST)
            )
        if value := number(entry, "leafWeight"):
            writes.append(
                (f"{name}.leafWeight", "blkio.leaf_weight_device", f"{device(entry)} {value}", MUST)
            )
    for kind, file, _ in _THROTTLES:
        writes += [(n, file, f"{device(e)} {number(e, 'rate')}", MUST) for n, e in entries(section, kind)]
    return writes


def v2(section: Section, has: Has) -> list[Write]:
    """The writes of cgroup2. BFQ's weight is meant literally; io.weight has another scale. Raises Error."""
    check(section)
    bfq = has("io.bfq.weight")
    file = "io.bfq.weight" if bfq else "io.weight"
    writes: list[Write] = []
    if value := number(section, "weight"):
        writes.append(("blockIO.weight", file, str(value if bfq else io_weight(value)), MUST))
    if number(section, "leafWeight"):
        raise refuse("blockIO.leafWeight", "cgroup v2 has no leaf weight", "leave it out")
    for name, entry in entries(section, "weightDevice"):
        if number(entry, "leafWeight"):
            raise refuse(f"{name}.leafWeight", "cgroup v2 has no leaf weight", "leave it out")
        value = number(entry, "weight")
        writes.append((f"{name}.weight", file, f"{device(entry)} {value if bfq else io_weight(value)}", MUST))
    for kind, _, key in _THROTTLES:
        # v1 takes a rate of 0 for no limit, io.max wants it said.
        found = [(n, f"{device(e)} {key}={number(e, 'rate') or 'max'}") for n, e in entries(section, kind)]
        writes += [(name, "io.max", value, MUST) for name, value in found]
    return writes


def entries(section: Section, name: str) -> list[tuple[str, Section]]:
    """The entries of a list of devices, each with the name a person finds it by."""
    return [(f"blockIO.{name}[{at}]", entry) for at, entry in enumerate(section.get(name) or ())]


def device(entry: Section) -> str:
    """The device's numbers as cgroup files want them."""
    return f"{number(entry, 'major')}:{number(entry, 'minor')}"


def check(section: Section) -> None:
    """Raise Error for a weight of a device without any weight (config-linux.md, "Block IO")."""
    for name, entry in entries(section, "weightDevice"):
        if not number(entry, "weight") and not number(entry, "leafWeight"):
            raise refuse(name, "weight or leafWeight is required")


def io_weight(value: int) -> int:
    """io.weight (1 to 10000) for blkio's weight (10 to 1000): the linear rule of runc and crun."""
    return 1 + (value - 10) * 9999 // 990 if value > 10 else 1

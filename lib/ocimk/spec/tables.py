"""The words of the OCI Runtime Specification 1.3.0: every name that a configuration may use.

Sources: config.md and config-linux.md of the specification, capabilities(7), getrlimit(2), mount(8),
sched(7), set_mempolicy(2). What only seccomp needs is in ocimk.spec.seccomp, so that it costs nothing
elsewhere.
"""

from __future__ import annotations

SPEC_VERSION = "1.3.0"
"""The newest version of the specification that is understood whole (``ociVersionMax``)."""
SPEC_VERSION_MIN = "1.0.0"

HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")
"""In the order in which a container meets them."""

NAMESPACES = ("cgroup", "ipc", "mount", "network", "pid", "time", "user", "uts")

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETPCAP",
    "CAP_LINUX_IMMUTABLE",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST",
    "CAP_NET_ADMIN",
    "CAP_NET_RAW",
    "CAP_IPC_LOCK",
    "CAP_IPC_OWNER",
    "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
    "CAP_SYS_PACCT",
    "CAP_SYS_ADMIN",
    "CAP_SYS_BOOT",
    "CAP_SYS_NICE",
    "CAP_SYS_RESOURCE",
    "CAP_SYS_TIME",
    "CAP_SYS_TTY_CONFIG",
    "CAP_MKNOD",
    "CAP_LEASE",
    "CAP_AUDIT_WRITE",
    "CAP_AUDIT_CONTROL",
    "CAP_SETFCAP",
    "CAP_MAC_OVERRIDE",
    "CAP_MAC_ADMIN",
    "CAP_SYSLOG",
    "CAP_WAKE_ALARM",
    "CAP_BLOCK_SUSPEND",
    "CAP_AUDIT_READ",
    "CAP_PERFMON",
    "CAP_BPF",
    "CAP_CHECKPOINT_RESTORE",
)
"""In the order of the kernel's numbers: the index is the number (linux/capability.h)."""

RLIMITS = (
    "RLIMIT_CPU",
    "RLIMIT_FSIZE",
    "RLIMIT_DATA",
    "RLIMIT_STACK",
    "RLIMIT_CORE",
    "RLIMIT_RSS",
    "RLIMIT_NPROC",
    "RLIMIT_NOFILE",
    "RLIMIT_MEMLOCK",
    "RLIMIT_AS",
    "RLIMIT_LOCKS",
    "RLIMIT_SIGPENDING",
    "RLIMIT_MSGQUEUE",
    "RLIMIT_NICE",
    "RLIMIT_RTPRIO",
    "RLIMIT_RTTIME",
)
"""In the order of the kernel's numbers in asm-generic/resource.h (mips, alpha and sparc differ)."""

MOUNT_MUST = (
    "async atime bind defaults dev diratime dirsync exec iversion lazytime loud noatime nodev "
    "nodiratime noexec noiversion nolazytime norelatime nostrictatime nosuid private rbind relatime "
    "remount ro rprivate rshared rslave runbindable rw shared silent slave strictatime suid sync "
    "unbindable"
)
MOUNT_SHOULD = (
    "idmap nosymfollow ratime rdev rdiratime rexec ridmap rnoatime rnodev rnodiratime rnoexec "
    "rnorelatime rnostrictatime rnosuid rnosymfollow rrelatime rro rrw rstrictatime rsuid rsymfollow "
    "symfollow"
)
MOUNT_MAY = "mand nomand tmpcopyup"
"""config.md, Linux mount options: what runtimes must, should and may understand."""
MOUNT_LINKS = "copy-symlink dest-nofollow src-nofollow"
"""Of crun's: what a bind mount does with symbolic links."""

MOUNT_OPTIONS = frozenset(f"{MOUNT_MUST} {MOUNT_SHOULD} {MOUNT_MAY} {MOUNT_LINKS}".split())
"""Every option with a meaning of its own; any other goes to the filesystem as data."""

PROPAGATIONS = ("private", "rprivate", "rshared", "rslave", "runbindable", "shared", "slave", "unbindable")
"""Values of rootfsPropagation: the specification's four and, as runc takes them, their recursive forms."""

DEVICE_TYPES = ("c", "b", "u", "p")
CGROUP_DEVICE_TYPES = ("a", "b", "c", "")
PERSONALITIES = ("LINUX", "LINUX32")

IO_CLASSES = ("IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE", "IOPRIO_CLASS_IDLE")
"""Of process.ioPriority; linux/ioprio.h numbers them from 1 in this order."""

SCHEDULER_POLICIES = (
    "SCHED_OTHER",
    "SCHED_FIFO",
    "SCHED_RR",
    "SCHED_BATCH",
    "SCHED_ISO",
    "SCHED_IDLE",
    "SCHED_DEADLINE",
)
"""In the order of the kernel's numbers (linux/sched.h)."""

SCHEDULER_FLAGS = (
    "SCHED_FLAG_RESET_ON_FORK",
    "SCHED_FLAG_RECLAIM",
    "SCHED_FLAG_DL_OVERRUN",
    "SCHED_FLAG_KEEP_POLICY",
    "SCHED_FLAG_KEEP_PARAMS",
    "SCHED_FLAG_UTIL_CLAMP_MIN",
    "SCHED_FLAG_UTIL_CLAMP_MAX",
)
"""In the order of their bits: flag number n is ``1 << n`` (linux/sched.h)."""

MEMORY_POLICY_MODES = (
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
)
"""In the order of the kernel's numbers (linux/mempolicy.h)."""

MEMORY_POLICY_FLAGS = ("MPOL_F_NUMA_BALANCING", "MPOL_F_RELATIVE_NODES", "MPOL_F_STATIC_NODES")
"""Bits 13, 14 and 15 of set_mempolicy(2)'s mode, in this order."""

CLOCKS = ("monotonic", "boottime")
"""Keys of linux.timeOffsets: the clocks that time_namespaces(7) can shift."""

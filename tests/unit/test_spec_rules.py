"""Every rule of ocimk.spec: a change that breaks it is found at its place, what it allows passes."""

from __future__ import annotations

import pytest
from spec_full import GONE, changed, errors, warnings

from ocimk.spec import sysctl
from ocimk.spec.validate import findings

CHANGES = [
    # path, value, where it is found (the path when ""), words of the message
    ("ociVersion", "2.0.0", "", "a version 1.x"),
    ("ociVersion", "1.0", "", "SemVer"),
    ("ociVersion", "v1.0.0", "", "SemVer"),
    ("ociVersion", "1.0.0-", "", "SemVer"),
    ("ociVersion", "", "", "SemVer"),
    ("root.path", "", "", "not empty"),
    ("hostname", "h" * 65, "", "at most 64 bytes"),
    ("hostname", "é" * 33, "", "at most 64 bytes"),
    ("domainname", "d" * 65, "", "at most 64 bytes"),
    ("linux.namespaces[3].type", "mount", "hostname", "a private uts namespace"),
    ("linux.namespaces[3].type", "mount", "domainname", "a private uts namespace"),
    ("annotations", {"": "x"}, 'annotations[""]', "as name a string that is not empty"),
    ("annotations", {"a.b/c": 1}, 'annotations["a.b/c"]', "found 1, a string"),
    # process
    ("process.args", [], "", "at least 1"),
    ("process.cwd", "home", "", "an absolute path"),
    ("process.cwd", "", "", "an absolute path"),
    ("process.commandLine", "cmd.exe", "", "Windows"),
    ("process.consoleSize.width", 65536, "", "at most 65535"),
    ("process.consoleSize.height", -1, "", "from 0"),
    ("process.user.uid", -1, "", "from 0 to 4294967294"),
    ("process.user.uid", 2**32 - 1, "", "from 0 to 4294967294"),
    ("process.user.gid", 2**32, "", "from 0 to 4294967294"),
    ("process.user.umask", 512, "", "from 0 to 511"),
    ("process.user.additionalGids[1]", 2**32, "", "from 0 to 4294967294"),
    ("process.user.uid", 1001, "", "an id that linux.uidMappings maps"),
    ("process.user.gid", 65536, "", "an id that linux.gidMappings maps"),
    ("process.user.additionalGids[1]", 65536, "", "an id that linux.gidMappings maps"),
    ("process.env[1]", "NOTHING", "", "NAME=VALUE"),
    ("process.env[1]", "=value", "", "NAME=VALUE"),
    ("process.rlimits[1].type", "RLIMIT_NONSENSE", "", "one of RLIMIT_CPU, "),
    ("process.rlimits[1].type", "NOFILE", "", "one of RLIMIT_CPU, "),
    ("process.rlimits[1].type", "RLIMIT_NOFILE", "", "the second"),
    ("process.rlimits[0].hard", 1023, "process.rlimits[0].soft", "at most 1023"),
    ("process.rlimits[0].hard", 2**64, "", "uint64"),
    ("process.rlimits[0].soft", -1, "", "uint64"),
    ("process.oomScoreAdj", -1001, "", "from -1000 to 1000"),
    ("process.oomScoreAdj", 1001, "", "from -1000 to 1000"),
    ("process.execCPUAffinity.initial", "0-", "", "numbers and ranges"),
    ("process.execCPUAffinity.final", "3-1", "", "numbers and ranges"),
    ("process.ioPriority.class", "IOPRIO_CLASS_NONE", "", "one of IOPRIO_CLASS_RT, "),
    ("process.ioPriority.priority", 8, "", "from 0 to 7"),
    ("process.ioPriority.priority", -1, "", "from 0 to 7"),
    ("process.scheduler.policy", "OTHER", "", "one of SCHED_OTHER, "),
    ("process.scheduler.flags", ["SCHED_FLAG_X"], "process.scheduler.flags[0]", "SCHED_FLAG_RECLAIM"),
    ("process.scheduler.nice", 2**31, "", "int32"),
    ("process.scheduler", {"policy": "SCHED_OTHER", "nice": 20}, "process.scheduler.nice", "from -20 to 19"),
    ("process.scheduler", {"policy": "SCHED_BATCH", "nice": -21}, "process.scheduler.nice", "from -20 to 19"),
    (
        "process.scheduler",
        {"policy": "SCHED_OTHER", "priority": 1},
        "process.scheduler.priority",
        "SCHED_OTHER",
    ),
    ("process.scheduler", {"policy": "SCHED_FIFO"}, "process.scheduler.priority", "from 1 to 99"),
    (
        "process.scheduler",
        {"policy": "SCHED_RR", "priority": 100},
        "process.scheduler.priority",
        "from 1 to 99",
    ),
    (
        "process.scheduler",
        {"policy": "SCHED_OTHER", "runtime": 1},
        "process.scheduler.runtime",
        "SCHED_OTHER",
    ),
    (
        "process.scheduler",
        {"policy": "SCHED_IDLE", "deadline": 1},
        "process.scheduler.deadline",
        "SCHED_IDLE",
    ),
    ("process.scheduler", {"policy": "SCHED_BATCH", "period": 1}, "process.scheduler.period", "SCHED_BATCH"),
    ("process.scheduler.runtime", 1023, "", "at least 1024"),
    ("process.scheduler.runtime", 20001, "process.scheduler.deadline", "at least the runtime"),
    ("process.scheduler.period", 19999, "process.scheduler.deadline", "at most the period"),
    # mounts
    ("mounts[0].destination", "", "", "not empty"),
    ("mounts[1].source", "", "", "the path to bind"),
    ("mounts[1].source", GONE, "", "the path to bind"),
    ("mounts[1].options[1]", "size=1", "", "an option that a bind mount can have"),
    ("mounts[1].uidMappings", GONE, "", "with gidMappings"),
    ("mounts[1].gidMappings", [], "", "with uidMappings"),
    ("mounts[1].uidMappings[0].size", 0, "", "at least 1"),
    # hooks
    ("hooks.prestart[0].path", "bin/a", "", "an absolute path"),
    ("hooks.poststop[0].path", "", "", "an absolute path"),
    ("hooks.prestart[0].timeout", 0, "", "from 1"),
    ("hooks.prestart[0].timeout", -5, "", "from 1"),
    # namespaces and mappings
    ("linux.namespaces[2].type", "net", "", "one of cgroup, ipc, "),
    ("linux.namespaces[1].path", "run/netns", "", "an absolute path"),
    ("linux.namespaces[8]", {"type": "pid"}, "linux.namespaces[8].type", "the second"),
    ("linux.uidMappings", GONE, "", "at least one mapping"),
    ("linux.gidMappings", [], "", "at least one mapping"),
    ("linux.uidMappings[0].size", 0, "", "at least 1"),
    ("linux.uidMappings[1].hostID", 2**32 - 1, "linux.uidMappings[1]", "hostID ends below"),
    ("linux.gidMappings[0].size", 2**32, "", "uint32"),
    ("linux.uidMappings[1].containerID", 999, "", "a range apart from [0]"),
    ("linux.uidMappings[1].hostID", 100999, "", "a range apart from [0]"),
    ("linux.timeOffsets.monotonic.secs", 2**63, "", "int64"),
    ("linux.timeOffsets.boottime.nanosecs", 10**9, "", "from 0 to 999999999"),
    ("linux.timeOffsets.realtime", {"secs": 1}, "", "a clock"),
    ("linux.namespaces[7].path", "/proc/1/ns/time", "linux.timeOffsets", "a time namespace without path"),
    ("linux.namespaces[7]", GONE, "linux.timeOffsets", "a time namespace without path"),
    # devices
    ("linux.devices[0].type", "d", "", "one of c, b, u, p"),
    ("linux.devices[0].path", "fuse", "", "an absolute path"),
    ("linux.devices[0].major", 4096, "", "from 0 to 4095"),
    ("linux.devices[0].minor", -1, "", "from 0 to 1048575"),
    ("linux.devices[0].fileMode", 2**32, "", "uint32"),
    ("linux.devices[1].type", "b", "linux.devices[1].major", "for type b"),
    ("linux.devices[1].path", "/dev/fuse", "", "one device for each path"),
    # resources
    ("linux.cgroupsPath", "../up", "", "without .."),
    ("linux.cgroupsPath", "/a/../../b", "", "without .."),
    ("linux.resources.devices[1].type", "p", "", "a, b or c"),
    ("linux.resources.devices[1].access", "rx", "", "r, w and m"),
    ("linux.resources.devices[1].major", -2, "", "from -1"),
    ("linux.resources.memory.limit", -2, "", "from -1"),
    ("linux.resources.memory.limit", 2**63, "", "from -1"),
    ("linux.resources.memory.swap", 1, "", "at least 536870912"),
    ("linux.resources.memory.swappiness", 101, "", "from 0 to 100"),
    ("linux.resources.cpu.burst", 1000001, "", "at most 1000000"),
    ("linux.resources.cpu.quota", 999999, "linux.resources.cpu.burst", "at most 999999"),
    ("linux.resources.cpu.quota", 2**63, "", "int64"),
    ("linux.resources.cpu.shares", -1, "", "uint64"),
    ("linux.resources.cpu.cpus", "a", "", "numbers and ranges"),
    ("linux.resources.cpu.mems", ",", "", "numbers and ranges"),
    ("linux.resources.cpu.idle", 2, "", "from 0 to 1"),
    ("linux.resources.pids.limit", -2, "", "from -1"),
    ("linux.resources.blockIO.weight", 65536, "", "uint16"),
    (
        "linux.resources.blockIO.weightDevice[0]",
        {"major": 8, "minor": 0},
        "",
        "at least one of weight and leafWeight",
    ),
    ("linux.resources.blockIO.throttleReadBpsDevice[0].rate", -1, "", "uint64"),
    ("linux.resources.hugepageLimits[0].pageSize", "64kB", "", "2MB"),
    ("linux.resources.hugepageLimits[0].pageSize", "0MB", "", "2MB"),
    ("linux.resources.hugepageLimits[0].pageSize", "MB", "", "2MB"),
    ("linux.resources.network.classID", 2**32, "", "uint32"),
    ("linux.resources.network.priorities[0].name", "", "", "not empty"),
    ("linux.resources.rdma.mlx5_1", {}, "", "at least one of hcaHandles and hcaObjects"),
    ("linux.resources.unified", {"a/b": "1"}, 'linux.resources.unified["a/b"]', "without slashes"),
    ("linux.resources.unified", {"..": "1"}, 'linux.resources.unified[".."]', "without slashes"),
    # the rest of linux
    ("linux.netDevices.eth0.name", "a/b", "", "the name of a network device"),
    ("linux.netDevices.eth0.name", "sixteencharacter", "", "the name of a network device"),
    ("linux.netDevices", {"a b": {}}, 'linux.netDevices["a b"]', "as name the name of a network device"),
    ("linux.intelRdt.closID", "a/b", "", "without slashes"),
    ("linux.intelRdt.closID", "..", "", "without slashes"),
    ("linux.intelRdt.memBwSchema", "L3:0=1", "", "starts with MB:"),
    ("linux.intelRdt.memBwSchema", "MB:0=1\n", "", "starts with MB:"),
    ("linux.intelRdt.schemata[0]", "a\nb", "", "a single line"),
    ("linux.memoryPolicy.mode", "BIND", "", "one of MPOL_DEFAULT, "),
    ("linux.memoryPolicy.nodes", "x", "", "numbers and ranges"),
    ("linux.memoryPolicy.nodes", "", "", "at least one node"),
    ("linux.memoryPolicy.mode", "MPOL_LOCAL", "linux.memoryPolicy.nodes", "no node"),
    ("linux.memoryPolicy.flags[0]", "STATIC", "", "one of MPOL_F_NUMA_BALANCING, "),
    ("linux.memoryPolicy.flags[1]", "MPOL_F_RELATIVE_NODES", "linux.memoryPolicy.flags", "either"),
    ("linux.rootfsPropagation", "private-ish", "", "one of private, "),
    ("linux.maskedPaths[0]", "proc/kcore", "", "an absolute path"),
    ("linux.readonlyPaths[0]", "proc/sys", "", "an absolute path"),
    ("linux.namespaces[4].type", "cgroup", "linux.maskedPaths", "a private mount namespace"),
    ("linux.namespaces[4].type", "cgroup", "linux.readonlyPaths", "a private mount namespace"),
    ("linux.personality.domain", "BSD", "", "one of LINUX, LINUX32"),
    ("linux.personality.domain", "", "", "one of LINUX, LINUX32"),
    ("linux.personality.flags", ["X"], "", "an empty array"),
    # sysctl
    ("linux.sysctl", {"vm.swappiness": "1"}, 'linux.sysctl["vm.swappiness"]', "separate kernel namespace"),
    ("linux.sysctl", {"kernel.core_pattern": "x"}, 'linux.sysctl["kernel.core_pattern"]', "separate kernel"),
    ("linux.sysctl", {"kernel.hostname": "x"}, 'linux.sysctl["kernel.hostname"]', "conflicts"),
    ("linux.sysctl", {"net..x": "1"}, 'linux.sysctl["net..x"]', "name of a kernel parameter"),
    ("linux.sysctl", {"net.//.//.x": "1"}, 'linux.sysctl["net.//.//.x"]', "name of a kernel parameter"),
    ("linux.sysctl", {"net/../vm/x": "1"}, 'linux.sysctl["net/../vm/x"]', "name of a kernel parameter"),
    ("linux.namespaces[2]", GONE, 'linux.sysctl["kernel.shmmax"]', "the host's ipc namespace"),
    ("linux.namespaces[2]", GONE, 'linux.sysctl["fs.mqueue.msg_max"]', "the host's ipc namespace"),
    ("linux.namespaces[1]", GONE, 'linux.sysctl["net.ipv4.ip_forward"]', "the host's network namespace"),
    ("linux.namespaces[1]", GONE, 'linux.sysctl["net/ipv4/conf/eno2.100/rp_filter"]', "host's network"),
    ("linux.namespaces[5]", GONE, 'linux.sysctl["user.max_user_namespaces"]', "the host's user namespace"),
    ("linux.namespaces[3]", GONE, 'linux.sysctl["kernel.domainname"]', "the host's uts namespace"),
    ("linux.namespaces[5]", GONE, "linux.uidMappings", "a user namespace in linux.namespaces"),
    ("linux.namespaces[5]", GONE, "linux.gidMappings", "a user namespace in linux.namespaces"),
    # seccomp
    ("linux.seccomp.defaultAction", "ERRNO", "", "one of SCMP_ACT_KILL, "),
    (
        "linux.seccomp.defaultAction",
        "SCMP_ACT_ALLOW",
        "linux.seccomp.defaultErrnoRet",
        "nothing, with SCMP_ACT_ALLOW",
    ),
    ("linux.seccomp.defaultAction", "SCMP_ACT_NOTIFY", "", "another action"),
    ("linux.seccomp.defaultErrnoRet", 4096, "", "at most 4095"),
    ("linux.seccomp.architectures[0]", "amd64", "", "one of SCMP_ARCH_X86, "),
    ("linux.seccomp.flags[0]", "LOG", "", "one of SECCOMP_FILTER_FLAG_TSYNC, "),
    ("linux.seccomp.listenerPath", GONE, "linux.seccomp.listenerMetadata", "without listenerPath"),
    ("linux.seccomp.listenerPath", "", "linux.seccomp.listenerMetadata", "without listenerPath"),
    ("linux.seccomp.syscalls[0].names", [], "", "at least 1"),
    ("linux.seccomp.syscalls[0].names[1]", "", "", "not empty"),
    ("linux.seccomp.syscalls[0].action", "ALLOW", "", "one of SCMP_ACT_KILL, "),
    ("linux.seccomp.syscalls[0].errnoRet", 1, "", "nothing, with SCMP_ACT_ALLOW"),
    ("linux.seccomp.syscalls[1].errnoRet", 65536, "", "at most 65535"),
    ("linux.seccomp.syscalls[1].errnoRet", -1, "", "uint32"),
    ("linux.seccomp.syscalls[0].args[0].index", 6, "", "from 0 to 5"),
    ("linux.seccomp.syscalls[0].args[0].valueTwo", 2**64, "", "uint64"),
    ("linux.seccomp.syscalls[0].args[0].op", "EQ", "", "one of SCMP_CMP_NE, "),
]


@pytest.mark.parametrize(("path", "value", "where", "words"), CHANGES)
def test_a_change_is_found(path, value, where, words):
    found = [
        f for f in findings(changed((path, value))) if f.severity == "error" and f.path == (where or path)
    ]
    assert [words in f.message for f in found] == [True], findings(changed((path, value)))


GOOD = [
    (("ociVersion", "1.0.2-dev"),),
    (("ociVersion", "1.3.0+dev"),),
    (("ociVersion", "1.99.0-rc.1+build.7"),),
    (("process", GONE),),
    (("linux", GONE), ("hostname", GONE), ("domainname", GONE), ("mounts[1]", GONE)),
    (("process.cwd", "/proc/self/cwd"),),
    (("process.scheduler", {"policy": "SCHED_OTHER", "nice": -20}),),
    (("process.scheduler", {"policy": "SCHED_FIFO", "priority": 99, "nice": 50}),),
    (("process.scheduler.period", 0),),
    (("process.terminal", False), ("process.consoleSize.width", 65536)),
    (("linux.namespaces[5]", {"type": "user", "path": "/proc/1/ns/user"}),),
    (
        ("linux.namespaces[5]", {"type": "user", "path": "/x"}),
        ("linux.uidMappings", GONE),
        ("linux.gidMappings", GONE),
    ),
    (("linux.namespaces[1].path", ""),),
    (("linux.rootfsPropagation", ""),),
    (("linux.intelRdt.closID", "/"),),
    (("linux.memoryPolicy", {"mode": "MPOL_PREFERRED"}),),
    (("linux.memoryPolicy", {"mode": "MPOL_DEFAULT", "nodes": ""}),),
    (("linux.resources.cpu.cpus", " 1, 2-3 ,"),),
    (("linux.resources.cpu.quota", -1),),
    (("linux.resources.memory.swap", -1),),
    (("linux.resources.pids.limit", -1),),
    (("linux.resources.devices[1].type", ""),),
    (("mounts[1].uidMappings", GONE), ("mounts[1].gidMappings", GONE)),
    (("mounts[0].options", ["remount", "anything=1"]),),
    (("linux.devices[1]", {"type": "c", "path": "/dev/fuse", "major": 10, "minor": 229}),),
    (("linux.seccomp.syscalls[0]", {"names": ["a"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38}),),
    (("linux.seccomp.flags", []),),
]


@pytest.mark.parametrize("changes", GOOD)
def test_what_is_allowed_passes(changes):
    assert findings(changed(*changes)) == []


WARNINGS = [
    ("ociVersion", "0.5.0-dev", "", "older than 1.0.0"),
    ("process.capabilities.bounding[1]", "CAP_NONSENSE", "", "no known capability"),
    ("process.capabilities.ambient[0]", "KILL", "", "no known capability"),
    ("process.user.uid", GONE, "", "0 is taken"),
    ("process.user.gid", None, "", "0 is taken"),
    ("process.ioPriority.priority", GONE, "", "0 is taken"),
    ("mounts[0].destination", "proc", "", "taken from /"),
    ("mounts[1].options", ["rbind"], "", "idmap or ridmap"),
    ("linux.intelRdt.l3CacheSchema", "0=7f0", "", "L3:"),
    ("linux.devices[2]", {"type": "u", "path": "/dev/f", "major": 10, "minor": 229}, "", "/dev/fuse"),
]


@pytest.mark.parametrize(("path", "value", "where", "words"), WARNINGS)
def test_a_warning_is_no_error(path, value, where, words):
    found = findings(changed((path, value)))
    assert [(f.path, f.severity, words in f.message) for f in found] == [(where or path, "warning", True)]


def test_network_devices_without_a_namespace_are_warned_of():
    config = changed(("linux.namespaces[1]", GONE), ("linux.sysctl", GONE))
    assert errors(config) == []
    assert warnings(config) == ["linux.netDevices.eth0", "linux.netDevices.eth1"]


def test_idmap_needs_mappings_from_somewhere():
    bare = [("mounts[1].uidMappings", GONE), ("mounts[1].gidMappings", GONE)]
    alone = [
        ("linux.namespaces[5]", GONE),
        ("linux.uidMappings", GONE),
        ("linux.gidMappings", GONE),
        ("linux.sysctl", GONE),
    ]
    assert errors(changed(*bare, *alone)) == ["mounts[1].options"]
    assert errors(changed(*alone)) == []


def test_at_most_340_ranges():
    ranges = [{"containerID": at, "hostID": at, "size": 1} for at in range(2000)]
    assert errors(changed(("linux.uidMappings", ranges[:340]), ("process.user.uid", 0))) == []
    assert errors(changed(("linux.uidMappings", ranges[:341]), ("process.user.uid", 0))) == [
        "linux.uidMappings"
    ]


@pytest.mark.parametrize(
    ("key", "path", "namespace"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward", "network"),
        ("net/ipv4/conf/eno2.100/rp_filter", "net/ipv4/conf/eno2.100/rp_filter", "network"),
        ("net.ipv4.conf.eno2/100.rp_filter", "net/ipv4/conf/eno2.100/rp_filter", "network"),
        ("kernel.sem", "kernel/sem", "ipc"),
        ("kernel/domainname", "kernel/domainname", "uts"),
        ("user.max_ipc_namespaces", "user/max_ipc_namespaces", "user"),
        ("vm.overcommit", "vm/overcommit", ""),
        ("netx.y", "netx/y", ""),
        ("/net/x", "", "network"),
        ("net.x.", "", "network"),
        ("net.a.//.b", "", "network"),
        ("", "", ""),
    ],
)
def test_names_of_kernel_parameters(key, path, namespace):
    assert sysctl.sysctl_path(key) == path
    if path:
        assert sysctl.namespace_of(key) == namespace

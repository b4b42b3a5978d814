/* ocimk.native._native: the system calls that Python's posix module lacks.
 *
 * Two functions and a table, built against the limited API so that one file
 * serves every Python from 3.11 on:
 *
 *   syscall(nr, *args) -> int    syscall(2) with integers and buffers
 *   clone3(flags, exit_signal, cgroup_fd, want_pidfd) -> (pid, pidfd)
 *   NR                           {"openat2": 437, ...} for this architecture
 *
 * Policy (which call, which flags, what an error means) is written in Python.
 */
#define Py_LIMITED_API 0x030B0000
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#define MAX_ARGS 6

/* The same on every architecture (Linux unified the numbers from 424 on), so
 * older kernel headers need not know them. alpha counts from 110 higher and is
 * not supported. */
#ifndef SYS_mount_setattr
#define SYS_mount_setattr 442
#endif
#ifndef SYS_quotactl_fd
#define SYS_quotactl_fd 443
#endif
#ifndef SYS_set_mempolicy_home_node
#define SYS_set_mempolicy_home_node 450
#endif
#ifndef SYS_statmount
#define SYS_statmount 457
#endif
#ifndef SYS_listmount
#define SYS_listmount 458
#endif
#ifndef SYS_open_tree_attr
#define SYS_open_tree_attr 467
#endif

struct number {
    const char *name;
    long nr;
};

#define N(name) {#name, SYS_##name}
static const struct number numbers[] = {
    N(accept4), N(acct), N(bpf), N(capget), N(capset), N(chdir), N(chroot), N(clone), N(clone3), N(close),
    N(close_range), N(dup3), N(epoll_create1), N(eventfd2), N(execve), N(execveat), N(exit_group),
    N(faccessat2), N(fchdir), N(fchmod), N(fchown), N(fcntl), N(fsconfig), N(fsmount), N(fsopen),
    N(fspick), N(fstatfs), N(getcwd), N(getpid), N(ioctl), N(ioprio_get), N(ioprio_set), N(keyctl),
    N(kill), N(memfd_create), N(mkdirat), N(mknodat), N(mount), N(mount_setattr), N(move_mount),
    N(name_to_handle_at), N(open_by_handle_at), N(open_tree), N(open_tree_attr), N(openat), N(openat2),
    N(personality), N(pidfd_getfd), N(pidfd_open), N(pidfd_send_signal), N(pivot_root), N(ppoll),
    N(prctl), N(prlimit64), N(ptrace), N(read), N(rt_sigaction), N(rt_sigprocmask),
    N(sched_getattr), N(sched_setaffinity), N(sched_setattr), N(seccomp), N(sendmsg),
    N(set_mempolicy), N(get_mempolicy), N(setdomainname), N(setfsgid), N(setfsuid), N(setgid), N(setgroups),
    N(sethostname), N(setns), N(setpriority), N(setresgid), N(setresuid), N(setsid), N(setuid), N(statfs), N(statmount),
    N(listmount), N(statx), N(symlinkat), N(umask), N(umount2), N(unlinkat), N(unshare), N(wait4),
    N(waitid), N(write),
};

/* Turn one Python argument into a register. A buffer is held until the call has
 * returned; the kernel may write into it (bytearray) or only read it (bytes). */
static int
take_argument(PyObject *object, long *value, Py_buffer *view, int *held)
{
    if (object == Py_None) {
        *value = 0;
        return 0;
    }
    if (PyLong_Check(object)) {
        *value = (long)PyLong_AsUnsignedLongMask(object);
        return *value == -1 && PyErr_Occurred() ? -1 : 0;
    }
    if (PyUnicode_Check(object) || PyObject_GetBuffer(object, view, PyBUF_SIMPLE) < 0) {
        PyErr_Format(PyExc_TypeError, "syscall arguments are integers, buffers or None");
        return -1;
    }
    *held = 1;
    *value = (long)view->buf;
    return 0;
}

static PyObject *
raise_errno(int number)
{
    errno = number;
    return PyErr_SetFromErrno(PyExc_OSError);
}

static PyObject *
native_syscall(PyObject *self, PyObject *args)
{
    Py_ssize_t count = PyTuple_Size(args) - 1;
    long value[1 + MAX_ARGS] = {0};
    Py_buffer view[1 + MAX_ARGS];
    int held[1 + MAX_ARGS] = {0};
    int broken = 0;
    long result = -1;
    int saved = 0;

    (void)self;
    if (count < 0 || count > MAX_ARGS) {
        PyErr_SetString(PyExc_TypeError, "syscall takes a number and up to six arguments");
        return NULL;
    }
    for (Py_ssize_t i = 0; i <= count && !broken; i++)
        broken = take_argument(PyTuple_GetItem(args, i), &value[i], &view[i], &held[i]);
    if (!broken) {
        Py_BEGIN_ALLOW_THREADS
        result = syscall(value[0], value[1], value[2], value[3], value[4], value[5], value[6]);
        saved = errno;
        Py_END_ALLOW_THREADS
    }
    for (Py_ssize_t i = 0; i <= count; i++)
        if (held[i])
            PyBuffer_Release(&view[i]);
    if (broken)
        return NULL;
    return result == -1 ? raise_errno(saved) : PyLong_FromLong(result);
}

/* struct clone_args of clone3(2), as far as kernel 5.7 knows it. */
struct clone_arguments {
    uint64_t flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static PyObject *
native_clone3(PyObject *self, PyObject *args)
{
    unsigned long long flags;
    int exit_signal, cgroup_fd, want_pidfd, pidfd = -1, saved;
    struct clone_arguments request = {0};
    long pid;

    (void)self;
    if (!PyArg_ParseTuple(args, "Kiip", &flags, &exit_signal, &cgroup_fd, &want_pidfd))
        return NULL;
    request.flags = flags | (want_pidfd ? 0x1000ULL /* CLONE_PIDFD */ : 0);
    request.exit_signal = (uint64_t)exit_signal;
    request.pidfd = (uint64_t)(uintptr_t)&pidfd;
    if (cgroup_fd >= 0) {
        request.flags |= 0x200000000ULL /* CLONE_INTO_CGROUP */;
        request.cgroup = (uint64_t)cgroup_fd;
    }
    /* Like os.fork(): the interpreter must put its locks right in the child. */
    PyOS_BeforeFork();
    pid = syscall(SYS_clone3, &request, sizeof request);
    saved = errno;
    if (pid == 0)
        PyOS_AfterFork_Child();
    else
        PyOS_AfterFork_Parent();
    if (pid < 0)
        return raise_errno(saved);
    return Py_BuildValue("(li)", pid, pid == 0 ? -1 : pidfd);
}

static PyMethodDef methods[] = {
    {"syscall", native_syscall, METH_VARARGS,
     "syscall(nr, *args) -> int\n\nCall the kernel: integers, buffers, None (NULL). Raises OSError. See syscall(2)."},
    {"clone3", native_clone3, METH_VARARGS,
     "clone3(flags, exit_signal, cgroup_fd, want_pidfd) -> (pid, pidfd)\n\n"
     "fork() with flags; (0, -1) in the child, pidfd -1 unless wanted, cgroup_fd -1 for the caller's. See clone3(2)."},
    {NULL, NULL, 0, NULL},
};

static int
add_numbers(PyObject *module)
{
    PyObject *table = PyDict_New();

    if (table == NULL)
        return -1;
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        PyObject *nr = PyLong_FromLong(numbers[i].nr);
        if (nr == NULL || PyDict_SetItemString(table, numbers[i].name, nr) < 0)
            return -1;
        Py_DECREF(nr);
    }
    return PyModule_AddObject(module, "NR", table);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, add_numbers},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_native", "System calls that the posix module lacks.", 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC
PyInit__native(void)
{
    return PyModuleDef_Init(&definition);
}

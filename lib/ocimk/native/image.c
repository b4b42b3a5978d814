/* The image: what a container's first process is between create and start, and what enters a container for exec.
 *
 * It is a freestanding static program without a libc. oci-exec-fifo copies it into a sealed memfd together with a plan
 * and becomes it, so that what waits in the container is neither an interpreter nor any file of the host; oci exec
 * starts it outside, and it goes in by itself.
 *
 * The plan is a list of steps that ocimk.native.image (Python) has laid out in memory at PLAN, all addresses in it
 * absolute: nearly every step is one system call with its six registers, in the order in which they are to happen. The
 * few that are more than a call have a kind of their own below. What fails is reported as text through the descriptor
 * that the plan names first (see ocimk.container.sync), and the process ends.
 *
 * Built by (setup.py does):
 *   cc -Os -std=gnu11 -Wall -Wextra -ffreestanding -fno-stack-protector -fno-asynchronous-unwind-tables -fno-pic \
 *      -fcf-protection=none (x86) -nostdlib -static -no-pie -Wl,--build-id=none,-z,noexecstack,-T,image.ld -s
 */
#include "kernel.h"

/* ---- the plan: keep in step with ocimk/native/image.py ------------------------------------------------------- */

#define MAGIC 0x314b4d49434fULL /* "OCIMK1" */
#define PLAN ((struct plan *)0x20000000) /* where image.ld puts the last segment */

enum kind {
    END = 0,
    CALL = 1,   /* syscall nr with args; see enum flags */
    READY = 2,  /* say "ready", close the first report descriptor, report to args[0] from now on */
    AWAIT = 3,  /* read one byte from descriptor args[0] */
    LOOKUP = 4, /* args: candidates, literal report when none can be executed; start of the list is moved on */
    EXEC = 5,   /* args: candidates, argv, envp */
    CWD = 6,    /* the working directory must lie below the root */
    HOOK = 7,   /* args: path, argv, envp, input, length, seconds (0 = no limit) */
    SKIP = 8,
    DIVIDE = 9, /* go on as a child; args: clone flags, cgroup descriptor or -1, what the parent says, what the child */
};

/* A call that must not fail ends all. What succeeds writes its result (32 bits) to store, if that is not 0; with
 * CANCELS store is another step instead, which is then left out, with as many after it as the upper byte tells. */
enum flags { MAY_FAIL = 1, CANCELS = 2, MORE_SHIFT = 8 };

struct step {
    u16 kind;
    u16 flags;
    u32 nr;
    u32 label; /* address of "STATUS\tTEXT": what was being done */
    u32 store;
    u64 args[6];
};

struct plan {
    u64 magic;
    u32 report; /* descriptor */
    u32 reserved;
    struct step steps[];
};

/* What the linker puts at PLAN; the real plan takes its place in the memfd. */
__attribute__((section(".plan"), used)) static u64 room[8];

enum { EPERM = 1, EINTR = 4, ENOENT = 2, EACCES = 13, ENOTDIR = 20, EISDIR = 21, ENOSYS = 38 };
enum { AT_FDCWD = -100, AT_EACCESS = 0x200, X_OK = 1, SIGKILL = 9, SIGCHLD = 17 };
enum { O_CLOEXEC = 02000000, O_PATH = 010000000 };
#if defined(__aarch64__)
enum { O_DIRECTORY = 040000 };
#else
enum { O_DIRECTORY = 0200000 };
#endif

/* ---- text ---------------------------------------------------------------------------------------------------- */

struct text {
    u32 length;
    char bytes[2048];
};

static void
add(struct text *text, const char *bytes, size_t limit)
{
    for (size_t i = 0; i < limit && bytes[i] && text->length < sizeof text->bytes; i++)
        text->bytes[text->length++] = bytes[i];
}

static void
add_number(struct text *text, long number)
{
    char digits[20];
    size_t n = sizeof digits;

    do {
        digits[--n] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    add(text, digits + n, sizeof digits - n);
}

/* The compiler may call these for copies and zeroing, libc or not. */
void *
memset(void *to, int byte, size_t count)
{
    for (volatile char *p = to; count--; p++)
        *p = (char)byte;
    return to;
}

/* Where a seccomp filter does not even let us end, an illegal instruction does. */
static __attribute__((noreturn)) void
end(long status)
{
    CALL1(exit_group, status);
    __builtin_trap();
}

/* ---- reporting ----------------------------------------------------------------------------------------------- */

static __attribute__((noreturn)) void
leave(const struct text *text)
{
    CALL3(write, PLAN->report, text->bytes, text->length);
    end(1);
}

/* "errno NUMBER STATUS<TAB>TEXT", the label being "STATUS<TAB>TEXT". */
static __attribute__((noreturn)) void
fail(const struct step *step, long error)
{
    struct text text;

    text.length = 0;
    add(&text, "errno ", 6);
    add_number(&text, error);
    add(&text, " ", 1);
    add(&text, (const char *)(uintptr_t)step->label, sizeof text.bytes);
    leave(&text);
}

/* ---- the program to become ----------------------------------------------------------------------------------- */

/* Whether a call was not made at all: the kernel does not have it, or a seccomp filter, which may be bound by now, knows
 * only what is older. */
static int
missing(long result)
{
    return result == -ENOSYS || result == -EPERM;
}

/* 0 when it could be executed by us, else the error. A directory is executable to access(2), not to execve(2). Where
 * nobody may be asked execve will tell. */
static long
executable(u64 path)
{
    long fd = CALL4(openat, AT_FDCWD, path, O_PATH | O_DIRECTORY | O_CLOEXEC, 0);
    long result;

    if (fd >= 0) {
        CALL1(close, fd);
        return EISDIR;
    }
    result = CALL4(faccessat2, AT_FDCWD, path, X_OK, AT_EACCESS);
    if (missing(result))
        result = CALL3(faccessat, AT_FDCWD, path, X_OK);
    if (missing(result))
        return fd == -ENOENT ? ENOENT : 0;
    return -result;
}

/* Find the first candidate that can be executed and make it the list's first. With a literal in args[1] (a search in
 * PATH) all failures read alike; without, the only candidate's own error is told. */
static void
lookup(struct step *step)
{
    u64 *candidates = (u64 *)(uintptr_t)step->args[0];
    long error = ENOENT;

    for (u64 *candidate = candidates; *candidate; candidate++) {
        error = executable(*candidate);
        if (error == 0) {
            *candidates = *candidate;
            return;
        }
    }
    if (step->args[1]) {
        struct text text;
        text.length = 0;
        add(&text, (const char *)(uintptr_t)step->args[1], sizeof text.bytes);
        leave(&text);
    }
    fail(step, error);
}

static void
become(const struct step *step)
{
    u64 *candidate = (u64 *)(uintptr_t)step->args[0];
    long error = ENOENT, result;

    for (; *candidate; candidate++) {
        result = -CALL3(execve, *candidate, step->args[1], step->args[2]);
        if (result != ENOENT && result != ENOTDIR)
            fail(step, result);
        error = error == ENOENT ? result : error;
    }
    fail(step, error);
}

/* ---- the rest ------------------------------------------------------------------------------------------------ */

static void
ready(const struct step *step)
{
    if (PLAN->report != (u32)-1) {
        CALL3(write, PLAN->report, "ready", 5);
        CALL1(close, PLAN->report);
    }
    PLAN->report = (u32)step->args[0];
}

static void
await(const struct step *step)
{
    char byte;
    long result;

    do
        result = CALL3(read, step->args[0], &byte, 1);
    while (result == -EINTR);
    if (result < 0)
        fail(step, -result);
    if (result == 0)
        end(1);
}

static __attribute__((noreturn)) void
ended(int number)
{
    end(128 + number);
}

/* The first process of a pid namespace is deaf to signals that it does not handle: who waits there for oci start is to
 * end by what ends others; but not when its terminal hangs up. Before any step, since a filter may be bound by one. For
 * the program a handler becomes the default again. */
static void
hear(void)
{
    static const u16 numbers[] = {2, 3, 15}; /* SIGINT, SIGQUIT, SIGTERM */
    struct {
        u64 handler, flags;
#if !defined(__riscv)
        u64 restorer; /* x86_64 wants one, though nobody returns */
#endif
        u64 mask;
    } action;

    if (CALL0(getpid) != 1)
        return;
    memset(&action, 0, sizeof action);
    action.handler = (u64)(uintptr_t)ended;
#if !defined(__riscv)
    action.flags = 0x04000000; /* SA_RESTORER */
    action.restorer = action.handler;
#endif
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        CALL4(rt_sigaction, numbers[i], &action, 0, sizeof action.mask);
}

/* CVE-2024-21626: a directory descriptor of the host must not become the working directory. The kernel then answers
 * "(unreachable)/..." without a leading slash. */
static void
check_cwd(const struct step *step)
{
    char path[4096];
    long result = CALL2(getcwd, path, sizeof path);

    if (result < 0)
        fail(step, -result);
    if (path[0] != '/')
        fail(step, ENOENT);
}

struct clone_args {
    u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup;
};

static __attribute__((noreturn)) void
hook_child(const struct step *step, long input, long output)
{
    CALL2(setpgid, 0, 0);
    CALL3(dup3, input, 0, 0);
    CALL3(dup3, output, 1, 0);
    CALL3(dup3, output, 2, 0);
    CALL3(close_range, 3, ~0U, 0);
    CALL3(execve, step->args[0], step->args[1], step->args[2]);
    end(127);
}

/* "STATUS<TAB>TEXT exit status N: the last of its output" */
static __attribute__((noreturn)) void
hook_failed(const struct step *step, const char *how, long number, long output)
{
    struct text text;
    char tail[512];
    long size = CALL3(lseek, output, 0, 2);
    long got = CALL4(pread64, output, tail, sizeof tail, size > (long)sizeof tail ? size - (long)sizeof tail : 0);

    text.length = 0;
    add(&text, "error ", 6);
    add(&text, (const char *)(uintptr_t)step->label, 1024);
    add(&text, how, 64);
    add_number(&text, number);
    if (got > 0) {
        add(&text, ": ", 2);
        add(&text, tail, (size_t)got);
    }
    leave(&text);
}

static void
hook(const struct step *step)
{
    struct clone_args request = {0};
    struct { int64_t seconds, nanoseconds; } limit = {(int64_t)step->args[5], 0};
    struct { int fd; short events, revents; } watched;
    int pidfd = -1, status = 0;
    long input = CALL2(memfd_create, "state", 1), output = CALL2(memfd_create, "output", 1), pid, result;

    if (input < 0 || output < 0)
        fail(step, input < 0 ? -input : -output);
    CALL3(write, input, step->args[3], step->args[4]);
    CALL3(lseek, input, 0, 0);
    request.flags = 0x1000; /* CLONE_PIDFD */
    request.pidfd = (u64)(uintptr_t)&pidfd;
    request.exit_signal = SIGCHLD;
    pid = CALL2(clone3, &request, sizeof request);
    if (missing(pid))
        pid = CALL5(clone, request.flags | request.exit_signal, 0, &pidfd, 0, 0);
    if (pid == 0)
        hook_child(step, input, output);
    if (pid < 0)
        fail(step, -pid);
    watched.fd = pidfd;
    watched.events = 1; /* POLLIN */
    do
        result = CALL5(ppoll, &watched, 1, step->args[5] ? &limit : 0, 0, 8);
    while (result == -EINTR);
    if (result == 0)
        CALL2(kill, -pid, SIGKILL);
    while (CALL4(wait4, pid, &status, 0, 0) == -EINTR)
        ;
    CALL1(close, pidfd);
    CALL1(close, input);
    if (result == 0)
        hook_failed(step, ": killed after its timeout in seconds: ", (long)step->args[5], output);
    if (status & 0x7f)
        hook_failed(step, ": killed by signal ", status & 0x7f, output);
    if (status)
        hook_failed(step, ": exit status ", (status >> 8) & 0xff, output);
    CALL1(close, output);
}

static void
say(struct text *text)
{
    CALL3(write, PLAN->report, text->bytes, text->length);
}

/* Go on as a child (of our own parent, when the flags have CLONE_PARENT): only a child is born into a pid namespace
 * that was joined, or into a cgroup. The parent tells its id and ends. A reader that is gone ends both: SIGPIPE. */
static void
divide(const struct step *step)
{
    struct clone_args request = {0};
    struct text text;
    long pid;

    request.flags = step->args[0];
    if ((int64_t)step->args[1] >= 0) {
        request.flags |= 0x200000000ULL; /* CLONE_INTO_CGROUP */
        request.cgroup = step->args[1];
    }
    pid = CALL2(clone3, &request, sizeof request);
    if (missing(pid) && (int64_t)step->args[1] < 0)
        pid = CALL5(clone, request.flags, 0, 0, 0, 0);
    if (pid < 0)
        fail(step, -pid);
    text.length = 0;
    add(&text, (const char *)(uintptr_t)step->args[pid ? 2 : 3], 64);
    if (!pid) {
        say(&text);
        return;
    }
    add_number(&text, pid);
    say(&text);
    end(0);
}

static void
one_call(struct step *step)
{
    const u64 *a = step->args;
    long result = call(step->nr, a[0], a[1], a[2], a[3], a[4], a[5]);
    int failed = result < 0 && result > -4096;

    if (failed && !(step->flags & MAY_FAIL))
        fail(step, -result);
    if (failed || !step->store)
        return;
    if (step->flags & CANCELS)
        for (unsigned i = 0; i <= (unsigned)step->flags >> MORE_SHIFT; i++)
            ((struct step *)(uintptr_t)step->store)[i].kind = SKIP;
    else
        *(volatile u32 *)(uintptr_t)step->store = (u32)result;
}

__attribute__((noreturn, used)) void
run(void)
{
    struct step *step = PLAN->steps;

    hear();
    while (PLAN->magic == MAGIC && step->kind != END) {
        switch (step->kind) {
        case CALL:
            one_call(step);
            break;
        case READY:
            ready(step);
            break;
        case AWAIT:
            await(step);
            break;
        case LOOKUP:
            lookup(step);
            break;
        case EXEC:
            become(step);
            break;
        case CWD:
            check_cwd(step);
            break;
        case HOOK:
            hook(step);
            break;
        case DIVIDE:
            divide(step);
            break;
        }
        step++;
    }
    end(1);
}

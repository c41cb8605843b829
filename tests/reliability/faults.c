/* Preloaded into a test's process: the n-th call that changes a file under one folder fails as asked.
   Kinds: 1 EIO, 2 ENOSPC, 3 a short write, 4 the process dies before the call (a write is half done). */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static char folder[4096], seen[1 << 16];
static int at, kind, count;

void fault_arm(const char *path, int number, int what) {
    snprintf(folder, sizeof folder, "%s", path);
    at = number, kind = what, count = 0, seen[0] = 0;
}
const char *fault_log(void) { return seen; }

static int in_folder(const char *path) { return folder[0] && path && !strncmp(path, folder, strlen(folder)); }

static int fd_in_folder(int fd) {
    char link[64], target[4096];
    if (!folder[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    if (n < 0) return 0;
    target[n] = 0;
    return in_folder(target);
}

/* Whether this call is the one; errno is set where it has to fail. */
static int hit(const char *name, const char *what) {
    if (strlen(seen) < sizeof seen - 300) snprintf(seen + strlen(seen), 300, "%s %.200s\n", name, what ? what : "");
    if (++count != at) return 0;
    if (kind == 1) errno = EIO;
    if (kind == 2) errno = ENOSPC;
    if (kind == 4 && strcmp(name, "write")) _exit(137);
    return kind;
}

#define REAL(name) ((typeof(&name))dlsym(RTLD_NEXT, #name))
#define FAILS(name, what) { int k = hit(name, what); if (k == 1 || k == 2) return -1; }

static const char *path_of(int fd) {
    static char link[64], target[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, target, sizeof target - 1);
    target[n < 0 ? 0 : n] = 0;
    return target;
}

ssize_t write(int fd, const void *data, size_t size) {
    if (fd_in_folder(fd)) {
        int k = hit("write", path_of(fd));
        if (k == 1 || k == 2) return -1;
        if (k == 3 && size > 1) size /= 2;
        if (k == 4) { REAL(write)(fd, data, size / 2); _exit(137); }
    }
    return REAL(write)(fd, data, size);
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
    if (fd_in_folder(fd)) FAILS("writev", path_of(fd))
    return REAL(writev)(fd, parts, n);
}
int fsync(int fd) {
    if (fd_in_folder(fd)) FAILS("fsync", path_of(fd))
    return REAL(fsync)(fd);
}
int rename(const char *a, const char *b) {
    if (in_folder(a)) FAILS("rename", b)
    return REAL(rename)(a, b);
}
int mkdir(const char *path, mode_t mode) {
    if (in_folder(path)) FAILS("mkdir", path)
    return REAL(mkdir)(path, mode);
}
int rmdir(const char *path) {
    if (in_folder(path)) FAILS("rmdir", path)
    return REAL(rmdir)(path);
}
int unlink(const char *path) {
    if (in_folder(path)) FAILS("unlink", path)
    return REAL(unlink)(path);
}
int unlinkat(int fd, const char *path, int flags) {
    if (in_folder(path) || fd_in_folder(fd)) FAILS("unlinkat", path)
    return REAL(unlinkat)(fd, path, flags);
}

#define OPENS(name) \
    int name(const char *path, int flags, ...) { \
        va_list rest; \
        va_start(rest, flags); \
        mode_t mode = flags & O_CREAT ? va_arg(rest, mode_t) : 0; \
        va_end(rest); \
        if ((flags & O_CREAT) && in_folder(path)) FAILS("open", path) \
        return REAL(name)(path, flags, mode); \
    }
OPENS(open)
OPENS(open64)

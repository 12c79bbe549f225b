/* Stands between a program and the C library: a store that is slow or throws, a clock that jumps.
 *
 * LD_PRELOAD=shim.so FAULT_FILE=file FAULT_BELOW=folder program
 * The file is a struct fault, which another process writes while the program runs. Calls that write below the folder wait
 * `slow_ms`, then fail with `error` if it is not 0; the wall clock is `clock_s` ahead.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct fault { int error; int slow_ms; long long clock_s; };
static const struct fault none;
static const volatile struct fault *fault = &none;
static const char *below;

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

__attribute__((constructor)) static void begin(void) {
    const char *file = getenv("FAULT_FILE");
    below = getenv("FAULT_BELOW");
    int fd = file ? REAL(open)(file, O_RDONLY) : -1;
    if (fd < 0) return;
    void *mapped = mmap(NULL, sizeof(struct fault), PROT_READ, MAP_SHARED, fd, 0);
    if (mapped != MAP_FAILED) fault = mapped;
}

/* Whether a call is to fail, with errno set. */
static int fails(const char *path) {
    if (!fault->error && !fault->slow_ms) return 0;
    if (!path || !below || strncmp(path, below, strlen(below))) return 0;
    if (fault->slow_ms) usleep(1000 * fault->slow_ms);
    errno = fault->error;
    return errno != 0;
}

static int fails_fd(int fd) {
    char link[64], path[PATH_MAX];
    if (!fault->error && !fault->slow_ms) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(path);
}

#define WRITES (O_WRONLY | O_RDWR | O_CREAT)
#define OPENS(name)                                                   \
    int name(const char *path, int flags, ...) {                      \
        va_list rest;                                                 \
        va_start(rest, flags);                                        \
        mode_t mode = va_arg(rest, mode_t);                           \
        va_end(rest);                                                 \
        if (flags & WRITES && fails(path)) return -1;                 \
        return REAL(name)(path, flags, mode);                         \
    }
#define OPENS_AT(name)                                                \
    int name(int at, const char *path, int flags, ...) {              \
        va_list rest;                                                 \
        va_start(rest, flags);                                        \
        mode_t mode = va_arg(rest, mode_t);                           \
        va_end(rest);                                                 \
        if (flags & WRITES && fails(path)) return -1;                 \
        return REAL(name)(at, path, flags, mode);                     \
    }
OPENS(open)
OPENS(open64)
OPENS_AT(openat)
OPENS_AT(openat64)

ssize_t write(int fd, const void *data, size_t size) { return fails_fd(fd) ? -1 : REAL(write)(fd, data, size); }
ssize_t pwrite(int fd, const void *data, size_t size, off_t at) { return fails_fd(fd) ? -1 : REAL(pwrite)(fd, data, size, at); }
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) { return fails_fd(fd) ? -1 : REAL(pwrite64)(fd, data, size, at); }
int fsync(int fd) { return fails_fd(fd) ? -1 : REAL(fsync)(fd); }
int fdatasync(int fd) { return fails_fd(fd) ? -1 : REAL(fdatasync)(fd); }
int mkdir(const char *path, mode_t mode) { return fails(path) ? -1 : REAL(mkdir)(path, mode); }
int unlink(const char *path) { return fails(path) ? -1 : REAL(unlink)(path); }
int rename(const char *from, const char *to) { return fails(to) ? -1 : REAL(rename)(from, to); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int code = REAL(clock_gettime)(clock, now);
    if (clock == CLOCK_REALTIME && !code) now->tv_sec += fault->clock_s;
    return code;
}

int gettimeofday(struct timeval *restrict now, void *restrict zone) {
    int code = REAL(gettimeofday)(now, zone);
    if (!code) now->tv_sec += fault->clock_s;
    return code;
}

time_t time(time_t *out) {
    time_t now = REAL(time)(NULL) + fault->clock_s;
    if (out) *out = now;
    return now;
}

// Writes down every change that a process makes below one directory, in order, as the C library
// is asked for it. The file that SKERRY_SHIM_JOURNAL names gets, per change:
//
//   kind (1 byte), offset or length (8 bytes), lengths of two parts (4 bytes each), the parts
//
// The first part is the path; the second is the bytes written, or the new path. One lock is held
// over the change and its line, so the order is the order in which things happened.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { CREATE = 'c', WRITE = 'w', TRUNCATE = 't', SYNC = 's', SYNC_DIRECTORY = 'S',
       REMOVE = 'r', RENAME = 'n', MAKE_DIRECTORY = 'd' };

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *root;
static size_t root_bytes;
static int journal = -1;

static void *real(const char *name) { return dlsym(RTLD_NEXT, name); }

#define REAL(result, name, ...)                                  \
    static result (*next)(__VA_ARGS__);                          \
    if (!next) next = (result (*)(__VA_ARGS__))real(name)

__attribute__((constructor)) static void start(void) {
    const char *path = getenv("SKERRY_SHIM_JOURNAL");
    root = getenv("SKERRY_SHIM_ROOT");
    if (!path || !root) return;
    root_bytes = strlen(root);
    journal = (int)syscall(SYS_openat, AT_FDCWD, path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (journal < 0) abort();
}

static int watched(const char *path) {
    if (journal < 0 || strncmp(path, root, root_bytes) != 0) return 0;
    return path[root_bytes] == '/' || path[root_bytes] == 0;
}

static const char *below_root(const char *path) {
    return path + root_bytes + (path[root_bytes] == '/');
}

static void put(const void *bytes, size_t length) {
    while (length > 0) {
        long written = syscall(SYS_write, journal, bytes, length);
        if (written <= 0) abort();
        bytes = (const char *)bytes + written;
        length -= (size_t)written;
    }
}

static void note(char kind, uint64_t at, const char *path, const void *second, size_t second_bytes) {
    int before = errno;
    const char *below = below_root(path);
    uint32_t lengths[2] = {(uint32_t)strlen(below), (uint32_t)second_bytes};
    put(&kind, 1);
    put(&at, sizeof at);
    put(lengths, sizeof lengths);
    put(below, lengths[0]);
    put(second, second_bytes);
    errno = before;
}

// The path of an open file, empty if it is none or was removed.
static void path_of(int fd, char *path) {
    char link[64];
    int before = errno;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length > 0 ? length : 0] = 0;
    if (strstr(path, " (deleted)")) path[0] = 0;
    errno = before;
}

static void absolute(int dir, const char *name, char *path) {
    if (name[0] == '/' || dir == AT_FDCWD) {
        snprintf(path, PATH_MAX, "%s", name);
        return;
    }
    char above[PATH_MAX];
    path_of(dir, above);
    if (snprintf(path, PATH_MAX, "%s/%s", above, name) >= PATH_MAX) abort();
}

static int opened(int (*next)(int, const char *, int, ...), int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    absolute(dir, name, path);
    const char *boot = getenv("SKERRY_SHIM_BOOT");
    if (boot && strcmp(path, "/proc/sys/kernel/random/boot_id") == 0) return next(dir, boot, flags, mode);
    if (!watched(path) || !(flags & (O_CREAT | O_TRUNC))) return next(dir, name, flags, mode);
    pthread_mutex_lock(&lock);
    int there = faccessat(AT_FDCWD, path, F_OK, 0) == 0;
    int fd = next(dir, name, flags, mode);
    if (fd >= 0 && !there) note(CREATE, 0, path, "", 0);
    else if (fd >= 0 && (flags & O_TRUNC)) note(TRUNCATE, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return fd;
}

static mode_t mode_of(int flags, va_list arguments) {
    return (flags & (O_CREAT | O_TMPFILE)) ? va_arg(arguments, mode_t) : 0;
}

#define OPENAT(name)                                              \
    int name(int dir, const char *path, int flags, ...) {         \
        va_list arguments;                                        \
        va_start(arguments, flags);                               \
        mode_t mode = mode_of(flags, arguments);                  \
        va_end(arguments);                                        \
        REAL(int, "openat64", int, const char *, int, ...);       \
        return opened(next, dir, path, flags, mode);              \
    }
OPENAT(openat)
OPENAT(openat64)

#define OPEN(name)                                                \
    int name(const char *path, int flags, ...) {                  \
        va_list arguments;                                        \
        va_start(arguments, flags);                               \
        mode_t mode = mode_of(flags, arguments);                  \
        va_end(arguments);                                        \
        REAL(int, "openat64", int, const char *, int, ...);       \
        return opened(next, AT_FDCWD, path, flags, mode);         \
    }
OPEN(open)
OPEN(open64)

ssize_t write(int fd, const void *bytes, size_t length) {
    REAL(ssize_t, "write", int, const void *, size_t);
    char path[PATH_MAX];
    path_of(fd, path);
    if (!watched(path)) return next(fd, bytes, length);
    pthread_mutex_lock(&lock);
    int append = fcntl(fd, F_GETFL) & O_APPEND;
    off_t at = lseek(fd, 0, append ? SEEK_END : SEEK_CUR);
    ssize_t written = next(fd, bytes, length);
    if (written > 0) note(WRITE, (uint64_t)at, path, bytes, (size_t)written);
    pthread_mutex_unlock(&lock);
    return written;
}

#define PWRITE(name)                                                        \
    ssize_t name(int fd, const void *bytes, size_t length, off_t at) {      \
        REAL(ssize_t, "pwrite64", int, const void *, size_t, off_t);        \
        char path[PATH_MAX];                                                \
        path_of(fd, path);                                                  \
        if (!watched(path)) return next(fd, bytes, length, at);             \
        pthread_mutex_lock(&lock);                                          \
        ssize_t written = next(fd, bytes, length, at);                      \
        if (written > 0) note(WRITE, (uint64_t)at, path, bytes, (size_t)written); \
        pthread_mutex_unlock(&lock);                                        \
        return written;                                                     \
    }
PWRITE(pwrite)
PWRITE(pwrite64)

#define FTRUNCATE(name)                                           \
    int name(int fd, off_t length) {                              \
        REAL(int, "ftruncate64", int, off_t);                     \
        char path[PATH_MAX];                                      \
        path_of(fd, path);                                        \
        if (!watched(path)) return next(fd, length);              \
        pthread_mutex_lock(&lock);                                \
        int failed = next(fd, length);                            \
        if (!failed) note(TRUNCATE, (uint64_t)length, path, "", 0); \
        pthread_mutex_unlock(&lock);                              \
        return failed;                                            \
    }
FTRUNCATE(ftruncate)
FTRUNCATE(ftruncate64)

#define SYNCS(name)                                               \
    int name(int fd) {                                            \
        REAL(int, #name, int);                                    \
        char path[PATH_MAX];                                      \
        struct stat status;                                       \
        path_of(fd, path);                                        \
        if (!watched(path) || fstat(fd, &status)) return next(fd); \
        pthread_mutex_lock(&lock);                                \
        int failed = next(fd);                                    \
        if (!failed) note(S_ISDIR(status.st_mode) ? SYNC_DIRECTORY : SYNC, 0, path, "", 0); \
        pthread_mutex_unlock(&lock);                              \
        return failed;                                            \
    }
SYNCS(fsync)
SYNCS(fdatasync)

int rename(const char *from, const char *to) {
    REAL(int, "rename", const char *, const char *);
    if (!watched(from) || !watched(to)) return next(from, to);
    pthread_mutex_lock(&lock);
    int failed = next(from, to);
    const char *below = below_root(to);
    if (!failed) note(RENAME, 0, from, below, strlen(below));
    pthread_mutex_unlock(&lock);
    return failed;
}

int unlinkat(int dir, const char *name, int flags) {
    REAL(int, "unlinkat", int, const char *, int);
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (!watched(path)) return next(dir, name, flags);
    pthread_mutex_lock(&lock);
    int failed = next(dir, name, flags);
    if (!failed) note(REMOVE, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return failed;
}

int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }

int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }

int mkdir(const char *path, mode_t mode) {
    REAL(int, "mkdir", const char *, mode_t);
    if (!watched(path)) return next(path, mode);
    pthread_mutex_lock(&lock);
    int failed = next(path, mode);
    if (!failed) note(MAKE_DIRECTORY, 0, path, "", 0);
    pthread_mutex_unlock(&lock);
    return failed;
}

/* A disk that fails when the test says so: preloaded into a node, it stands before the system calls that write to the
 * node's database. The file that MYCHAT_TEST_FAULTS names has the calls that fail ("write", "sync") and the number of
 * the error; while it is not there, nothing fails. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>
#include <unistd.h>

/* Whether the descriptor is a file of the database. */
static int is_database(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    if (size <= 0) return 0;
    path[size] = 0;
    return strstr(path, "/mychat.db") != NULL;
}

/* Sets errno and says 1 when this call is to fail. */
static int fails(const char *call, int fd) {
    const char *faults = getenv("MYCHAT_TEST_FAULTS");
    char text[64];
    int saved = errno, file = faults ? open(faults, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) {
        errno = saved;
        return 0;
    }
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    text[size > 0 ? size : 0] = 0;
    errno = saved;
    if (strncmp(text, call, strlen(call)) != 0 || !is_database(fd)) return 0;
    errno = atoi(text + strlen(call));
    return 1;
}

#define STAND_BEFORE(result, name, call, parameters, arguments)  \
    result name parameters {                                     \
        static result(*real) parameters;                         \
        if (!real) real = dlsym(RTLD_NEXT, #name);               \
        return fails(call, fd) ? -1 : real arguments;            \
    }

STAND_BEFORE(ssize_t, write, "write", (int fd, const void *bytes, size_t size), (fd, bytes, size))
STAND_BEFORE(ssize_t, pwrite, "write", (int fd, const void *bytes, size_t size, off_t at), (fd, bytes, size, at))
STAND_BEFORE(ssize_t, pwrite64, "write", (int fd, const void *bytes, size_t size, off64_t at), (fd, bytes, size, at))
STAND_BEFORE(int, fsync, "sync", (int fd), (fd))
STAND_BEFORE(int, fdatasync, "sync", (int fd), (fd))

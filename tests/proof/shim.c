/*
 * A disk and a clock that fail when a test says so, laid before the C library's with LD_PRELOAD.
 *
 * Only files of the database (their names end in .db or -wal) are meant, and the mark beside it
 * (-mark), which has a fault of its own and is not logged. The test writes orders into a file that
 * is mapped into memory (SHIM_CONTROL); each write and flush can be logged (SHIM_LOG): a line each
 * of kind, file, offset, length and time, the data behind it.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

struct control {
	int64_t clock;      /* seconds that the clock is ahead */
	int64_t slow;       /* microseconds that a flush takes longer */
	int64_t bad_flush;  /* how many flushes fail with EIO */
	int64_t full;       /* how many writes fail with ENOSPC */
	int64_t bad_write;  /* how many writes fail with EIO */
	int64_t bad_mark;   /* how many writes of the mark fail with EIO */
	int64_t bad_read;   /* how many reads fail with EIO */
	int64_t fired;      /* how many of all those have happened */
};

static struct control none, *orders = &none;
static FILE *written;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

__attribute__((constructor)) static void begin(void) {
	const char *control = getenv("SHIM_CONTROL"), *log = getenv("SHIM_LOG");
	if (control) {
		int file = open(control, O_RDWR);
		void *found = file < 0 ? MAP_FAILED
			: mmap(0, sizeof *orders, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
		if (found == MAP_FAILED) abort();
		orders = found;
	}
	if (log) written = fopen(log, "ab");
}

static int ends_in(const char *name, const char *end) {
	size_t all = strlen(name), part = strlen(end);
	return all >= part && !strcmp(name + all - part, end);
}

/* Return 'd' of the database, 'w' of its log, 'm' of its mark, and 0 of another file. */
static char any_kind_of(int file) {
	char link[64], name[4096];
	snprintf(link, sizeof link, "/proc/self/fd/%d", file);
	ssize_t length = readlink(link, name, sizeof name - 1);
	if (length < 0) return 0;
	name[length] = 0;
	return ends_in(name, ".db") ? 'd' : ends_in(name, "-wal") ? 'w' : ends_in(name, "-mark") ? 'm' : 0;
}

static char kind_of(int file) {
	char kind = any_kind_of(file);
	return kind == 'm' ? 0 : kind;
}

static int fires(int64_t *left) {
	if (*left <= 0) return 0;
	--*left;
	++orders->fired;
	return 1;
}

static void note(char what, char kind, off64_t offset, size_t length, const void *data) {
	if (!written) return;
	struct timespec now;
	pthread_mutex_lock(&lock);
	clock_gettime(CLOCK_MONOTONIC, &now);
	fprintf(written, "%c %c %lld %zu %lld.%09ld\n", what, kind, (long long)offset, length,
		(long long)now.tv_sec, now.tv_nsec);
	if (data) fwrite(data, 1, length, written);
	fflush(written);
	pthread_mutex_unlock(&lock);
}

#define REAL(name) \
	static __typeof__(&name) real; \
	if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

ssize_t pwrite64(int file, const void *data, size_t length, off64_t offset) {
	REAL(pwrite64);
	char kind = any_kind_of(file);
	if (kind == 'm') {
		if (fires(&orders->bad_mark)) { errno = EIO; return -1; }
		return real(file, data, length, offset);
	}
	if (kind && fires(&orders->full)) { errno = ENOSPC; return -1; }
	if (kind && fires(&orders->bad_write)) { errno = EIO; return -1; }
	ssize_t done = real(file, data, length, offset);
	if (kind && done > 0) note('w', kind, offset, (size_t)done, data);
	return done;
}

ssize_t pread64(int file, void *data, size_t length, off64_t offset) {
	REAL(pread64);
	if (orders->bad_read && kind_of(file) && fires(&orders->bad_read)) { errno = EIO; return -1; }
	return real(file, data, length, offset);
}

int ftruncate64(int file, off64_t length) {
	REAL(ftruncate64);
	char kind = kind_of(file);
	int failed = real(file, length);
	if (kind && !failed) note('t', kind, length, 0, 0);
	return failed;
}

static int flushed(int file, int (*real)(int)) {
	char kind = kind_of(file);
	if (kind && orders->slow) { ++orders->fired; usleep((useconds_t)orders->slow); }
	if (kind && fires(&orders->bad_flush)) { errno = EIO; return -1; }
	int failed = real(file);
	if (kind && !failed) note('f', kind, 0, 0, 0);
	return failed;
}

int fdatasync(int file) { REAL(fdatasync); return flushed(file, real); }
int fsync(int file) { REAL(fsync); return flushed(file, real); }

int clock_gettime(clockid_t clock, struct timespec *now) {
	REAL(clock_gettime);
	int failed = real(clock, now);
	if (!failed && clock == CLOCK_REALTIME && orders->clock) {
		now->tv_sec += orders->clock;
		++orders->fired;
	}
	return failed;
}

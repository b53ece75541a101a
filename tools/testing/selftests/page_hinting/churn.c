// SPDX-License-Identifier: GPL-2.0
/*
 * churn [-t|-T] MIB TASKS GAP_MS SECONDS: allocate and free in a loop.
 *
 * Each of TASKS processes maps MIB mebibytes, writes to every page and unmaps all,
 * sleeps for GAP_MS milliseconds, and so on until SECONDS have passed.  Prints a line
 * for each cycle, when all are over: when it began, and how long it took from the
 * map to the end of the unmap, in microseconds.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/* The size of a transparent huge page, and thus of the mapping's alignment. */
#define HUGE		(2UL << 20)
#define MAX_TASKS	64
/* More than a task can do in the longest time there is. */
#define MAX_CYCLES	(1UL << 20)

struct cycle {
	uint64_t start, took;
};

/* What a task has done, in memory that it shares with its parent. */
struct record {
	size_t nr;
	struct cycle cycles[MAX_CYCLES];
};

static void fail(const char *what)
{
	fprintf(stderr, "churn: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now(void)
{
	struct timespec time;

	clock_gettime(CLOCK_MONOTONIC, &time);
	return time.tv_sec * 1000000ULL + time.tv_nsec / 1000;
}

static void cycle(size_t len, size_t pagesize, int advice)
{
	char *map, *mem;

	map = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		fail("mmap");
	mem = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	/* EINVAL: a kernel without transparent huge pages, nothing to advise. */
	if (advice >= 0 && madvise(mem, len, advice) && errno != EINVAL)
		fail("madvise");
	for (size_t i = 0; i < len; i += pagesize)
		((volatile char *)mem)[i] = 1;
	if (munmap(map, len + HUGE))
		fail("munmap");
}

static unsigned long number(const char *word, unsigned long least, unsigned long most)
{
	unsigned long value;
	char *end;

	errno = 0;
	value = strtoul(word, &end, 10);
	if (errno || *end || end == word || *word == '-' || value < least || value > most) {
		fprintf(stderr, "churn: '%s' is not a number from %lu to %lu\n",
			word, least, most);
		exit(2);
	}
	return value;
}

int main(int argc, char **argv)
{
	size_t pagesize = sysconf(_SC_PAGESIZE);
	unsigned long tasks, gap_ms, seconds;
	uint64_t begin, end;
	struct record *records;
	int advice = -1, status, opt;
	struct timespec gap;
	size_t len;

	while ((opt = getopt(argc, argv, "tT")) != -1) {
		if (opt != 't' && opt != 'T')
			return 2;
		advice = opt == 't' ? MADV_HUGEPAGE : MADV_NOHUGEPAGE;
	}
	if (argc - optind != 4) {
		fprintf(stderr, "usage: churn [-t|-T] MIB TASKS GAP_MS SECONDS\n");
		return 2;
	}
	len = number(argv[optind], 1, 1UL << 20) << 20;
	tasks = number(argv[optind + 1], 1, MAX_TASKS);
	gap_ms = number(argv[optind + 2], 0, 1000000);
	seconds = number(argv[optind + 3], 1, 3600);
	gap.tv_sec = gap_ms / 1000;
	gap.tv_nsec = gap_ms % 1000 * 1000000;

	records = mmap(NULL, tasks * sizeof(*records), PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (records == MAP_FAILED)
		fail("mmap");

	begin = now();
	end = begin + seconds * 1000000ULL;
	for (unsigned long task = 0; task < tasks; task++) {
		struct record *record = &records[task];
		pid_t pid = fork();

		if (pid < 0)
			fail("fork");
		if (pid)
			continue;
		while (now() < end && record->nr < MAX_CYCLES) {
			struct cycle *done = &record->cycles[record->nr];
			uint64_t start = now();

			cycle(len, pagesize, advice);
			done->start = start - begin;
			done->took = now() - start;
			record->nr++;
			if (gap_ms)
				nanosleep(&gap, NULL);
		}
		_exit(0);
	}
	/* One that was killed, for want of memory, has no figures to be had. */
	for (unsigned long task = 0; task < tasks; task++) {
		if (wait(&status) < 0)
			fail("wait");
		if (status) {
			fprintf(stderr, "churn: a task ended with status %#x\n", status);
			return 1;
		}
	}
	for (unsigned long task = 0; task < tasks; task++)
		for (size_t i = 0; i < records[task].nr; i++)
			printf("%llu %llu\n",
			       (unsigned long long)records[task].cycles[i].start,
			       (unsigned long long)records[task].cycles[i].took);
	return 0;
}

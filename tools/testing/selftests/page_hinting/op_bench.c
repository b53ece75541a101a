// SPDX-License-Identifier: GPL-2.0
/*
 * op_bench OPERATION MIB CYCLES: what an operation on memory costs.
 *
 * Does CYCLES cycles of the operation and prints a line
 *
 *	OPERATIONS MIN MEDIAN MAX MEAN
 *
 * the number of operations in a cycle, and the ticks of the TSC that one of
 * them took, in thousandths. In a guest under QEMU with -icount shift=0 a tick
 * is an instruction, those of other tasks and of interrupts included. The
 * operations, named after those of will-it-scale that they follow:
 *
 * page_fault1		map MIB mebibytes of anonymous memory, write to each page
 *			and unmap it; an operation is a fault
 * page_fault1_thp	the same with huge pages
 * page_fault3		the same with a shared mapping of a file in tmpfs, which
 *			is truncated after each cycle
 * page_fault3_thp	the same with huge pages; shmem_enabled must be "advise"
 * malloc1		malloc() of MIB mebibytes and free(); nothing else is
 *			touched
 * fork1		fork(), and a child that exits at once
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <x86intrin.h>

#define HUGE	(2UL << 20)

static size_t len;
static int file = -1;

static void fail(const char *what)
{
	fprintf(stderr, "op_bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static void touch(char *mem, size_t step, int advice)
{
	if (madvise(mem, len, advice))
		fail("madvise");
	for (size_t i = 0; i < len; i += step)
		((volatile char *)mem)[i] = 1;
}

/* Memory of this size whose start is aligned to a huge page. */
static char *reserve(char **map)
{
	*map = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (*map == MAP_FAILED)
		fail("mmap");
	return (char *)(((uintptr_t)*map + HUGE - 1) & ~(HUGE - 1));
}

static void anonymous(size_t step, int advice)
{
	char *map, *mem = reserve(&map);

	touch(mem, step, advice);
	if (munmap(map, len + HUGE))
		fail("munmap");
}

static void in_file(size_t step, int advice)
{
	char *map, *mem = reserve(&map);

	if (ftruncate(file, len))
		fail("ftruncate");
	if (mmap(mem, len, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, file, 0) != mem)
		fail("mmap of a file");
	touch(mem, step, advice);
	if (munmap(map, len + HUGE) || ftruncate(file, 0))
		fail("munmap");
}

static void page_fault1(void)
{
	anonymous(sysconf(_SC_PAGESIZE), MADV_NOHUGEPAGE);
}

static void page_fault1_thp(void)
{
	anonymous(HUGE, MADV_HUGEPAGE);
}

static void page_fault3(void)
{
	in_file(sysconf(_SC_PAGESIZE), MADV_NOHUGEPAGE);
}

static void page_fault3_thp(void)
{
	in_file(HUGE, MADV_HUGEPAGE);
}

static void malloc1(void)
{
	/* What the compiler sees used is not left out. */
	void *volatile mem = malloc(len);

	if (!mem)
		fail("malloc");
	free(mem);
}

static void fork1(void)
{
	pid_t pid = fork();

	if (pid < 0)
		fail("fork");
	if (!pid)
		_exit(0);
	if (waitpid(pid, NULL, 0) != pid)
		fail("waitpid");
}

static const struct operation {
	const char *name;
	void (*cycle)(void);
	/* Bytes per operation, 0 if a cycle is one operation. */
	size_t step;
	int on_file;
} operations[] = {
	{ "page_fault1", page_fault1, 4096, 0 },
	{ "page_fault1_thp", page_fault1_thp, HUGE, 0 },
	{ "page_fault3", page_fault3, 4096, 1 },
	{ "page_fault3_thp", page_fault3_thp, HUGE, 1 },
	{ "malloc1", malloc1, 0, 0 },
	{ "fork1", fork1, 0, 0 },
};

static uint64_t timed(void (*cycle)(void))
{
	uint64_t start = __rdtsc();

	cycle();
	return __rdtsc() - start;
}

static const struct operation *find(const char *name)
{
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		if (!strcmp(operations[i].name, name))
			return &operations[i];
	return NULL;
}

int main(int argc, char **argv)
{
	const struct operation *operation = argc == 4 ? find(argv[1]) : NULL;
	unsigned long cycles, per_cycle;
	uint64_t *ticks, sum = 0;

	if (!operation)
		goto usage;
	len = strtoul(argv[2], NULL, 10) << 20;
	cycles = strtoul(argv[3], NULL, 10);
	if (len < HUGE || len % HUGE || !cycles || cycles > 1000000)
		goto usage;
	per_cycle = operation->step ? len / operation->step : 1;

	if (operation->on_file) {
		file = memfd_create("op_bench", 0);
		if (file < 0)
			fail("memfd_create");
	}
	ticks = calloc(cycles, sizeof(*ticks));
	if (!ticks)
		fail("memory");
	/* The first one fills what is filled on demand. */
	timed(operation->cycle);
	for (unsigned long i = 0; i < cycles; i++) {
		ticks[i] = timed(operation->cycle);
		sum += ticks[i];
	}
	qsort(ticks, cycles, sizeof(*ticks), by_size);
	printf("%lu %llu %llu %llu %llu\n", per_cycle,
	       (unsigned long long)(ticks[0] * 1000 / per_cycle),
	       (unsigned long long)(ticks[cycles / 2] * 1000 / per_cycle),
	       (unsigned long long)(ticks[cycles - 1] * 1000 / per_cycle),
	       (unsigned long long)(sum * 1000 / cycles / per_cycle));
	return 0;
usage:
	fprintf(stderr, "usage: op_bench OPERATION MIB CYCLES (MIB even)\n");
	for (size_t i = 0; i < sizeof(operations) / sizeof(*operations); i++)
		fprintf(stderr, "       %s\n", operations[i].name);
	return 2;
}

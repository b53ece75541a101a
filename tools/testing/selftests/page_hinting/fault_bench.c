// SPDX-License-Identifier: GPL-2.0
/*
 * fault_bench [-t|-T] MIB CYCLES: what it costs to touch fresh memory.
 *
 * Maps MIB mebibytes, writes to each page (with -t to each huge page) and unmaps
 * it all, CYCLES times, and prints a line
 *
 *	FAULTS MIN MEDIAN MAX
 *
 * the number of faults of a cycle, and the ticks of the TSC that a fault took
 * with its share of mmap() and munmap(), in thousandths. In a guest under QEMU
 * with -icount shift=0 a tick is an instruction.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
#include <x86intrin.h>

#define HUGE	(2UL << 20)

static void fail(const char *what)
{
	fprintf(stderr, "fault_bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int by_size(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return (x > y) - (x < y);
}

static uint64_t cycle(size_t len, size_t step, int advice)
{
	uint64_t start = __rdtsc();
	char *map, *mem;

	map = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		fail("mmap");
	mem = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	if (madvise(mem, len, advice))
		fail("madvise");
	for (size_t i = 0; i < len; i += step)
		((volatile char *)mem)[i] = 1;
	if (munmap(map, len + HUGE))
		fail("munmap");
	return __rdtsc() - start;
}

int main(int argc, char **argv)
{
	size_t step = sysconf(_SC_PAGESIZE), len, faults;
	int advice = MADV_NOHUGEPAGE, opt;
	unsigned long cycles;
	uint64_t *ticks;

	while ((opt = getopt(argc, argv, "tT")) != -1) {
		if (opt == 't') {
			advice = MADV_HUGEPAGE;
			step = HUGE;
		} else if (opt != 'T') {
			goto usage;
		}
	}
	if (argc != optind + 2)
		goto usage;
	len = strtoul(argv[optind], NULL, 10) << 20;
	cycles = strtoul(argv[optind + 1], NULL, 10);
	if (len < HUGE || len % HUGE || !cycles || cycles > 1000000)
		goto usage;
	faults = len / step;

	ticks = calloc(cycles, sizeof(*ticks));
	if (!ticks)
		fail("memory");
	/* The first one fills what is filled on demand. */
	cycle(len, step, advice);
	for (unsigned long i = 0; i < cycles; i++)
		ticks[i] = cycle(len, step, advice);
	qsort(ticks, cycles, sizeof(*ticks), by_size);
	printf("%zu %llu %llu %llu\n", faults,
	       (unsigned long long)(ticks[0] * 1000 / faults),
	       (unsigned long long)(ticks[cycles / 2] * 1000 / faults),
	       (unsigned long long)(ticks[cycles - 1] * 1000 / faults));
	return 0;
usage:
	fprintf(stderr, "usage: fault_bench [-t|-T] MIB CYCLES (MIB even)\n");
	return 2;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * fault_latency MIB SECONDS: how long single page faults take.
 *
 * Maps MIB mebibytes without huge pages, writes to each page and unmaps all, over
 * and over for SECONDS, and times each write. Prints a histogram, a line
 *
 *	NANOSECONDS COUNT
 *
 * for each bucket that is not empty, the longest latency that belongs to it first:
 * a bucket is about 1/16 wide. A last line
 *
 *	max NANOSECONDS
 *
 * is exact.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

/* Each power of two has this many buckets, as a power of two. */
#define SUB_BITS	4
#define SUB		(1U << SUB_BITS)
#define NR_BUCKETS	((64 - SUB_BITS + 1) * SUB)

static uint64_t buckets[NR_BUCKETS];

static void fail(const char *what)
{
	fprintf(stderr, "fault_latency: %s: %s\n", what, strerror(errno));
	exit(1);
}

static uint64_t now_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static unsigned int bucket(uint64_t ticks)
{
	unsigned int shift;

	if (ticks < SUB)
		return ticks;
	shift = 63 - __builtin_clzll(ticks) - SUB_BITS;
	return shift * SUB + (ticks >> shift);
}

/* The most that is counted in it. */
static uint64_t bucket_end(unsigned int i)
{
	unsigned int shift = i < 2 * SUB ? 0 : i / SUB - 1;

	return ((uint64_t)(i - shift * SUB + 1) << shift) - 1;
}

int main(int argc, char **argv)
{
	uint64_t begin_ns, end_ns, begin_ticks, max = 0;
	unsigned long mib, seconds;
	double ns_per_tick;
	size_t len;

	if (argc != 3)
		goto usage;
	mib = strtoul(argv[1], NULL, 10);
	seconds = strtoul(argv[2], NULL, 10);
	if (!mib || mib > 1UL << 20 || !seconds || seconds > 3600)
		goto usage;
	len = mib << 20;

	begin_ns = now_ns();
	begin_ticks = __rdtsc();
	end_ns = begin_ns + seconds * 1000000000ULL;
	while (now_ns() < end_ns) {
		char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

		if (mem == MAP_FAILED)
			fail("mmap");
		if (madvise(mem, len, MADV_NOHUGEPAGE))
			fail("madvise");
		for (size_t i = 0; i < len; i += 4096) {
			uint64_t start = __rdtsc(), took;

			((volatile char *)mem)[i] = 1;
			took = __rdtsc() - start;
			buckets[bucket(took)]++;
			if (took > max)
				max = took;
		}
		if (munmap(mem, len))
			fail("munmap");
	}
	ns_per_tick = (double)(now_ns() - begin_ns) / (__rdtsc() - begin_ticks);

	for (unsigned int i = 0; i < NR_BUCKETS; i++)
		if (buckets[i])
			printf("%.0f %llu\n", bucket_end(i) * ns_per_tick,
			       (unsigned long long)buckets[i]);
	printf("max %.0f\n", max * ns_per_tick);
	return 0;
usage:
	fprintf(stderr, "usage: fault_latency MIB SECONDS\n");
	return 2;
}

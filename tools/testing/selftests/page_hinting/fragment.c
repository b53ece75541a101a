// SPDX-License-Identifier: GPL-2.0
/*
 * fragment ORDER MIB: leave free blocks of one order behind.
 *
 * Touches MIB mebibytes page by page, then gives back each page whose page
 * frame lies in an even block of ORDER, and keeps the rest.  A block that was
 * wholly ours is then free, its buddy is not, and so it stays at just this
 * order.  Prints the KiB in such blocks, waits for a line (or the end of the
 * input) on stdin, and exits.
 *
 * Needs CAP_SYS_ADMIN: /proc/self/pagemap hides page frames otherwise.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PM_PFRAME_MASK	((1ULL << 55) - 1)
#define PM_PRESENT	(1ULL << 63)
#define MAX_ORDER	10

struct page {
	uint64_t pfn;
	char *addr;
};

static void fail(const char *what)
{
	fprintf(stderr, "fragment: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int by_pfn(const void *a, const void *b)
{
	uint64_t x = ((const struct page *)a)->pfn;
	uint64_t y = ((const struct page *)b)->pfn;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	size_t pagesize = sysconf(_SC_PAGESIZE);
	size_t i, j, per_block, nr, whole = 0;
	unsigned long order, mib;
	struct page *pages;
	uint64_t *map;
	char *mem;
	int fd, c;

	if (argc != 3) {
		fprintf(stderr, "usage: fragment ORDER MIB\n");
		return 2;
	}
	order = strtoul(argv[1], NULL, 10);
	mib = strtoul(argv[2], NULL, 10);
	if (order > MAX_ORDER || !mib || mib > 1UL << 20) {
		fprintf(stderr, "fragment: order 0 to %d, at least 1 MiB\n", MAX_ORDER);
		return 2;
	}
	per_block = 1UL << order;
	nr = (mib << 20) / pagesize;

	mem = mmap(NULL, nr * pagesize, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pages = malloc(nr * sizeof(*pages));
	map = malloc(nr * sizeof(*map));
	if (mem == MAP_FAILED || !pages || !map)
		fail("memory");
	if (madvise(mem, nr * pagesize, MADV_NOHUGEPAGE) && errno != EINVAL)
		fail("madvise");
	for (i = 0; i < nr; i++)
		((volatile char *)mem)[i * pagesize] = 1;

	fd = open("/proc/self/pagemap", O_RDONLY);
	if (fd < 0)
		fail("/proc/self/pagemap");
	if (pread(fd, map, nr * sizeof(*map), (uintptr_t)mem / pagesize * sizeof(*map)) !=
	    (ssize_t)(nr * sizeof(*map)))
		fail("/proc/self/pagemap");
	for (i = 0; i < nr; i++) {
		pages[i].addr = mem + i * pagesize;
		pages[i].pfn = map[i] & PM_PRESENT ? map[i] & PM_PFRAME_MASK : 0;
		if (!pages[i].pfn) {
			fprintf(stderr, "fragment: no page frame in pagemap\n");
			return 1;
		}
	}
	qsort(pages, nr, sizeof(*pages), by_pfn);

	for (i = 0; i < nr; i = j) {
		uint64_t block = pages[i].pfn >> order;

		for (j = i; j < nr && pages[j].pfn >> order == block; j++)
			;
		if (block & 1 || j - i != per_block)
			continue;
		/* A page of its buddy must be ours, or the two might merge. */
		if (j == nr || pages[j].pfn >> order != block + 1)
			continue;
		for (size_t k = i; k < j; k++)
			if (madvise(pages[k].addr, pagesize, MADV_DONTNEED))
				fail("MADV_DONTNEED");
		whole++;
	}
	printf("%zu\n", whole * per_block * pagesize / 1024);
	fflush(stdout);

	do
		c = getchar();
	while (c != '\n' && c != EOF);
	return 0;
}

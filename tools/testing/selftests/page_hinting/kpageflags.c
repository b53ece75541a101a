// SPDX-License-Identifier: GPL-2.0
/*
 * kpageflags: counts pages by what /proc/kpageflags says of them.
 *
 * Looks at all page frames, at NUMBER of them from FIRST on, or with -m at
 * those behind MIB mebibytes of memory of its own. Prints a line of numbers:
 * pages, those that are BUDDY, of these those that are OFFLINE, those that are
 * OFFLINE and not BUDDY, those that are HWPOISON, and of these those that are
 * BUDDY.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/kernel-page-flags.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* Of /proc/self/pagemap, see Documentation/admin-guide/mm/pagemap.rst. */
#define PM_PRESENT	(1ULL << 63)
#define PM_PFN		((1ULL << 55) - 1)

#define HUGE		(2UL << 20)

/* Entries that are read together. */
#define ENTRIES		8192

static struct {
	unsigned long pages, buddy, buddy_offline, offline, hwpoison, hwpoison_buddy;
} nr;

static void fail(const char *what)
{
	fprintf(stderr, "kpageflags: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void usage(void)
{
	fprintf(stderr, "usage: kpageflags [-m MIB | FIRST NUMBER]\n");
	exit(2);
}

static unsigned long number(const char *text)
{
	char *end;
	unsigned long value;

	errno = 0;
	value = strtoul(text, &end, 10);
	if (errno || *end || end == text || text[0] == '-')
		usage();
	return value;
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDONLY);

	if (fd < 0)
		fail(path);
	return fd;
}

/* Entries read, from the first on; fewer than asked for at the end. */
static size_t read_entries(int fd, uint64_t *entries, size_t count, size_t first)
{
	ssize_t done = pread(fd, entries, count * sizeof(*entries),
			     first * sizeof(*entries));

	if (done < 0)
		fail("read");
	return done / sizeof(*entries);
}

static bool has(uint64_t flags, int bit)
{
	return flags & (1ULL << bit);
}

static void count_page(uint64_t flags)
{
	nr.pages++;
	if (has(flags, KPF_BUDDY)) {
		nr.buddy++;
		nr.buddy_offline += has(flags, KPF_OFFLINE);
		nr.hwpoison_buddy += has(flags, KPF_HWPOISON);
	} else {
		nr.offline += has(flags, KPF_OFFLINE);
	}
	nr.hwpoison += has(flags, KPF_HWPOISON);
}

static void count_range(int kpageflags, size_t first, size_t count)
{
	static uint64_t flags[ENTRIES];

	while (count) {
		size_t want = count < ENTRIES ? count : ENTRIES;
		size_t got = read_entries(kpageflags, flags, want, first);

		for (size_t i = 0; i < got; i++)
			count_page(flags[i]);
		if (got < want)
			return;
		first += got;
		count -= got;
	}
}

static void count_own(int kpageflags, unsigned long mib)
{
	long pagesize = sysconf(_SC_PAGESIZE);
	int pagemap = open_file("/proc/self/pagemap");
	size_t len = mib << 20;
	char *map, *mem;

	map = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (map == MAP_FAILED)
		fail("mmap");
	mem = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	madvise(mem, len, MADV_HUGEPAGE);
	memset(mem, 1, len);

	for (char *p = mem; p < mem + len; p += pagesize) {
		uint64_t entry;

		if (read_entries(pagemap, &entry, 1, (uintptr_t)p / pagesize) != 1 ||
		    !(entry & PM_PRESENT) || !(entry & PM_PFN)) {
			fprintf(stderr, "kpageflags: no page behind %p\n", (void *)p);
			exit(1);
		}
		count_range(kpageflags, entry & PM_PFN, 1);
	}
}

int main(int argc, char **argv)
{
	int kpageflags = open_file("/proc/kpageflags");

	if (argc == 1)
		count_range(kpageflags, 0, SIZE_MAX);
	else if (argc == 3 && !strcmp(argv[1], "-m"))
		count_own(kpageflags, number(argv[2]));
	else if (argc == 3)
		count_range(kpageflags, number(argv[1]), number(argv[2]));
	else
		usage();

	printf("%lu %lu %lu %lu %lu %lu\n", nr.pages, nr.buddy, nr.buddy_offline,
	       nr.offline, nr.hwpoison, nr.hwpoison_buddy);
	return 0;
}

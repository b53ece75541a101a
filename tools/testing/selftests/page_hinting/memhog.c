// SPDX-License-Identifier: GPL-2.0
/*
 * memhog: hold touched anonymous memory until told to give it back.
 *
 * Maps MIB mebibytes, writes to every page, prints "touched", waits for a line
 * (or the end of the input) on stdin, or SECONDS, unmaps all of it, prints "freed" and
 * exits.  A caller that reads the two words knows to within a pipe's delay
 * when the memory was in use and when it was free again.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

/* The size of a transparent huge page, and thus of the mapping's alignment. */
#define HUGE	(2UL << 20)

static void usage(void)
{
	fprintf(stderr,
		"usage: memhog [-t|-T] [-s SECONDS] MIB\n"
		"  -t  advise transparent huge pages\n"
		"  -T  refuse transparent huge pages\n"
		"  -s  hold it for SECONDS once it is touched, and read nothing\n");
	exit(2);
}

static void fail(const char *what)
{
	fprintf(stderr, "memhog: %s: %s\n", what, strerror(errno));
	exit(1);
}

static void say(const char *word)
{
	if (puts(word) == EOF || fflush(stdout) == EOF)
		fail("stdout");
}

int main(int argc, char **argv)
{
	long pagesize = sysconf(_SC_PAGESIZE);
	unsigned long long mib;
	int advice = -1;
	char *map, *mem;
	size_t len;
	char *end;
	unsigned int seconds = 0;
	int c, opt;

	while ((opt = getopt(argc, argv, "tTs:")) != -1) {
		switch (opt) {
		case 't':
			advice = MADV_HUGEPAGE;
			break;
		case 'T':
			advice = MADV_NOHUGEPAGE;
			break;
		case 's':
			seconds = strtoul(optarg, &end, 10);
			if (!seconds || *end || optarg[0] == '-')
				usage();
			break;
		default:
			usage();
		}
	}
	if (optind != argc - 1)
		usage();
	errno = 0;
	mib = strtoull(argv[optind], &end, 10);
	if (errno || *end || end == argv[optind] || argv[optind][0] == '-' ||
	    !mib || mib > (SIZE_MAX >> 20) - (HUGE >> 20)) {
		fprintf(stderr, "memhog: bad size '%s'\n", argv[optind]);
		usage();
	}
	len = mib << 20;

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
	say("touched");

	if (seconds) {
		sleep(seconds);
	} else {
		do
			c = getchar();
		while (c != '\n' && c != EOF);
	}

	if (munmap(map, len + HUGE))
		fail("munmap");
	say("freed");
	return 0;
}

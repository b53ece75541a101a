// SPDX-License-Identifier: GPL-2.0
/*
 * zerocheck: allocate memory and look for signs that its pages were wrong.
 *
 * zerocheck [-T] [-s SECONDS] MIB maps MIB mebibytes and
 *   - has the kernel allocate all of it before the first read, since a page
 *     that is only read is the shared zero page and proves nothing;
 *   - reads a word in each 64 bytes: a fresh page must be zero;
 *   - writes to each such word its own index, inverted;
 *   - waits SECONDS, or until it gets SIGUSR1, and reads them all again.
 * A block that a host discards after it was handed out reads zero, or what the
 * host left in it, where the pattern was.
 *
 * -T refuses transparent huge pages; otherwise they are advised.
 *
 * Exit status: 0 all was right, 1 it was not (the first wrong words are shown),
 * 2 the memory was not to be had or the arguments are wrong.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#ifndef MADV_POPULATE_WRITE
#define MADV_POPULATE_WRITE	23
#endif

#define HUGE	(2UL << 20)
/* Distance of the words that are looked at. */
#define STRIDE	64
/* Wrong words that are shown before the rest is only counted. */
#define SHOWN	8

static volatile sig_atomic_t waited;

static void end_wait(int sig)
{
	(void)sig;
	waited = 1;
}

static void fail(const char *what)
{
	fprintf(stderr, "zerocheck: %s: %s\n", what, strerror(errno));
	exit(2);
}

static unsigned long number(const char *s, unsigned long max)
{
	unsigned long n;
	char *end;

	errno = 0;
	n = strtoul(s, &end, 10);
	if (errno || *end || end == s || *s == '-' || n > max) {
		fprintf(stderr, "zerocheck: bad number '%s'\n", s);
		exit(2);
	}
	return n;
}

static volatile uint64_t *word_at(char *map, size_t i)
{
	return (volatile uint64_t *)(map + i * STRIDE);
}

static void wrong(const char *when, size_t word, uint64_t is, uint64_t expected,
		  unsigned long *nr)
{
	if ((*nr)++ < SHOWN)
		printf("%s: offset 0x%zx is 0x%016llx, expected 0x%016llx\n",
		       when, word * STRIDE, (unsigned long long)is,
		       (unsigned long long)expected);
}

int main(int argc, char **argv)
{
	unsigned long mib, seconds = 0, nr = 0;
	int opt, advice = MADV_HUGEPAGE;
	size_t len, words, i;
	char *map;

	while ((opt = getopt(argc, argv, "Ts:")) != -1) {
		switch (opt) {
		case 'T':
			advice = MADV_NOHUGEPAGE;
			break;
		case 's':
			seconds = number(optarg, 86400);
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1) {
		fprintf(stderr, "usage: zerocheck [-T] [-s SECONDS] MIB\n");
		return 2;
	}
	signal(SIGUSR1, end_wait);
	mib = number(argv[optind], 1UL << 30);
	len = mib << 20;
	words = len / STRIDE;

	map = mmap(NULL, len + HUGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (map == MAP_FAILED)
		fail("mmap");
	map = (char *)(((uintptr_t)map + HUGE - 1) & ~(HUGE - 1));
	/* EINVAL: a kernel without transparent huge pages, nothing to advise. */
	if (madvise(map, len, advice) && errno != EINVAL)
		fail("madvise");
	if (madvise(map, len, MADV_POPULATE_WRITE))
		fail("MADV_POPULATE_WRITE");

	for (i = 0; i < words; i++)
		if (*word_at(map, i))
			wrong("fresh", i, *word_at(map, i), 0, &nr);
	for (i = 0; i < words; i++)
		*word_at(map, i) = ~(uint64_t)i;
	while (seconds-- && !waited)
		sleep(1);
	for (i = 0; i < words; i++)
		if (*word_at(map, i) != ~(uint64_t)i)
			wrong("written", i, *word_at(map, i), ~(uint64_t)i, &nr);

	if (nr)
		printf("%lu of %zu words are wrong\n", nr, words);
	return nr ? 1 : 0;
}

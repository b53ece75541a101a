// SPDX-License-Identifier: GPL-2.0
/*
 * shift OUT_KIB IN_KIB STEPS [MORE_KIB]: give memory back and take other memory, by steps.
 *
 * Touches OUT_KIB * STEPS, page by page, and prints "ready".  For each line on
 * stdin it gives OUT_KIB of that back, touches IN_KIB that it had not, and prints
 * the number of the step.  With an OUT_KIB of 0 it is by turns: what one step
 * touched the next one gives back, and each turn takes MORE_KIB more than the one
 * before.  It starts no process and allocates no other memory in a step but page
 * tables, so that what happens to the free lists is its doing.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static void fail(const char *what)
{
	fprintf(stderr, "shift: %s: %s\n", what, strerror(errno));
	exit(1);
}

static char *map(size_t len)
{
	char *mem = mmap(NULL, len, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

	if (mem == MAP_FAILED)
		fail("mmap");
	if (madvise(mem, len, MADV_NOHUGEPAGE) && errno != EINVAL)
		fail("madvise");
	return mem;
}

static void touch(char *mem, size_t len)
{
	for (size_t i = 0; i < len; i += 4096)
		((volatile char *)mem)[i] = 1;
}

static void give_back(char *mem, size_t len)
{
	if (madvise(mem, len, MADV_DONTNEED))
		fail("MADV_DONTNEED");
}

static size_t kib(const char *arg)
{
	unsigned long n = strtoul(arg, NULL, 10);

	if (n > 1UL << 20 || n % 4) {
		fprintf(stderr, "shift: bad size '%s'\n", arg);
		exit(2);
	}
	return n << 10;
}

int main(int argc, char **argv)
{
	size_t out, in, steps, more;
	char *old = NULL, *new;

	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: shift OUT_KIB IN_KIB STEPS [MORE_KIB]\n");
		return 2;
	}
	out = kib(argv[1]);
	in = kib(argv[2]);
	if (!in) {
		fprintf(stderr, "shift: no size to take\n");
		return 2;
	}
	steps = strtoul(argv[3], NULL, 10);
	if (!steps || steps > 1000) {
		fprintf(stderr, "shift: bad number of steps '%s'\n", argv[3]);
		return 2;
	}
	more = argc == 5 ? kib(argv[4]) : 0;
	if (out && more) {
		fprintf(stderr, "shift: only turns can take more\n");
		return 2;
	}
	new = map(out ? in * steps : in + more * (steps / 2));
	if (out) {
		old = map(out * steps);
		touch(old, out * steps);
	}
	puts("ready");
	fflush(stdout);

	for (size_t i = 0; i < steps; i++) {
		int c;

		do
			c = getchar();
		while (c != '\n' && c != EOF);
		if (c == EOF)
			break;
		if (old) {
			give_back(old + i * out, out);
			touch(new + i * in, in);
		} else if (i % 2 == 0) {
			touch(new, in + more * (i / 2));
		} else {
			give_back(new, in + more * (i / 2));
		}
		printf("%zu\n", i + 1);
		fflush(stdout);
	}
	return 0;
}

// SPDX-License-Identifier: GPL-2.0
/*
 * memmax [LIMIT_MIB]: how much memory one process can have.
 *
 * A child, the first that the OOM killer would take, touches anonymous memory
 * until it is killed, or until it has LIMIT_MIB.  Prints the KiB that it had
 * touched, and "killed" or "all".
 *
 * Exit status: 0, or 2 if the child ended in another way.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sysinfo.h>
#include <sys/wait.h>
#include <unistd.h>

/* Address space to touch, if there is no limit: more than any guest has. */
#define MAX_MIB	(1UL << 20)

static void fail(const char *what)
{
	fprintf(stderr, "memmax: %s: %s\n", what, strerror(errno));
	exit(2);
}

static void be_killed_first(void)
{
	int fd = open("/proc/self/oom_score_adj", O_WRONLY);

	if (fd < 0 || write(fd, "1000", 4) != 4)
		fail("/proc/self/oom_score_adj");
	close(fd);
}

/*
 * Most of what is free by huge pages, for speed; then pages one by one, so that
 * the last ones are had as well, whatever their place.
 */
static void touch(volatile unsigned long *touched, unsigned long pages, long size)
{
	struct sysinfo info;
	unsigned long small;
	char *mem;

	be_killed_first();
	if (sysinfo(&info))
		fail("sysinfo");
	small = info.freeram / 16 * 15 / size * info.mem_unit;
	mem = mmap(NULL, pages * size, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (mem == MAP_FAILED)
		fail("mmap");
	if (small < pages &&
	    madvise(mem + small * size, (pages - small) * size, MADV_NOHUGEPAGE) &&
	    errno != EINVAL)
		fail("madvise");
	for (unsigned long i = 0; i < pages; i++) {
		((volatile char *)mem)[i * size] = 1;
		*touched = i + 1;
	}
}

int main(int argc, char **argv)
{
	long size = sysconf(_SC_PAGESIZE);
	unsigned long mib = MAX_MIB;
	volatile unsigned long *touched;
	int status;
	pid_t pid;

	if (argc > 1)
		mib = strtoul(argv[1], NULL, 10);
	if (argc > 2 || !mib || mib > MAX_MIB) {
		fprintf(stderr, "usage: memmax [LIMIT_MIB]\n");
		return 2;
	}
	touched = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (touched == MAP_FAILED)
		fail("mmap");

	pid = fork();
	if (pid < 0)
		fail("fork");
	if (!pid) {
		touch(touched, (mib << 20) / size, size);
		_exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		fail("waitpid");
	if (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL)
		printf("%lu killed\n", *touched * size / 1024);
	else if (WIFEXITED(status) && !WEXITSTATUS(status))
		printf("%lu all\n", *touched * size / 1024);
	else
		return 2;
	return 0;
}

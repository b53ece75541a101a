// SPDX-License-Identifier: GPL-2.0
/*
 * finit_module FILE: load the kernel module FILE, by finit_module(2).
 *
 * Prints "ok", or the name of the errno that the kernel gave, which every
 * insmod translates into words of its own.  The exit status says only whether
 * the question could be put.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	int fd;

	if (argc != 2) {
		fprintf(stderr, "usage: finit_module FILE\n");
		return 2;
	}

	fd = open(argv[1], O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		fprintf(stderr, "finit_module: %s: %s\n", argv[1], strerror(errno));
		return 2;
	}
	puts(syscall(SYS_finit_module, fd, "", 0) ? strerrorname_np(errno) : "ok");
	return 0;
}

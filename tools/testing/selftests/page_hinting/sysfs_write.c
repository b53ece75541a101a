// SPDX-License-Identifier: GPL-2.0
/*
 * sysfs_write FILE VALUE: write VALUE, as it is and in one write(2), to FILE.
 *
 * Prints "ok", or the name of the errno (EINVAL, EACCES, ...) that open(2) or
 * write(2) gave.  A shell can't tell the one error from the other.  The exit
 * status says only whether the question could be put.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	const char *result = "ok";
	ssize_t len, done;
	int fd;

	if (argc != 3) {
		fprintf(stderr, "usage: sysfs_write FILE VALUE\n");
		return 2;
	}

	fd = open(argv[1], O_WRONLY);
	if (fd < 0) {
		puts(strerrorname_np(errno));
		return 0;
	}
	len = strlen(argv[2]);
	done = write(fd, argv[2], len);
	if (done < 0)
		result = strerrorname_np(errno);
	else if (done != len)
		result = "short";
	close(fd);
	puts(result);
	return 0;
}

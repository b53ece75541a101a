// SPDX-License-Identifier: GPL-2.0
/*
 * sysfs_write FILE VALUE...: write each VALUE, as it is and in one write(2), to
 * FILE.
 *
 * Prints for each "ok", or the name of the errno (EINVAL, EACCES, ...) that
 * open(2) or write(2) gave.  A shell can't tell the one error from the other,
 * and where starting a program is slow, one call had better do for many values.
 * The exit status says only whether the question could be put.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

static const char *write_value(const char *file, const char *value)
{
	const char *result = "ok";
	size_t len = strlen(value);
	ssize_t done;
	int fd;

	fd = open(file, O_WRONLY);
	if (fd < 0)
		return strerrorname_np(errno);
	done = write(fd, value, len);
	if (done < 0)
		result = strerrorname_np(errno);
	else if ((size_t)done != len)
		result = "short";
	close(fd);
	return result;
}

int main(int argc, char **argv)
{
	if (argc < 3) {
		fprintf(stderr, "usage: sysfs_write FILE VALUE...\n");
		return 2;
	}
	for (int i = 2; i < argc; i++)
		puts(write_value(argv[1], argv[i]));
	return 0;
}

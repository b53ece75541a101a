// SPDX-License-Identifier: GPL-2.0
/*
 * sysfs_poll FILE SECONDS: read FILE, print "polling", and wait by poll(2) until
 * it says that there is news.
 *
 * Prints what is there then. Fails with status 1 if there was no news in that
 * time.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static ssize_t read_again(int fd, char *buf, size_t size)
{
	ssize_t len = pread(fd, buf, size - 1, 0);

	if (len < 0) {
		fprintf(stderr, "sysfs_poll: read: %s\n", strerror(errno));
		exit(2);
	}
	buf[len] = '\0';
	return len;
}

int main(int argc, char **argv)
{
	struct pollfd pfd = { .events = POLLPRI | POLLERR };
	char buf[4096];
	int n;

	if (argc != 3) {
		fprintf(stderr, "usage: sysfs_poll FILE SECONDS\n");
		return 2;
	}
	pfd.fd = open(argv[1], O_RDONLY);
	if (pfd.fd < 0) {
		fprintf(stderr, "sysfs_poll: %s: %s\n", argv[1], strerror(errno));
		return 2;
	}
	/* News is what comes after a read. */
	read_again(pfd.fd, buf, sizeof(buf));
	puts("polling");
	fflush(stdout);
	n = poll(&pfd, 1, atoi(argv[2]) * 1000);
	if (n < 0) {
		fprintf(stderr, "sysfs_poll: poll: %s\n", strerror(errno));
		return 2;
	}
	if (!n)
		return 1;
	read_again(pfd.fd, buf, sizeof(buf));
	fputs(buf, stdout);
	return 0;
}

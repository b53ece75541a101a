// SPDX-License-Identifier: GPL-2.0
/*
 * on_node NODE COMMAND [ARGUMENT]...: runs the command with all of its memory
 * on one NUMA node.
 */
#include <errno.h>
#include <linux/mempolicy.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	unsigned long nodes;
	char *end;

	if (argc < 3) {
		fprintf(stderr, "usage: on_node NODE COMMAND [ARGUMENT]...\n");
		return 2;
	}
	nodes = strtoul(argv[1], &end, 10);
	if (*end || end == argv[1] || nodes >= 8 * sizeof(nodes)) {
		fprintf(stderr, "on_node: bad node '%s'\n", argv[1]);
		return 2;
	}
	nodes = 1UL << nodes;
	/* The kernel takes one from the number of bits. */
	if (syscall(SYS_set_mempolicy, MPOL_BIND, &nodes, 8 * sizeof(nodes) + 1)) {
		fprintf(stderr, "on_node: %s\n", strerror(errno));
		return 1;
	}
	execvp(argv[2], argv + 2);
	fprintf(stderr, "on_node: %s: %s\n", argv[2], strerror(errno));
	return 1;
}

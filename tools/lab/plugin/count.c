// SPDX-License-Identifier: GPL-2.0
/*
 * A TCG plugin for QEMU that counts instructions of a guest whose CPUs take turns in
 * one thread:
 *
 *	-plugin count.so,mark=ADDR,from=ADDR,to=ADDR,call=ADDR,list=ADDR
 *
 * At each execution of a mark it says what was executed since the last one:
 *
 *	mark INSTRUCTIONS SPANS SUM MAX CALLS LISTS
 *
 * all instructions; how often one of the "to" was reached from one of the "from" on
 * the same CPU, that CPU's instructions from the one to the other, together and at
 * most; and how often one of the "call", and of the "list", was executed. Each may be
 * given several times, mark as well. Addresses are virtual and hexadecimal.
 *
 *	cc -shared -fPIC -O2 -o count.so count.c
 *
 * The declarations are those of qemu-plugin.h that every version of it has, so
 * that the header is not needed. QEMU 9.0 and later wants -DVERSION=2 or more.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifndef VERSION
#define VERSION 1
#endif

typedef uint64_t plugin_id;
struct tb;
struct insn;
enum { NO_REGS };

void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id id,
		void (*cb)(plugin_id id, struct tb *tb));
void qemu_plugin_register_vcpu_insn_exec_cb(struct insn *insn,
		void (*cb)(unsigned int cpu, void *data), int flags, void *data);
size_t qemu_plugin_tb_n_insns(const struct tb *tb);
struct insn *qemu_plugin_tb_get_insn(const struct tb *tb, size_t i);
uint64_t qemu_plugin_insn_vaddr(const struct insn *insn);
void qemu_plugin_outs(const char *text);

__attribute__((visibility("default"))) int qemu_plugin_version = VERSION;

enum what { MARK, FROM, TO, CALL, LIST, NR_WHAT };
static const char *const names[NR_WHAT] = {
	"mark=", "from=", "to=", "call=", "list="
};

#define MOST	64
static uint64_t addresses[NR_WHAT][MOST];
static unsigned int nr[NR_WHAT];

/* CPUs that the lab gives a guest. */
#define MOST_CPUS	64
static struct {
	uint64_t executed, start;
	bool in_span;
} cpus[MOST_CPUS];
/* What each had executed at the last mark. */
static uint64_t marked[MOST_CPUS];
static uint64_t calls, lists;
static uint64_t spans, sum, most;

static void on_insn(unsigned int cpu, void *data)
{
	cpus[cpu % MOST_CPUS].executed++;
}

static void on_call(unsigned int cpu, void *data)
{
	calls++;
}

static void on_list(unsigned int cpu, void *data)
{
	lists++;
}

static void on_from(unsigned int cpu, void *data)
{
	cpu %= MOST_CPUS;
	cpus[cpu].start = cpus[cpu].executed;
	cpus[cpu].in_span = true;
}

static void on_to(unsigned int cpu, void *data)
{
	uint64_t span;

	cpu %= MOST_CPUS;
	if (!cpus[cpu].in_span)
		return;
	cpus[cpu].in_span = false;
	span = cpus[cpu].executed - cpus[cpu].start;
	spans++;
	sum += span;
	if (span > most)
		most = span;
}

static void on_mark(unsigned int cpu, void *data)
{
	uint64_t executed = 0;
	char line[160];

	/* A CPU that is in a span goes on with it. */
	for (int i = 0; i < MOST_CPUS; i++) {
		executed += cpus[i].executed - marked[i];
		marked[i] = cpus[i].executed;
	}
	snprintf(line, sizeof(line), "mark %llu %llu %llu %llu %llu %llu\n",
		 (unsigned long long)executed, (unsigned long long)spans,
		 (unsigned long long)sum, (unsigned long long)most,
		 (unsigned long long)calls, (unsigned long long)lists);
	qemu_plugin_outs(line);
	calls = lists = spans = sum = most = 0;
}

static void on_translation(plugin_id id, struct tb *tb)
{
	static void (*const handlers[NR_WHAT])(unsigned int cpu, void *data) = {
		on_mark, on_from, on_to, on_call, on_list
	};
	size_t n = qemu_plugin_tb_n_insns(tb);

	for (size_t i = 0; i < n; i++) {
		struct insn *insn = qemu_plugin_tb_get_insn(tb, i);
		uint64_t address = qemu_plugin_insn_vaddr(insn);

		for (int what = 0; what < NR_WHAT; what++)
			for (unsigned int j = 0; j < nr[what]; j++)
				if (addresses[what][j] == address)
					qemu_plugin_register_vcpu_insn_exec_cb(insn,
						handlers[what], NO_REGS, NULL);
		qemu_plugin_register_vcpu_insn_exec_cb(insn, on_insn, NO_REGS, NULL);
	}
}

__attribute__((visibility("default")))
int qemu_plugin_install(plugin_id id, const void *info, int argc, char **argv)
{
	for (int i = 0; i < argc; i++) {
		int what;

		for (what = 0; what < NR_WHAT; what++)
			if (!strncmp(argv[i], names[what], strlen(names[what])))
				break;
		if (what == NR_WHAT || nr[what] == MOST) {
			fprintf(stderr, "count: bad argument %s\n", argv[i]);
			return -1;
		}
		addresses[what][nr[what]++] =
			strtoull(argv[i] + strlen(names[what]), NULL, 16);
	}
	qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
	return 0;
}

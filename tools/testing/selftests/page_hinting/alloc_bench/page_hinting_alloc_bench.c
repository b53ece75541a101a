// SPDX-License-Identifier: GPL-2.0
/*
 * page_hinting_alloc_bench: what a pair of alloc_pages() and __free_pages() costs.
 *
 * Each reading of debugfs page_hinting_alloc_bench measures all orders anew, in
 * ticks of the TSC: instructions in a guest under QEMU with -icount shift=0,
 * where the TSC counts nothing else. Interrupts are off while a pair runs, so
 * a figure repeats to the instruction if the free lists are in the same state.
 * The state is therefore made, not found; a line
 *
 *	ORDER STATE PAIRS MIN MEDIAN MEAN_MILLI
 *
 * is about one of these:
 *
 * hit	orders in the per-CPU lists: each pair gets what the one before it freed
 * bulk	the same, many blocks at once: the per-CPU lists are filled from the
 *	free lists and emptied into them; PAIRS blocks, a mean alone
 * whole	other orders: a free block of the order is first in its list and its
 *	buddy is in use, so that nothing is split or merged
 * split	other orders: the lists of all smaller orders than the largest are
 *	empty, so that each pair splits a block of that order and merges it
 */
#include <linux/debugfs.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/seq_file.h>
#include <linux/sort.h>
#include <asm/tsc.h>

#define NR_PAIRS	1024
#define NR_HELD		8192
#define GFP_BENCH	(GFP_NOWAIT | __GFP_NOWARN)

static u32 ticks[NR_PAIRS];
static struct page *held[NR_HELD];
static u8 held_order[NR_HELD];
static unsigned int nr_held;

static bool hold(struct page *page, unsigned int order)
{
	if (!page)
		return false;
	if (nr_held == NR_HELD) {
		__free_pages(page, order);
		return false;
	}
	held_order[nr_held] = order;
	held[nr_held++] = page;
	return true;
}

static void release(void)
{
	while (nr_held) {
		nr_held--;
		if (held[nr_held])
			__free_pages(held[nr_held], held_order[nr_held]);
	}
}

/* Frees each held block of the order whose buddy is held too. */
static unsigned int free_every_other(unsigned int order)
{
	unsigned int i, j, freed = 0;

	for (i = 0; i < nr_held; i++) {
		unsigned long buddy;

		if (!held[i] || held_order[i] != order)
			continue;
		buddy = page_to_pfn(held[i]) ^ (1UL << order);
		for (j = 0; j < nr_held; j++)
			if (held[j] && held_order[j] == order && page_to_pfn(held[j]) == buddy)
				break;
		if (j == nr_held)
			continue;
		__free_pages(held[i], order);
		held[i] = NULL;
		freed++;
		/* The buddy stays, and must not be freed in its turn. */
		held_order[j] |= 0x80;
	}
	for (j = 0; j < nr_held; j++)
		held_order[j] &= 0x7f;
	return freed;
}

static bool is_listed(struct free_area *area)
{
#ifdef CONFIG_PAGE_HINTING
	if (!list_empty(&area->offline_list[MIGRATE_UNMOVABLE]))
		return true;
#endif
	return !list_empty(&area->free_list[MIGRATE_UNMOVABLE]);
}

/* Takes the free blocks of the orders between these, the second excluded. */
static bool empty_lists(struct seq_file *m, unsigned int order, unsigned int end)
{
	struct page *page = alloc_pages(GFP_BENCH, MAX_PAGE_ORDER);
	struct zone *zone;
	unsigned int i;

	if (!page)
		return false;
	zone = page_zone(page);
	__free_pages(page, MAX_PAGE_ORDER);
	for (i = end; i-- > order;) {
		/* The per-CPU lists would take a larger block too, and split that. */
		unsigned int by = min(i, pageblock_order - 1);

		while (is_listed(&zone->free_area[i])) {
			if (hold(alloc_pages(GFP_BENCH, by), by))
				continue;
			seq_printf(m, "%u split: order %u is not empty after %u blocks\n",
				   order, i, nr_held);
			return false;
		}
	}
	return true;
}

static int by_size(const void *a, const void *b)
{
	u32 x = *(const u32 *)a, y = *(const u32 *)b;

	return (x > y) - (x < y);
}

static noinline struct page *pair(unsigned int order)
{
	struct page *page = alloc_pages(GFP_BENCH, order);

	if (page)
		__free_pages(page, order);
	return page;
}

static noinline struct page *no_pair(unsigned int order)
{
	OPTIMIZER_HIDE_VAR(order);
	return (struct page *)(unsigned long)(order + 1);
}

static bool measure_with(struct page *(*f)(unsigned int order), unsigned int order)
{
	unsigned long flags;
	unsigned int i;
	bool good = true;

	for (i = 0; i < NR_PAIRS; i++) {
		u64 start;

		local_irq_save(flags);
		start = rdtsc_ordered();
		good &= !!f(order);
		ticks[i] = rdtsc_ordered() - start;
		local_irq_restore(flags);
	}
	return good;
}

/* What is measured without a pair. */
static u32 overhead(void)
{
	measure_with(no_pair, 0);
	sort(ticks, NR_PAIRS, sizeof(*ticks), by_size, NULL);
	return ticks[NR_PAIRS / 2];
}

static void report_pairs(struct seq_file *m, unsigned int order, const char *state)
{
	u32 none = overhead();
	u64 sum = 0;
	unsigned int i;

	if (!measure_with(pair, order)) {
		seq_printf(m, "%u %s: no memory\n", order, state);
		return;
	}
	for (i = 0; i < NR_PAIRS; i++)
		sum += ticks[i] - none;
	sort(ticks, NR_PAIRS, sizeof(*ticks), by_size, NULL);
	seq_printf(m, "%u %s %u %u %u %llu\n", order, state, NR_PAIRS, ticks[0] - none,
		   ticks[NR_PAIRS / 2] - none, div_u64(sum * 1000, NR_PAIRS));
}

static void report_bulk(struct seq_file *m, unsigned int order, unsigned int blocks)
{
	unsigned long flags;
	u64 best = U64_MAX, sum = 0;
	unsigned int i, run;

	for (run = 0; run < 5; run++) {
		u64 start;

		local_irq_save(flags);
		start = rdtsc_ordered();
		for (i = 0; i < blocks; i++) {
			held[i] = alloc_pages(GFP_BENCH, order);
			if (!held[i])
				break;
		}
		blocks = i;
		while (i)
			__free_pages(held[--i], order);
		start = rdtsc_ordered() - start;
		local_irq_restore(flags);
		best = min(best, start);
		sum += start;
	}
	if (blocks)
		seq_printf(m, "%u bulk %u %llu %llu %llu\n", order, blocks,
			   div_u64(best, blocks), div_u64(sum, 5 * blocks),
			   div_u64(sum * 1000, 5 * blocks));
}

static int page_hinting_alloc_bench_show(struct seq_file *m, void *v)
{
	static const u8 cached[] = { 0, 3, 9 };
	static const u16 in_bulk[] = { 512, 512, 64 };
	unsigned int i, order;

	for (i = 0; i < ARRAY_SIZE(cached); i++) {
		report_pairs(m, cached[i], "hit");
		report_bulk(m, cached[i], in_bulk[i]);
	}
	for (order = 4; order <= 8; order++) {
		if (!empty_lists(m, order, MAX_PAGE_ORDER)) {
			release();
			continue;
		}
		report_pairs(m, order, "split");
		for (i = 0; i < 64; i++)
			hold(alloc_pages(GFP_BENCH, order), order);
		if (free_every_other(order) < 16)
			seq_printf(m, "%u whole: no buddies\n", order);
		else
			report_pairs(m, order, "whole");
		release();
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(page_hinting_alloc_bench);

static struct dentry *file;

static int __init alloc_bench_init(void)
{
	file = debugfs_create_file("page_hinting_alloc_bench", 0400, NULL, NULL,
				   &page_hinting_alloc_bench_fops);
	return PTR_ERR_OR_ZERO(file);
}
module_init(alloc_bench_init);

static void __exit alloc_bench_exit(void)
{
	debugfs_remove(file);
}
module_exit(alloc_bench_exit);

MODULE_DESCRIPTION("Measures alloc_pages() and __free_pages()");
MODULE_LICENSE("GPL");

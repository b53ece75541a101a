// SPDX-License-Identifier: GPL-2.0
/*
 * page_hinting_sim: a host for tests, inside the guest
 *
 * Registers as the reporting device of a guest that has none, and answers as a
 * test tells it to: at once, late, never, out of order, twice, with errors, or in any of
 * these ways by chance.
 * While a block is with it, the block is filled with a pattern, and before it
 * is answered the pattern is verified: whoever used the block in between shows
 * as corruption here, or has the pattern in its own data.
 *
 * /sys/module/page_hinting_sim/parameters/
 *   mode       how what is submitted from now on is answered
 *   delay_ms   how late; for the modes late and reorder, and the mean in random
 *   seed       at load only: what the chance of the mode random begins with
 *   sync       at load only: no hinting_ops, as hv_balloon
 *   capacity   at load only: ranges that may be in flight
 *   errnum     what the mode error refuses with, EIO if 0
 *   oom_ms     if not 0: all that is held is answered so many milliseconds after
 *              memory runs out, before a process is killed
 * /sys/kernel/debug/page_hinting_sim/
 *   release    write N: answer all that is held now, in N milliseconds
 *   poke       write anything: change a word of what is held, as somebody would
 *              who uses a block too early
 *   lows       a line "node, zone, least eligible pages" for each zone with memory
 *   held       a line "first page frame, pages" for each range that is held
 *   contig     write "first page frame, pages": allocate just these, until the
 *              file is closed; a third number is for release, just before, and
 *              ENODATA if none of the pages is held then
 *   blocks     write "order, movable or unmovable or atomic": allocate such a
 *              block, and keep all of them until the file is closed
 *   sweep      write "first page frame, pages": allocate, page by page, what of
 *              these is free, and keep it until the file is closed; then read who
 *              has them, see sim_sweep_read()
 *   the rest   counters; see struct sim_counters
 *
 * submit(), reap() and arm() allocate nothing. Answers come from a thread of
 * this module, and page_hinting_notify() is called from a hard interrupt, as it
 * is by a real device.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/align.h>
#include <linux/bitmap.h>
#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/gfp.h>
#include <linux/highmem.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/page_hinting.h>
#include <linux/page_reporting.h>
#include <linux/poison.h>
#include <linux/prandom.h>
#include <linux/scatterlist.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/swap.h>
#include <linux/wait.h>

enum sim_mode {
	SIM_NOW,
	/* After delay_ms. */
	SIM_LATE,
	/* When released. */
	SIM_NEVER,
	/* After delay_ms all that there is, the newest first. */
	SIM_REORDER,
	/* At once, then once more, then something that was never submitted. */
	SIM_TWICE,
	/* The submission fails. */
	SIM_ERROR,
	/* Each request in one of these ways, but never. */
	SIM_RANDOM,
};

static const char * const sim_modes[] = {
	[SIM_NOW]	= "now",
	[SIM_LATE]	= "late",
	[SIM_NEVER]	= "never",
	[SIM_REORDER]	= "reorder",
	[SIM_TWICE]	= "twice",
	[SIM_ERROR]	= "error",
	[SIM_RANDOM]	= "random",
};

static enum sim_mode sim_mode = SIM_NOW;

static int sim_mode_set(const char *val, const struct kernel_param *kp)
{
	int mode = sysfs_match_string(sim_modes, val);

	if (mode < 0)
		return mode;
	WRITE_ONCE(sim_mode, mode);
	return 0;
}

static int sim_mode_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", sim_modes[READ_ONCE(sim_mode)]);
}

static const struct kernel_param_ops sim_mode_ops = {
	.set = sim_mode_set,
	.get = sim_mode_get,
};

module_param_cb(mode, &sim_mode_ops, NULL, 0644);
MODULE_PARM_DESC(mode, "now, late, never, reorder, twice, error or random");

static uint delay_ms = 20;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "How late the modes late and reorder answer, in milliseconds");

static uint seed = 1;
module_param(seed, uint, 0444);
MODULE_PARM_DESC(seed, "What the chance of the mode random begins with");

static uint oom_ms;
module_param(oom_ms, uint, 0644);
MODULE_PARM_DESC(oom_ms, "If not 0, how long after memory runs out all is answered, in milliseconds");

static uint errnum;
module_param(errnum, uint, 0644);
MODULE_PARM_DESC(errnum, "The number of the error that the mode error refuses with");

static bool sync;
module_param(sync, bool, 0444);
MODULE_PARM_DESC(sync, "Offer the synchronous report() alone");

static uint capacity = PAGE_REPORTING_CAPACITY;
module_param(capacity, uint, 0444);
MODULE_PARM_DESC(capacity, "Ranges that may be in flight together");

/**
 * struct sim_request - what the host was given and has not returned
 * @list: in one of the lists of struct sim
 * @token: what reap() returns, NULL for a report()
 * @sg: the ranges
 * @nents: how many ranges
 * @nr_pages: their size in pages
 * @seq: counts submissions, and makes the pattern differ between two
 * @due: when to answer, KTIME_MAX for never
 * @newest_first: answer what was submitted later before it
 * @twice: return the token a second time
 * @answered: for a report(), whose caller waits for it
 */
struct sim_request {
	struct list_head list;
	void *token;
	struct scatterlist sg[PAGE_REPORTING_CAPACITY];
	unsigned int nents;
	unsigned long nr_pages;
	u64 seq;
	ktime_t due;
	bool newest_first;
	bool twice;
	bool answered;
};

/**
 * struct sim_counters - what has happened since the module was loaded
 * @submitted: requests taken, those of page reporting included
 * @acked: requests that were answered, and that the guest has taken back
 * @acked_kb: their size
 * @cancelled: requests given back because the device went
 * @errors: requests refused in mode error
 * @reports: requests among @submitted that came through report()
 * @ragged: entries of a report() that are no block: a power of two in size, and
 *	aligned to it
 * @reordered: requests answered before one that is older
 * @doubled: tokens returned a second time
 * @bogus: tokens returned that were never submitted
 * @corrupted: 64-bit words that somebody wrote to while the host had them
 * @poisoned: pages not looked at, since they had become bad
 * @in_flight_kb: memory submitted and not yet returned
 * @in_flight_peak_kb: the most of it at a time
 * @ranges: ranges submitted and not yet returned
 * @ranges_peak: the most of them at a time
 */
struct sim_counters {
	u64 submitted;
	u64 acked;
	u64 acked_kb;
	u64 cancelled;
	u64 errors;
	u64 reports;
	u64 ragged;
	u64 reordered;
	u64 doubled;
	u64 bogus;
	u64 corrupted;
	u64 poisoned;
	u64 in_flight_kb;
	u64 in_flight_peak_kb;
	u64 ranges;
	u64 ranges_peak;
};

static struct sim {
	struct page_reporting_dev_info dev;
	struct task_struct *host;
	struct dentry *debugfs;
	struct irq_work interrupt;
	/* For callers of report(). */
	wait_queue_head_t answered;

	/* Protects all that follows, but what a request says once submitted. */
	spinlock_t lock;
	struct list_head unused;
	/* The oldest first; the host's thread takes one out to answer it. */
	struct list_head held;
	struct list_head done;
	/* Call page_hinting_notify() for the next answer. */
	bool armed;
	/* The device is about to be removed: no report() may wait any longer. */
	bool gone;
	void *again;
	bool bogus;
	u64 seq;
	struct rnd_state chance;
	struct sim_counters count;

	/* One more than page hinting has, for a report(). */
	struct sim_request requests[PAGE_HINTING_REQUESTS + 1];
} sim = {
	.lock = __SPIN_LOCK_UNLOCKED(sim.lock),
	.unused = LIST_HEAD_INIT(sim.unused),
	.held = LIST_HEAD_INIT(sim.held),
	.done = LIST_HEAD_INIT(sim.done),
};

#define SIM_WORDS	(PAGE_SIZE / sizeof(u64))

/* Corrupted words that are shown before the rest is only counted. */
#define SIM_SHOWN	16

static u64 sim_pattern(const struct sim_request *req, struct page *page)
{
	return (req->seq * 0x9e3779b97f4a7c15ULL) ^ page_to_pfn(page);
}

static void sim_fill(struct page *page, u64 word)
{
	void *addr = kmap_local_page(page);

	memset64(addr, word, SIM_WORDS);
	kunmap_local(addr);
}

/* Words of the page that are not what the host left there. */
static unsigned int sim_verify(struct page *page, u64 word)
{
	u64 *addr = kmap_local_page(page);
	unsigned int i, wrong = 0;

	for (i = 0; i < SIM_WORDS; i++) {
		u64 is = READ_ONCE(addr[i]);

		if (likely(is == word))
			continue;
		wrong++;
		if (sim.count.corrupted + wrong <= SIM_SHOWN)
			pr_err("page frame %#lx, offset %zu: %#llx, expected %#llx\n",
			       page_to_pfn(page), i * sizeof(u64), is, word);
	}
	kunmap_local(addr);
	return wrong;
}

/* What the guest expects to find in a free page, which a host may not change. */
static void sim_restore(struct page *page)
{
	if (page_poisoning_enabled())
		sim_fill(page, PAGE_POISON * 0x0101010101010101ULL);
	else if (want_init_on_free())
		sim_fill(page, 0);
}

/* From now on whoever looks at a page of the request sees it. */
static void sim_scribble(struct sim_request *req)
{
	struct scatterlist *sg;
	unsigned int i, k;

	for_each_sg(req->sg, sg, req->nents, i) {
		for (k = 0; k < sg->length >> PAGE_SHIFT; k++) {
			struct page *page = sg_page(sg) + k;

			if (!PageHWPoison(page))
				sim_fill(page, sim_pattern(req, page));
			req->nr_pages++;
		}
		cond_resched();
	}
}

/* The end of the host's use of a request, before it says so. */
static void sim_settle(struct sim_request *req)
{
	unsigned int i, k, corrupted = 0, poisoned = 0;
	struct scatterlist *sg;

	for_each_sg(req->sg, sg, req->nents, i) {
		for (k = 0; k < sg->length >> PAGE_SHIFT; k++) {
			struct page *page = sg_page(sg) + k;

			if (PageHWPoison(page)) {
				poisoned++;
				continue;
			}
			corrupted += sim_verify(page, sim_pattern(req, page));
			sim_restore(page);
		}
		cond_resched();
	}

	guard(spinlock)(&sim.lock);
	sim.count.corrupted += corrupted;
	sim.count.poisoned += poisoned;
}

/* The guest has a request back. */
static void sim_end_request(struct sim_request *req, bool acked)
{
	unsigned long kb = req->nr_pages << (PAGE_SHIFT - 10);

	lockdep_assert_held(&sim.lock);

	if (acked) {
		sim.count.acked++;
		sim.count.acked_kb += kb;
	} else {
		sim.count.cancelled++;
	}
	sim.count.in_flight_kb -= kb;
	sim.count.ranges -= req->nents;
	list_move(&req->list, &sim.unused);
}

/* How a request is answered in the mode random, and how late. */
static enum sim_mode sim_draw(uint *delay)
{
	static const enum sim_mode modes[] = {
		SIM_NOW, SIM_NOW, SIM_LATE, SIM_LATE, SIM_LATE,
		SIM_REORDER, SIM_REORDER, SIM_TWICE, SIM_ERROR,
	};

	lockdep_assert_held(&sim.lock);

	*delay = prandom_u32_state(&sim.chance) % (2 * *delay + 1);
	/* Now and then later by far. */
	if (!(prandom_u32_state(&sim.chance) % 64))
		*delay *= 50;
	return modes[prandom_u32_state(&sim.chance) % ARRAY_SIZE(modes)];
}

static struct sim_request *sim_submit_request(struct scatterlist *sg,
					      unsigned int nents, void *token)
{
	uint delay = READ_ONCE(delay_ms);
	struct sim_request *req;
	enum sim_mode mode, now;

	scoped_guard(spinlock, &sim.lock) {
		mode = READ_ONCE(sim_mode);
		if (mode == SIM_RANDOM)
			mode = sim_draw(&delay);
		if (mode == SIM_ERROR) {
			sim.count.errors++;
			return ERR_PTR(-(long)(READ_ONCE(errnum) ?: EIO));
		}
		req = list_first_entry_or_null(&sim.unused, struct sim_request, list);
		if (!req)
			return ERR_PTR(-ENOSPC);
		list_del_init(&req->list);
		req->seq = ++sim.seq;
	}

	req->token = token;
	memcpy(req->sg, sg, nents * sizeof(*sg));
	req->nents = nents;
	req->nr_pages = 0;
	req->answered = false;
	sim_scribble(req);

	scoped_guard(spinlock, &sim.lock) {
		/* Not before: what was held until now may just have been released. */
		now = READ_ONCE(sim_mode);
		if (now != SIM_RANDOM)
			mode = now;
		req->newest_first = mode == SIM_REORDER;
		req->twice = mode == SIM_TWICE;
		if (mode == SIM_NEVER)
			req->due = KTIME_MAX;
		else if (mode == SIM_LATE || mode == SIM_REORDER)
			req->due = ktime_add_ms(ktime_get(), delay);
		else
			req->due = 0;
		list_add_tail(&req->list, &sim.held);
		sim.count.submitted++;
		if (!token)
			sim.count.reports++;
		sim.count.in_flight_kb += req->nr_pages << (PAGE_SHIFT - 10);
		sim.count.in_flight_peak_kb = max(sim.count.in_flight_peak_kb,
						  sim.count.in_flight_kb);
		sim.count.ranges += nents;
		sim.count.ranges_peak = max(sim.count.ranges_peak, sim.count.ranges);
	}
	wake_up_process(sim.host);
	return req;
}

/* The guest's side: page hinting serializes these three. */

static int sim_submit(struct page_reporting_dev_info *prdev,
		      struct scatterlist *sg, unsigned int nents, void *token)
{
	return PTR_ERR_OR_ZERO(sim_submit_request(sg, nents, token));
}

static bool sim_has(const void *token)
{
	struct sim_request *req;

	list_for_each_entry(req, &sim.held, list)
		if (req->token == token)
			return true;
	return false;
}

static void *sim_reap(struct page_reporting_dev_info *prdev)
{
	struct sim_request *req;
	void *token;

	guard(spinlock)(&sim.lock);

	sim.armed = false;
	req = list_first_entry_or_null(&sim.done, struct sim_request, list);
	if (req) {
		token = req->token;
		if (req->twice)
			sim.again = token;
		sim_end_request(req, true);
		return token;
	}
	/* Were it in flight once more, nobody could tell that this is no answer. */
	if (sim.again && !sim_has(sim.again)) {
		token = sim.again;
		sim.again = NULL;
		sim.bogus = true;
		sim.count.doubled++;
		return token;
	}
	if (sim.bogus) {
		sim.bogus = false;
		sim.count.bogus++;
		return &sim;
	}
	return NULL;
}

static bool sim_arm(struct page_reporting_dev_info *prdev)
{
	guard(spinlock)(&sim.lock);

	sim.armed = true;
	return list_empty(&sim.done);
}

static const struct page_hinting_dev_ops sim_ops = {
	.submit	= sim_submit,
	.reap	= sim_reap,
	.arm	= sim_arm,
};

static unsigned int sim_count_ragged(struct scatterlist *entries, unsigned int nents)
{
	struct scatterlist *sg;
	unsigned int i, n = 0;

	for_each_sg(entries, sg, nents, i)
		if (!is_power_of_2(sg->length) ||
		    !IS_ALIGNED(page_to_phys(sg_page(sg)), sg->length))
			n++;
	return n;
}

/* Waits for the host, as the balloon's does; not as a hung task, though. */
static int sim_report(struct page_reporting_dev_info *prdev,
		      struct scatterlist *sg, unsigned int nents)
{
	unsigned int ragged = sim_count_ragged(sg, nents);
	struct sim_request *req;
	bool gone;

	req = sim_submit_request(sg, nents, NULL);
	if (IS_ERR(req))
		return PTR_ERR(req);

	scoped_guard(spinlock, &sim.lock)
		sim.count.ragged += ragged;

	/* Pairs with the release in sim_answer(): the host is through with it. */
	wait_event_idle(sim.answered, smp_load_acquire(&req->answered));

	guard(spinlock)(&sim.lock);
	gone = sim.gone;
	sim_end_request(req, !gone);
	return gone ? -ENODEV : 0;
}

/* The host's side. */

static void sim_interrupt(struct irq_work *work)
{
	page_hinting_notify(&sim.dev, PAGE_HINTING_ACKED);
}

/* The next request to answer, or NULL and how long to wait, in jiffies. */
static struct sim_request *sim_next_due(long *timeout)
{
	struct sim_request *req;
	ktime_t now = ktime_get();

	*timeout = MAX_SCHEDULE_TIMEOUT;

	guard(spinlock)(&sim.lock);
	list_for_each_entry(req, &sim.held, list) {
		if (req->due > now && !(sim.gone && !req->token)) {
			if (req->due != KTIME_MAX)
				*timeout = min_t(long, *timeout,
						 nsecs_to_jiffies(req->due - now) + 1);
			continue;
		}
		if (req->newest_first)
			req = list_last_entry(&sim.held, struct sim_request, list);
		if (!list_is_first(&req->list, &sim.held))
			sim.count.reordered++;
		list_del_init(&req->list);
		return req;
	}
	return NULL;
}

static void sim_answer(struct sim_request *req)
{
	bool interrupt;

	sim_settle(req);

	if (!req->token) {
		/* Pairs with the acquire in sim_report(), which frees the request. */
		smp_store_release(&req->answered, true);
		wake_up_all(&sim.answered);
		return;
	}
	scoped_guard(spinlock, &sim.lock) {
		list_add_tail(&req->list, &sim.done);
		interrupt = sim.armed;
		sim.armed = false;
	}
	if (interrupt)
		irq_work_queue(&sim.interrupt);
}

static int sim_host(void *unused)
{
	while (!kthread_should_stop()) {
		struct sim_request *req;
		long timeout;

		set_current_state(TASK_IDLE);
		req = sim_next_due(&timeout);
		if (!req && !kthread_should_stop())
			schedule_timeout(timeout);
		__set_current_state(TASK_RUNNING);
		if (req)
			sim_answer(req);
	}
	return 0;
}

/* Control. */

/* All that is held is answered so late, whatever the mode was. */
static void sim_release(unsigned int ms)
{
	ktime_t due = ktime_add_ms(ktime_get(), ms);
	struct sim_request *req;

	scoped_guard(spinlock, &sim.lock)
		list_for_each_entry(req, &sim.held, list)
			req->due = due;
	wake_up_process(sim.host);
}

static ssize_t sim_release_write(struct file *file, const char __user *buf,
				 size_t count, loff_t *pos)
{
	unsigned int ms;
	int err;

	err = kstrtouint_from_user(buf, count, 10, &ms);
	if (err)
		return err;
	sim_release(ms);
	return count;
}

static const struct file_operations sim_release_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= sim_release_write,
};

static ssize_t sim_poke_write(struct file *file, const char __user *buf,
			      size_t count, loff_t *pos)
{
	struct sim_request *req;
	u64 *addr;

	guard(spinlock)(&sim.lock);
	req = list_first_entry_or_null(&sim.held, struct sim_request, list);
	if (!req)
		return -ENODATA;
	addr = kmap_local_page(sg_page(req->sg));
	addr[SIM_WORDS - 1]++;
	kunmap_local(addr);
	return count;
}

static const struct file_operations sim_poke_fops = {
	.owner	= THIS_MODULE,
	.open	= simple_open,
	.write	= sim_poke_write,
};

/* Called before page hinting's, which waits for what is answered here. */
static int sim_oom(struct notifier_block *nb, unsigned long unused, void *freed)
{
	unsigned int ms = READ_ONCE(oom_ms);

	if (ms)
		sim_release(ms);
	return NOTIFY_OK;
}

static struct notifier_block sim_oom_nb = {
	.notifier_call = sim_oom,
	.priority = 1,
};

static int sim_held_show(struct seq_file *m, void *unused)
{
	struct sim_request *req;
	struct scatterlist *sg;
	unsigned int i;

	guard(spinlock)(&sim.lock);
	list_for_each_entry(req, &sim.held, list)
		for_each_sg(req->sg, sg, req->nents, i)
			seq_printf(m, "%lu %u\n", page_to_pfn(sg_page(sg)),
				   sg->length >> PAGE_SHIFT);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(sim_held);

static int sim_lows_show(struct seq_file *m, void *unused)
{
	unsigned int i;
	int nid;

	for_each_online_node(nid) {
		for (i = 0; i < MAX_NR_ZONES; i++) {
			struct zone *zone = &NODE_DATA(nid)->node_zones[i];

			if (populated_zone(zone))
				seq_printf(m, "%d %s %lu\n", nid, zone->name,
					   READ_ONCE(zone->eligible_low));
		}
	}
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(sim_lows);

static bool sim_holds(unsigned long pfn, unsigned long nr_pages)
{
	struct sim_request *req;
	struct scatterlist *sg;
	unsigned int i;

	guard(spinlock)(&sim.lock);
	list_for_each_entry(req, &sim.held, list)
		for_each_sg(req->sg, sg, req->nents, i) {
			unsigned long start = page_to_pfn(sg_page(sg));

			if (start < pfn + nr_pages &&
			    pfn < start + (sg->length >> PAGE_SHIFT))
				return true;
		}
	return false;
}

/* What a file of contig has allocated. */
struct sim_contig {
	struct mutex lock;
	unsigned long pfn, nr_pages;
};

static int sim_contig_open(struct inode *inode, struct file *file)
{
	struct sim_contig *contig = kzalloc(sizeof(*contig), GFP_KERNEL);

	if (!contig)
		return -ENOMEM;
	mutex_init(&contig->lock);
	file->private_data = contig;
	return 0;
}

/*
 * Freed by less than a pageblock at a time, no piece of which stops at a per-CPU list.
 * Linux 6.18 has free_contig_range() free page by page, by way of these lists, and what
 * they hold is on no free list: so each piece is made a block before.
 */
static void sim_free_piece(struct page *page, unsigned int order)
{
	unsigned int i;

	for (i = 1; i < 1U << order; i++)
		WARN_ON_ONCE(!put_page_testzero(page + i));
	__free_pages(page, order);
}

static int sim_contig_release(struct inode *inode, struct file *file)
{
	struct sim_contig *contig = file->private_data;
	unsigned long pfn = contig->pfn, end = pfn + contig->nr_pages;

	while (pfn < end) {
		unsigned int order = min3(pageblock_order - 1, __ffs(pfn), __fls(end - pfn));

		sim_free_piece(pfn_to_page(pfn), order);
		pfn += 1UL << order;
	}
	kfree(contig);
	return 0;
}

static ssize_t sim_contig_write(struct file *file, const char __user *buf,
				size_t count, loff_t *pos)
{
	struct sim_contig *contig = file->private_data;
	unsigned long pfn, nr_pages;
	unsigned int ms;
	char line[64];
	int err, n;

	if (count >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, buf, count))
		return -EFAULT;
	line[count] = 0;
	n = sscanf(line, "%lu %lu %u", &pfn, &nr_pages, &ms);
	if (n < 2 || !nr_pages || !pfn_valid(pfn) || !pfn_valid(pfn + nr_pages - 1))
		return -EINVAL;

	guard(mutex)(&contig->lock);
	if (contig->nr_pages)
		return -EEXIST;
	if (n == 3) {
		if (!sim_holds(pfn, nr_pages))
			return -ENODATA;
		sim_release(ms);
	}
	err = alloc_contig_range(pfn, pfn + nr_pages, ACR_FLAGS_NONE, GFP_KERNEL);
	if (err)
		return err;
	contig->pfn = pfn;
	contig->nr_pages = nr_pages;
	return count;
}

static const struct file_operations sim_contig_fops = {
	.owner		= THIS_MODULE,
	.open		= sim_contig_open,
	.write		= sim_contig_write,
	.release	= sim_contig_release,
};

/* What a file of blocks has allocated: lists of the blocks, by order. */
struct sim_blocks {
	struct mutex lock;
	struct list_head pages[NR_PAGE_ORDERS];
};

static const char * const sim_kinds[] = { "movable", "unmovable", "atomic" };
static const gfp_t sim_gfp[] = { GFP_HIGHUSER_MOVABLE, GFP_KERNEL, GFP_ATOMIC };

static int sim_blocks_open(struct inode *inode, struct file *file)
{
	struct sim_blocks *blocks = kzalloc(sizeof(*blocks), GFP_KERNEL);
	unsigned int i;

	if (!blocks)
		return -ENOMEM;
	mutex_init(&blocks->lock);
	for (i = 0; i < NR_PAGE_ORDERS; i++)
		INIT_LIST_HEAD(&blocks->pages[i]);
	file->private_data = blocks;
	return 0;
}

static int sim_blocks_release(struct inode *inode, struct file *file)
{
	struct sim_blocks *blocks = file->private_data;
	struct page *page, *next;
	unsigned int i;

	for (i = 0; i < NR_PAGE_ORDERS; i++)
		list_for_each_entry_safe(page, next, &blocks->pages[i], lru)
			__free_pages(page, i);
	kfree(blocks);
	return 0;
}

static ssize_t sim_blocks_write(struct file *file, const char __user *buf,
				size_t count, loff_t *pos)
{
	struct sim_blocks *blocks = file->private_data;
	char line[32], word[16];
	unsigned int order;
	struct page *page;
	int kind;

	if (count >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, buf, count))
		return -EFAULT;
	line[count] = 0;
	if (sscanf(line, "%u %15s", &order, word) != 2 || order > MAX_PAGE_ORDER)
		return -EINVAL;
	kind = match_string(sim_kinds, ARRAY_SIZE(sim_kinds), word);
	if (kind < 0)
		return kind;

	page = alloc_pages(sim_gfp[kind] | __GFP_NOWARN | __GFP_NORETRY, order);
	if (!page)
		return -ENOMEM;
	guard(mutex)(&blocks->lock);
	list_add(&page->lru, &blocks->pages[order]);
	return count;
}

static const struct file_operations sim_blocks_fops = {
	.owner		= THIS_MODULE,
	.open		= sim_blocks_open,
	.write		= sim_blocks_write,
	.release	= sim_blocks_release,
};

/*
 * What a file of sweep has allocated: of a range all that was free, in got, and what
 * came with it, in others. A page that comes twice was free twice.
 */
struct sim_sweep {
	struct mutex lock;
	unsigned long pfn, nr_pages;
	unsigned long *got;
	unsigned long twice;
	struct list_head others;
	/* What came of it. */
	char line[128];
	int len;
};

/* Pages that are allocated for those that may be in this CPU's list. */
#define SIM_IN_VAIN	32768

static int sim_sweep_open(struct inode *inode, struct file *file)
{
	struct sim_sweep *sweep = kzalloc(sizeof(*sweep), GFP_KERNEL);

	if (!sweep)
		return -ENOMEM;
	mutex_init(&sweep->lock);
	INIT_LIST_HEAD(&sweep->others);
	file->private_data = sweep;
	return 0;
}

static int sim_sweep_release(struct inode *inode, struct file *file)
{
	struct sim_sweep *sweep = file->private_data;
	struct page *page, *next;
	unsigned long i;

	for_each_set_bit(i, sweep->got, sweep->nr_pages)
		__free_page(pfn_to_page(sweep->pfn + i));
	list_for_each_entry_safe(page, next, &sweep->others, lru)
		__free_page(page);
	bitmap_free(sweep->got);
	kfree(sweep);
	return 0;
}

/*
 * Whether somebody has the page: not every page in use is counted. Nobody holds it, so it
 * may become part of a folio meanwhile: its own state alone is looked at.
 */
static bool sim_is_used(struct page *page)
{
	return page_ref_count(page) || PageCompound(page) || page_has_type(page);
}

/* Whether it may still come: it is free, be it once more, or it is in a CPU's list. */
static bool sim_is_left(struct sim_sweep *sweep, unsigned long i)
{
	struct page *page = pfn_to_page(sweep->pfn + i);

	return is_free_buddy_page(page) ||
	       (!test_bit(i, sweep->got) && !PageHWPoison(page) && !sim_is_used(page));
}

/*
 * Takes from the zone of the range until none of it is left, of each type in turn and
 * the smallest blocks first. No more than leaves others some, nobody is made to free any,
 * and the list of this CPU is soon empty if there is no more of the range in blocks.
 */
static void sim_sweep_allocate(struct sim_sweep *sweep)
{
	static const gfp_t kinds[] = { __GFP_MOVABLE, 0, __GFP_RECLAIMABLE };
	gfp_t gfp = (GFP_USER & ~__GFP_RECLAIM) | __GFP_NOWARN | __GFP_NOMEMALLOC;
	unsigned long i = 0, in_vain = 0;
	unsigned int kind;

	if (page_zonenum(pfn_to_page(sweep->pfn)) == ZONE_DMA32)
		gfp |= __GFP_DMA32;
	migrate_disable();
	for (kind = 0; in_vain < SIM_IN_VAIN; kind = (kind + 1) % ARRAY_SIZE(kinds)) {
		unsigned long offset;
		struct page *page;

		while (i < sweep->nr_pages && !sim_is_left(sweep, i))
			i++;
		if (i == sweep->nr_pages || nr_free_pages() < totalram_pages() / 8)
			break;
		page = alloc_page(gfp | kinds[kind]);
		if (!page)
			break;
		offset = page_to_pfn(page) - sweep->pfn;
		if (offset >= sweep->nr_pages)
			list_add(&page->lru, &sweep->others);
		else if (test_and_set_bit(offset, sweep->got))
			sweep->twice++;
		if (is_free_buddy_page(pfn_to_page(sweep->pfn + i)))
			in_vain = 0;
		else
			in_vain++;
		cond_resched();
	}
	migrate_enable();
}

/* At one time, however the file is read. */
static void sim_sweep_count(struct sim_sweep *sweep)
{
	unsigned long got = 0, free = 0, poisoned = 0, used = 0, lost = 0, i;

	for (i = 0; i < sweep->nr_pages; i++) {
		struct page *page = pfn_to_page(sweep->pfn + i);

		if (test_bit(i, sweep->got))
			got++;
		else if (is_free_buddy_page(page))
			free++;
		else if (PageHWPoison(page))
			poisoned++;
		else if (sim_is_used(page))
			used++;
		else
			lost++;
	}
	sweep->len = scnprintf(sweep->line, sizeof(sweep->line), "%lu %lu %lu %lu %lu %lu\n",
			       got, sweep->twice, free, poisoned, used, lost);
}

static ssize_t sim_sweep_write(struct file *file, const char __user *buf,
			       size_t count, loff_t *pos)
{
	struct sim_sweep *sweep = file->private_data;
	unsigned long pfn, nr_pages;
	char line[64];

	if (count >= sizeof(line))
		return -EINVAL;
	if (copy_from_user(line, buf, count))
		return -EFAULT;
	line[count] = 0;
	if (sscanf(line, "%lu %lu", &pfn, &nr_pages) != 2 || !nr_pages ||
	    !pfn_valid(pfn) || !pfn_valid(pfn + nr_pages - 1))
		return -EINVAL;

	guard(mutex)(&sweep->lock);
	if (sweep->nr_pages)
		return -EEXIST;
	sweep->got = bitmap_zalloc(nr_pages, GFP_KERNEL);
	if (!sweep->got)
		return -ENOMEM;
	sweep->pfn = pfn;
	sweep->nr_pages = nr_pages;
	sim_sweep_allocate(sweep);
	sim_sweep_count(sweep);
	return count;
}

/*
 * A line of numbers, of pages, as it was after the write: those that were allocated, those
 * of them that were so more than once, and of the others those that are free, poisoned,
 * somebody else's, and nobody's: these are lost, if they are not on a CPU's list or about
 * to be used.
 */
static ssize_t sim_sweep_read(struct file *file, char __user *buf, size_t count, loff_t *pos)
{
	struct sim_sweep *sweep = file->private_data;

	guard(mutex)(&sweep->lock);
	return simple_read_from_buffer(buf, count, pos, sweep->line, sweep->len);
}

static const struct file_operations sim_sweep_fops = {
	.owner		= THIS_MODULE,
	.open		= sim_sweep_open,
	.read		= sim_sweep_read,
	.write		= sim_sweep_write,
	.release	= sim_sweep_release,
};

static void sim_create_files(void)
{
	const struct {
		const char *name;
		u64 *value;
	} counters[] = {
		{ "submitted", &sim.count.submitted },
		{ "acked", &sim.count.acked },
		{ "acked_kb", &sim.count.acked_kb },
		{ "cancelled", &sim.count.cancelled },
		{ "errors", &sim.count.errors },
		{ "reports", &sim.count.reports },
		{ "ragged", &sim.count.ragged },
		{ "reordered", &sim.count.reordered },
		{ "doubled", &sim.count.doubled },
		{ "bogus", &sim.count.bogus },
		{ "corrupted", &sim.count.corrupted },
		{ "poisoned", &sim.count.poisoned },
		{ "in_flight_kb", &sim.count.in_flight_kb },
		{ "in_flight_peak_kb", &sim.count.in_flight_peak_kb },
		{ "ranges_peak", &sim.count.ranges_peak },
	};
	unsigned int i;

	sim.debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
	for (i = 0; i < ARRAY_SIZE(counters); i++)
		debugfs_create_u64(counters[i].name, 0444, sim.debugfs,
				   counters[i].value);
	debugfs_create_file("release", 0200, sim.debugfs, NULL, &sim_release_fops);
	debugfs_create_file("poke", 0200, sim.debugfs, NULL, &sim_poke_fops);
	debugfs_create_file("held", 0400, sim.debugfs, NULL, &sim_held_fops);
	debugfs_create_file("lows", 0400, sim.debugfs, NULL, &sim_lows_fops);
	debugfs_create_file("contig", 0200, sim.debugfs, NULL, &sim_contig_fops);
	debugfs_create_file("blocks", 0200, sim.debugfs, NULL, &sim_blocks_fops);
	debugfs_create_file("sweep", 0600, sim.debugfs, NULL, &sim_sweep_fops);
}

static int __init sim_init(void)
{
	unsigned int i;
	int err;

	if (debug_pagealloc_enabled_static()) {
		pr_err("free pages are not mapped with debug_pagealloc=on\n");
		return -EOPNOTSUPP;
	}

	prandom_seed_state(&sim.chance, seed);
	init_waitqueue_head(&sim.answered);
	init_irq_work(&sim.interrupt, sim_interrupt);
	for (i = 0; i < ARRAY_SIZE(sim.requests); i++)
		list_add_tail(&sim.requests[i].list, &sim.unused);

	sim.host = kthread_run(sim_host, NULL, KBUILD_MODNAME);
	if (IS_ERR(sim.host))
		return PTR_ERR(sim.host);

	sim.dev.report = sim_report;
	sim.dev.order = PAGE_REPORTING_ORDER_UNSPECIFIED;
	sim.dev.capacity = capacity;
	sim.dev.hinting_ops = sync ? NULL : &sim_ops;
	sim_create_files();
	err = page_reporting_register(&sim.dev);
	if (err) {
		pr_err("there is a reporting device already\n");
		debugfs_remove(sim.debugfs);
		kthread_stop(sim.host);
		return err;
	}
	register_oom_notifier(&sim_oom_nb);
	return 0;
}

/* As a virtio driver does: nobody calls any more, reset, return the rest. */
static void __exit sim_exit(void)
{
	struct sim_request *req, *next;

	unregister_oom_notifier(&sim_oom_nb);
	scoped_guard(spinlock, &sim.lock)
		sim.gone = true;
	wake_up_process(sim.host);
	page_reporting_unregister(&sim.dev);
	debugfs_remove(sim.debugfs);
	kthread_stop(sim.host);
	irq_work_sync(&sim.interrupt);

	list_for_each_entry_safe(req, next, &sim.held, list) {
		sim_settle(req);
		page_hinting_cancel(req->token);
	}
	list_for_each_entry_safe(req, next, &sim.done, list)
		page_hinting_cancel(req->token);
	if (sim.count.corrupted)
		pr_err("%llu words were written to while the host had them\n",
		       sim.count.corrupted);
}

module_init(sim_init);
module_exit(sim_exit);
MODULE_DESCRIPTION("A simulated host for tests of free page hinting");
MODULE_AUTHOR("page_hinting developers");
MODULE_LICENSE("GPL");

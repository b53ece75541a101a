// SPDX-License-Identifier: GPL-2.0
/*
 * A virtio balloon whose host is late, silent or wrong
 *
 * The host of a real balloon answers at once. This module is a virtio transport
 * with a balloon behind it, and plays the host of it too: the kernel's own
 * virtio_balloon driver binds to it, and hints to a host that does as it is
 * told. Unloading the module is the hot-unplug of the device. For tests only.
 *
 * Parameters, all writable at run time:
 *   mode      what the host does with a request of the reporting queue:
 *             now      answers it at once
 *             late     answers it delay_ms after it came
 *             reorder  when the oldest is delay_ms old, answers all, the newest
 *                      first
 *             never    keeps it until the mode changes or the device is reset
 *             twice    answers it at once, and a second time with it
 *             badid    answers with an id that no descriptor has, then rightly
 *   delay_ms  see there
 *   scribble  overwrite blocks while the host has them, and fill them with
 *             zeros, or what the guest poisons free pages with, at the answer
 *   watch     at load only: mark each page at the answer, and count as "again"
 *             those which come again with the mark in place: they were free all
 *             the while. Not for a guest whose free pages must hold something
 *   reset_ms  how long the driver waits in a reset after the host has forgotten all
 *   event_idx whether to offer VIRTIO_RING_F_EVENT_IDX; from the next probe on
 *   outlive   at load only: the host outlives a kexec. What it has when the guest goes
 *             over is noted where the fresh kernel leaves it alone; this module finds it
 *             there, and the host discards it as it is late. See struct note
 *
 * Counters are in debugfs, in page_hinting_virtio_sim/: see stat_names. "faults"
 * counts what a driver must never do; the log says what it was.
 *
 * Locks: host->lock, a mutex, serializes the host with reset and removal. The
 * driver is called back from a hard interrupt, without a lock.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/completion.h>
#include <linux/debugfs.h>
#include <linux/delay.h>
#include <linux/irq_work.h>
#include <linux/kthread.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/platform_device.h>
#include <linux/pm.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/virtio.h>
#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ring.h>
#include <linux/wait.h>

/* As QEMU's queues: what the module is tuned to must be what it meets. */
#define QUEUE_SIZE	32

/* Longest that the host sleeps with something to answer later, in ms. */
#define TICK_MS		10

enum { INFLATE, DEFLATE, STATS, FREE_PAGE, REPORTING, NR_QUEUES };

enum mode { NOW, LATE, REORDER, NEVER, TWICE, BADID };

static const char * const mode_names[] = {
	[NOW] = "now", [LATE] = "late", [REORDER] = "reorder",
	[NEVER] = "never", [TWICE] = "twice", [BADID] = "badid",
};

enum sim_stat {
	NOTIFIES, ARMED, REQUESTS, RANGES, PAGES, AGAIN, ANSWERED, FORGOTTEN, IN_FLIGHT, PEAK,
	INTERRUPTS, RESETS, FREEZES, RESTORES, HAD, OUTLIVED, FAULTS, NR_STATS
};

static const char * const stat_names[] = {
	[NOTIFIES]   = "notifies",	/* kicks of the reporting queue */
	[ARMED]      = "armed",		/* of these, with the driver's interrupts on */
	[REQUESTS]   = "requests",	/* chains of it that the host took */
	[RANGES]     = "ranges",	/* descriptors of these */
	[PAGES]      = "pages",		/* and what they cover */
	[AGAIN]      = "again",		/* of that, what nobody has used since */
	[ANSWERED]   = "answered",	/* requests */
	[FORGOTTEN]  = "forgotten",	/* requests the host had at a reset */
	[IN_FLIGHT]  = "in_flight",	/* requests the host has now */
	[PEAK]       = "in_flight_peak",/* and the most it had */
	[INTERRUPTS] = "interrupts",
	[RESETS]     = "resets",	/* of a device whose driver was ready */
	[FREEZES]    = "freezes",
	[RESTORES]   = "restores",
	[HAD]        = "had",		/* requests forgotten before a kexec */
	[OUTLIVED]   = "outlived",	/* pages that the host had after it */
	[FAULTS]     = "faults",
};

struct extent {
	u64 addr;
	u32 len;
};

/* A chain of the reporting queue that the host has not answered. */
struct request {
	struct list_head list;
	unsigned long came;
	bool scribbled;
	unsigned int nr_ranges;
	struct extent ranges[QUEUE_SIZE];
};

struct queue {
	struct virtqueue *vq;
	struct vring vring;
	/* The host's indices, which the driver can't spoil. */
	u16 avail;
	u16 used;
	struct irq_work irq;
};

struct host {
	struct virtio_device vdev;
	struct completion released;
	struct task_struct *task;
	struct dentry *debugfs;
	atomic_t stats[NR_STATS];

	struct mutex lock;
	u8 status;
	struct virtio_balloon_config config;
	struct queue queues[NR_QUEUES];
	/* What the host has, the oldest first, in requests[] by head. */
	struct list_head in_flight;
	struct request requests[QUEUE_SIZE];
};

#define to_host(_vdev) container_of(_vdev, struct host, vdev)

static DECLARE_WAIT_QUEUE_HEAD(host_wait);
/* Bit 0: there may be something to do for the host; there is only one. */
static unsigned long kicked;
static enum mode mode;

static void kick_host(void)
{
	set_bit(0, &kicked);
	wake_up(&host_wait);
}

static int mode_set(const char *val, const struct kernel_param *kp)
{
	int new = __sysfs_match_string(mode_names, ARRAY_SIZE(mode_names), val);

	if (new < 0)
		return new;
	WRITE_ONCE(mode, new);
	kick_host();
	return 0;
}

static int mode_get(char *buffer, const struct kernel_param *kp)
{
	return sysfs_emit(buffer, "%s\n", mode_names[READ_ONCE(mode)]);
}

static const struct kernel_param_ops mode_ops = {
	.set = mode_set,
	.get = mode_get,
};
module_param_cb(mode, &mode_ops, NULL, 0644);
MODULE_PARM_DESC(mode, "now, late, reorder, never, twice or badid");

static unsigned int delay_ms = 1000;
module_param(delay_ms, uint, 0644);
MODULE_PARM_DESC(delay_ms, "how late the host is when it is late");

static unsigned int reset_ms;
module_param(reset_ms, uint, 0644);
MODULE_PARM_DESC(reset_ms, "how long a reset takes");

static bool scribble;
module_param(scribble, bool, 0644);
MODULE_PARM_DESC(scribble, "overwrite what the host has");

static bool watch;
module_param(watch, bool, 0444);
MODULE_PARM_DESC(watch, "count the pages that come again unused");

static bool event_idx = true;
module_param(event_idx, bool, 0644);
MODULE_PARM_DESC(event_idx, "offer VIRTIO_RING_F_EVENT_IDX");

static bool outlive;
module_param(outlive, bool, 0444);
MODULE_PARM_DESC(outlive, "the host outlives a kexec");

static int stat_add(struct host *host, enum sim_stat stat, int n)
{
	return atomic_add_return(n, &host->stats[stat]);
}

#define fault(host, fmt, ...)						\
	do {								\
		if (stat_add(host, FAULTS, 1) <= 10)			\
			pr_err("fault: " fmt "\n", ##__VA_ARGS__);	\
	} while (0)

/* --- what the host does with the guest's memory --- */

/* Blocks are free pages to KASAN, and the host is none of its business. */
static noinline __no_sanitize_address bool holds(const u64 *p, u64 value)
{
	unsigned int i;

	for (i = 0; i < PAGE_SIZE / sizeof(*p); i++)
		if (READ_ONCE_NOCHECK(p[i]) != value)
			return false;
	return true;
}

static u64 junk(struct page *page)
{
	return 0xbadc0ffee0ddf00dULL ^ page_to_pfn(page);
}

/* What a page must hold when the guest gets it back. */
static u64 clean(struct host *host)
{
	u64 poison;

	if (!virtio_has_feature(&host->vdev, VIRTIO_BALLOON_F_PAGE_POISON))
		return 0;
	poison = le32_to_cpu((__force __le32)host->config.poison_val);
	return poison << 32 | poison;
}

static u64 mark(struct page *page)
{
	return 0xfeedfacef00dfaceULL ^ page_to_pfn(page);
}

static noinline __no_sanitize_address bool is_marked(struct page *page)
{
	return READ_ONCE_NOCHECK(*(u64 *)page_address(page)) == mark(page);
}

static noinline __no_sanitize_address void set_mark(struct page *page)
{
	WRITE_ONCE(*(u64 *)page_address(page), mark(page));
}

#define for_each_page_of(req, page)					\
	for (unsigned int _r = 0; _r < (req)->nr_ranges; _r++)		\
		for (struct page *page = pfn_to_page(PHYS_PFN((req)->ranges[_r].addr)), \
		     *_end = page + ((req)->ranges[_r].len >> PAGE_SHIFT); \
		     page < _end; page++)

static void take(struct host *host, struct request *req)
{
	if (watch) {
		for_each_page_of(req, page)
			if (is_marked(page))
				stat_add(host, AGAIN, 1);
	}
	req->scribbled = READ_ONCE(scribble);
	if (!req->scribbled)
		return;
	for_each_page_of(req, page) {
		memset64(page_address(page), junk(page), PAGE_SIZE / sizeof(u64));
		cond_resched();
	}
}

/* Nobody may have used what the host has. Ends with what a host leaves behind. */
static void give_back(struct host *host, struct request *req, const char *when)
{
	for_each_page_of(req, page) {
		if (PageBuddy(page) || page_count(page)) {
			fault(host, "page %#lx was %s before the %s",
			      page_to_pfn(page),
			      PageBuddy(page) ? "free" : "in use", when);
			/* It is not the host's, so leave it alone. */
			continue;
		}
		if (req->scribbled) {
			if (!holds(page_address(page), junk(page)))
				fault(host, "page %#lx was written before the %s",
				      page_to_pfn(page), when);
			memset64(page_address(page), clean(host),
				 PAGE_SIZE / sizeof(u64));
		}
		cond_resched();
	}
}

/* --- the host's side of a queue --- */

static bool is_live(struct host *host)
{
	return host->status & VIRTIO_CONFIG_S_DRIVER_OK;
}

static void host_interrupt(struct irq_work *work)
{
	struct queue *q = container_of(work, struct queue, irq);

	vring_interrupt(0, q->vq);
}

static void put_used(struct queue *q, u32 id)
{
	struct vring_used_elem *elem;

	elem = &q->vring.used->ring[q->used++ % q->vring.num];
	elem->id = cpu_to_virtio32(q->vq->vdev, id);
	elem->len = 0;
}

/* Make what was used since @old visible, and interrupt if the driver asks. */
static void publish_used(struct host *host, struct queue *q, u16 old)
{
	struct virtio_device *vdev = &host->vdev;
	bool wanted;

	smp_store_release(&q->vring.used->idx, cpu_to_virtio16(vdev, q->used));
	/* The driver asks, then looks at the index: see virtqueue_enable_cb(). */
	smp_mb();
	if (virtio_has_feature(vdev, VIRTIO_RING_F_EVENT_IDX))
		wanted = vring_need_event(virtio16_to_cpu(vdev,
				READ_ONCE(vring_used_event(&q->vring))),
				q->used, old);
	else
		wanted = !(virtio16_to_cpu(vdev, READ_ONCE(q->vring.avail->flags)) &
			   VRING_AVAIL_F_NO_INTERRUPT);
	if (wanted) {
		if (q == &host->queues[REPORTING])
			stat_add(host, INTERRUPTS, 1);
		irq_work_queue(&q->irq);
	}
}

/* The next head that the driver has made available, or -1. */
static int next_avail(struct host *host, struct queue *q)
{
	struct virtio_device *vdev = &host->vdev;
	bool has_event = virtio_has_feature(vdev, VIRTIO_RING_F_EVENT_IDX);
	u16 head;

	if (virtio16_to_cpu(vdev, smp_load_acquire(&q->vring.avail->idx)) == q->avail) {
		if (!has_event)
			return -1;
		/* Ask for a kick by the next, and look again. */
		WRITE_ONCE(vring_avail_event(&q->vring), cpu_to_virtio16(vdev, q->avail));
		smp_mb();
		if (virtio16_to_cpu(vdev, smp_load_acquire(&q->vring.avail->idx)) == q->avail)
			return -1;
	}
	head = virtio16_to_cpu(vdev, q->vring.avail->ring[q->avail % q->vring.num]);
	q->avail++;
	if (head >= q->vring.num) {
		fault(host, "head %u is available", head);
		return -1;
	}
	return head;
}

static void check_overlap(struct host *host, struct extent *a)
{
	struct request *req;

	list_for_each_entry(req, &host->in_flight, list) {
		unsigned int i;

		for (i = 0; i < req->nr_ranges; i++) {
			struct extent *b = &req->ranges[i];

			if (a != b && a->addr < b->addr + b->len &&
			    b->addr < a->addr + a->len)
				fault(host, "%#llx is with the host already", a->addr);
		}
	}
}

static unsigned long section(u64 addr)
{
	return pfn_to_section_nr(PHYS_PFN(addr));
}

static void take_chain(struct host *host, struct queue *q, u16 head)
{
	struct virtio_device *vdev = &host->vdev;
	struct request *req = &host->requests[head];
	struct vring_desc *desc;
	u16 i = head, flags;

	if (!list_empty(&req->list)) {
		fault(host, "head %u is available while the host has it", head);
		return;
	}
	req->came = jiffies;
	req->nr_ranges = 0;
	list_add_tail(&req->list, &host->in_flight);
	do {
		struct extent *range = &req->ranges[req->nr_ranges];

		desc = &q->vring.desc[i];
		flags = virtio16_to_cpu(vdev, desc->flags);
		range->addr = virtio64_to_cpu(vdev, desc->addr);
		range->len = virtio32_to_cpu(vdev, desc->len);
		i = virtio16_to_cpu(vdev, desc->next);

		if (!(flags & VRING_DESC_F_WRITE) || flags & VRING_DESC_F_INDIRECT)
			fault(host, "a descriptor has flags %#x", flags);
		if (!range->len || !PAGE_ALIGNED(range->addr) || !PAGE_ALIGNED(range->len) ||
		    !pfn_valid(PHYS_PFN(range->addr))) {
			fault(host, "a descriptor has %#llx+%#x", range->addr, range->len);
			continue;
		}
		/* A host may map sections apart, or unplug one. */
		if (section(range->addr) != section(range->addr + range->len - 1))
			fault(host, "%#llx+%#x crosses a section", range->addr, range->len);
		check_overlap(host, range);
		req->nr_ranges++;
		stat_add(host, RANGES, 1);
		stat_add(host, PAGES, range->len >> PAGE_SHIFT);
	} while (flags & VRING_DESC_F_NEXT && i < q->vring.num &&
		 req->nr_ranges < QUEUE_SIZE);

	take(host, req);
	stat_add(host, REQUESTS, 1);
	if (stat_add(host, IN_FLIGHT, 1) > atomic_read(&host->stats[PEAK]))
		atomic_set(&host->stats[PEAK], atomic_read(&host->stats[IN_FLIGHT]));
}

static void end_request(struct host *host, struct request *req, const char *when)
{
	give_back(host, req, when);
	list_del_init(&req->list);
	stat_add(host, IN_FLIGHT, -1);
}

static void answer(struct host *host, struct queue *q, struct request *req, enum mode how)
{
	u16 old = q->used;

	end_request(host, req, "answer");
	if (watch) {
		for_each_page_of(req, page)
			set_mark(page);
	}
	if (how == BADID)
		put_used(q, q->vring.num + 5);
	put_used(q, req - host->requests);
	if (how == TWICE)
		put_used(q, req - host->requests);
	publish_used(host, q, old);
	stat_add(host, ANSWERED, 1);
}

/* Answers what is due; returns after how many jiffies to come again. */
static long serve_reporting(struct host *host)
{
	struct queue *q = &host->queues[REPORTING];
	enum mode how = READ_ONCE(mode);
	unsigned long delay = msecs_to_jiffies(READ_ONCE(delay_ms));
	struct request *req, *next;
	int head;

	while ((head = next_avail(host, q)) >= 0)
		take_chain(host, q, head);

	req = list_first_entry_or_null(&host->in_flight, struct request, list);
	if (!req || how == NEVER)
		return MAX_SCHEDULE_TIMEOUT;

	if (how == REORDER) {
		if (time_after(jiffies, req->came + delay))
			list_for_each_entry_safe_reverse(req, next, &host->in_flight, list)
				answer(host, q, req, how);
	} else {
		list_for_each_entry_safe(req, next, &host->in_flight, list) {
			if (how == LATE && !time_after(jiffies, req->came + delay))
				break;
			answer(host, q, req, how);
		}
	}
	return list_empty(&host->in_flight) ? MAX_SCHEDULE_TIMEOUT :
					      msecs_to_jiffies(TICK_MS);
}

static void serve_at_once(struct host *host, struct queue *q)
{
	int head;

	while ((head = next_avail(host, q)) >= 0) {
		u16 old = q->used;

		put_used(q, head);
		publish_used(host, q, old);
	}
}

static int host_fn(void *data)
{
	struct host *host = data;
	long timeout = MAX_SCHEDULE_TIMEOUT;

	while (!kthread_should_stop()) {
		wait_event_idle_timeout(host_wait,
					test_and_clear_bit(0, &kicked) ||
					kthread_should_stop(), timeout);
		timeout = MAX_SCHEDULE_TIMEOUT;
		mutex_lock(&host->lock);
		if (is_live(host)) {
			serve_at_once(host, &host->queues[INFLATE]);
			serve_at_once(host, &host->queues[DEFLATE]);
			if (host->queues[REPORTING].vq)
				timeout = serve_reporting(host);
		}
		mutex_unlock(&host->lock);
	}
	return 0;
}

/* --- the transport --- */

static bool sim_notify(struct virtqueue *vq)
{
	struct host *host = to_host(vq->vdev);
	struct vring *vring = &host->queues[vq->index].vring;

	if (!(READ_ONCE(host->status) & VIRTIO_CONFIG_S_DRIVER_OK))
		fault(host, "queue %u was kicked before DRIVER_OK", vq->index);
	if (vq->index == REPORTING) {
		stat_add(host, NOTIFIES, 1);
		/* With VIRTIO_RING_F_EVENT_IDX the flags do not tell. */
		if (!(virtio16_to_cpu(vq->vdev, READ_ONCE(vring->avail->flags)) &
		      VRING_AVAIL_F_NO_INTERRUPT))
			stat_add(host, ARMED, 1);
	}
	kick_host();
	return true;
}

static void sim_synchronize_cbs(struct virtio_device *vdev)
{
	struct host *host = to_host(vdev);
	unsigned int i;

	for (i = 0; i < NR_QUEUES; i++)
		irq_work_sync(&host->queues[i].irq);
}

/* The host forgets what it has, and touches none of it any more. */
static void sim_reset(struct virtio_device *vdev)
{
	struct host *host = to_host(vdev);
	struct request *req, *next;
	bool was_live;

	mutex_lock(&host->lock);
	was_live = is_live(host);
	if (was_live)
		stat_add(host, RESETS, 1);
	WRITE_ONCE(host->status, 0);
	list_for_each_entry_safe(req, next, &host->in_flight, list) {
		end_request(host, req, "reset");
		stat_add(host, FORGOTTEN, 1);
	}
	mutex_unlock(&host->lock);
	sim_synchronize_cbs(vdev);
	/* What a driver does meanwhile that it must not do is seen. */
	if (was_live)
		msleep(READ_ONCE(reset_ms));
}

static void sim_del_vqs(struct virtio_device *vdev)
{
	struct host *host = to_host(vdev);
	unsigned int i;

	if (is_live(host)) {
		fault(host, "the queues are deleted before a reset");
		sim_reset(vdev);
	}
	for (i = 0; i < NR_QUEUES; i++) {
		struct queue *q = &host->queues[i];

		if (q->vq)
			vring_del_virtqueue(q->vq);
		q->vq = NULL;
	}
}

static int sim_find_vqs(struct virtio_device *vdev, unsigned int nvqs,
			struct virtqueue *vqs[], struct virtqueue_info infos[],
			struct irq_affinity *desc)
{
	struct host *host = to_host(vdev);
	unsigned int i;

	if (nvqs > NR_QUEUES)
		return -EINVAL;

	for (i = 0; i < nvqs; i++) {
		struct queue *q = &host->queues[i];

		vqs[i] = NULL;
		if (!infos[i].name)
			continue;
		q->vq = vring_create_virtqueue(i, QUEUE_SIZE, PAGE_SIZE, vdev, true,
					       false, infos[i].ctx, sim_notify,
					       infos[i].callback, infos[i].name);
		if (!q->vq) {
			sim_del_vqs(vdev);
			return -ENOMEM;
		}
		q->vq->num_max = QUEUE_SIZE;
		q->vring = *virtqueue_get_vring(q->vq);
		q->avail = 0;
		q->used = 0;
		vqs[i] = q->vq;
	}
	return 0;
}

static u64 sim_get_features(struct virtio_device *vdev)
{
	/* What QEMU's has; the driver declines indirect descriptors. */
	return BIT_ULL(VIRTIO_F_VERSION_1) |
	       BIT_ULL(VIRTIO_RING_F_INDIRECT_DESC) |
	       (event_idx ? BIT_ULL(VIRTIO_RING_F_EVENT_IDX) : 0) |
	       BIT_ULL(VIRTIO_BALLOON_F_PAGE_POISON) |
	       BIT_ULL(VIRTIO_BALLOON_F_REPORTING);
}

static int sim_finalize_features(struct virtio_device *vdev)
{
	vring_transport_features(vdev);
	return virtio_has_feature(vdev, VIRTIO_F_VERSION_1) ? 0 : -EINVAL;
}

static void sim_get(struct virtio_device *vdev, unsigned int offset, void *buf,
		    unsigned int len)
{
	struct host *host = to_host(vdev);

	memset(buf, 0, len);
	if (offset + len <= sizeof(host->config))
		memcpy(buf, (u8 *)&host->config + offset, len);
}

static void sim_set(struct virtio_device *vdev, unsigned int offset,
		    const void *buf, unsigned int len)
{
	struct host *host = to_host(vdev);

	if (offset + len <= sizeof(host->config))
		memcpy((u8 *)&host->config + offset, buf, len);
}

static u32 sim_generation(struct virtio_device *vdev)
{
	return 0;
}

static u8 sim_get_status(struct virtio_device *vdev)
{
	return READ_ONCE(to_host(vdev)->status);
}

static void sim_set_status(struct virtio_device *vdev, u8 status)
{
	struct host *host = to_host(vdev);

	mutex_lock(&host->lock);
	WRITE_ONCE(host->status, status);
	mutex_unlock(&host->lock);
	kick_host();
}

static const char *sim_bus_name(struct virtio_device *vdev)
{
	return KBUILD_MODNAME;
}

static const struct virtio_config_ops sim_config_ops = {
	.get			= sim_get,
	.set			= sim_set,
	.generation		= sim_generation,
	.get_status		= sim_get_status,
	.set_status		= sim_set_status,
	.reset			= sim_reset,
	.find_vqs		= sim_find_vqs,
	.del_vqs		= sim_del_vqs,
	.synchronize_cbs	= sim_synchronize_cbs,
	.get_features		= sim_get_features,
	.finalize_features	= sim_finalize_features,
	.bus_name		= sim_bus_name,
};

/* --- kexec --- */

/* The kernel uses nothing below 1 MiB, and kexec.c what is higher than this. */
#define NOTE_ADDR	0x80000
#define NOTE_MAGIC	0x70616765686f7374ULL

/**
 * struct note - what outlives a kexec
 * @magic: there is one, of the kernel before
 * @forgotten: requests that the host had at the resets, and forgot
 * @nr_ranges: what it had after them nevertheless
 * @ranges: and where
 */
struct note {
	u64 magic;
	u32 forgotten;
	u32 nr_ranges;
	struct extent ranges[QUEUE_SIZE];
};

static struct note *note_at(void)
{
	BUILD_BUG_ON(sizeof(struct note) > PAGE_SIZE);
	return phys_to_virt(NOTE_ADDR);
}

/* All devices below it have been shut down, so that the driver's reset is over. */
static void sim_shutdown(struct platform_device *pdev)
{
	struct host *host = platform_get_drvdata(pdev);
	struct note *note = note_at();
	struct request *req;
	unsigned int i;

	if (!outlive)
		return;
	guard(mutex)(&host->lock);
	note->forgotten = atomic_read(&host->stats[FORGOTTEN]);
	note->nr_ranges = 0;
	list_for_each_entry(req, &host->in_flight, list)
		for (i = 0; i < req->nr_ranges && note->nr_ranges < QUEUE_SIZE; i++)
			note->ranges[note->nr_ranges++] = req->ranges[i];
	note->magic = NOTE_MAGIC;
}

/*
 * Whoever has the memory by now reads zeros in it. That is seen by a program; what the
 * kernel itself has there is left alone, so that it lives to tell.
 */
static void sim_discard_late(struct host *host)
{
	struct note *note = note_at();
	unsigned int i, k;

	if (note->magic != NOTE_MAGIC)
		return;
	note->magic = 0;
	stat_add(host, HAD, note->forgotten);
	for (i = 0; i < note->nr_ranges; i++) {
		struct page *page = pfn_to_page(PHYS_PFN(note->ranges[i].addr));
		unsigned int nr_pages = note->ranges[i].len >> PAGE_SHIFT;

		for (k = 0; k < nr_pages; k++)
			if (folio_test_anon(page_folio(page + k)))
				memset(page_address(page + k), 0, PAGE_SIZE);
		stat_add(host, OUTLIVED, nr_pages);
	}
}

/* --- the device --- */

static void sim_release(struct device *dev)
{
	complete(&to_host(dev_to_virtio(dev))->released);
}

static int sim_probe(struct platform_device *pdev)
{
	struct host *host;
	unsigned int i;
	int err;

	host = kzalloc(sizeof(*host), GFP_KERNEL);
	if (!host)
		return -ENOMEM;

	mutex_init(&host->lock);
	init_completion(&host->released);
	INIT_LIST_HEAD(&host->in_flight);
	for (i = 0; i < QUEUE_SIZE; i++)
		INIT_LIST_HEAD(&host->requests[i].list);
	for (i = 0; i < NR_QUEUES; i++)
		init_irq_work(&host->queues[i].irq, host_interrupt);

	host->debugfs = debugfs_create_dir(KBUILD_MODNAME, NULL);
	for (i = 0; i < NR_STATS; i++)
		debugfs_create_atomic_t(stat_names[i], 0444, host->debugfs,
					&host->stats[i]);

	host->task = kthread_run(host_fn, host, KBUILD_MODNAME);
	if (IS_ERR(host->task)) {
		err = PTR_ERR(host->task);
		goto free;
	}


	platform_set_drvdata(pdev, host);
	host->vdev.dev.parent = &pdev->dev;
	host->vdev.dev.release = sim_release;
	host->vdev.id.device = VIRTIO_ID_BALLOON;
	host->vdev.id.vendor = VIRTIO_DEV_ANY_ID;
	host->vdev.config = &sim_config_ops;

	if (outlive)
		sim_discard_late(host);

	err = register_virtio_device(&host->vdev);
	if (err) {
		put_device(&host->vdev.dev);
		goto stop;
	}
	return 0;

stop:
	kthread_stop(host->task);
free:
	debugfs_remove(host->debugfs);
	kfree(host);
	return err;
}

static void sim_remove(struct platform_device *pdev)
{
	struct host *host = platform_get_drvdata(pdev);

	unregister_virtio_device(&host->vdev);
	wait_for_completion(&host->released);

	kthread_stop(host->task);
	debugfs_remove(host->debugfs);
	kfree(host);
}

static int __maybe_unused sim_freeze(struct device *dev)
{
	struct host *host = dev_get_drvdata(dev);

	stat_add(host, FREEZES, 1);
	return virtio_device_freeze(&host->vdev);
}

static int __maybe_unused sim_restore(struct device *dev)
{
	struct host *host = dev_get_drvdata(dev);

	stat_add(host, RESTORES, 1);
	return virtio_device_restore(&host->vdev);
}

static SIMPLE_DEV_PM_OPS(sim_pm_ops, sim_freeze, sim_restore);

static struct platform_driver sim_driver = {
	.probe = sim_probe,
	.remove = sim_remove,
	.shutdown = sim_shutdown,
	.driver = {
		.name = KBUILD_MODNAME,
		.pm = &sim_pm_ops,
	},
};

static struct platform_device *sim_device;

static int __init sim_init(void)
{
	int err;

	/* Who gets such a page expects zeros in it, or the poison. */
	if (watch && (want_init_on_free() || page_poisoning_enabled_static()))
		return -EINVAL;

	err = platform_driver_register(&sim_driver);
	if (err)
		return err;
	sim_device = platform_device_register_simple(KBUILD_MODNAME, PLATFORM_DEVID_NONE,
						     NULL, 0);
	if (IS_ERR(sim_device)) {
		platform_driver_unregister(&sim_driver);
		return PTR_ERR(sim_device);
	}
	return 0;
}
module_init(sim_init);

static void __exit sim_exit(void)
{
	platform_device_unregister(sim_device);
	platform_driver_unregister(&sim_driver);
}
module_exit(sim_exit);

MODULE_DESCRIPTION("Virtio balloon with a simulated host, for tests of page hinting");
MODULE_LICENSE("GPL");

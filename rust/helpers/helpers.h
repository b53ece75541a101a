/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Rust part of the module sees of C: the core of page hinting, and
 * shims for what the kernel crate does not offer. No decision is made here.
 */
#ifndef _PAGE_HINTING_HELPERS_H
#define _PAGE_HINTING_HELPERS_H

#include <linux/kobject.h>
#include <linux/page_hinting.h>
#include <linux/types.h>

/* zone.c */

/** ph_pageblock_order() - the order of a pageblock, a variable on some machines */
unsigned int ph_pageblock_order(void);

/** ph_zone_name() - a zone's name, as /proc/zoneinfo has it */
const char *ph_zone_name(const struct zone *zone);

/** ph_zone_node() - the node that a zone is in */
int ph_zone_node(const struct zone *zone);

/** ph_zone_slot() - a number that no other zone has, below ph_zone_slots() */
unsigned int ph_zone_slot(const struct zone *zone);

/** ph_zone_slots() - how many zones there may be, empty ones included */
unsigned int ph_zone_slots(void);

/** ph_zone_managed() - pages that the buddy allocator manages */
unsigned long ph_zone_managed(const struct zone *zone);

/** ph_zone_isolated() - pages that are out for hinting */
unsigned long ph_zone_isolated(const struct zone *zone);

/** ph_zone_reserved() - free pages that are reserved for atomic allocations */
unsigned long ph_zone_reserved(const struct zone *zone);

/**
 * ph_offline_used() - Offline pages that the host brings back for allocations, since boot
 *
 * Zones without memory count as well: the sum only grows.
 */
unsigned long ph_offline_used(void);

/** ph_untagged() - Offline pages that merged and lost the tag, since boot; likewise */
unsigned long ph_untagged(void);

/* block.c: inline functions of <linux/page_hinting.h>, and names for tracepoints */

void ph_batch_init(struct page_hinting_batch *batch, bool ranges);
struct page *ph_batch_take_all(struct page_hinting_batch *batch);

/** ph_request_id() - a number that a request has alone while its blocks are out */
unsigned long ph_request_id(const struct page *req);

/** ph_batch_id() - the same of a batch that is not empty; else 0 */
unsigned long ph_batch_id(const struct page_hinting_batch *batch);

/* trace.c: the tracepoints; any context */

void ph_trace_take(const struct zone *zone, unsigned int order,
		   unsigned long request, unsigned long nr_pages);
void ph_trace_submit(unsigned long request, unsigned int nr_ranges,
		     unsigned int nr_blocks, int err);
void ph_trace_ack(unsigned long request, u64 latency_ns);
void ph_trace_return(unsigned long request, unsigned long nr_pages, bool offline);
void ph_trace_stall(u64 oldest_ns);

/**
 * struct ph_area - the counters of a free area, in blocks
 * @nr_free: free
 * @nr_offline: of these, tagged Offline
 * @nr_freed: freed since boot, less what left for any reason but an allocation
 * @nr_bound: taken by allocations since boot
 */
struct ph_area {
	unsigned long nr_free;
	unsigned long nr_offline;
	unsigned long nr_freed;
	unsigned long nr_bound;
};

/**
 * ph_zone_area() - read the counters of a free area
 * @zone: the zone
 * @order: less than NR_PAGE_ORDERS
 * @area: filled in
 *
 * Context: Any. Takes no lock: the numbers are a snapshot.
 */
void ph_zone_area(const struct zone *zone, unsigned int order,
		  struct ph_area *area);

/* thread.c: the one kernel thread, and what wakes it. */

/**
 * ph_client() - the client that wakes the thread
 *
 * Context: Any. The result is valid as long as the module is.
 */
struct page_hinting_client *ph_client(void);

/**
 * ph_rearm() - have the watermark wake the thread again
 *
 * The thread calls this before it looks whether there is work, and sleeps if there
 * is none. The hook has no barrier, so a block that is freed at that very moment
 * may do neither, be seen or wake: the thread looks by itself now and then.
 *
 * Context: Any.
 */
void ph_rearm(void);

/** ph_host_asks() - how often the host has asked for memory; may wrap */
unsigned long ph_host_asks(void);

/**
 * ph_thread_start() - start the thread
 * @run: the thread's function, returns when ph_thread_should_stop() says so
 * @data: argument of @run
 *
 * Context: Process context. At most one thread at a time.
 *
 * Return: 0 or a negative errno.
 */
int ph_thread_start(int (*run)(void *data), void *data);

/** ph_thread_stop() - stop the thread and wait for it. Process context. */
void ph_thread_stop(void);

/**
 * ph_thread_should_stop() - whether ph_thread_stop() was called
 *
 * Lets others have the CPU first, if they wait for it.
 *
 * Context: The thread, with no lock held.
 */
bool ph_thread_should_stop(void);

/** ph_thread_wake() - make ph_thread_wait() return. Any context, also hard irq. */
void ph_thread_wake(void);

/**
 * ph_thread_wait() - sleep until woken, stopped, or @ms milliseconds have passed
 *
 * A wake-up that came since the last call ends the wait at once. Freezable.
 *
 * Context: The thread, with no lock held.
 */
void ph_thread_wait(unsigned int ms);

/* notifiers.c */

/**
 * struct ph_notifier_ops - what happens to the guest as a whole
 * @out_of_memory: a task is about to be killed; returns the pages that came back
 * @restored: the guest was hibernated, and runs again
 * @forked: the guest is a copy of another
 *
 * Context: Process context; may sleep. @out_of_memory must not allocate.
 */
struct ph_notifier_ops {
	unsigned long (*out_of_memory)(void *data);
	void (*restored)(void *data);
	void (*forked)(void *data);
};

/**
 * ph_notifiers_register() - begin to call
 * @ops: called until ph_notifiers_unregister()
 * @data: argument of the @ops
 *
 * Context: Process context.
 *
 * Return: 0 or a negative errno.
 */
int ph_notifiers_register(const struct ph_notifier_ops *ops, void *data);

/** ph_notifiers_unregister() - end it, and wait for calls under way */
void ph_notifiers_unregister(void);

/* sysfs.c */

/**
 * ph_attr_init() - make an attribute that was allocated
 *
 * A macro of the kernel's, for lockdep, and a union that is one only since 6.19.
 */
void ph_attr_init(struct kobj_attribute *attr, const char *name, umode_t mode,
		  ssize_t (*show)(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf),
		  ssize_t (*store)(struct kobject *kobj,
				   struct kobj_attribute *attr, const char *buf,
				   size_t count));

#endif /* _PAGE_HINTING_HELPERS_H */

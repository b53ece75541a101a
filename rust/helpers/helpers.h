/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the Rust part of the module sees of C: the core of page hinting, and
 * shims for what the kernel crate does not offer. No decision is made here.
 */
#ifndef _PAGE_HINTING_HELPERS_H
#define _PAGE_HINTING_HELPERS_H

#include <linux/gfp.h>
#include <linux/kobject.h>
#include <linux/page_hinting.h>
#include <linux/types.h>

#include "trace.h"

/* zone.c: any context */

/** ph_zone_slots() - how many zones there may be, empty ones included */
unsigned int ph_zone_slots(void);

/**
 * ph_zone() - the zone of a slot below ph_zone_slots(), in the order of nodes
 *
 * Return: the zone, which may have no memory; NULL if there is no such node.
 */
struct zone *ph_zone(unsigned int slot);

/* thread.c: the one kernel thread, and what wakes it */

/** ph_client - wakes the thread */
extern struct page_hinting_client ph_client;

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
 * ph_notifiers_register() - call @ops with @data until ph_notifiers_unregister()
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

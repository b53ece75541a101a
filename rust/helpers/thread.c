// SPDX-License-Identifier: GPL-2.0
/* The thread, and the client by which the core wakes it. */
#include <linux/err.h>
#include <linux/freezer.h>
#include <linux/kthread.h>
#include <linux/sched.h>
#include <linux/wait.h>

#include "helpers.h"

static struct task_struct *ph_task;
static DECLARE_WAIT_QUEUE_HEAD(ph_wait);

/* Bit 0: woken since the thread last looked. */
static unsigned long ph_woken;

static int (*ph_run)(void *data);

void ph_thread_wake(void)
{
	set_bit(0, &ph_woken);
	wake_up(&ph_wait);
}

static void ph_client_wake(struct page_hinting_client *client)
{
	ph_thread_wake();
}

struct page_hinting_client ph_client = {
	.version = PAGE_HINTING_VERSION,
	.wake = ph_client_wake,
};

void ph_rearm(void)
{
	if (test_and_clear_bit(0, &ph_client.woken))
		trace_page_hinting_wake(atomic_long_read(&ph_client.host_asks));
	/* Look at the free areas only after a new wake-up is possible. */
	smp_mb__after_atomic();
}

static int ph_thread_fn(void *data)
{
	set_freezable();
	return ph_run(data);
}

int ph_thread_start(int (*run)(void *data), void *data)
{
	struct task_struct *task;

	ph_run = run;
	task = kthread_run(ph_thread_fn, data, "page_hinting");
	if (IS_ERR(task))
		return PTR_ERR(task);
	ph_task = task;
	return 0;
}

void ph_thread_stop(void)
{
	kthread_stop(ph_task);
}

bool ph_thread_should_stop(void)
{
	cond_resched();
	return kthread_should_stop();
}

void ph_thread_wait(unsigned int ms)
{
	wait_event_freezable_timeout(ph_wait,
				     test_and_clear_bit(0, &ph_woken) ||
				     kthread_should_stop(),
				     msecs_to_jiffies(ms));
}

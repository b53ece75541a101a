// SPDX-License-Identifier: GPL-2.0
/* What the kernel tells of the guest as a whole. */
#include <linux/notifier.h>
#include <linux/oom.h>
#include <linux/random.h>
#include <linux/suspend.h>

#include "helpers.h"

static const struct ph_notifier_ops *ph_ops;
static void *ph_data;

static int ph_out_of_memory(struct notifier_block *nb, unsigned long unused,
			    void *freed)
{
	*(unsigned long *)freed += ph_ops->out_of_memory(ph_data);
	return NOTIFY_OK;
}

static int ph_power(struct notifier_block *nb, unsigned long action, void *unused)
{
	if (action == PM_POST_HIBERNATION)
		ph_ops->restored(ph_data);
	return NOTIFY_OK;
}

static int ph_forked(struct notifier_block *nb, unsigned long unused, void *data)
{
	ph_ops->forked(ph_data);
	return NOTIFY_OK;
}

static struct notifier_block ph_oom_nb = { .notifier_call = ph_out_of_memory };
static struct notifier_block ph_power_nb = { .notifier_call = ph_power };
static struct notifier_block ph_forked_nb = { .notifier_call = ph_forked };

int ph_notifiers_register(const struct ph_notifier_ops *ops, void *data)
{
	int err;

	ph_ops = ops;
	ph_data = data;

	err = register_oom_notifier(&ph_oom_nb);
	if (err)
		return err;
	err = register_pm_notifier(&ph_power_nb);
	if (err)
		goto out_oom;
	err = register_random_vmfork_notifier(&ph_forked_nb);
	if (err)
		goto out_power;
	return 0;

out_power:
	unregister_pm_notifier(&ph_power_nb);
out_oom:
	unregister_oom_notifier(&ph_oom_nb);
	return err;
}

void ph_notifiers_unregister(void)
{
	unregister_random_vmfork_notifier(&ph_forked_nb);
	unregister_pm_notifier(&ph_power_nb);
	unregister_oom_notifier(&ph_oom_nb);
}

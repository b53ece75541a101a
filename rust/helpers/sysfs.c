// SPDX-License-Identifier: GPL-2.0
/* /sys/kernel/mm/page_hinting: one value per file, as the ABI document says. */
#include <linux/kobject.h>
#include <linux/kstrtox.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/sysfs.h>

#include "helpers.h"

static const struct ph_sysfs_ops *ph_ops;
static void *ph_data;

/* The directory, NULL if there is none; for those who do not come through it. */
static struct kobject *ph_kobj;
static DEFINE_MUTEX(ph_kobj_lock);

struct ph_attribute {
	struct kobj_attribute attr;
	enum ph_attr id;
};

static enum ph_attr ph_attr_id(struct kobj_attribute *attr)
{
	return container_of(attr, struct ph_attribute, attr)->id;
}

static ssize_t ph_show(struct kobject *kobj, struct kobj_attribute *attr,
		       char *buf)
{
	return sysfs_emit(buf, "%llu\n", ph_ops->show(ph_data, ph_attr_id(attr)));
}

static ssize_t ph_status_show(struct kobject *kobj, struct kobj_attribute *attr,
			      char *buf)
{
	s64 seconds = -1;
	const char *word = ph_ops->status(ph_data, &seconds);

	if (seconds < 0)
		return sysfs_emit(buf, "%s\n", word);
	return sysfs_emit(buf, "%s %lld\n", word, seconds);
}

static ssize_t ph_store(struct kobject *kobj, struct kobj_attribute *attr,
			const char *buf, size_t count)
{
	u64 value;
	int err;

	/* Whatever is wrong with a value, the ABI promises EINVAL. */
	if (buf[0] == '+' || kstrtou64(buf, 10, &value))
		return -EINVAL;

	err = ph_ops->store(ph_data, ph_attr_id(attr), value);
	return err ?: count;
}

#define PH_ATTR(_name, _id, _mode, _show, _store)			\
	static struct ph_attribute ph_attr_##_name = {			\
		.attr = __ATTR(_name, _mode, _show, _store),		\
		.id = (_id),						\
	}
#define PH_KNOB(_name, _id)	PH_ATTR(_name, _id, 0644, ph_show, ph_store)
#define PH_STAT(_name, _id)	PH_ATTR(_name, _id, 0444, ph_show, NULL)

PH_KNOB(enabled, PH_ENABLED);
PH_KNOB(min_order, PH_MIN_ORDER);
PH_KNOB(high_watermark_kb, PH_HIGH_WATERMARK_KB);
PH_KNOB(low_watermark_kb, PH_LOW_WATERMARK_KB);
PH_KNOB(batch_kb, PH_BATCH_KB);
PH_KNOB(hold_ms, PH_HOLD_MS);
PH_KNOB(host_granule_kb, PH_HOST_GRANULE_KB);
PH_KNOB(flush_timeout_ms, PH_FLUSH_TIMEOUT_MS);
PH_KNOB(rehint_on_vmfork, PH_REHINT_ON_VMFORK);
PH_ATTR(flush, PH_FLUSH, 0200, NULL, ph_store);
PH_ATTR(rehint, PH_REHINT, 0200, NULL, ph_store);
PH_ATTR(status, PH_STATUS, 0444, ph_status_show, NULL);

PH_STAT(hinted_kb, PH_HINTED_KB);
PH_STAT(rehinted_kb, PH_REHINTED_KB);
PH_STAT(offline_used_kb, PH_OFFLINE_USED_KB);
PH_STAT(backlog_kb, PH_BACKLOG_KB);
PH_STAT(kept_kb, PH_KEPT_KB);
PH_STAT(isolated_kb, PH_ISOLATED_KB);
PH_STAT(isolated_peak_kb, PH_ISOLATED_PEAK_KB);
PH_STAT(requests, PH_REQUESTS);
PH_STAT(acks, PH_ACKS);
PH_STAT(errors, PH_ERRORS);
PH_STAT(stalls, PH_STALLS);
PH_STAT(ack_us_max, PH_ACK_US_MAX);
PH_STAT(wakeups, PH_WAKEUPS);
PH_STAT(rehints, PH_REHINTS);

static struct attribute *ph_attrs[] = {
	&ph_attr_enabled.attr.attr,
	&ph_attr_min_order.attr.attr,
	&ph_attr_high_watermark_kb.attr.attr,
	&ph_attr_low_watermark_kb.attr.attr,
	&ph_attr_batch_kb.attr.attr,
	&ph_attr_hold_ms.attr.attr,
	&ph_attr_host_granule_kb.attr.attr,
	&ph_attr_flush_timeout_ms.attr.attr,
	&ph_attr_rehint_on_vmfork.attr.attr,
	&ph_attr_flush.attr.attr,
	&ph_attr_rehint.attr.attr,
	&ph_attr_status.attr.attr,
	NULL
};

static const struct attribute_group ph_group = {
	.attrs = ph_attrs,
};

static struct attribute *ph_stats_attrs[] = {
	&ph_attr_hinted_kb.attr.attr,
	&ph_attr_rehinted_kb.attr.attr,
	&ph_attr_offline_used_kb.attr.attr,
	&ph_attr_backlog_kb.attr.attr,
	&ph_attr_kept_kb.attr.attr,
	&ph_attr_isolated_kb.attr.attr,
	&ph_attr_isolated_peak_kb.attr.attr,
	&ph_attr_requests.attr.attr,
	&ph_attr_acks.attr.attr,
	&ph_attr_errors.attr.attr,
	&ph_attr_stalls.attr.attr,
	&ph_attr_ack_us_max.attr.attr,
	&ph_attr_wakeups.attr.attr,
	&ph_attr_rehints.attr.attr,
	NULL
};

static const struct attribute_group ph_stats_group = {
	.name = "stats",
	.attrs = ph_stats_attrs,
};

static const struct attribute_group *ph_groups[] = {
	&ph_group,
	&ph_stats_group,
	NULL
};

int ph_sysfs_create(const struct ph_sysfs_ops *ops, void *data)
{
	struct kobject *kobj;
	int err;

	ph_ops = ops;
	ph_data = data;

	kobj = kobject_create_and_add("page_hinting", mm_kobj);
	if (!kobj)
		return -ENOMEM;

	err = sysfs_create_groups(kobj, ph_groups);
	mutex_lock(&ph_kobj_lock);
	ph_kobj = kobj;
	mutex_unlock(&ph_kobj_lock);
	if (err)
		ph_sysfs_remove();
	return err;
}

void ph_sysfs_remove(void)
{
	struct kobject *kobj;

	mutex_lock(&ph_kobj_lock);
	kobj = ph_kobj;
	ph_kobj = NULL;
	mutex_unlock(&ph_kobj_lock);
	/* Not left to the last reference: the files must be gone when the module is. */
	kobject_del(kobj);
	kobject_put(kobj);
}

void ph_sysfs_notify(unsigned int attr)
{
	mutex_lock(&ph_kobj_lock);
	if (ph_kobj && attr == PH_STATUS)
		sysfs_notify(ph_kobj, NULL, "status");
	else if (ph_kobj && attr == PH_BACKLOG_KB)
		sysfs_notify(ph_kobj, "stats", "backlog_kb");
	mutex_unlock(&ph_kobj_lock);
}

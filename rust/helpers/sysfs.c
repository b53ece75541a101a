// SPDX-License-Identifier: GPL-2.0
#include <linux/sysfs.h>

#include "helpers.h"

void ph_attr_init(struct kobj_attribute *attr, const char *name, umode_t mode,
		  ssize_t (*show)(struct kobject *kobj,
				  struct kobj_attribute *attr, char *buf),
		  ssize_t (*store)(struct kobject *kobj,
				   struct kobj_attribute *attr, const char *buf,
				   size_t count))
{
	sysfs_attr_init(&attr->attr);
	attr->attr.name = name;
	attr->attr.mode = mode;
	attr->show = show;
	attr->store = store;
}

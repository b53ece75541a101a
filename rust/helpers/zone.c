// SPDX-License-Identifier: GPL-2.0
#include <linux/mmzone.h>
#include <linux/pageblock-flags.h>

#include "helpers.h"

unsigned int ph_pageblock_order(void)
{
	return pageblock_order;
}

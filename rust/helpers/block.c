// SPDX-License-Identifier: GPL-2.0
#include <linux/mm.h>

#include "helpers.h"

void ph_batch_init(struct page_hinting_batch *batch, bool ranges)
{
	page_hinting_init_batch(batch, ranges);
}

struct page *ph_batch_take_all(struct page_hinting_batch *batch)
{
	return page_hinting_take_all(batch);
}

unsigned long ph_request_id(const struct page *req)
{
	return page_to_pfn(req);
}

unsigned long ph_batch_id(const struct page_hinting_batch *batch)
{
	if (!batch->nr_blocks)
		return 0;
	return ph_request_id(list_first_entry(&batch->blocks, struct page,
					      buddy_list));
}

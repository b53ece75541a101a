// SPDX-License-Identifier: GPL-2.0
#include <linux/mmzone.h>
#include <linux/nodemask.h>
#include <linux/pageblock-flags.h>

#include "helpers.h"

unsigned int ph_pageblock_order(void)
{
	return pageblock_order;
}

const char *ph_zone_name(const struct zone *zone)
{
	return zone->name;
}

int ph_zone_node(const struct zone *zone)
{
	return zone_to_nid(zone);
}

unsigned int ph_zone_slot(const struct zone *zone)
{
	return zone_to_nid(zone) * MAX_NR_ZONES + zone_idx(zone);
}

unsigned int ph_zone_slots(void)
{
	return nr_node_ids * MAX_NR_ZONES;
}

unsigned long ph_zone_managed(const struct zone *zone)
{
	return zone_managed_pages(zone);
}

unsigned long ph_zone_isolated(const struct zone *zone)
{
	/* Written under zone->lock, read for diagnostics. */
	return data_race(zone->nr_hinting);
}

unsigned long ph_zone_reserved(const struct zone *zone)
{
	return READ_ONCE(zone->nr_free_highatomic);
}

/* Zones without memory and offline nodes count too: the sum only grows. */
#define ph_sum_zones(field)						\
({									\
	unsigned long __sum = 0;					\
	int __nid, __i;							\
									\
	for_each_node(__nid) {						\
		const pg_data_t *__pgdat = NODE_DATA(__nid);		\
									\
		for (__i = 0; __pgdat && __i < MAX_NR_ZONES; __i++)	\
			/* Written under zone->lock, read for statistics. */ \
			__sum += data_race(__pgdat->node_zones[__i].field); \
	}								\
	__sum;								\
})

unsigned long ph_offline_used(void)
{
	return ph_sum_zones(offline_used);
}

unsigned long ph_untagged(void)
{
	return ph_sum_zones(nr_untagged);
}

void ph_zone_area(const struct zone *zone, unsigned int order,
		  struct ph_area *area)
{
	const struct free_area *from = &zone->free_area[order];

	/* Written under zone->lock, read for diagnostics. */
	area->nr_free = data_race(from->nr_free);
	area->nr_offline = data_race(from->nr_offline);
	area->nr_freed = free_area_nr_freed(from);
	area->nr_bound = data_race(from->nr_bound);
}

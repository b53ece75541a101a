// SPDX-License-Identifier: GPL-2.0
#include <linux/mmzone.h>
#include <linux/nodemask.h>

#include "helpers.h"

unsigned int ph_zone_slots(void)
{
	return nr_node_ids * MAX_NR_ZONES;
}

struct zone *ph_zone(unsigned int slot)
{
	pg_data_t *pgdat = NODE_DATA(slot / MAX_NR_ZONES);

	return pgdat ? &pgdat->node_zones[slot % MAX_NR_ZONES] : NULL;
}

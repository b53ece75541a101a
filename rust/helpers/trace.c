// SPDX-License-Identifier: GPL-2.0
#include "helpers.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

void ph_trace_take(const struct zone *zone, unsigned int order,
		   unsigned long request, unsigned long nr_pages)
{
	trace_page_hinting_take(zone, order, request, nr_pages);
}

void ph_trace_submit(unsigned long request, unsigned int nr_ranges,
		     unsigned int nr_blocks, int err)
{
	trace_page_hinting_submit(request, nr_ranges, nr_blocks, err);
}

void ph_trace_ack(unsigned long request, u64 latency_ns)
{
	trace_page_hinting_ack(request, latency_ns);
}

void ph_trace_return(unsigned long request, unsigned long nr_pages, bool offline)
{
	trace_page_hinting_return(request, nr_pages, offline);
}

void ph_trace_stall(u64 oldest_ns)
{
	trace_page_hinting_stall(oldest_ns);
}

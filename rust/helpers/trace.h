/* SPDX-License-Identifier: GPL-2.0 */
/* The tracepoints. A request is called by the page frame of its first block. */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM page_hinting

#if !defined(_PAGE_HINTING_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define _PAGE_HINTING_TRACE_H

#include <linux/mm.h>
#include <linux/tracepoint.h>

/* A free area has reached the watermark, and the thread was woken for it. */
TRACE_EVENT(page_hinting_wake,
	TP_PROTO(unsigned long host_asks),
	TP_ARGS(host_asks),
	TP_STRUCT__entry(
		__field(unsigned long,	host_asks)
	),
	TP_fast_assign(
		__entry->host_asks = host_asks;
	),
	TP_printk("host_asks=%lu", __entry->host_asks)
);

/* Free blocks were isolated, in one hold of zone->lock. */
TRACE_EVENT(page_hinting_take,
	TP_PROTO(struct zone *zone, unsigned int order, struct page *request,
		 unsigned long nr_pages),
	TP_ARGS(zone, order, request, nr_pages),
	TP_STRUCT__entry(
		__field(int,		node)
		__string(zone,		zone->name)
		__field(unsigned int,	order)
		__field(unsigned long,	request)
		__field(unsigned long,	nr_pages)
	),
	TP_fast_assign(
		__entry->node		= zone_to_nid(zone);
		__assign_str(zone);
		__entry->order		= order;
		__entry->request	= page_to_pfn(request);
		__entry->nr_pages	= nr_pages;
	),
	TP_printk("node=%d zone=%s order=%u request=%#lx nr_pages=%lu",
		  __entry->node, __get_str(zone), __entry->order,
		  __entry->request, __entry->nr_pages)
);

/* A request was handed to the device, or the device did not take it. */
TRACE_EVENT(page_hinting_submit,
	TP_PROTO(struct page *request, unsigned int nr_ranges,
		 unsigned int nr_blocks, int err),
	TP_ARGS(request, nr_ranges, nr_blocks, err),
	TP_STRUCT__entry(
		__field(unsigned long,	request)
		__field(unsigned int,	nr_ranges)
		__field(unsigned int,	nr_blocks)
		__field(int,		err)
	),
	TP_fast_assign(
		__entry->request	= page_to_pfn(request);
		__entry->nr_ranges	= nr_ranges;
		__entry->nr_blocks	= nr_blocks;
		__entry->err		= err;
	),
	TP_printk("request=%#lx nr_ranges=%u nr_blocks=%u err=%d",
		  __entry->request, __entry->nr_ranges, __entry->nr_blocks,
		  __entry->err)
);

/* The host has acknowledged a request. */
TRACE_EVENT(page_hinting_ack,
	TP_PROTO(struct page *request, u64 latency_ns),
	TP_ARGS(request, latency_ns),
	TP_STRUCT__entry(
		__field(unsigned long,	request)
		__field(u64,		latency_ns)
	),
	TP_fast_assign(
		__entry->request	= page_to_pfn(request);
		__entry->latency_ns	= latency_ns;
	),
	TP_printk("request=%#lx latency_ns=%llu",
		  __entry->request, __entry->latency_ns)
);

/* The blocks of a request are back on the free lists. */
TRACE_EVENT(page_hinting_return,
	TP_PROTO(struct page *request, unsigned long nr_pages, bool offline),
	TP_ARGS(request, nr_pages, offline),
	TP_STRUCT__entry(
		__field(unsigned long,	request)
		__field(unsigned long,	nr_pages)
		__field(bool,		offline)
	),
	TP_fast_assign(
		__entry->request	= page_to_pfn(request);
		__entry->nr_pages	= nr_pages;
		__entry->offline	= offline;
	),
	TP_printk("request=%#lx nr_pages=%lu offline=%d",
		  __entry->request, __entry->nr_pages, __entry->offline)
);

/* The host has not answered for long. */
TRACE_EVENT(page_hinting_stall,
	TP_PROTO(u64 oldest_ns),
	TP_ARGS(oldest_ns),
	TP_STRUCT__entry(
		__field(u64,	oldest_ns)
	),
	TP_fast_assign(
		__entry->oldest_ns = oldest_ns;
	),
	TP_printk("oldest_ns=%llu", __entry->oldest_ns)
);

#endif /* _PAGE_HINTING_TRACE_H */

#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Three ways to count free memory agree, as exactly as in a kernel without
# hinting: the counters of the free areas (buddyinfo), the blocks that are
# really on the lists (pagetypeinfo), and the zone's own (nr_free_pages).

. "$(dirname "$0")/lib.sh"

test_before_insmod() {
	if loaded; then
		unload || return
	fi
	counts_agree
}

test_all_hinted() {
	load && memhog -t 256 && wait_settled && counts_agree
}

test_low_orders_hinted() {
	set_knob min_order 0 && memhog -T 64 && wait_settled && counts_agree
}

test_reused_and_compacted() {
	memhog -t 512 && memhog -T 64 && echo 1 > /proc/sys/vm/compact_memory &&
	wait_settled && counts_agree
}

test_after_rmmod() {
	unload && counts_agree
}

run_tests \
	test_before_insmod \
	test_all_hinted \
	test_low_orders_hinted \
	test_reused_and_compacted \
	test_after_rmmod

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# /proc/kpageflags tells what is free and known to the host, over the whole of
# each block, from what is only free, and from what is in use.

. "$(dirname "$0")/lib.sh"

MIB=64

flags_match_table() {
	table=$(offline_pages)
	count_flags && [ "$buddy_offline" -eq "$table" ]
}

test_as_many_as_the_table_says() {
	load_with_sim mode=now && wait_settled && memhog -t $MIB && wait_settled || return
	wait_for "as many free pages to be OFFLINE as in the table" flags_match_table ||
		fail "$buddy_offline pages are BUDDY and OFFLINE, $table in the table" || return
	[ "$buddy_offline" -gt $((buddy / 2)) ] ||
		fail "of $buddy free pages, $buddy_offline are OFFLINE" || return
	expect "OFFLINE pages that are not free" "$offline" 0
}

# What was free and Offline is in use.
test_in_use() {
	count_flags -m $MIB && expect "pages" "$pages" $((MIB * 256)) &&
	expect "used pages that are BUDDY" "$buddy" 0 &&
	expect "used pages that are OFFLINE" "$offline" 0
}

# What is in flight is free, and the host has not acknowledged it.
test_in_flight() {
	one_block_at_a_time && hold_range && count_flags "$block" $BLOCK &&
	expect "pages" "$pages" $BLOCK &&
	expect "pages in flight that are BUDDY" "$buddy" $BLOCK &&
	expect "pages in flight that are OFFLINE" "$offline" 0
}

test_answered() {
	sim_answer_all &&
	wait_for "all of the block to be BUDDY and OFFLINE" range_is_offline "$block" $BLOCK
}

# The device goes, and the block is as free as before.
test_not_answered() {
	hold_range && sim_unload &&
	wait_for "all of the block to be BUDDY, and nothing OFFLINE" \
		range_is_unhinted "$block" $BLOCK
}

run_tests \
	test_as_many_as_the_table_says \
	test_in_use \
	test_in_flight \
	test_answered \
	test_not_answered

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The high watermark wakes the thread, and the low one lets it sleep again.

. "$(dirname "$0")/lib.sh"

test_below_high_is_left_alone() {
	local hinted

	load_fresh && wait_settled && set_knob high_watermark_kb 262144 || return
	hinted=$(get stats/hinted_kb)
	memhog -t 64 || return
	sleep 2
	expect hinted_kb "$(get stats/hinted_kb)" "$hinted" &&
	expect status "$(get status)" idle || return
	[ "$(get stats/backlog_kb)" -ge $((32 * 1024)) ] ||
		fail "backlog_kb is $(get stats/backlog_kb) after 64 MiB were freed"
}

test_above_high_wakes() {
	local want

	want=$(($(get stats/hinted_kb) + 256 * 1024))
	memhog -t 640 &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want
}

test_lower_high_is_seen_at_once() {
	memhog -t 64 && set_knob high_watermark_kb 4 && wait_settled
}

test_low_leaves_a_reserve() {
	local want

	set_knob high_watermark_kb 131072 && set_knob low_watermark_kb 65536 || return
	want=$(($(get stats/hinted_kb) + 128 * 1024))
	memhog -t 640 &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want && wait_settled || return
	[ "$(get stats/backlog_kb)" -ge $((32 * 1024)) ] ||
		fail "backlog_kb is $(get stats/backlog_kb) with low_watermark_kb 65536"
}

run_tests \
	test_below_high_is_left_alone \
	test_above_high_wakes \
	test_lower_high_is_seen_at_once \
	test_low_leaves_a_reserve

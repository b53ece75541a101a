#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The high watermark wakes the thread, and the low one lets it sleep again.
# What stays below the high one is looked for two seconds after the last pass:
# what is done in less is done by the watermark.

. "$(dirname "$0")/lib.sh"

TRICKLE_MS=2000
HIGHEST=4294967296

uptime_ms() {
	awk '{ print int($1 * 1000) }' /proc/uptime
}

# Frees 64 MiB with this high watermark, just after a flush and when all that follows a
# pass is over, which is a second later, and sets $hinted to what was hinted within 1.3 s
# of the flush.  A guest that is too slow for that is asked again, up to ten times.
free_after_pass() { # HIGH_WATERMARK_KB
	local try=0 start before

	while [ $try -lt 10 ]; do
		set_knob high_watermark_kb 4 && memhog -t 64 && wait_settled || return
		set_knob high_watermark_kb "$1" || return
		sleep 1.1
		set_knob flush 1 || return
		start=$(uptime_ms)
		before=$(get stats/hinted_kb)
		memhog -t 64 || return
		while [ $(($(uptime_ms) - start)) -lt 1300 ]; do
			sleep 0.1
		done
		hinted=$(($(get stats/hinted_kb) - before))
		[ $(($(uptime_ms) - start)) -ge $((TRICKLE_MS - 500)) ] || return 0
		try=$((try + 1))
	done
	skip "this guest is too slow to free 64 MiB within a second"
}

test_below_high_does_not_wake() {
	limit_pcp_lists && load_fresh && free_after_pass $HIGHEST || return
	[ "$hinted" -lt $((16 * 1024)) ] ||
		fail "$hinted KiB were hinted at once, far below the high watermark"
}

test_above_high_wakes() {
	free_after_pass 4096 || return
	[ "$hinted" -ge $((48 * 1024)) ] ||
		fail "only $hinted KiB of 64 MiB were hinted at once"
}

test_below_high_is_hinted_in_time() {
	local want

	set_knob high_watermark_kb $HIGHEST && wait_settled || return
	want=$(($(get stats/hinted_kb) + 48 * 1024))
	memhog -t 64 &&
	wait_for "hinted_kb of $want, below the high watermark" \
		stat_at_least hinted_kb $want
}

test_low_leaves_a_reserve() {
	local want

	set_knob high_watermark_kb 131072 && set_knob low_watermark_kb 65536 || return
	want=$(($(get stats/hinted_kb) + 256 * 1024))
	memhog -t 640 &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want && wait_settled || return
	sleep 3
	[ "$(get stats/backlog_kb)" -ge $((32 * 1024)) ] ||
		fail "backlog_kb is $(get stats/backlog_kb) with low_watermark_kb 65536"
}

test_no_reserve_when_low_is_0() {
	set_knob low_watermark_kb 0 && wait_settled
}

pcp_kb() {
	awk '/^ *count:/ { n += $2 } END { print n * 4 }' /proc/zoneinfo
}

# Less than half of what they kept of a burst, if it was worth mention.
cpus_have_less() {
	[ "$kept" -lt 16384 ] || [ "$(pcp_kb)" -le $((kept / 2)) ]
}

# The CPUs keep some of what is freed at one blow. They are drained once it is over,
# even if they were for another burst less than a second before. In a second they would
# be in any case: a guest that is too slow to see that is asked again.
test_what_the_cpus_keep_follows() {
	local try=0 begin freed kept left

	echo 0 > $PCP_FRACTION && load_fresh || return
	while [ $try -lt 10 ]; do
		wait_settled && memhog -t 192 || return
		kept=$(pcp_kb)
		wait_for "the CPUs to be drained" cpus_have_less || return
		begin=$(uptime_ms)
		memhog -t 128 || return
		kept=$(pcp_kb)
		freed=$(uptime_ms)
		until cpus_have_less || [ $(($(uptime_ms) - freed)) -gt 150 ]; do
			sleep 0.02
		done
		left=$(pcp_kb)
		[ "$kept" -lt 16384 ] || [ $(($(uptime_ms) - begin)) -ge 750 ] || break
		try=$((try + 1))
	done
	[ $try -lt 10 ] || skip "the CPUs keep $kept KiB, or this guest is too slow" || return
	[ "$left" -le $((kept / 2)) ] || fail "the CPUs kept $kept KiB, and $left KiB a moment later"
}

run_tests \
	test_what_the_cpus_keep_follows \
	test_below_high_does_not_wake \
	test_above_high_wakes \
	test_below_high_is_hinted_in_time \
	test_low_leaves_a_reserve \
	test_no_reserve_when_low_is_0

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The high watermark wakes the thread, and the low one lets it sleep again.
# What stays below the high one is looked for two seconds after the last pass:
# what is done in less is done by the watermark.

. "$(dirname "$0")/lib.sh"

# Times are in hundredths of seconds, as get_cs has them: it starts no program, which takes
# long in a busy guest.
TRICKLE_CS=200
HIGHEST=4294967296
TRIES=20

# Frees 64 MiB with this high watermark, just after a flush and when all that follows a
# pass is over, which is a second later, and sets $hinted to what was hinted 1.3 s after the
# flush began; or, of ENOUGH_KB, before the thread may look by itself. The look of the flush is
# no earlier than it began, so that no other look can come before, however slow the guest is.
# One that is too slow for that is asked again; fails if it was each time.
free_after_pass() { # HIGH_WATERMARK_KB [ENOUGH_KB]
	local try=0 start before now_kb enough=${2:-0}

	while [ $try -lt $TRIES ]; do
		set_knob high_watermark_kb 4 && memhog -t 64 && wait_settled || return
		set_knob high_watermark_kb "$1" || return
		sleep 1.1
		get_cs
		start=$cs
		set_knob flush 1 || return
		read -r before < "$SYSFS/stats/hinted_kb"
		memhog -t 64 || return
		while :; do
			get_cs
			if [ $((cs - start)) -ge 130 ]; then
				read -r now_kb < "$SYSFS/stats/hinted_kb"
				hinted=$((now_kb - before))
				get_cs
				[ $((cs - start)) -lt $((TRICKLE_CS - 10)) ] || break
				[ $hinted -lt "$enough" ] || return 0
			fi
			sleep 0.05
		done
		try=$((try + 1))
	done
	return 1
}

test_below_high_does_not_wake() {
	limit_pcp_lists && load_fresh || return
	free_after_pass $HIGHEST ||
		skip "this guest is too slow to free 64 MiB within a second" || return
	[ "$hinted" -lt $((16 * 1024)) ] ||
		fail "$hinted KiB were hinted at once, far below the high watermark"
}

test_above_high_wakes() {
	free_after_pass 4096 $((48 * 1024)) ||
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

# Starts a program that has 128 MiB, which it frees when 5 is closed: to use them as well would
# take a slow guest too long.
hold_burst() {
	rm -f /tmp/burst /tmp/burst.out
	mkfifo /tmp/burst || fail "mkfifo" || return
	"$DIR/memhog" -t 128 < /tmp/burst > /tmp/burst.out &
	background=$!
	exec 5> /tmp/burst
	wait_for "memhog to touch 128 MiB" grep -qs touched /tmp/burst.out
}

free_burst() {
	exec 5>&-
	wait "$background" || fail "memhog: status $?" || return
	background=
}

# The CPUs keep some of what is freed at one blow. They are drained once it is over,
# even if they were for another burst less than a second before. In a second they would
# be in any case: a guest that is too slow to see that is asked again. So is one whose thread
# came too late, twice: it may have been without a CPU just then.
test_what_the_cpus_keep_follows() {
	local try=0 late=0 begin kept left

	echo 0 > $PCP_FRACTION && load_fresh || return
	while [ $try -lt $TRIES ]; do
		hold_burst && wait_settled && memhog -t 192 || return
		kept=$(pcp_kb)
		wait_for "the CPUs to be drained" cpus_have_less || return
		get_cs
		begin=$cs
		# What follows the first burst is over by then.
		sleep 0.25
		free_burst || return
		kept=$(pcp_kb)
		until cpus_have_less || { get_cs && [ $((cs - begin)) -gt 65 ]; }; do
			sleep 0.02
		done
		left=$(pcp_kb)
		get_cs
		if [ "$kept" -ge 16384 ] && [ $((cs - begin)) -lt 75 ]; then
			[ "$left" -gt $((kept / 2)) ] || return 0
			late=$((late + 1))
			[ $late -lt 3 ] || fail "the CPUs kept $kept KiB, and $left KiB a moment later" || return
		fi
		try=$((try + 1))
	done
	skip "the CPUs keep $kept KiB, or this guest is too slow"
}

run_tests \
	test_what_the_cpus_keep_follows \
	test_below_high_does_not_wake \
	test_above_high_wakes \
	test_below_high_is_hinted_in_time \
	test_low_leaves_a_reserve \
	test_no_reserve_when_low_is_0

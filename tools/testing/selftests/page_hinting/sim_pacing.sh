#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Pacing where the zones are small, and where allocations use hinted memory though other
# memory of the zone is kept for them.

. "$(dirname "$0")/lib.sh"

HOLD_MS=10000
# The thread looks every two seconds.
MOST_S=$((HOLD_MS / 1000 + 3 + $(scaled $GOES_ON)))

# A quarter of what is free, as whole blocks of the largest order.
quarter_mib() {
	mib=$(($(awk '/^MemFree:/ { print $2 }' /proc/meminfo) / 4096))
	[ $mib -le 96 ] || mib=96
	mib=$((mib / 4 * 4))
}

# All is hinted, and nothing is known to recur.
settle() { # HOLD_MS
	local ret=0

	all_defaults=1
	# Of small granules a small zone has enough for the fuse.
	load_with_sim mode=now && limit_pcp_lists && set_knob hold_ms "$1" &&
	set_knob host_granule_kb 64 && set_knob flush_timeout_ms $((WAIT * 1000)) &&
	set_knob flush 1 || ret=$?
	all_defaults=
	return $ret
}

# Whatever happened before, an idle guest hints all that may be hinted when the hold is over.
test_all_is_hinted_after_a_loop() {
	quarter_mib && settle $HOLD_MS && keep_loop "$mib" &&
	seconds wait_for "nothing to be kept" stat_is kept_kb 0 && wait_settled || return
	[ "$took" -ge $((HOLD_MS / 2000)) ] || fail "memory was kept for only $took s" || return
	[ "$took" -le $MOST_S ] || fail "memory was kept for $took s"
}

# The thread looks before and after memory is used, so that only the lows tell of the use. The
# second cycle uses twice as much: what the first used recurs, and no more is kept.
test_a_cycle_between_two_looks_is_kept() {
	local want

	quarter_mib && settle 60000 && set_knob high_watermark_kb $((mib * 512)) && set_knob flush 1 || return
	want=$(($(get stats/hinted_kb) + mib * 512))
	sim_blocks $((mib / 4)) movable && wait_for "hinted_kb of $want" stat_at_least hinted_kb $want &&
	wait_settled && sim_blocks $((mib / 2)) movable &&
	wait_for "the memory of a cycle to be kept" keeps "$mib" || return
	# A look may have come while the cycle went on.
	sleep 1
	[ "$(get stats/kept_kb)" -le $((mib * 1536)) ] ||
		fail "$(get stats/kept_kb) KiB are kept after a cycle of $mib MiB and one of twice as much"
}

# Twice as much. Unmovable memory is of pageblocks of its own.
use_unmovable() {
	sim_blocks $((mib / 2)) unmovable
}

# The loop's memory is movable, and kept. What is allocated now prefers its own kind, which
# is hinted: it bypasses what is kept, and the zone is not hinted for one hold.
test_a_bypass_holds_the_zone() {
	# A new hold_ms forgets that the unmovable memory was used.
	quarter_mib && settle $((HOLD_MS + 1)) && use_unmovable && set_knob flush 1 &&
	set_knob hold_ms $HOLD_MS && keep_loop "$mib" || return
	# The thread looks again, every two seconds: what was in use before was the loop.
	sleep 3
	use_unmovable || return
	wait_for "what was used beside it to be kept as well" stat_at_least kept_kb $((mib * 2048)) ||
		fail "$(get stats/kept_kb) KiB are kept" || return
	seconds wait_for "nothing to be kept" stat_is kept_kb 0 || return
	[ "$took" -le $MOST_S ] || fail "it was kept for $took s" || return
	wait_settled
}

run_tests \
	test_all_is_hinted_after_a_loop \
	test_a_cycle_between_two_looks_is_kept \
	test_a_bypass_holds_the_zone

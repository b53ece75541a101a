#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Memory that recurs within hold_ms is kept, all other memory is hinted at once, and
# nothing is kept for longer than hold_ms.

. "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2034 # for load
all_defaults=1

MIB=96
# Longer than any of the waits below, and the time for a test that waits for its end.
LONG_MS=60000
HOLD_MS=8000

# All that is free is hinted, and nothing is known to recur.
settle() { # HOLD_MS
	limit_pcp_lists && load_fresh && set_knob hold_ms "$1" && set_knob flush_timeout_ms 60000 &&
	set_knob flush 1
}

# Sets $delta to what a statistic rises by.
delta_of() { # STATISTIC COMMAND...
	local stat="stats/$1" before

	before=$(get "$stat")
	shift
	"$@" || return
	delta=$(($(get "$stat") - before))
}

cycles() { # N [WRAPPER...]
	local n=$1

	shift
	while [ "$n" -gt 0 ]; do
		"$@" "$DIR/memhog" -t $MIB < /dev/null > /dev/null || fail "memhog: status $?" || return
		n=$((n - 1))
	done
}

keep() { # [WRAPPER...]
	keep_loop $MIB "$@"
}

# Long before a hold of $LONG_MS is over.
is_hinted_soon() {
	goes_on "what was kept to be hinted" stat_is kept_kb 0 && wait_settled
}

test_a_burst_that_refaults_is_hinted_at_once() {
	local want

	settle $LONG_MS || return
	want=$(($(get stats/hinted_kb) + MIB * 1024 / 2))
	delta_of offline_used_kb cycles 1 || return
	[ "$delta" -ge $((MIB * 1024 / 2)) ] || fail "only $delta KiB of hinted memory were used" || return
	goes_on "hinted_kb of $want" stat_at_least hinted_kb $want && expect kept_kb "$(get stats/kept_kb)" 0
}

test_a_faster_cycle_is_kept() {
	local begin least=$((HOLD_MS / 1000 - 2)) most=$((HOLD_MS / 1000 + $(scaled $GOES_ON)))

	settle $HOLD_MS && keep && delta_of offline_used_kb cycles 5 || return
	[ "$delta" -le $((MIB * 1024)) ] || fail "$delta KiB were used again in 5 cycles of $MIB MiB" || return
	# It is kept from when it is freed, which is no earlier than this, however late it is seen.
	get_now
	begin=$now
	cycles 1 || return
	goes_on "the last cycle's memory to be kept" keeps $MIB || return
	seconds wait_for "what was kept to be hinted" stat_is kept_kb 0 || return
	get_now
	[ $((now - begin)) -ge $least ] && [ "$took" -le $most ] ||
		fail "memory was kept for $took s after a cycle, expected $least to $most" || return
	wait_settled
}

test_a_slower_cycle_is_hinted_each_time() {
	local n=0

	settle 100 || return
	while [ $n -lt 4 ]; do
		delta_of hinted_kb slow_cycle || return
		[ "$delta" -ge $((MIB * 1024 / 2)) ] || fail "cycle $n: $delta KiB were hinted" || return
		n=$((n + 1))
	done
}

slow_cycle() {
	cycles 1 && sleep 1 && wait_settled
}

# What a cycle frees is hinted before the next: a busy guest may take longer to hint it than
# to use it again.
hinted_cycles() { # N
	local n=$1

	while [ "$n" -gt 0 ]; do
		cycles 1 && wait_settled || return
		n=$((n - 1))
	done
}

test_hold_0_keeps_nothing() {
	settle 0 && delta_of offline_used_kb hinted_cycles 5 || return
	[ "$delta" -ge $((MIB * 1024 * 2)) ] ||
		fail "only $delta KiB were used again in 5 cycles of $MIB MiB" || return
	expect kept_kb "$(get stats/kept_kb)" 0
}

test_a_new_hold_begins_afresh() {
	settle $LONG_MS && keep && set_knob hold_ms $((LONG_MS - 1)) && is_hinted_soon
}

# Levels have the same size with 4 KiB and with 8: then nothing but the knob ends what is kept.
test_a_new_granule_begins_afresh() {
	settle $LONG_MS && keep && set_knob host_granule_kb 4 && is_hinted_soon &&
	keep && set_knob host_granule_kb 8 && is_hinted_soon
}

test_a_new_min_order_begins_afresh() {
	settle $LONG_MS && keep && set_knob min_order 8 && is_hinted_soon
}

test_enabled_begins_afresh() {
	settle $LONG_MS && keep && set_knob enabled 0 && wait_for "nothing to be kept" stat_is kept_kb 0 &&
	set_knob enabled 1 && is_hinted_soon
}

test_a_bad_hold_changes_nothing() {
	local errno

	settle $LONG_MS && keep || return
	errno=$("$DIR/sysfs_write" "$SYSFS/hold_ms" 60001)
	expect "a write of 60001" "$errno" EINVAL && expect hold_ms "$(get hold_ms)" $LONG_MS || return
	sleep 1
	# What is hinted now is not kept any more; but others' memory may just be hinted.
	wait_for "the memory to be kept as before" keeps $MIB ||
		fail "status '$(get status)', kept_kb $(get stats/kept_kb) after a bad write"
}

test_flush_is_not_paced() {
	local most

	settle $LONG_MS && keep && set_knob flush 1 || return
	most=$(after_flush_kb)
	[ "$(get stats/backlog_kb)" -le "$most" ] ||
		fail "$(get stats/backlog_kb) KiB are kept after a flush"
}

# A rise of the balloon's target, however little.
test_the_host_asks() {
	local mib ret=0

	need_host && mib=$(actual_mib) || return
	# For a minute nothing is kept.
	settle $LONG_MS && keep && host balloon $((mib - 1)) && is_hinted_soon &&
	cycles 3 && expect kept_kb "$(get stats/kept_kb)" 0 || ret=$?
	host balloon "$mib" && return $ret
}

test_a_cycle_on_either_node() {
	local node

	[ -d /sys/devices/system/node/node1 ] || skip "one node only" || return
	settle $LONG_MS || return
	for node in 0 1; do
		keep "$DIR/on_node" $node && set_knob flush 1 || return
	done
}

run_tests \
	test_a_cycle_on_either_node \
	test_a_burst_that_refaults_is_hinted_at_once \
	test_a_slower_cycle_is_hinted_each_time \
	test_a_faster_cycle_is_kept \
	test_hold_0_keeps_nothing \
	test_a_new_hold_begins_afresh \
	test_a_new_granule_begins_afresh \
	test_a_new_min_order_begins_afresh \
	test_enabled_begins_afresh \
	test_a_bad_hold_changes_nothing \
	test_flush_is_not_paced \
	test_the_host_asks

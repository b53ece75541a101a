#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Hosts of all kinds, simulated: each is hinted to, and what it and the module
# count is the same.

. "$(dirname "$0")/lib.sh"

MIB=128

# Everything free is hinted, and then memory that is used and freed again.
hints_all() {
	wait_settled && hints_freed $MIB && wait_settled && sim_counts_agree && sim_nothing_corrupted &&
	expect isolated_kb "$(get stats/isolated_kb)" 0
}

test_now() {
	load_with_sim mode=now && hints_all &&
	expect "requests out of order" "$(sim_get reordered)" 0
}

test_late() {
	load_with_sim mode=late delay_ms=50 && hints_all || return
	[ "$(get stats/ack_us_max)" -ge 50000 ] ||
		fail "ack_us_max is $(get stats/ack_us_max) with a delay of 50 ms"
}

# Several requests go out before the first is answered, in a slow guest too: all of it
# is there when hinting begins, and in blocks that are neither adjacent nor large, as a
# request has eight of them, and a zone gives a 64th of its memory at a time.
test_out_of_order() {
	local fifo=/tmp/fragment.$$

	rm -f $fifo $fifo.out
	mkfifo $fifo || fail "mkfifo" || return
	load_with_sim mode=reorder delay_ms=200 && set_knob min_order 6 && wait_settled &&
	set_knob enabled 0 && wait_for "status off" status_is off || return
	"$DIR/fragment" 6 $MIB < $fifo > $fifo.out &
	background=$!
	exec 5> $fifo
	wait_for "fragment 6 $MIB" test -s $fifo.out && set_knob enabled 1 &&
	wait_for "requests to be answered out of order" sim_at_least reordered 1
	exec 5>&-
	wait "$background"
	background=
	rm -f $fifo $fifo.out
	[ "$(sim_get reordered)" -gt 0 ] ||
		fail "all $(sim_get acked) requests were answered in their order" || return
	set_knob min_order 9 && hints_all
}

# What the host has fits into its queue, though it takes its time: with room for one
# range there is one request at a time.
test_no_more_than_the_queue_holds() {
	local capacity

	for capacity in 1 3 32; do
		load_with_sim mode=late delay_ms=5 capacity=$capacity && hints_all || return
		[ "$(sim_get ranges_peak)" -le $capacity ] ||
			fail "$(sim_get ranges_peak) ranges were in a queue for $capacity" || return
	done
}

refused() {
	kernel_log | grep -c 'the device returned a request that it does not have'
}

# A second answer, and one to nothing that was asked, are refused.
test_twice_and_bogus() {
	local before

	before=$(refused)
	load_with_sim mode=twice && hints_all || return
	[ "$(sim_get doubled)" -gt 0 ] && [ "$(sim_get bogus)" -gt 0 ] ||
		fail "$(sim_get doubled) tokens returned twice, $(sim_get bogus) bogus" ||
		return
	[ "$(refused)" -gt "$before" ] ||
		fail "nothing in the kernel log about $(sim_get doubled) double answers"
}

# Blocks that the device refuses are free as before, and not tagged.
test_error() {
	local errors tagged

	load_with_sim mode=now && take_stock && load_with_sim mode=error && set_knob enabled 0 &&
	wait_for "status off" status_is off && memhog -t $MIB || return
	errors=$(get stats/errors)
	tagged=$(offline_pages)
	set_knob enabled 1 && wait_for "3 errors more" stat_at_least errors $((errors + 3)) || return
	expect hinted_kb "$(get stats/hinted_kb)" 0 &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	nothing_is_lost || return
	[ "$(get stats/backlog_kb)" -ge $((MIB * 768)) ] ||
		fail "a backlog of $(get stats/backlog_kb) KiB after $MIB MiB were freed" || return
	tagged=$(($(offline_pages) - tagged))
	[ $tagged -le 0 ] || fail "$tagged pages more are Offline after 3 errors"
}

test_recovery_after_error() {
	sim_set mode now && hints_freed $MIB && hints_all
}

# What the device says is its error, even if the kernel says the same to ask for patience.
test_error_that_looks_like_patience() {
	local errnum errors

	for errnum in 11 16; do
		errors=$(get stats/errors)
		sim_set errnum $errnum && sim_set mode error && memhog -t $MIB &&
		wait_for "2 errors $errnum to be counted" stat_at_least errors $((errors + 2)) || return
	done
	sim_set mode now && hints_all
}

# An error now and then, while memory is used and freed.
test_errors_in_between() {
	local i=0 errors

	errors=$(get stats/errors)
	while [ $i -lt 5 ]; do
		sim_set mode error && verify_memory $MIB &&
		wait_for "an error more than $((errors + i))" \
			stat_at_least errors $((errors + i + 1)) &&
		sim_set mode now && verify_memory 16 || return
		i=$((i + 1))
	done
	hints_all
}

# As with hv_balloon: the answer comes before report() returns.
test_synchronous() {
	load_with_sim sync=1 && hints_all &&
	expect "requests through report()" "$(sim_get reports)" "$(sim_get submitted)" &&
	expect "entries of them that are no block" "$(sim_get ragged)" 0
}

test_synchronous_error() {
	sim_set mode error && memhog -t $MIB &&
	wait_for "an error" stat_at_least errors 1 &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	sim_set mode now && hints_all
}

# The device changes while the module stays, from one kind to the other.
test_other_kind_of_device() {
	sim_unload && wait_for "status no-queue" status_is no-queue &&
	sim_load sync=0 && hints_freed $MIB && wait_settled && sim_nothing_corrupted &&
	sim_unload && sim_load sync=1 && hints_freed $MIB && wait_settled &&
	sim_nothing_corrupted
}

run_tests \
	test_now \
	test_late \
	test_out_of_order \
	test_no_more_than_the_queue_holds \
	test_twice_and_bogus \
	test_error \
	test_recovery_after_error \
	test_error_that_looks_like_patience \
	test_errors_in_between \
	test_synchronous \
	test_synchronous_error \
	test_other_kind_of_device

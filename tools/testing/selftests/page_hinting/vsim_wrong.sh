#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A host whose answers are wrong: the ring's code says so and uses the queue no
# more, no page is lost or returned twice, and a rebind mends it.

. "$(dirname "$0")/lib.sh"

MIB=256

hints() {
	hints_freed $MIB &&
	wait_settled && lists_agree
}

log_says() { # TEXT
	kernel_log | grep -q "$1"
}

# What the host has when it lies is several requests, so that those behind the
# lie are concerned too.
lies() { # MODE TEXT
	local hinted

	load_fresh && take_stock && stall || return
	hinted=$(get stats/hinted_kb)
	sim_host "$1" && wait_for "the kernel to say '$2'" log_says "$2" &&
	lists_agree || return

	# The queue is broken: what is behind the lie stays out, nothing is hinted.
	wait_for "status stalled" is_stalled && verify_memory $MIB || return
	[ "$(get stats/hinted_kb)" -le $((hinted + 65536)) ] ||
		fail "a broken queue was used" || return
	sim_host now && unbind "$device" || return
	expect isolated_kb "$(get stats/isolated_kb)" 0 && lists_agree &&
	nothing_is_lost &&
	bind "$device" && hints && no_faults
}

test_answered_twice() {
	set_reporting_delay 600000 && plug mode=now scribble=1 && lies twice "is not a head"
}

test_id_out_of_range() {
	lies badid "out of range"
}

test_rmmod_with_a_broken_queue() {
	take_stock && sim_host badid && memhog -t $MIB &&
	wait_for "an answer" host_has_at_least answered 1 &&
	wait_for "status stalled" is_stalled && unload && unplug && nothing_is_lost
}

run_tests \
	test_answered_twice \
	test_id_out_of_range \
	test_rmmod_with_a_broken_queue

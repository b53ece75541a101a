#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The reporting device goes from mm/page_reporting.c to the module at insmod and
# back at rmmod, and only its owner uses it.  Upstream has no counters; each of
# its reports makes the device raise an interrupt, so these are counted.

. "$(dirname "$0")/lib.sh"

MIB=128
# What is asked of the host: the guest touches some MiB meanwhile.
RETURNED_MIB=256

upstream_reports() {
	local before

	wait_for "$device to be quiet" balloon_is_quiet "$device" || return
	before=$(balloon_interrupts "$device")
	memhog -t $MIB &&
	wait_for "an interrupt of $device, from page_reporting" \
		balloon_interrupts_above "$device" "$before"
}

test_upstream_before_insmod() {
	device=$(balloon_device)
	[ -n "$device" ] || fail "no balloon device" || return
	set_reporting_delay 100 && upstream_reports
}

test_module_takes_over() {
	local want

	load_fresh && wait_settled || return
	want=$(($(get stats/hinted_kb) + MIB * 1024 / 2))
	gives_back $RETURNED_MIB && wait_for "hinted_kb of $want" stat_at_least hinted_kb $want
}

# While the module owns the device and is told to be still, so is the device.
test_upstream_is_silent() {
	local before backlog

	set_knob enabled 0 &&
	wait_for "status off" status_is off &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	wait_for "$device to be quiet" balloon_is_quiet "$device" || return
	before=$(balloon_interrupts "$device")
	memhog -t $MIB || return
	backlog=$(get stats/backlog_kb)
	[ "$backlog" -ge $((MIB * 1024 / 2)) ] || fail "only $backlog KiB are not hinted" || return
	sleep 3
	expect "interrupts of $device" "$(balloon_interrupts "$device")" "$before" || return
	# The queue may be without interrupts: nor has anything gone there.
	[ "$(get stats/backlog_kb)" -ge $((backlog - 16384)) ] ||
		fail "$(get stats/backlog_kb) KiB are not hinted, of $backlog"
}

test_upstream_after_rmmod() {
	unload && upstream_reports
}

test_hand_over_ten_times_while_reporting() {
	local i=0

	set_reporting_delay 0 || return
	while [ $i -lt 10 ]; do
		memhog -t $MIB && load && memhog -t $MIB && unload || return
		i=$((i + 1))
	done
	set_reporting_delay 100 && upstream_reports && load && gives_back $RETURNED_MIB
}

run_tests \
	test_upstream_before_insmod \
	test_module_takes_over \
	test_upstream_is_silent \
	test_upstream_after_rmmod \
	test_hand_over_ten_times_while_reporting

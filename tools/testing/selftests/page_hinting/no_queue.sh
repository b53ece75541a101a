#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# For a guest that has no balloon device, or one without free page reporting:
# the module loads all the same, waits for a device, and can be unloaded.

. "$(dirname "$0")/lib.sh"

test_loads_with_status_no_queue() {
	load_fresh && wait_for "status no-queue" status_is no-queue
}

test_nothing_is_hinted() {
	memhog -t 128 || return
	sleep 1
	expect hinted_kb "$(get stats/hinted_kb)" 0 &&
	expect isolated_kb "$(get stats/isolated_kb)" 0 &&
	expect requests "$(get stats/requests)" 0 &&
	expect status "$(get status)" no-queue
}

test_knobs_work() {
	set_knob min_order 5 && expect min_order "$(get min_order)" 5 &&
	set_knob batch_kb 8192 && expect batch_kb "$(get batch_kb)" 8192 &&
	expect "writing 11 to min_order" "$("$DIR/sysfs_write" "$SYSFS/min_order" 11)" EINVAL
}

# Without a device there is nothing to switch off.
test_disable_and_enable() {
	set_knob enabled 0 && expect status "$(get status)" no-queue &&
	set_knob enabled 1 && expect status "$(get status)" no-queue
}

test_unloads() {
	unload && nothing_left
}

test_load_unload_10_times() {
	local i=0

	while [ $i -lt 10 ]; do
		load && unload || return
		i=$((i + 1))
	done
}

run_tests \
	test_loads_with_status_no_queue \
	test_nothing_is_hinted \
	test_knobs_work \
	test_disable_and_enable \
	test_unloads \
	test_load_unload_10_times

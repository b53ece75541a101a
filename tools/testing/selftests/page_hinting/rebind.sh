#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The balloon device goes and comes while the module is loaded.

. "$(dirname "$0")/lib.sh"

MIB=128

test_device_goes() {
	device=$(balloon_device)
	[ -n "$device" ] || fail "no balloon device" || return
	hold_contents 32 && load_fresh && wait_settled && unbind "$device" &&
	wait_for "status no-queue" status_is no-queue &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0
}

test_nothing_is_hinted_without_it() {
	local hinted

	hinted=$(get stats/hinted_kb)
	memhog -t $MIB || return
	sleep 1
	expect hinted_kb "$(get stats/hinted_kb)" "$hinted"
}

test_device_comes_back() {
	# Much beside what the guest touches meanwhile.
	bind "$device" && gives_back $((2 * MIB)) && wait_settled
}

# All but the backlog, which is there without the module.
counters_are_0() {
	local f

	for f in $STATS; do
		[ "$f" = backlog_kb ] || expect "stats/$f" "$(get "stats/$f")" 0 || return
	done
}

# What the module before it has counted is forgotten.
test_device_comes_after_insmod() {
	unload && unbind "$device" && load && status_is no-queue ||
		fail "status is '$(get status)' without a device" || return
	counters_are_0 && bind "$device" && hints_freed $MIB && wait_settled
}

test_rmmod_without_device() {
	unbind "$device" && unload && bind "$device" && load && hints_freed $MIB && wait_settled
}

test_unbind_while_hinting() {
	local i=0

	take_stock || return
	while [ $i -lt 10 ]; do
		memhog -t $MIB && unbind "$device" &&
		wait_for "isolated_kb of 0" stat_is isolated_kb 0 && bind "$device" || return
		i=$((i + 1))
	done
	hints_freed $MIB && wait_settled && nothing_is_lost
}

run_tests \
	test_device_goes \
	test_nothing_is_hinted_without_it \
	test_device_comes_back \
	test_device_comes_after_insmod \
	test_rmmod_without_device \
	test_unbind_while_hinting \
	test_contents_stay

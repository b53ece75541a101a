#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The balloon is frozen and restored while its host has blocks, or while it
# answers, again and again: nothing is lost, and hinting goes on after.

. "$(dirname "$0")/lib.sh"

MIB=256
CYCLES=2
[ "$PAGE_HINTING_SOAK" != 1 ] || CYCLES=20

# Suspends devices alone, for a second, and resumes them.
suspend_and_resume() {
	local freezes restores

	freezes=$(host_has freezes)
	restores=$(host_has restores)
	echo freeze > /sys/power/state || fail "suspend failed" || return
	expect freezes "$(host_has freezes)" $((freezes + 1)) &&
	expect restores "$(host_has restores)" $((restores + 1))
}

set_up() {
	[ -e /sys/power/pm_test ] || fail "the kernel lacks CONFIG_PM_DEBUG" || return
	echo devices > /sys/power/pm_test || fail "pm_test" || return
	echo 1 > /sys/module/suspend/parameters/pm_test_delay || fail pm_test_delay || return
	plug mode=now scribble=1
}

hints() {
	hints_freed $MIB && wait_settled
}

test_hinting_with_an_answering_host() {
	local i=0

	set_reporting_delay 600000 && set_up && load_fresh && take_stock || return
	while [ $i -lt $CYCLES ]; do
		memhog -t $MIB && suspend_and_resume && hints || return
		i=$((i + 1))
	done
	nothing_is_lost && no_faults
}

test_hinting_with_a_silent_host() {
	local i=0 answered forgotten

	stall || return
	answered=$(host_has answered)
	while [ $i -lt $CYCLES ]; do
		forgotten=$(host_has forgotten)
		suspend_and_resume && host_has_at_least forgotten $((forgotten + 1)) ||
			fail "nothing was in flight at the freeze" || return
		expect "answers of the host" "$(host_has answered)" "$answered" &&
		wait_for "all requests to be forgotten, but for those the host has" \
			no_request_is_lost || return
		# What came back is handed to the host again, who is as silent.
		verify_memory 64 || return
		wait_for "the host to have something" host_has_at_least in_flight 1 || return
		i=$((i + 1))
	done
	sim_host now && hints && nothing_is_lost && no_faults
}

no_request_is_lost() {
	[ "$(host_has requests)" -eq \
		$(($(host_has answered) + $(host_has forgotten) + $(host_has in_flight))) ]
}

# With the module gone, what it left with the host comes back at the freeze, and
# the device goes to page_reporting.
test_blocks_in_flight_after_rmmod() {
	local answered

	stall && unload && host_has_at_least in_flight 1 &&
	suspend_and_resume && no_faults && nothing_is_lost || return
	answered=$(host_has answered)
	set_reporting_delay 100 && sim_host now && unbind "$device" && bind "$device" &&
	memhog -t $MIB &&
	wait_for "page_reporting to report" host_has_at_least answered $((answered + 1))
}

test_page_reporting_alone() {
	local i=0 answered

	while [ $i -lt $CYCLES ]; do
		answered=$(host_has answered)
		memhog -t $MIB && suspend_and_resume && memhog -t $MIB &&
		wait_for "page_reporting to report" host_has_at_least answered $((answered + 1)) ||
			return
		i=$((i + 1))
	done
	nothing_is_lost && no_faults
}

# That what is in flight was submitted to the silent host, and not to the one before.
waits_for_the_host() {
	local answered

	answered=$(host_has answered)
	host_has_at_least in_flight 1 && sleep 0.3 && host_has_at_least in_flight 1 &&
	[ "$(host_has answered)" -eq "$answered" ]
}

# Its work cannot be frozen while it waits, so there is no suspend before the
# host answers; that is said in bounded time, and the guest goes on.
test_page_reporting_with_a_silent_host() {
	local timeout answered ret=0

	timeout=$(cat /sys/power/pm_freeze_timeout)
	answered=$(host_has answered)
	sim_host never && memhog -t $MIB &&
	wait_for "page_reporting to wait for the host" waits_for_the_host || return
	echo 2000 > /sys/power/pm_freeze_timeout
	! { echo freeze > /sys/power/state; } 2> /dev/null ||
		fail "a work that waits was frozen" || ret=$?
	echo "$timeout" > /sys/power/pm_freeze_timeout
	[ $ret -eq 0 ] && sim_host now &&
	wait_for "page_reporting to report" host_has_at_least answered $((answered + 1)) &&
	suspend_and_resume && nothing_is_lost && no_faults && unplug &&
	echo none > /sys/power/pm_test
}

run_tests \
	test_hinting_with_an_answering_host \
	test_hinting_with_a_silent_host \
	test_blocks_in_flight_after_rmmod \
	test_page_reporting_alone \
	test_page_reporting_with_a_silent_host

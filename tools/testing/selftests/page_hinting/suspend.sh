#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest sleeps and wakes, with blocks being hinted until it does: memory
# keeps its contents, all of it is free again, and hinting goes on.

. "$(dirname "$0")/lib.sh"

MIB=128
CYCLES=3
[ "$PAGE_HINTING_SOAK" != 1 ] || CYCLES=100

DELAY=/sys/module/suspend/parameters/pm_test_delay
# What wakes a guest that idles: its connection with the host.
WAKEUP=/sys/class/tty/ttyS1/power/wakeup

# Returns when the guest is awake again.
sleep_in() { # STATE
	echo "$1" > /sys/power/state || fail "'$1' in /sys/power/state"
}

successes() {
	cat /sys/power/suspend_stats/success
}

# Frees huge and small pages, so that there are blocks to hint of every order.
free_some() {
	memhog -t $MIB && memhog -T 32
}

# Sleeps CYCLES times, each time with memory just freed.
cycles() { # COMMAND...
	local i=0 slept

	take_stock && hold_contents 64 || return
	slept=$(successes)
	while [ $i -lt $CYCLES ]; do
		free_some && "$@" && { ! loaded || hints_freed 32; } || return
		i=$((i + 1))
	done
	expect "the count of sleeps" "$(successes)" $((slept + CYCLES)) &&
	contents_are_right && nothing_is_lost
}

test_devices_with_module() {
	echo 1 > $DELAY && echo devices > /sys/power/pm_test || fail "pm_test" || return
	drop_caches
	load_fresh && set_knob min_order 0 && cycles sleep_in mem && wait_settled
}

# What page_reporting has scheduled comes while its device is asleep
# (CVE-2026-74481).
test_devices_with_page_reporting() {
	unload && set_reporting_delay 500 && cycles sleep_in mem &&
	set_reporting_delay 2000
}

test_processors_with_module() {
	echo core > /sys/power/pm_test || fail "pm_test" || return
	load && cycles sleep_in mem && wait_settled
}

# A line that comes while the devices are being put to sleep ends that, and so it should.
idle_until_woken() {
	host wakeup-by-lines && wait_for "the guest to idle" idles && host awake
}

idles() {
	{ echo freeze > /sys/power/state; } 2> /dev/null
}

test_s2idle() {
	echo none > /sys/power/pm_test && echo enabled > $WAKEUP ||
		fail "cannot prepare to be woken" || return
	cycles idle_until_woken && wait_settled
}

sleep_until_woken() {
	host wakeup-on-suspend && sleep_in mem
}

test_s3() {
	echo deep > /sys/power/mem_sleep || fail "the machine has no S3" || return
	cycles sleep_until_woken && wait_settled
}

test_s3_with_page_reporting() {
	unload && set_reporting_delay 500 && cycles sleep_until_woken &&
	set_reporting_delay 2000
}

need_host || {
	run_tests need_host
	exit
}
run_tests \
	test_devices_with_module \
	test_devices_with_page_reporting \
	test_processors_with_module \
	test_s2idle \
	test_s3 \
	test_s3_with_page_reporting

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Nothing that the module or the core has allocated is left behind, for a guest
# booted with kmemleak=on.

. "$(dirname "$0")/lib.sh"

KMEMLEAK=/sys/kernel/debug/kmemleak
# What is younger than five seconds is not taken for a leak.
AGE=6

kmemleak() { # COMMAND
	echo "$1" > $KMEMLEAK || fail "$KMEMLEAK: $1"
}

# What was in a register or on a stack in one scan is found by the next.
no_leak() {
	local found

	sleep $AGE
	kmemleak scan && sleep $AGE && kmemleak scan || return
	found=$(cat $KMEMLEAK)
	[ -z "$found" ] || {
		printf '%s\n' "$found" | head -n 20 | while read -r found; do
			ktap_print_msg "$found"
		done
		fail "memory is not freed, and nobody knows of it"
	}
}

# What was lost before is not looked at again.
test_kmemleak_is_on() {
	[ -e $KMEMLEAK ] || fail "this kernel has no kmemleak" || return
	sleep $AGE
	kmemleak scan && kmemleak clear
}

test_load_and_unload() {
	local i=0

	while [ $i -lt 10 ]; do
		load && unload || return
		i=$((i + 1))
	done
	no_leak
}

test_devices_that_come_and_go() {
	load_with_sim mode=now && memhog -t 256 && wait_settled && sim_unload &&
	sim_load sync=1 && memhog -t 256 && wait_settled && unload && sim_unload && no_leak
}

test_a_silent_host() {
	load_with_sim mode=never && memhog -t 256 &&
	wait_for "blocks with a silent host" sim_at_least in_flight_kb 4096 &&
	unload && load && sim_unload && unload && no_leak
}

test_a_balloon_that_is_unplugged() {
	load && plug mode=now && memhog -t 256 && wait_settled && unplug && plug mode=now && memhog -t 256 &&
	wait_settled && unload && unplug && no_leak
}

run_tests \
	test_kmemleak_is_on \
	test_load_and_unload \
	test_devices_that_come_and_go \
	test_a_silent_host \
	test_a_balloon_that_is_unplugged

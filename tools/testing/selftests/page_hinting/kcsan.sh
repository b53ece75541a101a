#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Switches KCSAN on for the tests that come after: from then on the log has the data races
# that it finds, anybody's. Run once more after them, says how much it has looked at.

. "$(dirname "$0")/lib.sh"

KCSAN=/sys/kernel/debug/kcsan
on=/tmp/kcsan.on

test_switch_on() {
	[ -e $KCSAN ] || skip "this kernel has no KCSAN" || return
	echo on > $KCSAN || fail "KCSAN cannot be switched on" || return
	: > $on
}

test_it_has_watched() {
	local line

	while read -r line; do
		ktap_print_msg "$line"
	done < $KCSAN
	[ "$(awk '/^setup_watchpoints:/ { print $2 }' $KCSAN)" -ge 1000 ] ||
		fail "it has hardly looked at anything"
}

if [ -e $on ]; then
	run_tests test_it_has_watched
else
	run_tests test_switch_on
fi

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest reboots in the middle of hinting. This runs twice, before and after
# ("again"): nothing hinders the shutdown, and the fresh guest hints.

. "$(dirname "$0")/lib.sh"

# The plan is for the second part: the first says only why it could not be.
restart() {
	hint_all_the_time && host restarts || return
	reboot -f
	sleep "$WAIT"
	fail "the guest does not go down"
}

need_host || {
	run_tests need_host
	exit
}
if [ "$1" = again ]; then
	run_tests test_hints_after_the_restart
else
	restart
	exit 1
fi

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest reboots while the module waits for a host that does not answer. This runs
# twice, before and after ("again"): the shutdown does not wait for the host.

. "$(dirname "$0")/lib.sh"

# In the background, as nothing ends a task that waits in the kernel.
restart() {
	set_reporting_delay 600000 && plug && load_fresh && stall && host restarts || return
	reboot -f &
	sleep "$WAIT"
	fail "the guest does not go down"
}

# The plan is for the second part: the first gives one only if there will be none.
test_restarts_and_hints() {
	[ "$part" = again ] || fail "the guest did not restart" || return
	set_reporting_delay 600000 && plug mode=now && test_hints_after_the_restart
}

part=$1
need_host || {
	run_tests need_host
	exit
}
[ "$part" = again ] || restart
run_tests test_restarts_and_hints

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest goes over to a fresh kernel while a host that does not answer has blocks, and
# which outlives that. This runs twice, before and after ("again"): as the device was reset
# before, the host has none of them any more, and discards nothing under the fresh kernel.

. "$(dirname "$0")/lib.sh"

# The plan is for the second part: the first says only why it could not be.
restart() {
	prepare_kexec && set_reporting_delay 600000 && plug outlive=1 && load_fresh &&
	wait_settled && stall && host restarts || return
	# In the background, as nothing ends a task that waits in the kernel.
	"$DIR/kexec" &
	sleep "$WAIT"
	fail "the guest does not go over"
}

# The memory that the host had is among what is written to here: that is nearly all.
test_a_late_host_discards_nothing() {
	set_reporting_delay 600000 && hold_contents "$(spare_mib)" && plug mode=now outlive=1 ||
		return
	ktap_print_msg "of $(host_has had) requests before the host has" \
		"$(($(host_has outlived) * 4)) KiB after it"
	contents_are_right && expect "pages that the host had after it" "$(host_has outlived)" 0 ||
		return
	[ "$(host_has had)" -ge 2 ] || fail "the host had $(host_has had) requests before"
}

test_hints_with_the_late_host() {
	test_hints_after_the_restart && no_faults
}

need_host || {
	run_tests need_host
	exit
}
if [ "$1" = again ]; then
	run_tests \
		test_a_late_host_discards_nothing \
		test_the_fresh_kernel_has_all_memory \
		test_hints_with_the_late_host
else
	restart
	exit 1
fi

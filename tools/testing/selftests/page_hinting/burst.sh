#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The balloon is inflated and deflated, as before a snapshot; a burst after it is returned
# as soon as any.

. "$(dirname "$0")/lib.sh"

test_inflates_and_deflates() {
	local full i=0

	need_host || return
	hint_by_default && wait_settled && flush_all && full=$(actual_mib) || return
	[ "${full:-0}" -ge 4096 ] || fail "a guest of '$full' MiB" || return
	while [ $i -lt 3 ]; do
		set_balloon 512 && set_balloon "$full" || return
		i=$((i + 1))
	done
	! kernel_log | grep "Out of puff" || fail "the balloon ran out of memory" || return
	burst 1024 && burst_was_resident "$idle"
}

test_a_burst_is_returned() {
	burst_returns 95
}

run_tests test_inflates_and_deflates test_a_burst_is_returned

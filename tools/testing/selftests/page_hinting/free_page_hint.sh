#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest is moved while the balloon tells the host by another queue which memory is free
# (free-page-hint): it takes all of that for itself. A burst after it is returned.

. "$(dirname "$0")/lib.sh"

allocated_mib() {
	awk '/^pgalloc_/ { n += $2 } END { print int(n / 256) }' /proc/vmstat
}

test_moves_with_free_page_hint() {
	local before

	need_host || return
	hint_by_default && memhog -t 2048 && wait_settled && flush_all || return
	before=$(allocated_mib)
	host migrate || return
	before=$(($(allocated_mib) - before))
	ktap_print_msg "$before MiB were allocated while the guest moved"
	# It takes what is free; a guest that does not is moved without.
	[ $before -ge 2048 ] || fail "the balloon took no free memory" || return
	# What it took is with the host, on the other side as well.
	wait_settled && wait_for "the memory that was moved" resident_at_most $((idle + 65536)) &&
	burst 1024 && burst_was_resident 0
}

test_a_burst_is_returned() {
	burst_returns 95
}

run_tests test_moves_with_free_page_hint test_a_burst_is_returned

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The host cannot discard the guest's memory, because it is locked, as it is where devices
# are handed through: it answers nevertheless, and the guest does not know. No memory
# comes back; nothing is lost, and no contents.

. "$(dirname "$0")/lib.sh"

test_no_memory_comes_back() {
	local before after

	before_the_host_acts 128 || return
	before=$(host resident) && hints_freed 192 && wait_settled && after=$(host resident) || return
	ktap_print_msg "QEMU had $((before / 1024)) MiB before, and has $((after / 1024))"
	# What is locked is there, all of it.
	[ "$after" -ge "$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)" ] ||
		fail "only $after KiB of the guest's memory are in QEMU's: this host can discard memory" || return
	[ "$(get stats/hinted_kb)" -ge 196608 ] || fail "nothing was hinted"
}

test_contents_stay() {
	local want

	want=$(($(get stats/hinted_kb) + 262144))
	while ! stat_at_least hinted_kb $want; do
		memhog -t 128 && memhog -T 32 || return
	done
	contents_are_right
}

test_nothing_is_lost() {
	all_is_there_again
}

run_tests \
	test_no_memory_comes_back \
	test_contents_stay \
	test_nothing_is_lost

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The kernel log since boot and the taint, and that this guest had what the tests before
# leave out where it is missing.  Run it last.

. "$(dirname "$0")/lib.sh"

test_log_since_boot() {
	no_complaint_in "$(dmesg)"
}

test_taint() {
	no_taint
}

test_the_host_serves() {
	local said

	need_host || return
	said=$(host info status)
	case $said in
	*running*) ;;
	*) fail "host info status: $said" ;;
	esac
}

# Without it tests would take the debug guest for the release guest, and check less.
test_a_debug_guest_checks_its_lists() {
	[ -e /sys/kernel/debug/page_hinting_check ] || ! grep -q ' kasan_report$' /proc/kallsyms ||
		fail "a kernel with KASAN has no page_hinting_check in debugfs"
}

run_tests \
	test_the_host_serves \
	test_a_debug_guest_checks_its_lists \
	test_log_since_boot \
	test_taint

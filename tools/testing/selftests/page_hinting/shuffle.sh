#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# For a guest booted with page_alloc.shuffle=1: insmod is refused, and says why.

. "$(dirname "$0")/lib.sh"

test_shuffling_is_on() {
	expect "page_alloc.shuffle" "$(cat /sys/module/page_alloc/parameters/shuffle)" Y
}

test_insmod_is_refused() {
	expect "the errno of insmod" "$("$DIR/finit_module" "$KO")" EOPNOTSUPP
}

test_log_says_why() {
	kernel_log | grep -q 'page_hinting: free page shuffling is on' ||
		fail "no 'page_hinting: free page shuffling is on' in the kernel log"
}

test_nothing_is_left() {
	nothing_left
}

run_tests \
	test_shuffling_is_on \
	test_insmod_is_refused \
	test_log_says_why \
	test_nothing_is_left

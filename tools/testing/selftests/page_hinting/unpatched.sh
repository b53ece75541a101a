#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# For a guest whose kernel lacks the patches: insmod is refused.

. "$(dirname "$0")/lib.sh"

test_insmod_is_refused() {
	expect "the errno of insmod" "$("$DIR/finit_module" "$KO")" ENOENT
}

test_log_names_the_symbol() {
	kernel_log | grep -q 'page_hinting: Unknown symbol page_hinting_' ||
		fail "no 'page_hinting: Unknown symbol page_hinting_...' in the kernel log"
}

test_nothing_is_left() {
	nothing_left
}

run_tests \
	test_insmod_is_refused \
	test_log_names_the_symbol \
	test_nothing_is_left

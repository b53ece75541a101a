#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The kernel log since boot and the taint.  Run it last.

. "$(dirname "$0")/lib.sh"

test_log_since_boot() {
	no_complaint_in "$(dmesg)"
}

test_taint() {
	no_taint
}

run_tests \
	test_log_since_boot \
	test_taint

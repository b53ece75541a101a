#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest goes over to a fresh kernel in the middle of hinting, in the memory
# whose blocks the host has. This runs twice, before and after ("again"): the
# fresh kernel has all of that memory, the host touches nothing of it, and it hints.

. "$(dirname "$0")/lib.sh"

# The plan is for the second part: the first says only why it could not be.
restart() {
	prepare_kexec && hint_all_the_time && host restarts || return
	"$DIR/kexec"
	fail "the guest does not go over"
}

need_host || {
	run_tests need_host
	exit
}
if [ "$1" = again ]; then
	run_tests \
		test_the_fresh_kernel_has_all_memory \
		test_hints_after_the_restart
else
	restart
	exit 1
fi

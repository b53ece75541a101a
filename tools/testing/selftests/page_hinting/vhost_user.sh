#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Another process reads and writes guest memory (vhost-user), which is shared with it: what
# is read from its disk is right while memory is returned, and memory is.

. "$(dirname "$0")/lib.sh"

TIMES=10

disk_sum() {
	dd if=/dev/vda bs=1M iflag=direct 2> /dev/null | sha256sum
}

test_reads_what_is_on_the_disk() {
	local i=0 right sum

	need_host || return
	hint_by_default || return
	[ "$(cat /sys/block/vda/size)" = 131072 ] || fail "there is no disk of 64 MiB" || return
	right=$(disk_sum)
	[ "$right" != "$(: | sha256sum)" ] || fail "nothing is read" || return
	wait_settled && flush_all || return
	while [ $i -lt $TIMES ]; do
		burst 1024 && burst_was_resident "$idle" || return
		sum=$(disk_sum)
		[ "$sum" = "$right" ] || fail "the disk reads $sum, not $right" || return
		i=$((i + 1))
	done
	# Of the last one, in whose wake the disk was read.
	burst 1024 && burst_was_resident "$idle"
}

test_memory_is_returned() {
	burst_returns 95
}

run_tests test_reads_what_is_on_the_disk test_memory_is_returned

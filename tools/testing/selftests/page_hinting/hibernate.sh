#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Hibernation with hinted memory: the image is read back by a kernel that has
# used any page, so no block counts as hinted afterwards, and all of them are
# hinted anew.

. "$(dirname "$0")/lib.sh"

MIB=128
CYCLES=1
[ "$PAGE_HINTING_SOAK" != 1 ] || CYCLES=20
DISK=/dev/vda

# The image is written, and read back at once.
hibernate() {
	echo test_resume > /sys/power/disk || fail "test_resume" || return
	echo disk > /sys/power/state || fail "'disk' in /sys/power/state"
}

test_swap_is_there() {
	if ! mkswap $DISK > /dev/null || ! swapon $DISK; then
		fail "no swap on $DISK"
	fi
}

test_resumes_and_hints_anew() {
	local i=0 hinted

	drop_caches
	load_fresh && set_knob min_order 0 && take_stock &&
	hold_contents 64 || return
	while [ $i -lt $CYCLES ]; do
		memhog -t $MIB && memhog -T 32 && wait_settled || return
		hinted=$(get stats/hinted_kb)
		hibernate || return
		# What is free then is hinted once more, most of it without being used.
		goes_on "hinted_kb of $hinted and half of the free memory" \
			stat_at_least hinted_kb $((hinted + $(buddy_kb) / 2)) &&
		wait_settled || return
		i=$((i + 1))
	done
	contents_are_right && nothing_is_lost
}

test_resumes_with_page_reporting() {
	unload && set_reporting_delay 500 && hold_contents 64 &&
	memhog -t $MIB && hibernate && memhog -t $MIB && contents_are_right &&
	set_reporting_delay 2000
}

test_swap_is_given_back() {
	swapoff $DISK || fail "swapoff $DISK"
}

run_tests \
	test_swap_is_there \
	test_resumes_and_hints_anew \
	test_resumes_with_page_reporting \
	test_swap_is_given_back

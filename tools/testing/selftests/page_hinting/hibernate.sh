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

# Pages that the last image was to have. What is logged later is not in the log of the
# kernel that resumes.
image_pages() {
	kernel_log | sed -nE 's/.*Allocated ([0-9]+) pages for snapshot.*/\1/p' | tail -n 1
}

# What is free is not in it, whether the host knows of it or not. Some of it is used
# as the image is made. What the kernel took before there was an allocator is in it.
free_memory_is_not_saved() {
	local used

	used=$(awk '/^ *present/ { n += $2 } /^  pages free/ { n -= $3 } END { print n }' /proc/zoneinfo)
	[ -n "$(image_pages)" ] || fail "the kernel log does not say how large the image was" || return
	ktap_print_msg "$(image_pages) pages were saved, and $used are in use"
	[ "$(image_pages)" -le $((used + 16384)) ] ||
		fail "$(image_pages) pages were saved, and $used are in use"
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
		hibernate && free_memory_is_not_saved || return
		# What is free then is hinted once more, most of it without being used.
		wait_for "hinted_kb of $hinted and half of the free memory" \
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

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# What a zone can spare for hinting: nothing of what is kept for others, which are the
# pages below its high watermark, its reserve for other zones' allocations, CMA areas and
# the reserve for atomic allocations.

. "$(dirname "$0")/lib.sh"

ZONES=/sys/kernel/debug/page_hinting/zones
MIN_FREE=/proc/sys/vm/min_free_kbytes
# Where unmovable memory is taken from first; it has the guest's CMA area.
ZONE=Normal
min_free=$(cat $MIN_FREE)

# Blocks of the largest order, of this column of the table.
largest_blocks() { # ZONE COLUMN
	awk -v zone="$1" -v column="$2" '$2 == zone && $3 == 10 { n += $column } END { print n + 0 }' $ZONES
}

unhinted_blocks() { # ZONE
	largest_blocks "$1" 5
}

# KiB out for hinting; nothing if the table does not say.
isolated_of() { # ZONE
	awk -v zone="$1:" '/^# node/ && $5 == zone { n += $7; found = 1 }
		END { if (found) print n }' $ZONES
}

# It is too small to spare a pageblock beside its reserve. That is said before page
# reporting has ever had a device, which hints it.
test_the_lowmem_reserve() {
	load_with_sim mode=now && memhog -t 256 && wait_settled || return
	[ "$(unhinted_blocks DMA)" -gt 0 ] || fail "zone DMA has no block that is not hinted"
}

# Blocks in the reserve for atomic allocations.
atomic_blocks() {
	awk -v zone="$ZONE," '$4 == zone && $6 == "HighAtomic" { n += $NF } END { print n + 0 }' /proc/pagetypeinfo
}

set_min_free() { # KIB
	echo "$1" > $MIN_FREE || fail "$MIN_FREE"
}

# An atomic allocation that finds less free than the low watermark leaves the pageblocks
# reserved that it was served from. The low watermark is a quarter above the minimum.
reserve_for_atomic() {
	local i=0 managed

	managed=$(awk '/^ *managed/ { n += $2 } END { print n * 4 }' /proc/zoneinfo)
	set_min_free $((managed * 85 / 100)) || return
	exec 6> $SIM/blocks
	while [ $i -lt 4 ]; do
		printf '10 atomic' >&6
		i=$((i + 1))
	done
	set_min_free "$min_free"
	exec 6>&-
}

# Takes all of the zone that unmovable memory may have: what it does not find there comes
# from another one.
fill_zone() {
	local order before

	exec 5> $SIM/blocks
	for order in 10 8 7 6 5 4; do
		before=
		while [ "$(buddy_kb $ZONE)" != "$before" ]; do
			before=$(buddy_kb $ZONE)
			printf '%s' "$order unmovable" >&5 || fail "no memory of order $order" || return
		done
	done
}

# There is something to take, and nothing of it is taken.
spares_nothing() {
	ktap_print_msg "$(buddy_kb $ZONE) KiB are free in zone $ZONE, $(($(atomic_blocks) * BLOCK * 4)) of them for atomic allocations"
	[ "$(unhinted_blocks $ZONE)" -ge 2 ] || fail "$(unhinted_blocks $ZONE) blocks could be taken" || return
	sim_set mode never && set_knob min_order 10 && set_knob enabled 1 || return
	# Longer than it takes until the thread looks by itself.
	sleep 3
	expect "KiB taken of a zone that has nothing to spare" "$(isolated_of $ZONE)" 0
}

test_reserves_and_cma_are_not_spare() {
	local ret=0

	[ "$(buddy_kb $ZONE)" -gt 0 ] || fail "this guest has no zone $ZONE" || return
	# What the CPUs have aside would become free, and to spare, when the thread rests.
	limit_pcp_lists && wait_settled && set_knob enabled 0 &&
	wait_for "status off" status_is off && reserve_for_atomic || return
	[ "$(atomic_blocks)" -ge 2 ] || fail "$(atomic_blocks) blocks are reserved for atomic allocations" || return
	# Between the watermark that allocations stop at and the high one is less than what
	# is reserved.
	set_min_free 8192 && fill_zone && spares_nothing || ret=$?
	exec 5>&-
	set_min_free "$min_free" && return $ret
}

takes_of_zone() {
	[ "$(isolated_of $ZONE)" -gt 0 ] 2> /dev/null
}

only_atomic_blocks_are_left() {
	[ "$(unhinted_blocks $ZONE)" -eq "$(atomic_blocks)" ]
}

# With more than that free, all of it is hinted, but the reserve itself.
test_the_same_zone_with_more() {
	wait_for "blocks of zone $ZONE to be taken" takes_of_zone && sim_answer_all || return
	[ "$(atomic_blocks)" -ge 2 ] || fail "$(atomic_blocks) blocks are reserved for atomic allocations" || return
	# One may just have been freed.
	wait_settled && { wait_for "all but those to be hinted" only_atomic_blocks_are_left ||
	expect "blocks of zone $ZONE that are not hinted" "$(unhinted_blocks $ZONE)" "$(atomic_blocks)"; } &&
	set_knob enabled 0 && wait_for "status off" status_is off
}

# What was freed is not hinted, and would be enough for some blocks, were the watermark
# not above it.
test_the_high_watermark() {
	local ret=0 i=0

	exec 7> $SIM/blocks
	while [ $i -lt 24 ]; do
		printf '10 unmovable' >&7 || { fail "no block of order 10 to be had" || ret=$?; break; }
		i=$((i + 1))
	done
	[ $ret -eq 0 ] && fill_zone && set_min_free 262144 || ret=$?
	exec 7>&-
	[ $ret -ne 0 ] || spares_nothing || ret=$?
	exec 5>&-
	set_min_free "$min_free" && return $ret
}

test_all_is_hinted_again() {
	sim_answer_all && set_knob min_order 9 && wait_settled && sim_nothing_corrupted && counts_agree
}

run_tests \
	test_the_lowmem_reserve \
	test_reserves_and_cma_are_not_spare \
	test_the_same_zone_with_more \
	test_the_high_watermark \
	test_all_is_hinted_again

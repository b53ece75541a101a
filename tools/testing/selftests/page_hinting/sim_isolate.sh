#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Somebody else wants memory that is with the host: alloc_contig_range(), memory
# hot-remove, memory failure. Each has it once the host answers, or is refused
# in bounded time, and the lists are right in either case.

. "$(dirname "$0")/lib.sh"

# While the module is loaded and off: it does not look at the zone, and begins no new low.
test_a_new_zone_has_no_low() {
	local low

	load_with_sim mode=now && wait_settled && set_knob enabled 0 &&
	wait_for "status off" status_is off && find_memory &&
	expect "onlining memory" "$(memory_state online_movable)" ok || return
	low=$(awk '$2 == "Movable" { print $3 }' $SIM/lows)
	wait_for "the memory to go offline" goes_offline &&
	expect "onlining memory" "$(memory_state online_kernel)" ok || return
	[ "${low:-0}" != 0 ] || fail "zone Movable begins with a low of '$low'"
}

# It is held as before, and nothing is left isolated by who wanted it.
is_still_held() {
	local first count

	expect "KiB with the host" "$(sim_get in_flight_kb)" $((BLOCK * 4)) &&
	expect isolated_kb "$(get stats/isolated_kb)" $((BLOCK * 4)) &&
	read -r first count < $SIM/held &&
	expect "the range with the host" "$first $count" "$block $BLOCK" &&
	expect "pageblocks of type Isolate" "$(pageblocks Isolate)" 0
}

lists_are_right() {
	sim_nothing_corrupted && counts_agree && lists_agree &&
	expect "pageblocks of type Isolate" "$(pageblocks Isolate)" 0
}

comes_back() {
	sim_answer_all && wait_settled &&
	wait_for "the block to be free and Offline" range_is_offline "$block" $BLOCK &&
	lists_are_right
}

refused() { # FIRST NUMBER
	expect "allocating pages that are in flight" "$(sim_contig "$1" "$2")" EBUSY
}

# The halves of an order-10 block are pageblocks: of the one or of both the type
# changes, and back.
test_contig_with_a_silent_host() {
	hold_contents 32 && one_block_at_a_time && hold_block || return
	within 20 refused "$block" $BLOCK &&
	refused "$block" $HALF && refused $((block + HALF)) $HALF &&
	is_still_held
}

# Only who wants what is out is refused.
test_another_range_with_a_silent_host() {
	local i=0 other

	while [ $i -lt 32 ]; do
		i=$((i + 1))
		for other in $((block - i * BLOCK)) $((block + i * BLOCK)); do
			if in_cma $other $BLOCK || ! count_flags $other $BLOCK || [ "$buddy" -ne $BLOCK ]; then
				continue
			fi
			expect "allocating pages that are not out" "$(sim_contig $other $BLOCK)" ok &&
			is_still_held
			return
		done
	done
	fail "no other block near $block is free"
}

# How often this shell has slept.
sleeps() {
	awk '/^voluntary_ctxt_switches/ { print $2 }' /proc/$$/status
}

ATTEMPTS=20

# Who tries one range after the other does not wait at each: it would sleep for 100 ms,
# and wake with each jiffy.
test_a_silent_host_is_waited_for_once() {
	local i=0 before

	exec 4> $SIM/contig
	before=$(sleeps)
	while [ $i -lt $ATTEMPTS ]; do
		! printf '%s' "$block $HALF" 2> /dev/null >&4 || fail "pages in flight were allocated" || return
		i=$((i + 1))
	done
	before=$(($(sleeps) - before))
	exec 4>&-
	ktap_print_msg "$ATTEMPTS attempts, $before sleeps"
	[ $before -le $((ATTEMPTS * 8)) ] ||
		fail "$ATTEMPTS attempts slept $before times" || return
	is_still_held && comes_back
}

# The call waits while the host answers, and has the pages, until free_them.
allocate_them() { # OFFSET NUMBER
	local tries=0

	while [ $tries -lt $TRIES ]; do
		hold_block && exec 4> $SIM/contig || return
		! printf '%s' "$((block + $1)) $2 50" 2> /dev/null >&4 || return 0
		exec 4>&-
		tries=$((tries + 1))
	done
	fail "refused $TRIES times, with a host that answers within 50 ms"
}

are_allocated() { # OFFSET NUMBER
	count_flags $((block + $1)) "$2" && expect "free pages, allocated" "$buddy" 0
}

free_them() {
	exec 4>&-
	wait_settled && lists_are_right
}

# The block is returned while its halves are of different types: one is then
# allocated, and the other is free and Offline.
test_half_of_a_block_isolated_as_it_returns() {
	allocate_them $HALF $HALF && are_allocated $HALF $HALF &&
	range_is_offline "$block" $HALF && lists_are_right && free_them
}

# --- memory hot-remove ---

held_in_memory() {
	awk -v first="$first" -v end=$((first + number)) '
		$1 < end && $1 + $2 > first { found = 1 }
		END { exit !found }' $SIM/held
}

# In a zone of its own, where nothing stays that cannot be moved, and out of
# which the host is given a block at once.
online_with_a_silent_host() {
	sim_set mode never &&
	expect "onlining memory" "$(memory_state online_movable)" ok &&
	wait_for "a block of the memory with the host" held_in_memory
}

offline_is() { # ERRNO
	expect "offlining memory in flight" "$(memory_state offline)" "$1"
}

is_online() {
	local state

	read -r state < "$memory/state"
	expect "the state of the memory" "$state" online &&
	expect MemTotal "$(total_kb)" "$total"
}

test_offline_with_a_silent_host() {
	load_with_sim mode=now && set_knob min_order 9 && take_stock || return
	total=$(total_kb)
	find_memory && online_with_a_silent_host || return
	within 30 offline_is EBUSY && held_in_memory && is_online &&
	expect "pageblocks of type Isolate" "$(pageblocks Isolate)" 0 &&
	memhog -t 256 && held_in_memory && sim_answer_all && wait_settled &&
	lists_are_right
}

# What is in it may be in use for a moment, and cannot go then.
goes_offline() {
	[ "$(memory_state offline)" = ok ]
}

# As it is then offline, none of its pages is on a free list.
test_offline_with_a_late_host() {
	local tries=0 said

	while [ $tries -lt $TRIES ]; do
		wait_for "the memory to go offline" goes_offline &&
		online_with_a_silent_host && echo 300 > $SIM/release || return
		said=$(memory_state offline)
		[ "$said" = EBUSY ] || break
		sim_answer_all && wait_settled || return
		tries=$((tries + 1))
	done
	expect "offlining memory that is answered soon" "$said" ok &&
	count_flags "$first" "$number" &&
	expect "offline pages that are free" "$buddy" 0 &&
	expect MemTotal "$(total_kb)" $((total - number * 4)) &&
	sim_answer_all && wait_settled && lists_are_right
}

memory_is_hinted() {
	count_flags "$first" "$number" && [ "$buddy_offline" -ge $((number * 3 / 4)) ]
}

test_online_again() {
	[ -n "$memory" ] || fail "there is no such memory" || return
	sim_answer_all &&
	expect "onlining memory" "$(memory_state online_kernel)" ok && is_online &&
	goes_on "most of the memory is hinted" memory_is_hinted && wait_settled &&
	lists_are_right && nothing_is_lost
}

# --- memory failure ---

# The half without it is free. Of the other half, all but the page comes back,
# in pieces so small that somebody may want one of them.
is_back_without_the_page() {
	range_is_offline "$block" $HALF &&
	count_flags $((block + HALF)) $HALF &&
	[ "$buddy" -ge $((BLOCK / 4)) ]
}

page_stays_off() {
	count_flags "$page" 1 && expect "the page, poisoned" "$hwpoison" 1 &&
	expect "the page, free" "$buddy" 0 &&
	expect HardwareCorrupted "$(corrupted_kb)" 4
}

# All of the block that is free is allocated, page by page, until fd 4 is closed.
sweep() {
	exec 4>&-
	# Nothing is left in the CPUs' lists, as a flush empties them.
	set_knob flush 1 && exec 4<> $SIM/sweep || return
	printf '%s' "$block $BLOCK" >&4 || fail "sweeping $block $BLOCK" || return
	read -r got twice free bad used lost <&4
}

# A page may be on its way from one list to another: then it is so for a moment. One that
# came twice does so no more once it was freed.
it_is_known_who_has_it() {
	sweep || return
	[ "$twice" -gt 0 ] || { [ "$free" -eq 0 ] && [ "$lost" -eq 0 ]; }
}

# Whoever wants small blocks may have had some of it by now; the rest comes once. A CPU's
# list is filled with so few pages that none is there twice, even if it should be free twice.
all_but_the_page_is_there_once() {
	got=0 twice=0 free=0 bad=0 used=0 lost=0
	limit_pcp_lists || return
	wait_for "each page to be somebody's or free" it_is_known_who_has_it ||
		fail "of $BLOCK pages $got came by allocation, $bad are bad, $used are used," \
			"$free are still free, $lost are lost" || return
	ktap_print_msg "of $BLOCK pages $got were free, $bad is bad, $used are used by others"
	expect "pages that were there twice" "$twice" 0 &&
	expect "bad pages" "$bad" 1 &&
	expect "pages that are free or used" $((got + used)) $((BLOCK - 1)) || return
	[ "$got" -ge $HALF ] || fail "only $got pages were free" || return
	exec 4>&-
	echo 0 > $PCP_FRACTION
}

test_poisoned_page() {
	need_hwpoison || return
	one_block_at_a_time && hold_block && poison_page && sim_answer_all &&
	goes_on "the block is free without the page" is_back_without_the_page &&
	expect "poisoned pages that the host had" "$(sim_get poisoned)" 1 &&
	wait_settled && page_stays_off && counts_agree && all_but_the_page_is_there_once &&
	page_stays_off && unpoison && wait_settled && lists_are_right
}

# The device goes, and the block comes back untagged.
test_poisoned_page_without_an_answer() {
	need_hwpoison || return
	one_block_at_a_time && hold_block && poison_page && sim_unload &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 && page_stays_off &&
	counts_agree && sim_load mode=now && wait_settled && all_but_the_page_is_there_once &&
	page_stays_off && unpoison && set_knob min_order 9 && hints_freed 64 &&
	wait_settled && lists_are_right
}

run_tests \
	test_a_new_zone_has_no_low \
	test_contig_with_a_silent_host \
	test_another_range_with_a_silent_host \
	test_a_silent_host_is_waited_for_once \
	test_half_of_a_block_isolated_as_it_returns \
	test_offline_with_a_silent_host \
	test_offline_with_a_late_host \
	test_online_again \
	test_poisoned_page \
	test_poisoned_page_without_an_answer \
	test_contents_stay

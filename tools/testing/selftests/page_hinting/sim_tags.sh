#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A free block is tagged Offline if the host knows all of it, and nobody has used it
# since: through all that moves blocks without hinting them. Hinting is switched off
# for that, so that a tag that is lost does not come again.

. "$(dirname "$0")/lib.sh"

ZONES=/sys/kernel/debug/page_hinting/zones
# Other pages that the guest takes or frees while a few commands run.
SLACK=128

disable() {
	# A pass that is under way ends.
	set_knob enabled 0 && sleep 0.2
}

expect_about() { # WHAT VALUE EXPECTED SLACK
	if [ "$2" -lt $(($3 - $4)) ] || [ "$2" -gt $(($3 + $4)) ]; then
		fail "$1: $2, expected about $3"
	fi
}

# What a test before has allocated or poisoned, should it have failed.
let_go() {
	exec 4>&- 5>&- 6>&-
	[ -z "$background" ] || wait "$background"
	background=
	[ "$(corrupted_kb)" != 4 ] || unpoison
}

# Single pages that are not hinted, for whoever needs some meanwhile: all else is Offline,
# so that they would be those of the block which are free and not hinted for a moment.
leave_pages_to_others() {
	local fifo=/tmp/tags.$$

	rm -f $fifo $fifo.out
	mkfifo $fifo || fail "mkfifo" || return
	"$DIR/fragment" 0 4 < $fifo > $fifo.out &
	background=$!
	exec 6> $fifo
	wait_for "fragment to be ready" test -s $fifo.out
}

# A block of the highest order that is Offline as a whole: sets $block. Somebody may want some
# of it before there are pages for others: then it is another one.
offline_block() {
	local tries=0

	while [ $tries -lt $TRIES ]; do
		let_go
		one_block_at_a_time && limit_pcp_lists && hold_block && sim_answer_all &&
		wait_for "the block to be free and Offline" range_is_offline "$block" $BLOCK &&
		wait_settled && disable && leave_pages_to_others || return
		! range_is_offline "$block" $BLOCK || return 0
		tries=$((tries + 1))
	done
	expect_offline "$block" $BLOCK
}

expect_offline() { # FIRST NUMBER
	count_flags "$@" &&
	expect "pages from $(($1 - block)) on, free and Offline" "$buddy $buddy_offline" "$2 $2"
}

# Of the block that begins at $block.
expect_unhinted() { # FIRST NUMBER
	count_flags "$@" &&
	expect "pages from $(($1 - block)) on, free and Offline" "$buddy $buddy_offline" "$2 0"
}

# Allocates a half of the block, until the file is closed.
take_half() { # FILE FIRST
	printf '%s' "$2 $HALF" >&"$1" || fail "a free half of the block cannot be allocated"
}

take_first_half() {
	exec 4> $SIM/contig
	take_half 4 "$block"
}

take_second_half() {
	exec 5> $SIM/contig
	take_half 5 $((block + HALF))
}

free_first_half() {
	exec 4>&-
}

free_second_half() {
	exec 5>&-
}

# The pageblock that is isolated is half of the block.
a_half_is_isolated() {
	offline_block && take_second_half && expect_offline "$block" $HALF
}

test_a_half_is_isolated() {
	a_few_times a_half_is_isolated
}

freed_memory_merges_with_offline() {
	offline_block && take_second_half || return
	free_second_half
	expect_unhinted "$block" $BLOCK
}

test_freed_memory_merges_with_offline() {
	a_few_times freed_memory_merges_with_offline
}

# The same block, which was used and freed since: the host does not know it.
unhinted_block() {
	offline_block && take_first_half && take_second_half || return
	let_go
	expect_unhinted "$block" $BLOCK
}

a_half_of_an_unhinted_block_is_isolated() {
	unhinted_block && take_second_half && expect_unhinted "$block" $HALF
}

test_a_half_of_an_unhinted_block_is_isolated() {
	a_few_times a_half_of_an_unhinted_block_is_isolated
}

# Of a free block only the page is taken that is bad. The rest is free, and hinted anew.
# Somebody may want one of the pieces that it is in then.
is_all_but_the_page() {
	expect_about "free pages beside the bad one" "$buddy" $((BLOCK - 1)) $SLACK
}

a_bad_page_is_taken_off() {
	offline_block && poison_page && count_flags "$block" $BLOCK &&
	expect "Offline pages beside the bad one" "$buddy_offline" 0 &&
	is_all_but_the_page && set_knob min_order 9 && set_knob enabled 1 && hints_freed 64 && unpoison
}

test_a_bad_page_is_taken_off() {
	need_hwpoison && a_few_times a_bad_page_is_taken_off
}

a_bad_page_of_an_unhinted_block_is_taken_off() {
	unhinted_block && poison_page && count_flags "$block" $BLOCK &&
	expect "Offline pages beside the bad one" "$buddy_offline" 0 &&
	is_all_but_the_page && unpoison
}

test_a_bad_page_of_an_unhinted_block_is_taken_off() {
	need_hwpoison && a_few_times a_bad_page_of_an_unhinted_block_is_taken_off
}

# Alone, or with what is free beside it.
holds_range() { # FIRST NUMBER
	awk -v first="$1" -v number="$2" '
		$1 <= first && $1 + $2 >= first + number { found = 1 }
		END { exit !found }' $SIM/held
}

# The block's halves are used, freed and handed to the host one after the other, which
# keeps the first. All else is hinted before: a silent host gets only so much.
hold_first_half() {
	offline_block && take_first_half && take_second_half && set_knob min_order 9 && set_knob batch_kb 65536 &&
	set_knob enabled 1 && wait_settled && sim_set mode never || return
	free_first_half
	wait_for "the first half with the host" holds_range "$block" $HALF
}

offline_halves_merge() {
	hold_first_half || return
	free_second_half
	wait_for "the second half with the host" holds_range $((block + HALF)) $HALF &&
	disable && sim_answer_all &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 && expect_offline "$block" $BLOCK
}

test_offline_halves_merge() {
	a_few_times offline_halves_merge
}

# As it comes back, a half finds the other one free, and not known to the host.
an_offline_half_merges_with_another() {
	local before

	hold_first_half && disable || return
	before=$(get stats/rehinted_kb)
	free_second_half
	sim_answer_all && wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	expect_unhinted "$block" $BLOCK || return
	before=$(($(get stats/rehinted_kb) - before))
	[ $before -ge $((HALF * 4)) ] ||
		fail "rehinted_kb has grown by $before, where $((HALF * 4)) KiB lost their tag"
}

test_an_offline_half_merges_with_another() {
	a_few_times an_offline_half_merges_with_another
}

# --- what allocations leave ---

# What has left the largest order's lists to serve allocations, in blocks.
bound() {
	awk '!/^#/ && $3 == 10 { n += $8 } END { print n + 0 }' $ZONES
}

# Pages of the blocks that are allocated.
PIECE=256

# Allocates blocks of this kind, 1 MiB each, until one was cut out of one of the highest
# order; sets $before and $after to the Offline pages around that.
split_a_block() { # KIND
	exec 4> $SIM/blocks
	allocate_until_more bound "$1"
}

# Of what is counted, others may use some as well: it is read anew for each block. That there
# is none left is no chance, and takes long: a_few_times does not try it again.
allocate_until_more() { # COUNT KIND
	local begin=

	while [ -z "$begin" ] || [ "$($1)" -le "$begin" ]; do
		begin=$($1)
		before=$(offline_pages)
		printf '%s' "8 $2" >&4 || { fail "no block of order 8 to be had"; return 2; }
	done
	after=$(offline_pages)
}

# All but small blocks is Offline, and much of it.
all_is_offline() {
	let_go
	load_with_sim mode=now && limit_pcp_lists && set_knob min_order 9 && wait_settled &&
	disable
}

# The last block that was allocated came out of an Offline one.
rest_is_offline() {
	expect_about "pages that are not Offline any more" $((before - after)) $PIECE $SLACK
}

an_offline_block_is_split() {
	all_is_offline && split_a_block movable || return
	exec 4>&-
	rest_is_offline
}

test_an_offline_block_is_split() {
	a_few_times an_offline_block_is_split
}

unmovable_pageblocks() {
	pageblocks Unmovable
}

# Unmovable memory takes whole pageblocks over when it has none left.
an_offline_block_is_claimed() {
	all_is_offline || return
	exec 4> $SIM/blocks
	allocate_until_more unmovable_pageblocks unmovable || return
	exec 4>&-
	rest_is_offline
}

test_an_offline_block_is_claimed() {
	a_few_times an_offline_block_is_claimed
}

# What the host does not know is used first, and what is left of it is not tagged.
an_unhinted_block_is_split() {
	all_is_offline && memhog -t 64 && split_a_block movable || return
	exec 4>&-
	expect_about "pages that became Offline" $((after - before)) 0 $SLACK
}

test_an_unhinted_block_is_split() {
	a_few_times an_unhinted_block_is_split
}

# --- counters ---

NR=8

# Each block that leaves a list for an allocation is; one more may be another's. Those of
# the highest order come from no per-CPU list.
allocations_are_counted() {
	local i=0 before

	all_is_offline || return
	exec 4> $SIM/blocks
	before=$(bound)
	while [ $i -lt $NR ]; do
		printf '%s' "10 movable" >&4 || fail "no block of order 10 to be had" || return
		i=$((i + 1))
	done
	before=$(($(bound) - before))
	exec 4>&-
	expect_about "blocks counted" $before $((NR + 1)) 1
}

test_allocations_are_counted() {
	a_few_times allocations_are_counted
}

# --- isolation that fails ---

rest_is_hinted() {
	local backlog

	read -r backlog < "$SYSFS/stats/backlog_kb"
	[ "$backlog" -le $(($(dma_kb) + 4096)) ]
}

# Sets $other to a block beside $block, which is with the host, that is Offline.
offline_neighbour() {
	local tries=0

	while [ $tries -lt $TRIES ]; do
		set_knob batch_kb $((BLOCK * 4)) && hold_block && set_knob batch_kb 65536 &&
		wait_for "all but the block to be hinted" rest_is_hinted || return
		for other in $((block - BLOCK)) $((block + BLOCK)); do
			! in_cma $other $BLOCK && range_is_offline $other $BLOCK && return
		done
		tries=$((tries + 1))
	done
	fail "$TRIES times there was no free block beside the one with the host"
}

# Nobody has a range if some of it is with the host, and the rest of it is free
# afterwards, whether all of a block was isolated or the half of it.
stays_free() { # PAGES, of the block
	local first=$block

	[ "$other" -gt "$block" ] || first=$((block - $1))
	expect "allocating a range, part of which is in flight" \
		"$(sim_contig "$first" $((BLOCK + $1)))" EBUSY &&
	count_flags "$other" $BLOCK &&
	expect "free pages after $1 were isolated" "$buddy" $BLOCK
}

# What cannot merge then, as the other half of its block is in use, keeps its tag.
half_stays_offline() {
	local near=$other far=$((other + HALF)) first=$block

	[ "$other" -gt "$block" ] || { near=$((other + HALF)) far=$other first=$near; }
	exec 5> $SIM/contig
	take_half 5 "$far" &&
	expect "allocating a range, part of which is in flight" \
		"$(sim_contig "$first" $((BLOCK + HALF)))" EBUSY && count_flags "$near" $HALF &&
	expect "Offline pages after $HALF were isolated" "$buddy_offline" $HALF || return
	exec 5>&-
}

isolation_is_undone() {
	exec 5>&-
	one_block_at_a_time && offline_neighbour && disable &&
	half_stays_offline && stays_free $HALF && stays_free $BLOCK && sim_answer_all
}

test_isolation_is_undone() {
	a_few_times isolation_is_undone
}

test_lists_are_right() {
	let_go
	set_knob min_order 9 && set_knob enabled 1 && hints_freed 64 && wait_settled &&
	counts_agree && lists_agree && sim_nothing_corrupted
}

run_tests \
	test_a_half_is_isolated \
	test_freed_memory_merges_with_offline \
	test_a_half_of_an_unhinted_block_is_isolated \
	test_a_bad_page_is_taken_off \
	test_a_bad_page_of_an_unhinted_block_is_taken_off \
	test_offline_halves_merge \
	test_an_offline_half_merges_with_another \
	test_an_offline_block_is_split \
	test_an_offline_block_is_claimed \
	test_an_unhinted_block_is_split \
	test_allocations_are_counted \
	test_isolation_is_undone \
	test_lists_are_right

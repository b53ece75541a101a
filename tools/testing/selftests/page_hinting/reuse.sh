#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Hinted memory that is used again is counted, and what is left of a page of the host
# of which a part is used is not Offline any more.

. "$(dirname "$0")/lib.sh"

MIB=128

# All that is free in blocks of 2 MiB is Offline, and what is in smaller ones is not,
# as it was used since it was hinted last; what a process frees does not stay with a CPU.
all_is_hinted() { # KNOB VALUE
	limit_pcp_lists && load_fresh && set_knob "$1" "$2" && set_knob enabled 0 &&
	memhog -T $(($(small_kb) / 1024 + 32)) && set_knob enabled 1 && wait_settled &&
	set_knob flush_timeout_ms 60000 && set_knob flush 1 || return
	small=$(small_kb)
}

# Sets $reused to the KiB that a command uses again.
reused_by() { # COMMAND...
	reused=$(get stats/offline_used_kb)
	"$@" || return
	reused=$(($(get stats/offline_used_kb) - reused))
}

# A program needs its MiB, page tables and little else.
is_about() { # LEAST MOST
	if [ "$reused" -lt "$1" ] || [ "$reused" -gt "$2" ]; then
		fail "$reused KiB were used again, expected $1 to $2; $small KiB were free in small blocks"
	fi
}

huge_pages_count() {
	all_is_hinted host_granule_kb 2048 && reused_by memhog -t $MIB &&
	is_about $((MIB * 1024 - 4096)) $(((MIB + 24) * 1024))
}

test_huge_pages_count() {
	a_few_times huge_pages_count
}

# The first small page of a granule costs the host all of it, and the others nothing.
granules_count_whole() {
	all_is_hinted host_granule_kb 2048 && reused_by memhog -T $MIB &&
	is_about $((MIB * 1024 - small - 4096)) $(((MIB + 24) * 1024)) || return
	expect "KiB used again beside whole granules" $((reused % 2048)) 0
}

test_granules_count_whole() {
	a_few_times granules_count_whole
}

small_pages_count() {
	all_is_hinted host_granule_kb 4 && reused_by memhog -T $MIB &&
	is_about $((MIB * 1024 - small - 4096)) $(((MIB + 24) * 1024))
}

test_small_pages_count() {
	a_few_times small_pages_count
}

# Tagged memory in blocks below 2 MiB.
tagged_kb() {
	awk '$3 < 9 { kb += $9 } END { print kb + 0 }' /sys/kernel/debug/page_hinting/zones
}

# Sets $tagged to that while a program holds small pages, more than small blocks have and no
# number of blocks, and nothing is hinted.
cut_a_block() { # GRANULE
	all_is_hinted host_granule_kb "$1" && set_knob enabled 0 || return
	# What the one before has said would be taken for its word.
	rm -f /tmp/held
	mkfifo /tmp/reuse || return
	"$DIR/memhog" -T $((small / 1024 + 67)) < /tmp/reuse > /tmp/held &
	background=$!
	exec 5> /tmp/reuse
	rm /tmp/reuse
	wait_for "a program to hold small pages" grep -qs touched /tmp/held
	tagged=$(tagged_kb)
	exec 5>&-
	wait "$background" || fail "memhog: status $?" || return
	background=
}

test_no_tag_below_a_granule() {
	cut_a_block 2048 || return
	[ "$tagged" -eq 0 ] || fail "$tagged KiB are tagged in blocks below 2 MiB"
}

test_tags_below_a_small_granule() {
	cut_a_block 4 || return
	[ "$tagged" -gt 0 ] || fail "nothing is tagged in blocks below 2 MiB with host_granule_kb 4"
}

test_unhinted_memory_is_not_reused() {
	load_fresh && set_knob enabled 0 && drop_caches || return
	# What is Offline still is used up: all but what is in use.
	memhog -t "$(spare_mib)" && reused_by memhog -t 64 || return
	# Small pieces of what was Offline may be left, and others use some: unmovable memory has
	# lists of its own. If Offline memory came first, it would be all of it.
	[ "$reused" -le 4096 ] || fail "$reused KiB used again with nothing hinted"
}

run_tests \
	test_huge_pages_count \
	test_granules_count_whole \
	test_small_pages_count \
	test_no_tag_below_a_granule \
	test_tags_below_a_small_granule \
	test_unhinted_memory_is_not_reused

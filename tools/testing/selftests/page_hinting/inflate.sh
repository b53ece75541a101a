#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The balloon itself is inflated and deflated, by the same device that is hinted to, while
# memory is used, freed and hinted: no page is lost, and what it gives back is hinted.

. "$(dirname "$0")/lib.sh"

MIB=512
CYCLES=2
# It takes the debug guest long.
[ ! -e /sys/kernel/debug/page_hinting_check ] || CYCLES=1
[ "$PAGE_HINTING_SOAK" != 1 ] || CYCLES=40

test_while_memory_is_used_and_freed() {
	local i=0 ret=0

	hold_contents 64 && load_fresh && set_knob min_order 0 || return
	full=$(actual_mib)
	[ "${full:-0}" -gt $((2 * MIB)) ] || fail "a guest of '$full' MiB" || return
	drop_caches
	take_stock || return
	use_memory
	while [ $i -lt $CYCLES ] && [ $ret -eq 0 ]; do
		set_balloon $((full - MIB)) && set_balloon "$full" || ret=$?
		i=$((i + 1))
	done
	end_background
	[ $ret -eq 0 ] && wait_settled && nothing_is_lost && counts_agree && lists_agree
}

# What the balloon takes was hinted, most of it, and what it gives back is not.
test_what_it_gives_back_is_hinted() {
	local want

	load_fresh && wait_settled && set_balloon $((full - MIB)) && wait_settled || return
	want=$(($(get stats/hinted_kb) + MIB * 1024 * 3 / 4))
	set_balloon "$full" && goes_on "hinted_kb of $want" stat_at_least hinted_kb $want && wait_settled
}

test_the_module_goes_and_comes_meanwhile() {
	take_stock && set_balloon $((full - MIB)) && unload && load && wait_settled &&
	set_balloon "$full" && unload && nothing_is_lost
}

need_host || {
	run_tests need_host
	exit
}
run_tests \
	test_while_memory_is_used_and_freed \
	test_what_it_gives_back_is_hinted \
	test_the_module_goes_and_comes_meanwhile \
	test_contents_stay

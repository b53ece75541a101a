#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The host is short of memory and swaps the guest out, again and again, while memory is
# used, freed and hinted: nothing is lost, what is in memory stays, and hinting goes on.

. "$(dirname "$0")/lib.sh"

TIMES=10
not_here=

test_contents_stay() {
	local before after said i=0

	before_the_host_acts 192 || return
	before=$(host resident) || return
	said=$(host swap)
	case $said in
	*"not here:"*)
		not_here=${said#*not here: }
		skip "$not_here"
		return ;;
	?*)
		fail "$said"
		return ;;
	esac
	after=$(host resident) || return
	ktap_print_msg "of the guest's memory $((before / 1024)) MiB were resident, and $((after / 1024)) are"
	[ "$after" -le $((before - 98304)) ] || fail "the host has not swapped" || return
	use_memory
	while [ $i -lt $TIMES ]; do
		host swap && hints_more 64 || return
		i=$((i + 1))
	done
	contents_are_right
}

# The memory is used as before, and what the host has swapped out comes back meanwhile.
# The guest, which has been swapped out, has to come back from the disk for it.
test_hinting_goes_on() {
	local GOES_ON=60

	[ -z "$not_here" ] || skip "$not_here" || return
	host swap && hints_more 64 goes_on
}

test_nothing_is_lost() {
	[ -z "$not_here" ] || skip "$not_here" || return
	all_is_there_again
}

run_tests \
	test_contents_stay \
	test_hinting_goes_on \
	test_nothing_is_lost

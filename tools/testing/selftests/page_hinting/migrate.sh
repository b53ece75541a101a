#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A guest is moved to another QEMU while memory is used, freed and hinted: nothing is
# lost, what is in memory goes with it, and hinting goes on by itself. And what it had
# given back before is not in the other host's memory.

. "$(dirname "$0")/lib.sh"

# The host has to bring its own side back as well before the guest runs as before.
GOES_ON=30

moves_while_hinting() { # [postcopy]
	local requests said

	before_the_host_acts 128 || return
	use_memory
	hints_more 128 || return
	requests=$(get stats/requests)
	said=$(host migrate "$@") || {
		case $said in
		*"not here:"*)
			end_background
			skip "${said#*not here: }" ;;
		*) fail "${said#\# }" ;;
		esac
		return
	}
	requests=$(($(get stats/requests) - requests))
	[ $requests -ne 0 ] || fail "nothing was hinted while the guest moved" || return
	ktap_print_msg "$requests requests while the guest moved"
	hints_more 128 goes_on && contents_are_right
}

test_moves_while_hinting() {
	moves_while_hinting
}

test_nothing_is_lost() {
	all_is_there_again
}

test_moves_with_postcopy() {
	moves_while_hinting postcopy && all_is_there_again
}

# In 64 MiB there is room for what is in use meanwhile and is not hinted.
test_what_is_with_the_host_stays_there() {
	local before after

	load_fresh && set_knob min_order 0 && gives_back 256 && wait_settled || return
	before=$(host resident) && host migrate && after=$(host resident) || return
	ktap_print_msg "QEMU had $((before / 1024)) MiB before, and the other one has $((after / 1024))"
	[ "$after" -le $((before + 65536)) ] ||
		fail "the other QEMU has $after KiB in memory, the first had $before" || return
	gives_back 256 && counts_agree
}

run_tests \
	test_moves_while_hinting \
	test_nothing_is_lost \
	test_moves_with_postcopy \
	test_what_is_with_the_host_stays_there

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The process that is the host's end of the guest is stopped for half a minute, as a
# debugger or a frozen control group does, while memory is used, freed and hinted:
# nothing is lost, what is in memory stays, and hinting goes on by itself.

. "$(dirname "$0")/lib.sh"

SECONDS_STOPPED=30

test_the_guest_is_stopped() {
	local before after want ret=0

	need_host || return
	drop_caches
	load_fresh && set_knob min_order 0 && wait_settled && take_stock && hold_contents 256 || return
	while :; do
		"$DIR/memhog" -t 128
		"$DIR/memhog" -T 32
	done < /dev/null > /dev/null 2>&1 &
	user=$!
	background="$background $user"
	want=$(($(get stats/hinted_kb) + 131072))
	wait_for "hinting to be going on" stat_at_least hinted_kb $want || return
	before=$(date +%s)
	host stop $SECONDS_STOPPED || return
	after=$(date +%s)
	# The guest's clock need not have seen it; the host's answer came after it.
	ktap_print_msg "stopped for $SECONDS_STOPPED s, of which the guest has seen $((after - before))"
	want=$(($(get stats/hinted_kb) + 131072))
	wait_for "hinting to go on" stat_at_least hinted_kb $want || ret=$?
	kill "$user"
	wait "$user" 2> /dev/null
	[ $ret -eq 0 ] && contents_are_right
}

test_nothing_is_lost() {
	wait_for "all who used memory to end" no_memhog && wait_settled && nothing_is_lost &&
	counts_agree && requests_are_acked
}

run_tests \
	test_the_guest_is_stopped \
	test_nothing_is_lost

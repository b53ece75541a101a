#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A host that does not answer: that is told, and driver, device and module can
# go all the same, in bounded time and without losing a page.

. "$(dirname "$0")/lib.sh"

MIB=256
# Longest time in seconds for what must not wait for the host. A debug guest
# needs some; a wait for the sim_host never ends.
BOUND=20

hints() {
	hints_freed $MIB && wait_settled
}

reports() { # page_reporting does
	local before

	before=$(host_has answered)
	memhog -t $MIB &&
	wait_for "page_reporting to report" host_has_at_least answered $((before + 1))
}

nothing_is_out() {
	expect isolated_kb "$(get stats/isolated_kb)" 0 &&
	expect "status" "$(get status)" no-queue &&
	nothing_is_lost
}

test_stall_is_told() {
	local stalls

	# So that page_reporting leaves all to the module.
	set_reporting_delay 600000 && plug && load_fresh && take_stock || return
	# A machine that stands still for a second while a request is out has one of its own.
	stalls=$(($(get stats/stalls) + 1))
	stall && wait_for "stalls of $stalls" stat_is stalls $stalls &&
	host_counts_agree
}

# What comes back was not acknowledged, so it is backlog, not hinted memory.
test_unbind_gives_all_back() {
	local backlog out

	out=$(get stats/isolated_kb)
	backlog=$(get stats/backlog_kb)
	within $BOUND unbind "$device" && nothing_is_out || return
	expect "requests forgotten at the reset" "$(host_has forgotten)" \
		$(($(host_has requests) - $(host_has answered))) || return
	[ "$(get stats/backlog_kb)" -ge $((backlog + out / 2)) ] ||
		fail "backlog of $(get stats/backlog_kb) KiB after $backlog, of which $out were out"
}

test_late_answer_changes_nothing() {
	local answered acks

	answered=$(host_has answered)
	acks=$(get stats/acks)
	sim_host now && sleep 1 &&
	expect answers "$(host_has answered)" "$answered" &&
	expect acks "$(get stats/acks)" "$acks" && no_faults
}

test_rebind_hints_again() {
	bind "$device" && hints && no_faults
}

test_unplug_gives_all_back() {
	take_stock && stall && no_faults && within $BOUND unplug && nothing_is_out
}

test_plug_hints_again() {
	plug mode=now && hints
}

test_rmmod_of_the_module_does_not_wait() {
	local had

	stall || return
	had=$(host_has in_flight)
	within $BOUND unload && nothing_left || return
	host_has_at_least in_flight "$had" ||
		fail "the host has $(host_has in_flight) requests, had $had"
}

# What was in flight at rmmod is nothing that this load of the module did.
test_insmod_before_the_answer() {
	local had out

	had=$(host_has in_flight)
	[ "$had" -gt 0 ] || fail "nothing is in flight" || return
	load || return
	out=$(get stats/isolated_kb)
	[ "$out" -gt 0 ] && [ "$(get stats/isolated_peak_kb)" -ge "$out" ] ||
		fail "isolated_peak_kb is $(get stats/isolated_peak_kb), isolated_kb was $out" || return
	sim_host now && hints || return
	wait_for "an ack for each request" requests_are_acked && no_faults
}

test_answer_gives_the_device_back() {
	take_stock && stall && within $BOUND unload && set_reporting_delay 100 && sim_host now &&
	wait_for "the host to have nothing" host_has_nothing && reports && no_faults &&
	nothing_is_lost
}

test_unbind_after_rmmod_gives_all_back() {
	take_stock && set_reporting_delay 600000 && load && wait_settled && stall && within $BOUND unload &&
	within $BOUND unbind "$device" && no_faults &&
	nothing_is_lost &&
	sim_host now && bind "$device" && unplug
}

# Those that are still with a device when it is reset, and that a module before has left there.
test_errors_are_ones_own() {
	plug && load && wait_settled && stall && within $BOUND unload && load &&
	within $BOUND unbind "$device" && no_faults &&
	wait_for "each request to be acknowledged or an error" requests_are_over &&
	sim_host now && bind "$device" && wait_settled && unload && unplug
}

test_insmod_while_page_reporting_waits() {
	local begin took errno

	stall_page_reporting || return
	get_now
	begin=$now
	errno=$("$DIR/finit_module" "$KO")
	get_now
	took=$((now - begin))
	expect "loading the module" "$errno" EBUSY && nothing_left || return
	[ $took -ge 4 ] && [ $took -le $BOUND ] || fail "EBUSY came after $took s" || return
	sim_host now && load && hints && no_faults && unload && unplug
}

test_unbind_while_page_reporting_waits() {
	take_stock && stall_page_reporting && within $BOUND unbind "$device" && no_faults &&
	nothing_is_lost &&
	sim_host now && bind "$device" && reports && unplug
}

test_unplug_while_page_reporting_waits() {
	take_stock && stall_page_reporting && within $BOUND unplug &&
	nothing_is_lost
}

run_tests \
	test_stall_is_told \
	test_unbind_gives_all_back \
	test_late_answer_changes_nothing \
	test_rebind_hints_again \
	test_unplug_gives_all_back \
	test_plug_hints_again \
	test_rmmod_of_the_module_does_not_wait \
	test_insmod_before_the_answer \
	test_answer_gives_the_device_back \
	test_unbind_after_rmmod_gives_all_back \
	test_errors_are_ones_own \
	test_insmod_while_page_reporting_waits \
	test_unbind_while_page_reporting_waits \
	test_unplug_while_page_reporting_waits

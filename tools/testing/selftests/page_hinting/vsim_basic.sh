#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The balloon driver as its host sees it: numbers on both sides agree, several
# requests are with the host at a time, blocks side by side go as one, a request
# costs one kick and no interrupt while the thread works, and what the host has is
# touched by nobody.

. "$(dirname "$0")/lib.sh"

MIB=256

# Without VIRTIO_RING_F_EVENT_IDX the driver can't leave out a kick, so that
# they can be counted.
test_driver_binds() {
	set_reporting_delay 600000 && plug event_idx=0 && no_faults
}

test_numbers_agree() {
	load_fresh && memhog -t $MIB && wait_settled || return
	[ "$(get stats/requests)" -gt 0 ] || fail "nothing was hinted" || return
	host_counts_agree && expect errors "$(get stats/errors)" 0
}

test_a_kick_per_request() {
	wait_for "as many kicks as requests" kicks_are_requests ||
		fail "$(host_has notifies) kicks for $(host_has requests) requests"
}

kicks_are_requests() {
	[ "$(host_has notifies)" -eq "$(host_has requests)" ]
}

# The thread reaps before it submits: an answer that comes before it sleeps is no interrupt.
test_no_interrupt_while_it_works() {
	expect "kicks with the driver's interrupts on" "$(host_has armed)" 0
}

# The thread sleeps until a late host answers, and asks to be told of it.
test_a_late_answer_interrupts() {
	local interrupts answered

	interrupts=$(host_has interrupts)
	answered=$(host_has answered)
	sim_host late 50 && memhog -t $MIB &&
	wait_for "an answer" host_has_at_least answered $((answered + 1)) &&
	wait_settled && sim_host now || return
	[ "$(host_has interrupts)" -gt "$interrupts" ] ||
		fail "no interrupt for $(($(host_has answered) - answered)) late answers"
}

# Memory that comes online is free in blocks of order 10, side by side. All are there before
# the first is hinted; one that is hinted as it comes has nobody to go with. No descriptor
# crosses a section, which the host sees as a fault.
test_adjacent_blocks_share_a_descriptor() {
	local ranges pages

	set_knob min_order 10 && wait_settled && set_knob enabled 0 && find_memory || return
	ranges=$(host_has ranges)
	pages=$(host_has pages)
	expect "onlining memory" "$(memory_state online)" ok &&
	set_knob enabled 1 && wait_settled || return
	ranges=$(($(host_has ranges) - ranges))
	pages=$(($(host_has pages) - pages))
	ktap_print_msg "$((pages / 1024)) blocks in $ranges descriptors"
	[ $pages -ge $((number * 3 / 4)) ] ||
		fail "only $pages pages were hinted, of $number that came online" || return
	[ $((ranges * 1024 * 2)) -le $pages ] ||
		fail "$((pages / 1024)) blocks of order 10 took $ranges descriptors" || return
	no_faults
}

# The bound, and what is in flight at once, shows when the host keeps it.
test_several_requests_in_flight() {
	local n stalls

	load_fresh && wait_settled || return
	# A machine that stands still for a second while a request is out has one of its own.
	stalls=$(($(get stats/stalls) + 1))
	stall || return
	n=$(host_has in_flight)
	ktap_print_msg "$n requests, $(get stats/isolated_kb) KiB with a silent host"
	[ "$(get stats/isolated_peak_kb)" -le 65536 ] ||
		fail "$(get stats/isolated_peak_kb) KiB were out at a time" || return
	wait_for "the requests that are out to be with the host" requests_are_in_flight &&
	wait_for "stalls of $stalls" stat_is stalls $stalls && sim_host now && wait_settled
}

requests_are_in_flight() {
	[ "$(host_has in_flight)" -eq $(($(get stats/requests) - $(get stats/acks))) ]
}

test_event_idx() {
	local kicks requests

	unload && unplug && plug && load && memhog -t $MIB && wait_settled || return
	kicks=$(host_has notifies)
	requests=$(host_has requests)
	ktap_print_msg "$kicks kicks, $requests requests, $(host_has interrupts) interrupts"
	host_counts_agree || return
	[ "$kicks" -gt 0 ] || fail "no kick for $requests requests" || return
	[ "$kicks" -le "$requests" ] || fail "$kicks kicks for $requests requests"
}

# The host overwrites what it has, and looks whether anybody else did.
test_nobody_uses_what_the_host_has() {
	local i=0 want

	sim_host late 50 && echo 1 > $VSIM/scribble || return
	want=$(($(host_has requests) + 10))
	while [ $i -lt 10 ]; do
		memhog -t $MIB && memhog -T 32 || return
		i=$((i + 1))
	done
	wait_for "$want requests" host_has_at_least requests $want || return
	sim_host now && wait_settled && echo 0 > $VSIM/scribble && no_faults
}

# While the device is reset, more memory is freed than the watermark.
test_nothing_is_submitted_in_a_reset() {
	local i=0 ret=0

	while :; do
		"$DIR/memhog" -t 64
	done < /dev/null > /dev/null 2>&1 &
	background=$!
	echo 500 > $VSIM/reset_ms
	while [ $i -lt 3 ] && [ $ret -eq 0 ]; do
		unbind "$device" && no_faults && bind "$device" && sleep 0.5 || ret=$?
		i=$((i + 1))
	done
	echo 0 > $VSIM/reset_ms
	kill "$background"
	wait "$background" 2> /dev/null
	background=
	[ $ret -eq 0 ] && wait_settled && no_faults
}

test_page_reporting_alone() {
	unload && unplug && set_reporting_delay 100 && plug && memhog -t $MIB &&
	wait_for "page_reporting to report" host_has_at_least answered 1 && no_faults
}

test_unplug() {
	unplug
}

run_tests \
	test_driver_binds \
	test_numbers_agree \
	test_a_kick_per_request \
	test_no_interrupt_while_it_works \
	test_a_late_answer_interrupts \
	test_adjacent_blocks_share_a_descriptor \
	test_several_requests_in_flight \
	test_event_idx \
	test_nobody_uses_what_the_host_has \
	test_nothing_is_submitted_in_a_reset \
	test_page_reporting_alone \
	test_unplug

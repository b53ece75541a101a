#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The tracepoints tell all that is hinted, and count as the statistics do.

. "$(dirname "$0")/lib.sh"

MIB=128
EVENTS="wake take submit ack return stall"

events() { # EVENT [PATTERN]
	grep -c " page_hinting_$1: .*$2" $TRACING/trace
}

pages() { # EVENT [PATTERN]
	grep " page_hinting_$1: .*$2" $TRACING/trace |
	sed 's/.* nr_pages=//' | awk '{ n += $1 } END { print n + 0 }'
}

trace_hinting() { # 0 or 1
	local event

	for event in $EVENTS; do
		trace_event "page_hinting/page_hinting_$event" "$1" || return
	done
}

# With hinting switched off before and after, so that all of it is in the trace.
test_events_are_what_is_counted() {
	local requests acks hinted stalls wakeups

	load_with_sim mode=now && wait_settled && set_knob enabled 0 &&
	wait_for "status off" status_is off && wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	wait_for "each request to be over" requests_are_over && trace_nothing && trace_hinting 1 || return
	# A machine that stands still for a second has one, though the host answers.
	stalls=$(get stats/stalls)
	requests=$(get stats/requests)
	acks=$(get stats/acks)
	hinted=$(get stats/hinted_kb)
	wakeups=$(get stats/wakeups)
	set_knob enabled 1 && memhog -t $MIB &&
	wait_for "hinted_kb of $((hinted + MIB * 512))" stat_at_least hinted_kb $((hinted + MIB * 512)) &&
	wait_settled && set_knob enabled 0 && wait_for "status off" status_is off &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 && trace_hinting 0 || return
	requests=$(($(get stats/requests) - requests))
	acks=$(($(get stats/acks) - acks))
	hinted=$((($(get stats/hinted_kb) - hinted) / 4))
	wakeups=$(($(get stats/wakeups) - wakeups))
	[ "$(events wake)" -gt 0 ] || fail "no event of a wake-up" || return
	[ "$wakeups" -gt 0 ] && [ "$wakeups" -le "$requests" ] ||
		fail "$wakeups wake-ups are counted, with $requests requests" || return
	expect "events of a submission" "$(events submit ' err=0')" "$requests" &&
	expect "events of an acknowledgment" "$(events ack)" "$acks" &&
	expect "pages taken" "$(pages take)" "$hinted" &&
	expect "pages returned and known to the host" "$(pages return ' offline=1')" "$hinted" &&
	expect "events of a stall" "$(events stall)" $(($(get stats/stalls) - stalls))
}

test_a_stall_is_an_event() {
	local stalls=$(($(get stats/stalls) + 1))

	set_knob enabled 1 && sim_set mode never && trace_nothing && trace_hinting 1 && memhog -t $MIB &&
	wait_for "stats/stalls of $stalls" stat_at_least stalls $stalls && trace_hinting 0 &&
	expect "events of a stall" "$(events stall)" 1
}

test_a_refusal_is_an_event() {
	sim_answer_all && wait_settled && sim_set mode error && trace_nothing && trace_hinting 1 &&
	memhog -t $MIB && wait_for "an error" stat_at_least errors 1 && trace_hinting 0 || return
	[ "$(events submit ' err=-5')" -gt 0 ] || fail "no event of a submission that failed" || return
	[ "$(pages return ' offline=0')" -gt 0 ] || fail "no event of what came back"
}

run_tests \
	test_events_are_what_is_counted \
	test_a_stall_is_an_event \
	test_a_refusal_is_an_event

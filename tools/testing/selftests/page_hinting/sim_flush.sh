#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A flush with a host that does not answer, one that goes, and none at all: it
# ends in its time and says why.

. "$(dirname "$0")/lib.sh"

# Longest time in seconds for what must not wait for the host.
BOUND=20

flush_gives() { # ERRNO
	expect "a flush" "$("$DIR/sysfs_write" "$SYSFS/flush" 1)" "$1"
}

# All is hinted, then the host is silent and has some.
silent_host() {
	load_with_sim mode=now && wait_settled && sim_set mode never && memhog -t 192 &&
	wait_for "blocks with a silent host" sim_at_least in_flight_kb 4096
}

test_flush_times_out() {
	silent_host && set_knob flush_timeout_ms 1500 &&
	seconds flush_gives ETIMEDOUT && took_at_most $BOUND "a flush of 1.5 s" || return
	[ "$took" -ge 1 ] || fail "the flush took $took s, expected 1.5 s" || return
	# What is left is said.
	[ "$(($(get stats/backlog_kb) + $(get stats/isolated_kb)))" -ge 4096 ] ||
		fail "nothing is left after a flush that did not end"
}

test_flush_ends_when_the_host_answers() {
	silent_host && set_knob flush_timeout_ms $((WAIT * 1000)) || return
	flush_in_background
	sleep 1
	kill -0 "$flusher" 2> /dev/null || fail "the flush did not wait" || return
	sim_answer_all || return
	wait "$flusher"
	expect "the flush" "$(cat /tmp/flush)" ok
}

flush_in_background() {
	"$DIR/sysfs_write" "$SYSFS/flush" 1 > /tmp/flush 2>&1 < /dev/null &
	flusher=$!
	background="$background $flusher"
	wait_for "the flush to wait" flush_waits
}

# Not the shell that is to become it.
flush_waits() {
	grep -qs '^sysfs_write$' "/proc/$flusher/comm" &&
	grep -qs '^State:.*sleeping' "/proc/$flusher/status"
}

is_gone() { # PID
	! kill -0 "$1" 2> /dev/null
}

test_flush_can_be_interrupted() {
	silent_host && set_knob flush_timeout_ms 3600000 || return
	flush_in_background
	kill -TERM "$flusher"
	wait_for "the flush to be interrupted" is_gone "$flusher" || return
	sim_answer_all && wait_settled
}

test_flush_ends_at_unload() {
	silent_host && set_knob flush_timeout_ms 3600000 || return
	flush_in_background
	within $BOUND unload &&
	wait_for "the flush to end" is_gone "$flusher" || return
	expect "the flush" "$(cat /tmp/flush)" ENODEV
	sim_answer_all
}

test_flush_ends_when_the_device_goes() {
	silent_host && set_knob flush_timeout_ms 3600000 || return
	flush_in_background
	sim_unload && wait_for "the flush to end" is_gone "$flusher" || return
	expect "the flush" "$(cat /tmp/flush)" ENODEV
}

test_flush_without_a_device() {
	load_fresh && flush_gives ENODEV
}

# The device refuses requests for a while.
test_flush_with_errors() {
	load_with_sim mode=now && wait_settled && set_knob flush_timeout_ms 1500 &&
	set_knob high_watermark_kb 4294967296 && sim_set mode error && memhog -t 192 &&
	flush_gives ETIMEDOUT || return
	sim_set mode now && set_knob flush_timeout_ms $((WAIT * 1000)) && flush_gives ok
}

# While memory is held back and the device refuses what may be hinted, the thread
# tries again at its looks, ten a second, and not all the time.
# The loop uses less than the 8 granules at which the fuse would keep all of the zone.
test_errors_while_paced_do_not_spin() {
	local before errors begin cs ret=0

	all_defaults=1
	load_with_sim mode=now && set_knob hold_ms 60000 && set_knob host_granule_kb 4096 &&
	wait_settled && keep_loop 28 && sim_set mode error || ret=$?
	all_defaults=
	[ $ret -eq 0 ] && sim_blocks 112 movable || return
	before=$(get stats/errors)
	get_cs
	begin=$cs
	wait_for "20 refused requests" stat_at_least errors $((before + 20)) || return
	errors=$(($(get stats/errors) - before))
	get_cs
	# A request that is about to be refused is seen as hinting.
	wait_for "status paced" status_is paced || fail "status $(get status) while memory is kept" || return
	ktap_print_msg "$errors requests were refused in $((cs - begin))0 ms"
	[ $((errors * 10)) -le $(((cs - begin) * 3 + 20)) ] || fail "that is too often" || return
	sim_answer_all
}

run_tests \
	test_flush_times_out \
	test_flush_ends_when_the_host_answers \
	test_flush_can_be_interrupted \
	test_flush_ends_at_unload \
	test_flush_ends_when_the_device_goes \
	test_flush_without_a_device \
	test_flush_with_errors \
	test_errors_while_paced_do_not_spin

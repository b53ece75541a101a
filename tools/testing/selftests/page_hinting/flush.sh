#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A write to flush returns when all that is free is hinted, what the CPUs have
# aside included, and whatever the watermarks and the pacing say; and a program
# can wait for news of the status and of the backlog.

. "$(dirname "$0")/lib.sh"

HIGHEST=4294967296

# A flush ends when all is hinted, not before: this is not about how long it takes.
begin() {
	load_fresh && set_knob flush_timeout_ms $((WAIT * 1000)) && wait_settled
}

# Nothing is hinted but by order.
hold_back() {
	begin && set_knob high_watermark_kb $HIGHEST &&
	set_knob low_watermark_kb 262144 && memhog -t 192
}

# What stays is of zones that can't spare any, and what was freed just now.
nothing_is_left() {
	local most backlog

	most=$(after_flush_kb)
	backlog=$(get stats/backlog_kb)
	[ "$backlog" -le "$most" ] || fail "$backlog KiB are not hinted, $most at most expected"
}

test_flush_hints_all() {
	hold_back || return
	[ "$(get stats/backlog_kb)" -ge 131072 ] ||
		fail "only $(get stats/backlog_kb) KiB were held back" || return
	set_knob flush 1 && nothing_is_left
}

# Without a limit the CPUs keep huge pages. Each flush drains them: two in a row must.
test_flush_drains_the_cpus() {
	local try huge drained=0

	begin || return
	# Programs that end in between free some: so a few times, and too soon one after
	# the other for the thread, which drains the CPUs when it rests.
	for try in 1 2 3 4 5 6; do
		memhog -t 64 && set_knob flush 1 || return
		huge=$(pcp_huge)
		drained=$((drained + 1))
		[ "$huge" = 0 ] || drained=0
		[ $drained -lt 2 ] || break
	done
	[ $drained -eq 2 ] ||
		fail "$huge lists of CPUs with as much as a page of 2 MiB at try $try, and no two in a row with none" || return
	nothing_is_left
}

# Lists with as much as a huge page.
pcp_huge() {
	awk '/^ *count:/ && $2 >= 512 { n++ } END { print n + 0 }' /proc/zoneinfo
}

test_flush_while_off() {
	begin && set_knob enabled 0 && memhog -t 192 || return
	[ "$(get stats/backlog_kb)" -ge 65536 ] ||
		fail "only $(get stats/backlog_kb) KiB are not hinted while off" || return
	set_knob flush 1 && nothing_is_left && expect status "$(get status)" off
}

test_flush_takes_one_value() {
	local value

	load_fresh || return
	for value in 0 2 '' x 11; do
		expect "writing '$value' to flush" \
			"$("$DIR/sysfs_write" "$SYSFS/flush" "$value" | tail -n 1)" \
			"$([ -z "$value" ] && echo ok || echo EINVAL)" || return
	done
	"$DIR/sysfs_write" "$SYSFS/flush" 1 > /dev/null
}

# Several at a time, while memory is used and freed.
test_flushes_at_a_time() {
	local pids='' pid

	begin || return
	for _ in 1 2 3 4 5 6 7 8; do
		( for _ in 1 2 3 4 5; do
			memhog -t 16 && set_knob flush 1 || exit 1
		done ) &
		pids="$pids $!"
	done
	for pid in $pids; do
		wait "$pid" || fail "a flush failed" || return
	done
	wait_settled
}

polls() { # FILE: starts to wait for news of it
	# What the one before has said would be taken for its word.
	rm -f /tmp/poll
	"$DIR/sysfs_poll" "$SYSFS/$1" "$WAIT" > /tmp/poll 2>&1 < /dev/null &
	poller=$!
	background="$background $poller"
	wait_for "a program to poll $1" grep -qs polling /tmp/poll
}

status_can_be_polled() {
	load_fresh && wait_settled && polls status && set_knob enabled 0 || return
	# Not once more: that there is news is no chance.
	wait "$poller" || { fail "no news of the status: $(cat /tmp/poll)"; return 2; }
	expect "the status that was polled" "$(tail -n 1 /tmp/poll)" off
}

# The thread may just hint what somebody has freed, which is news as well.
test_status_can_be_polled() {
	a_few_times status_can_be_polled
}

test_backlog_can_be_polled() {
	load_fresh && wait_settled && polls stats/backlog_kb && memhog -t 64 || return
	wait "$poller" || fail "no news of the backlog: $(cat /tmp/poll)"
}

run_tests \
	test_flush_hints_all \
	test_flush_drains_the_cpus \
	test_flush_while_off \
	test_flush_takes_one_value \
	test_flushes_at_a_time \
	test_status_can_be_polled \
	test_backlog_can_be_polled

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A host that answers seconds or minutes late, or in another order than it was
# asked: all is hinted in the end, and hinting resumes by itself.

. "$(dirname "$0")/lib.sh"

# A second or three for each request makes even this take long.
MIB=48

# Longer than a stall takes to be seen; and once in a while longer than the kernel
# lets a task wait without a word.
LATE_S=3
if [ "$PAGE_HINTING_SOAK" = 1 ]; then
	LATE_S=180
	WAIT=$((WAIT + 5 * LATE_S))
fi

hints_all() {
	local want

	want=$(($(get stats/hinted_kb) + MIB * 1024 / 2))
	verify_memory $MIB && verify_memory $MIB &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want &&
	wait_settled && no_faults
}

# No answer can have taken longer than all of it.
test_one_second_late() {
	local max begin now

	get_now
	begin=$now
	set_reporting_delay 600000 && plug && load_fresh && take_stock &&
	echo 1 > $VSIM/scribble && sim_host late 1000 && hints_all || return
	max=$(get stats/ack_us_max)
	get_now
	[ "$max" -ge 1000000 ] && [ "$max" -le $(((now - begin + 1) * 1000000)) ] ||
		fail "ack_us_max is $max after $((now - begin)) s" || return
	host_counts_agree
}

test_late_by_far() {
	local stalls max

	stalls=$(get stats/stalls)
	sim_host late $((LATE_S * 1000)) && hints_all || return
	max=$(get stats/ack_us_max)
	[ "$max" -ge $((LATE_S * 1000000)) ] || fail "ack_us_max is $max" || return
	[ "$(get stats/stalls)" -gt "$stalls" ] || fail "no stall was counted"
}

test_out_of_order() {
	local n

	sim_host now && load_fresh && wait_settled && stall || return
	n=$(host_has in_flight)
	sim_host reorder 500 && hints_freed $MIB && wait_settled && no_faults || return
	[ "$(get stats/acks)" -ge "$n" ] && expect errors "$(get stats/errors)" 0
}

# Seconds of silence and one moment of answers, again and again.
test_now_and_then() {
	local i=0

	while [ $i -lt 3 ]; do
		sim_host never && memhog -t $MIB && wait_for "status stalled" is_stalled &&
		sim_host now && hints_freed $MIB && wait_settled || return
		i=$((i + 1))
	done
	no_faults && nothing_is_lost
}

test_page_reporting_alone() {
	unload && unplug && take_stock && set_reporting_delay 100 &&
	plug mode=late delay_ms=1000 && memhog -t $MIB && wait_for "page_reporting to report" host_has_at_least answered 1 &&
	sim_host reorder 300 && memhog -t $MIB &&
	wait_for "page_reporting to report" host_has_at_least answered 2 &&
	no_faults && unplug && nothing_is_lost
}

run_tests \
	test_one_second_late \
	test_late_by_far \
	test_out_of_order \
	test_now_and_then \
	test_page_reporting_alone

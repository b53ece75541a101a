#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# What is needed again soon is not hinted each time, what is not is hinted at once,
# and what was held back is hinted when it is idle.

. "$(dirname "$0")/lib.sh"

all_defaults=1

MIB=192
CYCLES=12

# Memory was hinted long ago, and nothing of it counts as used again soon.
settle() { # PERMILLE
	limit_pcp_lists && load_fresh && set_knob reuse_budget_permille "$1" &&
	set_knob flush_timeout_ms 60000 && set_knob flush 1 && sleep 12
}

cycles_took=0

# Sets $reused to the KiB that are used again after the first cycle of many, and
# $cycles_took to the seconds that all of them take.
cycle() {
	local n=1 begin

	get_now
	begin=$now
	memhog -t $MIB || return
	reused=$(get stats/reused_kb)
	while [ $n -lt $CYCLES ]; do
		memhog -t $MIB || return
		n=$((n + 1))
	done
	reused=$(($(get stats/reused_kb) - reused))
	get_now
	cycles_took=$((now - begin))
}

# Cycles are told as such if twice the time of one fits into 4.2 s.
fast_enough() {
	[ "$cycles_took" -le $((CYCLES * 2)) ] ||
		skip "this guest is too slow: $CYCLES cycles took $cycles_took s"
}

# What the same costs without pacing: it shows that there is something to save.
test_without_pacing_all_is_used_again() {
	local least

	settle 0 && cycle || return
	least=$((MIB * 1024 * (CYCLES - 1) / 2))
	[ "$reused" -ge $least ] ||
		fail "$reused KiB were used again in $CYCLES cycles of $MIB MiB, expected $least at least"
}

# After the first cycle that uses it again it is left alone.
test_a_cycle_is_left_alone() {
	local most

	settle 10 && cycle && fast_enough || return
	most=$((MIB * 1024 * 2))
	[ "$reused" -le $most ] ||
		fail "$reused KiB were used again in $CYCLES cycles of $MIB MiB, expected $most at most" || return
	is_held_back
}

is_held_back() {
	status_is paced || fail "the status is '$(get status)' while $(get stats/backlog_kb) KiB are held back" || return
	[ "$(get stats/backlog_kb)" -ge $((MIB * 1024 / 2)) ] ||
		fail "only $(get stats/backlog_kb) KiB are held back after cycles of $MIB MiB"
}

test_idle_is_hinted() {
	seconds wait_settled || return
	[ "$took" -le 20 ] || fail "what was held back was hinted after $took s"
}

# What the per-CPU lists hold is used at once by the next turn of a cycle. Each page that
# the thread has taken from them leaves an event: those of one time are less than 0.5 s apart.
test_a_cycle_keeps_the_cpus_lists() {
	local pid drains='' cycles=/tmp/cycles

	# (As a test before has found.)
	fast_enough && settle 10 && echo 0 > $PCP_FRACTION && trace_nothing || return
	pid=$(pidof page_hinting) || fail "the thread is not there" || return
	while :; do
		"$DIR/memhog" -t $MIB
		"$DIR/memhog" -T 16
		echo >> $cycles
	done < /dev/null > /dev/null 2>&1 &
	background="$background $!"
	if wait_for "memory to be held back" status_is paced && sleep 2 &&
	   trace_event kmem/mm_page_pcpu_drain 1 "common_pid == $pid"; then
		: > $cycles
		sleep 9
		trace_event kmem/mm_page_pcpu_drain 0
		cycles=$(wc -l < $cycles)
		drains=$(count_drains)
	fi
	end_background
	[ -n "$drains" ] || return
	ktap_print_msg "drained $drains times in 9 s and $cycles rounds of a cycle"
	# Where one drain takes longer than 0.5 s it counts as two; without the rule for cycles
	# there is one each second.
	[ "$drains" -le 3 ] || [ "$cycles" -ge 6 ] ||
		skip "this guest is too slow: $cycles rounds of a cycle in 9 s" || return
	[ "$drains" -le 3 ] ||
		fail "the CPUs' lists were drained $drains times in 9 s of a cycle, expected 3 at most"
}

count_drains() {
	awk '!/^#/ && match($0, / [0-9]+\.[0-9]+: /) {
		t = substr($0, RSTART, RLENGTH) + 0
		if (!n || t > last + 0.5)
			n++
		last = t
	}
	END { print n + 0 }' $TRACING/trace
}

# Nothing but the burst was used since long.
test_a_burst_is_hinted_at_once() {
	local want

	settle 10 || return
	want=$(($(get stats/hinted_kb) + MIB * 1024 / 2))
	memhog -t $MIB && sleep 0.5 || return
	stat_at_least hinted_kb $want ||
		fail "only $(get stats/hinted_kb) of $want KiB were hinted half a second after a burst"
}

# What was used again is worth less than a quarter of the budget, 12 ms at 10 permille;
# the guest may be slow, so it has 20 times that. Nothing is kept back for it.
test_a_burst_goes_at_once_after_little_reuse() {
	local most n=0

	settle 200 || return
	while [ $n -lt 3 ]; do
		memhog -t 24 && sleep 0.3 || return
		n=$((n + 1))
	done
	memhog -t $MIB || return
	most=$(($(dma_kb) + 8192))
	# What is kept back is for four seconds.
	n=0
	until [ "$(get stats/backlog_kb)" -le $most ] || [ $n -ge 20 ]; do
		sleep 0.1
		n=$((n + 1))
	done
	[ "$(get stats/backlog_kb)" -le $most ] ||
		fail "$(get stats/backlog_kb) KiB are held back of a burst, expected $most at most"
}

# It does not wait until no more is held back, which takes longer than it may.
test_flush_is_not_paced() {
	local most

	settle 10 && cycle && fast_enough && is_held_back && set_knob flush_timeout_ms 2000 && set_knob flush 1 || return
	most=$(($(dma_kb) + 4096))
	[ "$(get stats/backlog_kb)" -le $most ] ||
		fail "$(get stats/backlog_kb) KiB are held back after a flush"
}

# What was assumed until it was measured, for a page of 2 MiB.
ASSUMED_NS=257000
PACING=/sys/kernel/debug/page_hinting/pacing

price() {
	awk '$1 == "price_ns" { print $2 }' $PACING
}

is_measured() {
	[ "$(price)" -ne $ASSUMED_NS ]
}

# A busy host may make one measurement zero, but not most.
costs_something() {
	[ "$(price)" -gt 0 ]
}

test_the_price_is_measured() {
	load_fresh && wait_for "the price of reuse to be measured" is_measured &&
	wait_for "a price above 0 in $PACING" costs_something
}

# What was used before the module was loaded is no reason to measure again and again.
test_an_idle_guest_is_left_in_peace() {
	local before

	unload && load && wait_for "the price of reuse to be measured" is_measured || return
	# It is measured three times, at two looks' distance, and then not for ten seconds.
	sleep 9
	before=$(get stats/reused_kb)
	sleep 43
	# A granule each time. Something or other in the guest uses one as well.
	before=$(($(get stats/reused_kb) - before))
	[ $before -le 6144 ] || fail "$before KiB were used again in an idle guest"
}

run_tests \
	test_without_pacing_all_is_used_again \
	test_a_cycle_is_left_alone \
	test_idle_is_hinted \
	test_a_cycle_keeps_the_cpus_lists \
	test_a_burst_is_hinted_at_once \
	test_a_burst_goes_at_once_after_little_reuse \
	test_flush_is_not_paced \
	test_the_price_is_measured \
	test_an_idle_guest_is_left_in_peace

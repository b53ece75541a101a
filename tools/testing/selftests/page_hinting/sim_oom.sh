#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Hinting takes no memory from anybody: what one process can have, until it is
# killed for want of memory, is the same as without, but for what a silent host
# has.

. "$(dirname "$0")/lib.sh"

# The kernel's report of an OOM kill has a call trace, which is no complaint if
# it is memmax that was killed: all of them are taken out of a log.
without_oom_kills() {
	awk '
		/ invoked oom-killer: / { held = ""; n = 0; inside = 1 }
		!inside { print; next }
		{ held = held $0 "\n" }
		/Out of memory: Killed process [0-9]+ \(memmax\)/ { inside = 0; next }
		/Out of memory: / || ++n > 400 { printf "%s", held; inside = 0 }
		END { if (inside) printf "%s", held }'
}

BOOST_FACTOR=/proc/sys/vm/watermark_boost_factor

# Sets $rest to the KiB that were free and that one process did not have when it was
# killed. Slabs that grow from one time to the next, or KASAN's quarantine, are not
# free, and make no difference.
measure() { # WHAT
	local word had free

	drop_caches
	free=$(free_kb)
	read -r had word <<-END
		$("$DIR/memmax")
	END
	rest=$((free - had))
	expect "the end of memmax" "$word" killed &&
	ktap_print_msg "$1: $had KiB, of $free KiB free before"
}

# What moves by itself from one measurement to the next is measured first; the rest
# is for the per-CPU lists and a huge page.
MARGIN_KB=8192

had_all_but() { # KIB WHAT
	[ "$rest" -le $((least + $1 + spread + MARGIN_KB)) ] ||
		fail "one process did not have $rest KiB $2, $least without hinting"
}

test_without_hinting() {
	local i=0 most=0 free

	hold_contents 16 || return
	if loaded; then
		unload || return
	fi
	if sim_loaded; then
		sim_unload || return
	fi
	# Both keep free memory from use, more or less of it: the watermarks rise
	# after each fragmentation, and the per-CPU lists are large.
	echo 0 > $BOOST_FACTOR || fail "$BOOST_FACTOR" || return
	limit_pcp_lists || return
	least=
	# The first fills caches that stay; it does not count.
	measure "first" || return
	while [ $i -lt 2 ]; do
		measure "without hinting" || return
		[ -n "$least" ] && [ "$least" -le "$rest" ] || least=$rest
		[ "$most" -ge "$rest" ] || most=$rest
		i=$((i + 1))
	done
	spread=$((most - least))
	free=$(free_kb)
	[ "$spread" -le $((free / 50)) ] ||
		fail "one process did not have $least KiB one time and $most another" || return
	take_stock
}

test_with_a_host_that_answers() {
	load_with_sim mode=now && wait_settled &&
	measure "hinting" && had_all_but 0 "with hinting" && nothing_is_lost
}

test_all_of_it_is_offline() {
	local backlog

	wait_settled || return
	backlog=$(get stats/backlog_kb)
	[ "$backlog" -le $(($(dma_kb) + 4096)) ] ||
		fail "$backlog KiB are not hinted" || return
	measure "all Offline" && had_all_but 0 "of Offline memory" && nothing_is_lost
}

test_while_the_host_is_late() {
	sim_set delay_ms 20 && sim_set mode late && wait_settled &&
	measure "late host" && had_all_but 0 "with a late host"
}

# What may be out of all zones: 1/64 of each, or one block of the highest order.
bound_kb() {
	awk '/^ *managed/ && $2 > 0 { n = $2 / 64; kb += (n > 1024 ? n : 1024) * 4 }
		END { print int(kb) }' /proc/zoneinfo
}

# All that the budget allows is with the host, and stays there.
test_while_the_host_is_silent() {
	local held

	sim_set mode never && memhog -t $(($(free_kb) / 2048)) &&
	wait_for "status stalled" status_is stalled || return
	held=$(get stats/isolated_kb)
	[ "$held" -gt 0 ] && [ "$held" -le "$(get batch_kb)" ] && [ "$held" -le "$(bound_kb)" ] ||
		fail "isolated_kb is $held, batch_kb $(get batch_kb), the zones' bounds $(bound_kb)" || return
	measure "silent host" &&
	wait_for "what is out to be with the host" all_is_with_the_host &&
	[ "$(get stats/isolated_kb)" -le "$(get batch_kb)" ] &&
	had_all_but $(($(get stats/isolated_kb) - held)) \
		"with $(get stats/isolated_kb) KiB with a silent host"
}

# Milliseconds from when blocks came back, before a process was killed, to when blocks were
# taken again after it.
taken_again_after() {
	awk '
		{ for (i = 1; i <= NF; i++) if ($i ~ /^[0-9]+\.[0-9]+:$/) { time = $i * 1000; break } }
		/ page_hinting_return: / && !killed { returned = time }
		/ mark_victim: / { killed = 1 }
		/ page_hinting_take: / && killed && returned { print int(time - returned); exit }
	' $TRACING/trace
}

is_taken_again() {
	pause=$(taken_again_after)
	[ -n "$pause" ]
}

# What is out is had in time, if the host answers when memory is short; and is not taken
# away again at once. A small guest has less out than can be told from what moves by itself.
answers_at_the_last_moment() {
	local event events="oom/mark_victim page_hinting/page_hinting_return page_hinting/page_hinting_take"

	sim_answer_all && wait_settled && sim_set oom_ms 20 && sim_set mode never &&
	memhog -t $(($(free_kb) / 2048)) && wait_for "status stalled" status_is stalled &&
	trace_nothing || return
	for event in $events; do
		trace_event "$event" 1 || return
	done
	measure "host that answers at the last moment" && had_all_but 0 "of a host that answers" &&
	wait_for "blocks to be taken after the kill" is_taken_again && trace_nothing || return
	sim_set oom_ms 0
	# A second after the kernel has asked for memory. It then waits for the answer, 100 ms or
	# what a busy host makes of that; without the second it takes a few milliseconds.
	[ "$pause" -ge 500 ] || fail "blocks were taken again after $pause ms"
}

# The kernel waits for 100 ms only, and a machine that stands still for longer just then has it
# wait in vain.
test_the_host_answers_at_the_last_moment() {
	a_few_times answers_at_the_last_moment
}

test_after_it_answered() {
	sim_answer_all && wait_settled && sim_nothing_corrupted &&
	measure "after all" && had_all_but 0 "after all" && hints_freed 32 && nothing_is_lost
}

# In place of the check at the end, which finds the OOM killer's call traces:
# the log without them. It is then cleared, for those who look at all of it.
test_no_other_kernel_complaint() {
	local log

	log=$(dmesg | without_oom_kills)
	no_complaint_in "$log" || return
	dmesg -c > /dev/null
	echo "$mark" > /dev/kmsg
}

run_tests \
	test_without_hinting \
	test_with_a_host_that_answers \
	test_all_of_it_is_offline \
	test_while_the_host_is_late \
	test_while_the_host_is_silent \
	test_the_host_answers_at_the_last_moment \
	test_after_it_answered \
	test_contents_stay \
	test_no_other_kernel_complaint

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The thread that hints allocates nothing, from its first instruction on: no tracepoint
# of an allocation is hit in it, and it does not notice when each of its allocations
# would fail.  In a kernel with debugobjects that wants to be booted with
# no_debug_objects: it fills its pool on behalf of whoever starts a timer.

. "$(dirname "$0")/lib.sh"

MIB=512
FAULTS="/sys/kernel/debug/failslab /sys/kernel/debug/fail_page_alloc"
EVENTS="kmem/kmalloc kmem/kmem_cache_alloc kmem/mm_page_alloc"
# As many failures as there can be in a test, and a number that is seen to sink.
TIMES=1000000

thread_pid() {
	local dir name

	for dir in /proc/[0-9]*; do
		read -r name 2> /dev/null < "$dir/comm" || continue
		if [ "$name" = page_hinting ]; then
			echo "${dir#/proc/}"
			return
		fi
	done
	fail "there is no thread page_hinting"
}

start() {
	load_fresh && wait_settled && thread=$(thread_pid)
}

hints() {
	local want

	want=$(($(get stats/hinted_kb) + MIB * 1024 * 3 / 4))
	memhog -t $MIB && wait_for "hinted_kb of $want" stat_at_least hinted_kb $want &&
	wait_settled
}

# Lines of the trace that are of this process. Whoever runs after a task that has ended
# frees what is left of it, for which a kernel with CONFIG_SLUB_RCU_DEBUG allocates.
traced() { # PID
	awk -v pid="$1" '!/^#/ && $0 ~ ("-" pid " +\\[") && !/call_site=kmem_cache_free\+/ { n++ }
		END { print n + 0 }' $TRACING/trace
}

nothing_was_allocated() {
	local in_thread event

	for event in $EVENTS; do
		trace_event "$event" 0 || return
	done
	in_thread=$(traced "$thread")
	[ "$(traced $$)" -gt 0 ] || fail "the trace has nothing of this shell" || return
	[ "$in_thread" -eq 0 ] || {
		ktap_print_msg "$(grep -e "-$thread " $TRACING/trace | head -n 5)"
		fail "$in_thread allocations in the thread"
	}
}

# With the pacing, which has the price of reuse measured every other second, at first.
is_paced_and_stops() {
	set_knob hold_ms 1000 && set_knob host_granule_kb 2048 && hints || return
	sleep 5
	memhog -t $MIB && set_knob flush 1 && unload
}

# By its name, which it has before it runs: its number nobody knows yet. Not what
# interrupts allocate on top of a process. This shell is traced as well, to see that
# the trace works.
test_no_allocation_from_the_start() {
	local event

	if loaded; then
		unload || return
	fi
	trace_nothing || return
	for event in $EVENTS; do
		trace_event "$event" 1 \
			"(comm == \"page_hinting\" || common_pid == $$) && !(common_flags & 24)" || return
	done
	start && hints && is_paced_and_stops && nothing_was_allocated
}

set_faults() { # PROBABILITY
	local dir

	for dir in $FAULTS; do
		echo "$1" > "$dir/probability" &&
		echo $TIMES > "$dir/times" &&
		echo 1 > "$dir/interval" &&
		echo 0 > "$dir/verbose" &&
		echo Y > "$dir/task-filter" &&
		echo N > "$dir/ignore-gfp-wait" || fail "$dir" || return
	done
	echo 0 > /sys/kernel/debug/fail_page_alloc/min-order
}

# Allocations that were made to fail.
failed_allocations() {
	local dir times n=0

	for dir in $FAULTS; do
		read -r times < "$dir/times"
		n=$((n + TIMES - times))
	done
	echo $n
}

test_all_allocations_fail() {
	local ret=0

	[ -d "${FAULTS%% *}" ] || skip "this kernel has no fault injection" || return
	start && set_faults 100 || return

	# A process whose allocations fail is noticed.
	sh -c 'echo 1 > /proc/self/make-it-fail && cat /proc/self/maps' > /dev/null 2>&1
	if [ "$(failed_allocations)" -eq 0 ]; then
		set_faults 0
		fail "no allocation of a process was made to fail"
		return
	fi
	set_faults 100 && echo 1 > "/proc/$thread/make-it-fail" && hints || ret=$?
	expect "allocations of the thread" "$(failed_allocations)" 0 || ret=$?
	echo 0 > "/proc/$thread/make-it-fail"
	set_faults 0
	return $ret
}

run_tests \
	test_no_allocation_from_the_start \
	test_all_allocations_fail

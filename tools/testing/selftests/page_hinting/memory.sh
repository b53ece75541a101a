#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The memory that the module holds is a small constant: what loading it allocates
# and keeps, by the trace of all allocations and frees, and what it is itself.
# alloc.sh shows that nothing is added to it later.

. "$(dirname "$0")/lib.sh"

# Bytes that may be kept beside the module itself: of files in sysfs and debugfs,
# and of what the module allocates, however large the guest is. The debug guest's
# allocator adds something to each.
MOST_SLAB=40960
[ ! -e /sys/kernel/debug/page_hinting_check ] || MOST_SLAB=122880
trace=/tmp/memory.$$

events() { # 0 or 1, PID
	local event

	for event in kmalloc kmem_cache_alloc; do
		trace_event "kmem/$event" "$1" "common_pid == ${2:-0}" || return
	done
	for event in kfree kmem_cache_free; do
		trace_event "kmem/$event" "$1" || return
	done
}

# Bytes in what was allocated and not freed since.
kept() {
	awk '
		{
			what = ptr = bytes = ""
			for (i = 1; i <= NF; i++) {
				if ($i ~ /^(kmalloc|kmem_cache_alloc|kfree|kmem_cache_free):$/)
					what = $i
				else if ($i ~ /^ptr=/)
					ptr = $i
				else if ($i ~ /^bytes_alloc=/)
					bytes = substr($i, 13)
			}
			if (what ~ /alloc:$/) {
				held[ptr] = bytes
				allocated += bytes
			} else if (ptr != "") {
				delete held[ptr]
			}
		}
		END {
			for (ptr in held)
				n += held[ptr]
			print n + 0, allocated + 0
		}' $trace
}

# What RCU frees comes a little later; in a busy guest it may be late, and then it is looked for
# as long as there is more than there may be.
no_less_is_kept() {
	local before=$kept

	sleep 0.5
	grep -v '^#' $TRACING/trace > $trace
	# shellcheck disable=SC2046 # two numbers
	set -- $(kept)
	kept=$1
	allocated=$2
	[ "$kept" = "$before" ] && [ "$kept" -le $MOST_SLAB ]
}

is_freed_soon() {
	local WAIT=$(((WAIT + 5) / 6))

	wait_for "what RCU frees" no_less_is_kept
}

test_what_insmod_keeps() {
	local pid size

	if loaded; then
		unload || return
	fi
	trace_nothing || return
	echo 8192 > $TRACING/buffer_size_kb
	rm -f $trace.go
	mkfifo $trace.go || fail "mkfifo" || return
	sh -c "read -r _ < $trace.go; exec '$DIR/finit_module' '$KO'" > $trace.errno &
	pid=$!
	background=$pid
	echo > $TRACING/trace
	events 1 $pid || return
	echo > $trace.go
	wait $pid
	background=
	kept=
	# No longer than the trace has room for.
	is_freed_soon || ktap_print_msg "more is kept than may be, and RCU frees no more of it"
	events 0
	expect "loading the module" "$(cat $trace.errno)" ok || return
	size=$(awk '$1 == "page_hinting" { print $2 }' /proc/modules)
	ktap_print_msg "the module is $size bytes; loading it allocated $allocated bytes and keeps $kept, with $(awk '/^MemTotal/ { print $2 }' /proc/meminfo) KiB of memory"
	echo 1408 > $TRACING/buffer_size_kb
	echo > $TRACING/trace
	rm -f $trace $trace.*
	[ "$allocated" -gt 0 ] || fail "the trace has nothing of insmod" || return
	[ "$kept" -gt 0 ] || fail "insmod keeps nothing, not even its files in sysfs" || return
	[ "$kept" -le $MOST_SLAB ] || fail "insmod keeps $kept bytes, expected $MOST_SLAB at most"
}

run_tests \
	test_what_insmod_keeps

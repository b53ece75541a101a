#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# What the kernel tells of free memory: the figures of several files agree, and
# a line "format FILE: ..." is printed for each line of a file, with N for every
# number, so that two kernels can be compared.  Runs with the series and without.

. "$(dirname "$0")/lib.sh"

EXTFRAG=/sys/kernel/debug/extfrag

# Removes what differs between two boots: how many numbers there are is kept.
format() { # NAME [FILE]
	[ -r "${2:-$1}" ] || fail "${2:-$1} is not there" || return
	sed -E 's/^\[[^]]*\] *//; s/-?[0-9]+(\.[0-9]+)?/N/g; s/[ \t]+/ /g; s/ $//' "${2:-$1}" |
	while read -r line; do
		ktap_print_msg "format $1: $line"
	done
}

test_formats() {
	local f

	# vmstat has nr_free_pages and the compaction's counters, among others.
	for f in /proc/buddyinfo /proc/zoneinfo /proc/pagetypeinfo /proc/vmstat \
		 $EXTFRAG/unusable_index $EXTFRAG/extfrag_index; do
		format "$f" || return
	done
	echo m > /proc/sysrq-trigger
	# From a line of the zones to the list of the areas.
	dmesg | awk '/^(\[.*\] *)?Mem-Info:/ { n = 0; on = 1 }
		on { line[n++] = $0 }
		END { for (i = 0; i < n; i++) print line[i] }' > /tmp/mem
	grep -q 'kB' /tmp/mem || fail "sysrq m shows no memory" || return
	# The letters behind an area are the types of its blocks, which differ.
	# The clock may be calibrated, and say so, in between; and a slow guest complains of that.
	grep -v -E '^(\[[^]]*\] *)?(tsc|clocksource|hrtimer|workqueue|perf|sched|random): ' /tmp/mem | sed -E 's/ \([UMEHCI]+\)//g' > /tmp/show_mem
	format show_mem /tmp/show_mem
}

# The index of unusable free space of each zone and order, from the areas: see
# unusable_free_index() in mm/vmstat.c.
unusable_index_of_buddyinfo() {
	awk '{
		gsub(",", "")
		# usable[i]: pages in blocks of at least that order.  No "^" here:
		# the awk of a busybox may lack it.
		size = 1
		for (i = 5; i <= NF; i++) {
			pages[i] = $i * size
			size *= 2
		}
		usable[NF + 1] = 0
		for (i = NF; i >= 5; i--)
			usable[i] = usable[i + 1] + pages[i]
		total = usable[5]
		line = "Node " $2 " zone " $4
		for (i = 5; i <= NF; i++) {
			n = total ? int((total - usable[i]) * 1000 / total) : 1000
			line = line sprintf(" %d.%03d", int(n / 1000), n % 1000)
		}
		print line
	}' "$1"
}

is_what_buddyinfo_says() { # INDEX
	cat /proc/buddyinfo > /tmp/areas
	sed -E 's/,//; s/[ \t]+/ /g; s/ $//' "$EXTFRAG/$1" > /tmp/index
	"${1}_of_buddyinfo" /tmp/areas > /tmp/computed
	cmp -s /tmp/index /tmp/computed
}

index_agrees() { # INDEX
	wait_for "$1 to be what buddyinfo says" is_what_buddyinfo_says "$1" ||
		fail "$1: $(cat /tmp/index); computed: $(cat /tmp/computed)"
}

test_unusable_index() {
	# More than page_reporting's delay.
	sleep 3
	index_agrees unusable_index
}

# The fragmentation index of each zone and order, from the areas: see
# __fragmentation_index() in mm/vmstat.c.
extfrag_index_of_buddyinfo() {
	awk '{
		gsub(",", "")
		size = 1
		total = blocks = 0
		for (i = 5; i <= NF; i++) {
			total += $i * size
			blocks += $i
			size *= 2
		}
		line = "Node " $2 " zone " $4
		suitable = blocks
		size = 1
		for (i = 5; i <= NF; i++) {
			if (!blocks)
				n = 0
			else if (suitable)
				n = -1000
			else
				n = 1000 - int((1000 + int(total * 1000 / size)) / blocks)
			line = line sprintf(" %d.%03d", int(n / 1000), n % 1000)
			suitable -= $i
			size *= 2
		}
		print line
	}' "$1"
}

# Nearly all of it is -1, as there is a free block of any order; if what has been
# reported did not count, there would be none.
test_extfrag_index() {
	index_agrees extfrag_index
}

# With other blocks free.
test_unusable_index_after_small_pages() {
	memhog -T 256 && test_unusable_index && test_extfrag_index
}

compaction_moves() {
	awk '/^compact_migrate_scanned/ { print $2 }' /proc/vmstat
}

test_compaction_counts() {
	local before

	before=$(compaction_moves)
	echo 1 > /proc/sys/vm/compact_memory || fail "compact_memory" || return
	[ "$(compaction_moves)" -gt "$before" ] ||
		fail "compact_migrate_scanned stays at $before when all is compacted"
}

run_tests \
	test_formats \
	test_unusable_index \
	test_extfrag_index \
	test_unusable_index_after_small_pages \
	test_compaction_counts

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Three ways to count free memory agree, as exactly as in a kernel without
# hinting: the counters of the free areas (buddyinfo), the blocks that are
# really on the lists (pagetypeinfo), and the zone's own (nr_free_pages).

. "$(dirname "$0")/lib.sh"

test_before_insmod() {
	if loaded; then
		unload || return
	fi
	counts_agree
}

test_all_hinted() {
	load && memhog -t 256 && wait_settled && counts_agree
}

test_low_orders_hinted() {
	set_knob min_order 0 && memhog -T 64 && wait_settled && counts_agree
}

test_reused() {
	memhog -t 512 && memhog -T 64 && wait_settled && counts_agree
}

# Leaves free blocks of one order, with no compaction before it is asked for.
begin_fragment() { # ORDER MIB
	fifo=/tmp/counters.$$
	rm -f "$fifo" "$fifo.out"
	mkfifo $fifo || fail "mkfifo" || return
	echo 0 > /proc/sys/vm/compaction_proactiveness
	"$DIR/fragment" "$1" "$2" < $fifo > $fifo.out &
	background=$!
	exec 5> $fifo
	wait_for "fragment $1 $2" test -s $fifo.out
}

end_fragment() {
	exec 5>&-
	wait "$background"
	background=
	echo 20 > /proc/sys/vm/compaction_proactiveness
	rm -f "$fifo" "$fifo.out"
}

moved() {
	awk '/^pgmigrate_success / { print $2 }' /proc/vmstat
}

# Where compaction moves pages to is Offline memory here: that counts as used again,
# page by page, and has no tag any more.
test_compacted() {
	local before reused ret=0

	begin_fragment 8 128 && wait_settled && set_knob enabled 0 || ret=$?
	before=$(moved)
	reused=$(get stats/offline_used_kb)
	echo 1 > /proc/sys/vm/compact_memory
	before=$((($(moved) - before) * 4))
	reused=$(($(get stats/offline_used_kb) - reused))
	end_fragment
	[ $ret -eq 0 ] && counts_agree && lists_agree || return
	[ $before -ge 8192 ] || fail "compaction moved $before KiB only" || return
	[ $reused -ge $((before / 2)) ] ||
		fail "compaction moved $before KiB, and $reused KiB count as used again" || return
	set_knob enabled 1 && wait_settled && counts_agree
}

# Pages that compaction took, by the event.
compaction_took() { # EVENT
	sed -n "s/.* mm_compaction_$1: .*nr_taken=//p" $TRACING/trace | awk '{ n += $1 } END { print n + 0 }'
}

compactions() { # COUNTER
	awk -v name="compact_$1" '$1 == name { print $2 }' /proc/vmstat
}

# All that is free is tagged: compaction's fast search finds it there, and not its slow scan.
test_compaction_finds_tagged_memory() {
	local event success scanned fast slow ret=0

	begin_fragment 8 256 && set_knob min_order 0 && wait_settled &&
	set_knob enabled 0 && trace_nothing || ret=$?
	for event in fast_isolate_freepages isolate_freepages; do
		trace_event compaction/mm_compaction_$event 1 || ret=$?
	done
	success=$(compactions success)
	scanned=$(compactions free_scanned)
	# More than there are whole blocks of.
	echo $((($(buddy_kb) - 65536) / 2048)) > /proc/sys/vm/nr_hugepages
	success=$(($(compactions success) - success))
	scanned=$(($(compactions free_scanned) - scanned))
	fast=$(compaction_took fast_isolate_freepages)
	slow=$(compaction_took isolate_freepages)
	echo 0 > /proc/sys/vm/nr_hugepages
	end_fragment
	[ $ret -eq 0 ] && trace_nothing || return
	ktap_print_msg "compaction: $success successes, $scanned pages scanned, $fast taken fast, $slow by the scan"
	[ "$success" -gt 0 ] && [ $((fast + slow)) -ge 256 ] || fail "compaction made no block" || return
	[ "$fast" -ge "$slow" ] || fail "the fast search took $fast pages, the scan $slow" || return
	set_knob enabled 1 && wait_settled && counts_agree
}

# The letters that show_mem has for the types of the free blocks of each zone and
# order, and those that pagetypeinfo has blocks of: a line for each.
letters_of_show_mem() {
	echo m > /proc/sysrq-trigger
	dmesg | awk '/Mem-Info:/ { n = 0 }
		/Node [0-9]+ [A-Za-z0-9]+: [0-9]+\*4kB/ { line[n++] = $0 }
		END { for (i = 0; i < n; i++) print line[i] }' | awk '{
		sub(/^\[[^]]*\] */, "")
		zone = $2 " " substr($3, 1, length($3) - 1)
		for (i = 4; i <= NF && $i != "="; i++)
			if ($i ~ /^\(/)
				print zone, size, substr($i, 2, length($i) - 2)
			else
				size = substr($i, index($i, "*") + 1)
	}' | sort
}

letters_of_pagetypeinfo() {
	awk '
		/^Free pages count/ { on = 1; next }
		/^ *$/ || /^Number of blocks/ { on = 0 }
		on && /^Node/ {
			gsub(",", "")
			for (i = 7; i <= NF; i++)
				if ($i != "0")
					letters[$2 " " $4 " " 4 * pot(i - 7) "kB"] = \
						letters[$2 " " $4 " " 4 * pot(i - 7) "kB"] short($6)
		}
		END { for (area in letters) print area, letters[area] }
		function pot(n,    p) { for (p = 1; n > 0; n--) p *= 2; return p }
		function short(type) {
			return type == "Unmovable" ? "U" : type == "Movable" ? "M" : \
				type == "Reclaimable" ? "E" : type == "HighAtomic" ? "H" : \
				type == "CMA" ? "C" : type == "Isolate" ? "I" : "?"
		}' /proc/pagetypeinfo | sort
}

letters_are_the_same() {
	shown=$(letters_of_show_mem)
	counted=$(letters_of_pagetypeinfo)
	[ -n "$shown" ] && [ "$shown" = "$counted" ]
}

# A list that only looks empty, as all on it is Offline, is none of an empty area.
test_show_mem() {
	wait_for "show_mem and pagetypeinfo to agree" letters_are_the_same ||
		fail "show_mem: $shown; pagetypeinfo: $counted"
}

test_after_rmmod() {
	unload && counts_agree
}

run_tests \
	test_before_insmod \
	test_all_hinted \
	test_low_orders_hinted \
	test_reused \
	test_compacted \
	test_compaction_finds_tagged_memory \
	test_show_mem \
	test_after_rmmod

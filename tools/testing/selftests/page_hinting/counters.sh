#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Three ways to count free memory agree, as exactly as in a kernel without
# hinting: the counters of the free areas (buddyinfo), the blocks that are
# really on the lists (pagetypeinfo), and the zone's own (nr_free_pages).

. "$(dirname "$0")/lib.sh"

# A line "node zone order0 ... order10" for each zone that has memory.
areas_of_buddyinfo() {
	awk '{
		gsub(",", "")
		line = $2 " " $4
		for (i = 5; i <= NF; i++)
			line = line " " $i
		print line
	}' /proc/buddyinfo
}

areas_of_pagetypeinfo() {
	awk '
		/^Number of blocks/ { exit }
		/^Node.*type/ {
			gsub(",", "")
			zone = $2 " " $4
			if (!(zone in seen)) {
				seen[zone] = 1
				order[++nr] = zone
			}
			for (i = 7; i <= NF; i++)
				n[zone, i - 7] += $i
			orders = NF - 6
		}
		END {
			for (z = 1; z <= nr; z++) {
				line = order[z]
				for (i = 0; i < orders; i++)
					line = line " " n[order[z], i]
				print line
			}
		}' /proc/pagetypeinfo
}

# A line "node zone pages", from the free areas and from the zones.
pages_of_buddyinfo() {
	areas_of_buddyinfo | awk '{
		n = 0
		size = 1
		for (i = 3; i <= NF; i++) {
			n += $i * size
			size *= 2
		}
		print $1, $2, n
	}'
}

pages_of_zoneinfo() {
	awk '
		/^Node/ { gsub(",", ""); zone = $2 " " $4 }
		/^  pages free/ { free = $3 }
		/^ *managed/ && $2 > 0 { print zone, free }' /proc/zoneinfo
}

lists_match_counters() {
	lists=$(areas_of_pagetypeinfo)
	counters=$(areas_of_buddyinfo)
	[ -n "$lists" ] && [ "$lists" = "$counters" ]
}

pages_match_counters() {
	cat /proc/sys/vm/stat_refresh > /dev/null
	zones=$(pages_of_zoneinfo)
	counters=$(pages_of_buddyinfo)
	[ -n "$zones" ] && [ "$zones" = "$counters" ]
}

# The files can't be read at one moment: an equal pair is waited for.
counts_agree() {
	wait_for "pagetypeinfo to equal buddyinfo" lists_match_counters ||
		fail "lists: $lists; counters: $counters" || return
	wait_for "nr_free_pages to equal buddyinfo" pages_match_counters ||
		fail "zones: $zones; counters: $counters"
}

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

test_reused_and_compacted() {
	memhog -t 512 && memhog -T 64 && echo 1 > /proc/sys/vm/compact_memory &&
	wait_settled && counts_agree
}

test_after_rmmod() {
	unload && counts_agree
}

run_tests \
	test_before_insmod \
	test_all_hinted \
	test_low_orders_hinted \
	test_reused_and_compacted \
	test_after_rmmod

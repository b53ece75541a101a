#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# All zones of all nodes are hinted, CMA areas and memory that is plugged in
# while the guest runs included.

. "$(dirname "$0")/lib.sh"

# The kernel sets up memory that is plugged in, and moves what is in a CMA area, meanwhile.
GOES_ON=30

ZONES=/sys/kernel/debug/page_hinting/zones
CMA=/sys/kernel/debug/cma/reserved
HOT_MIB=256
HOT_NODE=2
# Of what is freed on a node, the CPUs may keep some MiB for a while.
MIB=32

# A line "node zone unhinted_kb offline_kb", of blocks of min_order and above,
# for each zone that can spare 1/64 of itself in blocks of order 10.
large_zones() {
	awk -v min="$(get min_order)" '
		/^Node/ { gsub(",", ""); zone = $2 " " $4 }
		/^ *managed/ && $2 >= 65536 { large[zone] = 1 }
		FILENAME ~ /zoneinfo/ || /^#/ || $3 < min { next }
		{
			kb = 4
			for (i = 0; i < $3; i++)
				kb *= 2
			unhinted[$1 " " $2] += $5 * kb
			offline[$1 " " $2] += $9
		}
		END {
			for (zone in large)
				print zone, unhinted[zone] + 0, offline[zone] + 0
		}' /proc/zoneinfo $ZONES | sort
}

# Nothing of them is left but what comes and goes, and most of it was hinted.
zones_are_hinted() {
	zones=$(large_zones)
	printf '%s\n' "$zones" | awk '
		$3 > 4096 || $4 < 65536 { bad = 1 }
		END { exit bad || !NR }'
}

all_zones_are_hinted() {
	wait_for "each large zone to be hinted" zones_are_hinted ||
		fail "node, zone, KiB unhinted, KiB hinted: $zones"
}

test_all_zones() {
	[ -d /sys/devices/system/node/node2 ] || fail "no guest with three nodes" || return
	load_fresh && wait_settled && all_zones_are_hinted &&
	expect "the zones" "$(printf '%s\n' "$zones" | awk '{ print $1 $2 }' | tr '\n' ' ')" \
		"0DMA32 1DMA32 1Normal 2Normal "
}

# What is freed on a node is hinted there.
node_is_hinted() { # NODE KIB
	local node=$1 before

	before=$(get stats/hinted_kb)
	"$DIR/on_node" "$node" "$DIR/memhog" -t $((2 * MIB)) < /dev/null > /dev/null ||
		fail "memhog on node $node: status $?" || return
	goes_on "what was freed on node $node is hinted" \
		stat_at_least hinted_kb $((before + MIB * 1024)) && wait_settled
}

test_all_nodes() {
	local node

	for node in 0 1 2; do
		node_is_hinted $node || return
	done
	all_zones_are_hinted
}

# Blocks of order 0 that the host knows, of a node.
single_pages() { # NODE
	awk -v node="$1" '$1 == node && $3 == 0 { n += $6 } END { print n + 0 }' $ZONES
}

single_pages_at_least() { # NODE NUMBER
	[ "$(single_pages "$1")" -ge "$2" ]
}

single_pages_are_hinted() { # NODE
	local node=$1 fifo=/tmp/zones.$$ freed before

	rm -f $fifo $fifo.out
	mkfifo $fifo || fail "mkfifo" || return
	before=$(single_pages "$node")
	"$DIR/on_node" "$node" "$DIR/fragment" 0 $MIB < $fifo > $fifo.out &
	background=$!
	exec 5> $fifo
	wait_for "fragment 0 $MIB on node $node" test -s $fifo.out &&
	read -r freed < $fifo.out &&
	wait_for "half of $freed KiB in single pages on node $node to be hinted" \
		single_pages_at_least "$node" $((before + freed / 4 / 2)) || return
	exec 5>&-
	wait "$background"
	background=
	rm -f $fifo $fifo.out
}

test_single_pages_of_all_nodes() {
	local node

	limit_pcp_lists && set_knob high_watermark_kb 256 && set_knob min_order 0 || return
	for node in 0 1 2; do
		single_pages_are_hinted $node || return
	done
	all_zones_are_hinted
}

# --- CMA ---

# Sets $cma_used to the pages that somebody has.
cma_is_hinted() {
	read -r cma_used < $CMA/used
	count_flags "$cma_base" "$cma_pages" &&
	[ "$buddy_offline" -ge $((cma_pages - cma_used - cma_pages / 8)) ]
}

# It is free memory like any other: hinted, and there for who may have it.
test_cma() {
	local want

	[ -d $CMA ] || fail "this guest has no CMA area" || return
	read -r cma_base < $CMA/base_pfn
	read -r cma_pages < $CMA/count
	want=$((cma_pages / 2))
	hold_contents 64 && load_fresh && take_stock &&
	wait_for "the CMA area to be hinted" cma_is_hinted || return
	wait_for "CMA to give memory" cma_gives $want || fail "CMA gives no $want of $cma_pages pages" || return
	count_flags "$cma_base" "$cma_pages" && cma_is_used $want || return
	echo $want > $CMA/free || fail "$CMA/free" || return
	goes_on "the CMA area is hinted again" cma_is_hinted && wait_settled &&
	all_zones_are_hinted && counts_agree && nothing_is_lost && contents_are_right
}

# What is in the area may be in use for a moment, and cannot go then.
cma_gives() { # PAGES
	{ echo "$1" > $CMA/alloc; } 2> /dev/null
}

cma_is_used() { # PAGES
	[ "$buddy" -le $((cma_pages - cma_used - $1)) ] ||
		fail "$buddy pages of the CMA area are free, with $1 of $cma_pages allocated"
}

# --- memory hot-plug ---

memory_blocks() {
	printf '%s\n' $MEMORY/memory[0-9]* | sort
}

has_new_memory() {
	new=$(memory_blocks | grep -vxF "$old")
	[ "$(printf '%s\n' "$new" | wc -l)" -eq $((HOT_MIB / block_mib)) ]
}

has_old_memory() {
	[ "$(memory_blocks)" = "$old" ]
}

# What is in it may be in use for a moment, and cannot go then.
set_new_memory() { # STATE
	local dir

	for dir in $new; do
		wait_for "$dir to be $1" takes_state "$dir" "$1" || fail "$dir, $1: $errno" || return
	done
}

takes_state() { # DIRECTORY STATE
	errno=$("$DIR/sysfs_write" "$1/state" "$2")
	[ "$errno" = ok ]
}

free_on_hot() { # in KiB
	awk -v node="$HOT_NODE" '
		/^Node/ { gsub(",", ""); mine = $2 == node && $4 == "Movable" }
		mine && /^  pages free/ { print $3 * 4 }' /proc/zoneinfo
}

new_memory_is_hinted() {
	local dir index

	for dir in $new; do
		read -r index < "$dir/phys_index"
		count_flags $((0x$index * block_mib * 256)) $((block_mib * 256)) &&
		[ "$buddy_offline" -ge $((block_mib * 192)) ] || return
	done
}

test_hot_added_memory() {
	local size

	[ -n "$PAGE_HINTING_HOST" ] ||
		skip "the host takes no requests (PAGE_HINTING_HOST)" || return
	read -r size < $MEMORY/block_size_bytes
	block_mib=$((0x$size >> 20))
	load_fresh && take_stock || return
	old=$(memory_blocks)
	host object_add memory-backend-ram,id=hot,size=${HOT_MIB}M &&
	host device_add pc-dimm,id=dimm0,memdev=hot,node=$HOT_NODE &&
	wait_for "the memory to be there" has_new_memory &&
	set_new_memory online_movable &&
	goes_on "most of the new memory is hinted" new_memory_is_hinted &&
	wait_settled && all_zones_are_hinted && counts_agree && lists_agree &&
	expect "lines of the new zone" \
		"$(grep -c "^$HOT_NODE Movable " $ZONES)" "$(grep -c "^$HOT_NODE Normal " $ZONES)" &&
	hold_contents $((HOT_MIB / 4)) "$DIR/on_node" $HOT_NODE
}

# What was hinted leaves as if it had not been, and the contents that are there go elsewhere.
test_hot_removed_memory() {
	[ -n "$new" ] || skip "no memory was plugged in" || return
	[ "$(free_on_hot)" -le $((HOT_MIB * 896)) ] || fail "nothing is in the new memory" || return
	set_new_memory offline && node_is_hinted $HOT_NODE && host device_del dimm0 &&
	wait_for "the memory to be gone" has_old_memory && host_has_it_back &&
	expect "lines of the new zone" "$(grep -c "^$HOT_NODE Movable " $ZONES)" 0 &&
	node_is_hinted $HOT_NODE && all_zones_are_hinted && counts_agree && contents_are_right &&
	nothing_is_lost
}

host_has_no_dimm() {
	! host info memory-devices | grep -q dimm0
}

host_has_it_back() {
	wait_for "the host to have the memory" host_has_no_dimm && host object_del hot
}

run_tests \
	test_all_zones \
	test_all_nodes \
	test_single_pages_of_all_nodes \
	test_cma \
	test_hot_added_memory \
	test_hot_removed_memory

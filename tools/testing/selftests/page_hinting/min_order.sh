#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# min_order: blocks of this order and above are hinted, smaller ones are not.

. "$(dirname "$0")/lib.sh"

# Holds free blocks of just this order, and counts what each min_order hints.
# MIB are such that what else the guest touches meanwhile is little beside it.
hints_at_order() { # ORDER MIB
	local order=$1 mib=$2 fifo=/tmp/fragment.$$ freed hinted before

	rm -f $fifo $fifo.out
	mkfifo $fifo || fail "mkfifo" || return
	wait_settled && set_knob enabled 0 && wait_for "status off" status_is off || return
	"$DIR/fragment" "$order" "$mib" < $fifo > $fifo.out &
	background=$!
	exec 7> $fifo
	wait_for "fragment $order $mib" test -s $fifo.out || return
	read -r freed < $fifo.out
	[ "$freed" -ge $((mib * 1024 / 8)) ] ||
		fail "only $freed KiB in free blocks of order $order" || return

	# One order above: these blocks must be left alone.
	if [ "$order" -lt 10 ]; then
		hinted=$(get stats/hinted_kb)
		set_knob min_order $((order + 1)) && set_knob enabled 1 &&
		wait_settled || return
		[ $(($(get stats/hinted_kb) - hinted)) -lt $((freed / 2)) ] ||
			fail "order $order was hinted with min_order $((order + 1))" || return
	fi
	hinted=$(get stats/hinted_kb)
	need_host && before=$(resident_kb) || return
	set_knob min_order "$order" && set_knob enabled 1 &&
	wait_for "min_order $order to hint half of $freed KiB" \
		stat_at_least hinted_kb $((hinted + freed / 2)) &&
	returned 90 "$freed" "$before" || return

	exec 7>&-
	wait "$background"
	background=
	rm -f $fifo $fifo.out
}

test_order_0_to_8() {
	local order=8

	limit_pcp_lists && load_fresh && set_knob high_watermark_kb 1024 || return
	while [ $order -ge 0 ]; do
		hints_at_order $order 128 || return
		order=$((order - 1))
	done
}

test_order_9() {
	hints_at_order 9 256
}

test_order_10() {
	local want

	set_knob min_order 10 && wait_settled || return
	want=$(($(get stats/hinted_kb) + 128 * 1024))
	memhog -t 256 &&
	wait_for "hinted_kb of $want with min_order 10" stat_at_least hinted_kb $want
}

run_tests \
	test_order_0_to_8 \
	test_order_9 \
	test_order_10

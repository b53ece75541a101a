#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Hinted memory is memory like any other: all of it can be allocated again,
# reads zero when fresh, and keeps what is written to it.

. "$(dirname "$0")/lib.sh"

zerocheck() { # ARGUMENT...
	local out

	out=$("$DIR/zerocheck" "$@" 2>&1) || fail "zerocheck $*: $out"
}

test_allocate_all_while_all_is_hinted() {
	local round=1 mib

	drop_caches
	load_fresh && take_stock || return
	while [ $round -le 2 ]; do
		wait_settled || return
		mib=$(spare_mib)
		[ "$mib" -ge 128 ] || fail "only $mib MiB are free to test with" || return
		zerocheck "$mib" || return
		round=$((round + 1))
	done
	nothing_is_lost
}

test_allocate_small_pages() {
	wait_settled && zerocheck -T 128
}

# Blocks are freed, hinted and taken again all the time around what is written.
test_contents_survive_hinting() {
	local round=1

	while :; do
		"$DIR/memhog" -t 96
	done < /dev/null > /dev/null 2>&1 &
	background=$!
	while [ $round -le 5 ]; do
		zerocheck -s 1 64 || return
		round=$((round + 1))
	done
	kill "$background"
	wait "$background" 2> /dev/null
	background=
}

test_contents_survive_unload() {
	local pid

	memhog -t 256 || return
	"$DIR/zerocheck" -s 2 256 > /dev/null &
	pid=$!
	background=$pid
	sleep 1
	unload || return
	wait $pid || fail "zerocheck across rmmod: status $?" || return
	background=
	zerocheck 256
}

run_tests \
	test_allocate_all_while_all_is_hinted \
	test_allocate_small_pages \
	test_contents_survive_hinting \
	test_contents_survive_unload

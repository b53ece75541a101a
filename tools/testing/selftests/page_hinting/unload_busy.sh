#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# rmmod in the middle of hinting, again and again, loses no page.

. "$(dirname "$0")/lib.sh"

# How often a few rounds are done; it takes the debug guest long.
TIMES=2
[ ! -e /sys/kernel/debug/page_hinting_check ] || TIMES=1
[ "$PAGE_HINTING_SOAK" != 1 ] || TIMES=40

churn() { # ARGUMENT...
	while :; do
		"$DIR/memhog" "$@"
	done < /dev/null > /dev/null 2>&1 &
	background="$background $!"
}

stop_churn() {
	end_background
	wait_for "the last memhog to end" no_memhog
}

load_and_unload() { # ROUNDS knob=value...
	local i=0 rounds=$1 setting

	shift
	while [ $i -lt "$rounds" ]; do
		load || return
		for setting in "$@"; do
			set_knob "${setting%=*}" "${setting#*=}" || return
		done
		sleep "0.$((i % 4))"
		unload && nothing_left || return
		i=$((i + 1))
	done
}

test_unload_under_churn() {
	local ret=0

	if loaded; then
		unload || return
	fi
	drop_caches
	take_stock || return
	churn -t 128
	churn -T 16
	load_and_unload $((6 * TIMES)) || ret=$?
	stop_churn && [ $ret -eq 0 ] && nothing_is_lost
}

test_unload_at_low_orders() {
	local ret=0

	take_stock || return
	churn -t 64
	churn -T 16
	load_and_unload $((4 * TIMES)) high_watermark_kb=64 min_order=0 || ret=$?
	stop_churn && [ $ret -eq 0 ] && nothing_is_lost
}

# As people have it: paced, and in pages of the host.
test_unload_with_defaults() {
	local ret=0

	all_defaults=1
	take_stock || return
	churn -t 128
	churn -T 16
	load_and_unload $((4 * TIMES)) || ret=$?
	all_defaults=
	stop_churn && [ $ret -eq 0 ] && nothing_is_lost
}

run_tests \
	test_unload_under_churn \
	test_unload_at_low_orders \
	test_unload_with_defaults

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# What may be done is done in random order, for PAGE_HINTING_SECONDS: knobs get any
# values while the module goes and comes, the device with it, and memory is used and
# freed. What is random begins with PAGE_HINTING_SEED, which is printed. Meanwhile the
# contents of memory are verified, and at the end all of it is there.

. "$(dirname "$0")/lib.sh"

FOR_SECONDS=${PAGE_HINTING_SECONDS:-20}
SEED=${PAGE_HINTING_SEED:-1}
# Knobs are written by as many at a time, beside the one who does all else.
WRITERS=3
VERIFIERS=2

said=/tmp/fuzz.said
log=/tmp/fuzz.log

all_defaults=1

# Sets $random to a number below N, by the generator of C's standard.
random_below() { # N
	state=$(((state * 1103515245 + 12345) & 0x7fffffff))
	random=$(((state >> 16) % $1))
}

# The first word of those that $random chooses.
choose() { # WORD...
	random_below $#
	shift "$random"
	chosen=$1
}

# A knob and a value, most of which are good.
random_setting() {
	# shellcheck disable=SC2086 # words
	choose $KNOBS flush rehint status stats/hinted_kb
	knob=$chosen
	case $knob in
	enabled | flush | rehint | rehint_on_vmfork) choose 0 1 1 1 2 ;;
	min_order) choose 0 1 5 8 9 9 10 11 ;;
	high_watermark_kb) choose 1 64 1024 16384 16384 1048576 4294967296 4294967297 ;;
	low_watermark_kb) choose 0 0 4 1024 16383 16384 99999999 ;;
	batch_kb) choose 4096 8192 65536 65536 4095 65537 ;;
	hold_ms) choose 0 1 1000 1000 60000 60001 ;;
	host_granule_kb) choose 4 64 2048 2048 4096 3 8192 ;;
	flush_timeout_ms) choose 1 10 1000 10000 0 3600001 ;;
	*) choose 0 1 ;;
	esac
	value=$chosen
	random_below 20
	case $random in
	0) choose '' -1 x 0x10 1e9 99999999999999999999 '1 1' ' ' 010
	   value=$chosen ;;
	esac
}

# What a write may give. The file may be gone, or go meanwhile (ENODEV).
write_setting() {
	local errno

	errno=$("$DIR/sysfs_write" "$SYSFS/$knob" "$value")
	case $errno in
	ok | EINVAL | ENOENT | ENODEV) ;;
	ETIMEDOUT | EINTR) [ "$knob" = flush ] || wrong "$knob: writing '$value' gives $errno" ;;
	# It is not for writing, not even for root.
	EACCES | EIO | EPERM)
		case $knob in
		status | stats/*) ;;
		*) wrong "$knob: writing '$value' gives $errno" ;;
		esac ;;
	*) wrong "$knob: writing '$value' gives $errno" ;;
	esac
}

wrong() { # TEXT
	echo "$*" >> $said
}

write_knobs() { # NUMBER: until it is ended
	state=$((SEED + $1))
	while :; do
		random_setting
		write_setting
		random_below 10
		sleep "0.$random"
	done
}

# Fresh pages are zero, and what was written stays.
verify_contents() { # NUMBER: until it is ended
	state=$((SEED + 100 + $1))
	while :; do
		choose "" -T
		random_below 96
		# shellcheck disable=SC2086 # an option or none
		"$DIR/zerocheck" $chosen -s 1 $((random + 1)) > "$said.$1" 2>&1 < /dev/null
		# 2: the memory was not to be had.
		[ $? != 1 ] || wrong "zerocheck: $(head -n 3 "$said.$1")"
	done
}

# Does something, and sets $did to what.
act() {
	local mib file

	random_below 100
	case $random in
	[0-9] | [1-3]?)
		random_below 256
		mib=$((random + 1))
		choose -t -T
		did="memhog $chosen $mib"
		"$DIR/memhog" "$chosen" $mib < /dev/null > /dev/null 2>&1 ;;
	4? | 5[0-4])
		if loaded; then
			did=rmmod
			rmmod page_hinting 2> /dev/null || wrong "rmmod failed"
		else
			did=insmod
			errno=$("$DIR/finit_module" "$KO")
			# Busy: page_reporting has a report out.
			case $errno in
			ok | EBUSY) ;;
			*) wrong "loading the module gives $errno" ;;
			esac
		fi ;;
	5[5-9] | 6[0-4])
		if [ -e "$BALLOON/$device" ]; then
			did=unbind
			echo "$device" > $BALLOON/unbind || wrong "unbind failed"
		else
			did=bind
			echo "$device" > $BALLOON/bind || wrong "bind failed"
		fi ;;
	6[5-9])
		did=drop_caches
		drop_caches ;;
	7[0-4])
		did=compact
		echo 1 > /proc/sys/vm/compact_memory ;;
	7[5-9])
		did=delay
		choose 0 10 2000
		set_reporting_delay "$chosen" ;;
	*)
		did='read'
		for file in "$SYSFS"/* "$SYSFS"/stats/* /sys/kernel/debug/page_hinting/*; do
			[ ! -f "$file" ] || cat "$file" > /dev/null 2>&1
		done ;;
	esac
}

run_for() { # SECONDS
	local now end

	get_now
	end=$((now + $1))
	acts=0
	# A slow guest takes longer.
	while { [ "$now" -lt $end ] || [ $acts -lt 5 ]; } && [ ! -s $said ]; do
		act
		acts=$((acts + 1))
		echo "$now $did" >> $log
		# So that it does not grow without bound.
		[ $((acts % 1000)) -ne 0 ] || {
			tail -n 20 $log > $log.new
			mv $log.new $log
		}
		get_now
	done
}

nobody_is_left() {
	! pidof zerocheck sysfs_write memhog > /dev/null
}

test_in_any_order() {
	local n=0

	ktap_print_msg "PAGE_HINTING_SEED=$SEED"
	device=$(balloon_device)
	[ -n "$device" ] || fail "no balloon device" || return
	if loaded; then
		unload || return
	fi
	drop_caches
	take_stock || return
	: > $said
	: > $log
	while [ $n -lt $WRITERS ]; do
		n=$((n + 1))
		write_knobs $n &
		background="$background $!"
	done
	n=0
	while [ $n -lt $VERIFIERS ]; do
		verify_contents $n &
		background="$background $!"
		n=$((n + 1))
	done
	state=$SEED
	run_for "$FOR_SECONDS"
	end_background
	wait_for "all who used memory to end" nobody_is_left || return
	ktap_print_msg "$acts things were done"
	[ ! -s $said ] || fail "$(head -n 5 $said); before that: $(tail -n 20 $log | tr '\n' ';')"
}

test_all_is_there_then() {
	[ -e "$BALLOON/$device" ] || bind "$device" || return
	if loaded; then
		unload || return
	fi
	# All of it is many times what GOES_ON is for.
	load && seconds wait_settled && took_at_most $((3 * GOES_ON)) "to hint all that is free" &&
	nothing_is_lost && counts_agree
}

run_tests \
	test_in_any_order \
	test_all_is_there_then

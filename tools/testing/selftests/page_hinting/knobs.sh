#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Every knob with its default, good values and bad ones.

. "$(dirname "$0")/lib.sh"

# shellcheck disable=SC2034 # for load
all_defaults=1

# knob default minimum maximum
# High and low have a maximum that leaves room for the other one.
TABLE="
enabled           1     0     1
min_order         9     0     10
high_watermark_kb 16384 1     4294967296
low_watermark_kb  0     0     16383
batch_kb          65536 4096  65536
hold_ms           1000  0     60000
host_granule_kb   2048  4     4096
flush_timeout_ms  10000 1     3600000
rehint_on_vmfork  0     0     1"

for_each_knob() { # FUNCTION, called with a line of the table
	local knob default min max

	# Not a pipe: a failure must reach the caller.
	while read -r knob default min max; do
		[ -z "$knob" ] || "$1" "$knob" "$default" "$min" "$max" || return
	done <<-END
	$TABLE
	END
}

write_of() { # FILE VALUE...: prints ok or the errno, for each
	local file="$SYSFS/$1" out

	shift
	out=$("$DIR/sysfs_write" "$file" "$@")
	# shellcheck disable=SC2086 # the lines of out become words
	echo $out
}

accepts() { # KNOB VALUE
	set_knob "$1" "$2" && expect "$1 after writing '$2'" "$(get "$1")" "$2"
}

refuses() { # KNOB VALUE...
	local knob=$1 before expected='' value

	shift
	for value in "$@"; do
		expected="$expected EINVAL"
	done
	before=$(get "$knob")
	expect "writing to $knob '$(printf "%s' '" "$@")'" \
		"$(write_of "$knob" "$@")" "${expected# }" &&
	expect "$knob after refused values" "$(get "$knob")" "$before"
}

has_default() {
	expect "default of $1" "$(get "$1")" "$2"
}

accepts_range() {
	accepts "$1" "$3" && accepts "$1" "$4" && accepts "$1" "$2"
}

refuses_outside() {
	refuses "$1" $(($4 + 1)) || return
	[ "$3" = 0 ] || refuses "$1" $(($3 - 1))
}

NL='
'

refuses_nonsense() {
	refuses "$1" "$NL" ' ' -1 +1 abc 1x x1 0x10 1.5 '1 1' 1,1 "1${NL}1" \
		18446744073709551615 18446744073709551616 18446744073709551617 \
		99999999999999999999999999999999999999999
}

accepts_newline() {
	accepts "$1" "$3" &&
	expect "writing '$2' and a newline to $1" "$(write_of "$1" "$2$NL")" ok &&
	expect "$1 after it" "$(get "$1")" "$2"
}

test_defaults() {
	load_fresh && for_each_knob has_default
}

test_range_is_accepted() {
	for_each_knob accepts_range
}

test_newline_is_accepted() {
	for_each_knob accepts_newline
}

test_outside_range_is_einval() {
	for_each_knob refuses_outside
}

test_nonsense_is_einval() {
	for_each_knob refuses_nonsense
}

test_granule_is_a_power_of_two() {
	refuses host_granule_kb 0 5 12 1536 2047 2049 && accepts host_granule_kb 64 &&
	accepts host_granule_kb 2048
}

test_watermarks_must_be_ordered() {
	accepts high_watermark_kb 8192 &&
	refuses low_watermark_kb 8192 8193 &&
	accepts low_watermark_kb 8191 &&
	refuses high_watermark_kb 8191 4 &&
	accepts high_watermark_kb 8192 &&
	accepts low_watermark_kb 0
}

test_every_min_order() {
	expect "writing 0 to 10 to min_order" \
		"$(write_of min_order 0 1 2 3 4 5 6 7 8 9 10)" \
		"ok ok ok ok ok ok ok ok ok ok ok" &&
	accepts min_order 9
}

test_read_only_files() {
	local f

	expect "writing to status" "$(write_of status off)" EACCES || return
	for f in $STATS; do
		expect "writing to stats/$f" "$(write_of "stats/$f" 0)" EACCES || return
	done
}

test_enabled_shows_in_status() {
	accepts enabled 0 && wait_for "status off" status_is off &&
	accepts enabled 1 && wait_for "a status other than off" status_is_not off
}

# A new instance must not remember what the one before was told.
test_reload_restores_defaults() {
	set_knob min_order 3 && set_knob batch_kb 4096 &&
	set_knob high_watermark_kb 1024 && set_knob low_watermark_kb 512 &&
	set_knob enabled 0 && load_fresh && for_each_knob has_default
}

# Writers of all knobs at a time, against each other and against rmmod.
test_writers_race_with_unload() {
	local i=0 knob

	while [ $i -lt 2 ]; do
		for knob in $KNOBS; do
			while echo 0 > "$SYSFS/$knob" || echo 1 > "$SYSFS/$knob" ||
			      echo 4096 > "$SYSFS/$knob" || [ -d "$SYSFS" ]; do
				echo 1 > "$SYSFS/$knob"
				read -r _ < "$SYSFS/$knob"
				read -r _ < "$SYSFS/status"
			done > /dev/null 2>&1 &
			background="$background $!"
		done
		sleep 1
		unload || return
		# They end by themselves once the directory is gone.
		# shellcheck disable=SC2086 # process ids
		wait $background
		background=
		load || return
		i=$((i + 1))
	done
}

run_tests \
	test_defaults \
	test_range_is_accepted \
	test_newline_is_accepted \
	test_outside_range_is_einval \
	test_nonsense_is_einval \
	test_granule_is_a_power_of_two \
	test_watermarks_must_be_ordered \
	test_every_min_order \
	test_read_only_files \
	test_enabled_shows_in_status \
	test_reload_restores_defaults \
	test_writers_race_with_unload

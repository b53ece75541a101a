#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# insmod, what it makes, rmmod, and that again and again.

. "$(dirname "$0")/lib.sh"

file_mode_is() { # FILE MODE
	[ -f "$SYSFS/$1" ] || fail "$SYSFS/$1 is missing" || return
	expect "mode of $1" "$(stat -c %a "$SYSFS/$1")" "$2"
}

is_number_file() { # FILE
	local value

	value=$(cat "$SYSFS/$1")
	case $value in
	'' | *[!0-9]*)
		fail "$1 reads '$value', expected a number"
		return ;;
	esac
	expect "lines in $1" "$(wc -l < "$SYSFS/$1" | tr -d ' ')" 1
}

test_directory_appears() {
	load || return 1
	[ -d "$SYSFS" ] || fail "no $SYSFS after insmod"
}

test_files_and_modes() {
	local f

	for f in $KNOBS; do
		file_mode_is "$f" 644 && is_number_file "$f" || return 1
	done
	file_mode_is status 444 || return 1
	for f in $STATS; do
		file_mode_is "stats/$f" 444 && is_number_file "stats/$f" || return 1
	done
}

# A file that came without its line in the ABI document and in these tests.
test_no_other_file() {
	local f

	for f in "$SYSFS"/* "$SYSFS"/stats/*; do
		f=${f##*/}
		case " $KNOBS $STATS status stats " in
		*" $f "*) ;;
		*) fail "$f is not documented" || return ;;
		esac
	done
}

test_status_word() {
	local word

	word=$(get status)
	case $word in
	no-queue | idle | hinting | stalled | off) ;;
	*) fail "status is '$word'" ;;
	esac
}

test_log_line() {
	kernel_log | grep -q 'page_hinting: loaded' ||
		fail "no 'page_hinting: loaded' in the kernel log"
}

test_load_twice_is_eexist() {
	expect "the errno of a second insmod" "$("$DIR/finit_module" "$KO")" EEXIST
}

test_unload() {
	unload && nothing_left
}

test_load_unload_20_times() {
	local i=0 before

	before=$(free_kb)
	while [ $i -lt 20 ]; do
		load && unload || return 1
		i=$((i + 1))
	done
	wait_for "free memory to be $before KiB again" free_is_at_least "$before"
}

run_tests \
	test_directory_appears \
	test_files_and_modes \
	test_no_other_file \
	test_status_word \
	test_log_line \
	test_load_twice_is_eexist \
	test_unload \
	test_load_unload_20_times

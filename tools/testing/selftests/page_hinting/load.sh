#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# insmod, what it makes, rmmod, and that again and again.

. "$(dirname "$0")/lib.sh"

test_directory_appears() {
	load || return 1
	[ -d "$SYSFS" ] || fail "no $SYSFS after insmod"
}

# All there is, so that nothing comes without a document and a test.
test_files_and_modes() {
	expect "files and their modes" "$(cd "$SYSFS" && stat -c '%a %n' -- * stats/*)" "\
644 batch_kb
644 enabled
200 flush
644 flush_timeout_ms
644 high_watermark_kb
644 hold_ms
644 host_granule_kb
644 low_watermark_kb
644 min_order
200 rehint
644 rehint_on_vmfork
755 stats
444 status
444 stats/ack_us_max
444 stats/acks
444 stats/backlog_kb
444 stats/errors
444 stats/hinted_kb
444 stats/isolated_kb
444 stats/isolated_peak_kb
444 stats/kept_kb
444 stats/offline_used_kb
444 stats/rehinted_kb
444 stats/rehints
444 stats/requests
444 stats/stalls
444 stats/wakeups"
}

is_number() { # FILE
	local value

	value=$(get "$1")
	case $value in
	'' | *[!0-9]*) fail "$1 reads '$value', expected a number" ;;
	esac
}

test_a_number_and_a_newline() {
	local f

	for f in $KNOBS; do
		is_number "$f" || return
	done
	for f in $STATS; do
		is_number "stats/$f" || return
	done
	expect "lines of the files that can be read" \
		"$(cat "$SYSFS"/* "$SYSFS"/stats/* 2> /dev/null | wc -l)" 24
}

test_status_word() {
	local word

	word=$(get status)
	case $word in
	no-queue | idle | hinting | paced | stalled | off) ;;
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

# Else the kernel would call what is no longer there when the file is closed.
test_no_unload_while_zones_is_open() {
	local zones=/sys/kernel/debug/page_hinting/zones columns='' ret=0

	[ -r $zones ] || fail "there is no $zones" || return
	exec 9< $zones
	expect "the module's users" "$(cat /sys/module/page_hinting/refcnt)" 1 || ret=1
	if rmmod page_hinting 2> /dev/null; then
		fail "rmmod while zones is open" || ret=1
	else
		read -r columns <&9
		case $columns in
		"# node zone order "*) ;;
		*) fail "zones begins with '$columns'" || ret=1 ;;
		esac
	fi
	exec 9<&-
	return $ret
}

test_unload() {
	unload && nothing_left
}

test_load_unload_10_times() {
	local i=0

	take_stock || return
	while [ $i -lt 10 ]; do
		load && unload || return 1
		i=$((i + 1))
	done
	nothing_is_lost
}

run_tests \
	test_directory_appears \
	test_files_and_modes \
	test_a_number_and_a_newline \
	test_status_word \
	test_log_line \
	test_load_twice_is_eexist \
	test_no_unload_while_zones_is_open \
	test_unload \
	test_load_unload_10_times

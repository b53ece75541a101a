#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The program hintstat: it says what sysfs says, flushes in its own time, and ends with
# the status that its manual has.

. "$(dirname "$0")/lib.sh"

out=/tmp/hintstat.$$

hintstat() { # STATUS ARGUMENT...
	local status=$1

	shift
	"$DIR/hintstat" "$@" > $out 2>&1 < /dev/null
	expect "the status of hintstat $*" $? "$status" ||
		fail "it said: $(head -n 3 $out)"
}

says() { # TEXT
	grep -q -e "$1" $out || fail "hintstat does not say '$1', but: $(cat $out)"
}

# It is built with the module, not with the kernel that these tests may be run from.
need_hintstat() {
	[ -x "$DIR/hintstat" ] || skip "there is no $DIR/hintstat: make hintstat, and put it there"
}

test_numbers_are_those_of_sysfs() {
	local f

	load_with_sim mode=now && memhog -t 64 && wait_settled && set_knob enabled 0 &&
	wait_for "status off" status_is off && wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	wait_for "each request to be over" requests_are_over && hintstat 0 status -o json || return
	says '"status": "off"' || return
	for f in $KNOBS; do
		says "\"$f\": $(get "$f")[,]*$" || return
	done
	for f in hinted_kb requests acks errors stalls isolated_peak_kb; do
		says "\"$f\": $(get "stats/$f")[,]*$" || return
	done
	for f in prometheus openmetrics; do
		hintstat 0 metrics -o $f &&
		says "^page_hinting_hinted_bytes_total $(($(get stats/hinted_kb) * 1024))$" &&
		says '^page_hinting_status{status="off"} 1$' && says '^page_hinting_up 1$' || return
	done
	says '^# EOF$'
}

test_a_file_is_replaced() {
	echo old > $out.prom
	hintstat 0 metrics --output-file $out.prom && expect "what it printed" "$(cat $out)" "" &&
	expect "lines of page_hinting_up 1" "$(grep -c '^page_hinting_up 1$' $out.prom)" 1 &&
	expect "the mode of the file" "$(stat -c %a $out.prom)" 644
}

# All that is free, whatever was hinted before.
test_rehint() {
	local before

	set_knob enabled 1 && hintstat 0 flush --timeout "${WAIT}s" && before=$(get stats/hinted_kb) && hintstat 0 rehint &&
	hintstat 0 flush --timeout "${WAIT}s" || return
	stat_at_least hinted_kb $((before + 65536)) ||
		fail "$(($(get stats/hinted_kb) - before)) KiB were hinted once more"
}

test_flush() {
	set_knob enabled 1 && memhog -t 64 && hintstat 0 flush --timeout "${WAIT}s" && says 'done after' || return
	[ "$(get stats/backlog_kb)" -le "$(after_flush_kb)" ] ||
		fail "$(get stats/backlog_kb) KiB are not hinted after a flush"
}

# Longer than the knob has it, and shorter.
test_flush_in_its_own_time() {
	sim_set mode never && memhog -t 192 &&
	wait_for "blocks with a silent host" sim_at_least in_flight_kb 4096 &&
	set_knob flush_timeout_ms 300 && seconds hintstat 5 flush --timeout 3s && says 'are in flight' || return
	[ "$took" -ge 2 ] || fail "hintstat flush --timeout 3s took $took s" || return
	set_knob flush_timeout_ms 3600000 && within 30 hintstat 5 flush --timeout 500ms
}

test_explains_the_page_cache_and_the_host() {
	hintstat 0 explain && says 'is page cache, not free' && says 'the guest cannot know'
}

test_explains_a_stall() {
	wait_for "status stalled" status_is stalled && hintstat 0 explain && says 'has not answered for'
}

test_without_a_device() {
	sim_answer_all && sim_unload && hintstat 4 flush && says 'no device' &&
	hintstat 0 explain && says 'no balloon device' && hintstat 0 rehint
}

test_without_the_module() {
	unload && hintstat 3 status && says 'is not loaded' && hintstat 3 flush && hintstat 3 rehint &&
	hintstat 0 explain && says 'modprobe page_hinting'
}

# The file of before does not stay.
test_a_file_without_the_module() {
	hintstat 0 metrics --output-file $out.prom && grep -q '^page_hinting_up 0$' $out.prom &&
	expect "lines of the status" "$(grep -c '^page_hinting_status' $out.prom)" 0
	set -- $?
	rm -f $out.prom
	return "$1"
}

test_manual_and_completions() {
	hintstat 0 man && says '^.TH hintstat' && hintstat 0 completions bash && says 'complete -F' &&
	hintstat 2 --no-such-option
}

need_hintstat || {
	run_tests need_hintstat
	exit
}
run_tests \
	test_numbers_are_those_of_sysfs \
	test_a_file_is_replaced \
	test_flush \
	test_rehint \
	test_explains_the_page_cache_and_the_host \
	test_flush_in_its_own_time \
	test_explains_a_stall \
	test_without_a_device \
	test_without_the_module \
	test_a_file_without_the_module \
	test_manual_and_completions

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
	wait_for "each request to be over" requests_are_over && hintstat 0 --json || return
	says '"status": "off"' || return
	for f in $KNOBS; do
		says "\"$f\": $(get "$f")[,]*$" || return
	done
	for f in hinted_kb requests acks errors stalls isolated_peak_kb; do
		says "\"$f\": $(get "stats/$f")[,]*$" || return
	done
	hintstat 0 --openmetrics && says "^page_hinting_hinted_bytes_total $(($(get stats/hinted_kb) * 1024))$" &&
	says '^page_hinting_status{status="off"} 1$'
}

test_a_file_is_replaced() {
	echo old > $out.prom
	hintstat 0 --openmetrics --output $out.prom && expect "what it printed" "$(cat $out)" "" &&
	expect "the last line of the file" "$(tail -n 1 $out.prom)" "# EOF" &&
	expect "the mode of the file" "$(stat -c %a $out.prom)" 644
	rm -f $out.prom
}

test_flush() {
	set_knob enabled 1 && memhog -t 64 && hintstat 0 flush && says 'done after' || return
	[ "$(get stats/backlog_kb)" -le "$(after_flush_kb)" ] ||
		fail "$(get stats/backlog_kb) KiB are not hinted after a flush"
}

# Longer than the knob has it, and shorter.
test_flush_in_its_own_time() {
	sim_set mode never && memhog -t 192 &&
	wait_for "blocks with a silent host" sim_at_least in_flight_kb 4096 &&
	set_knob flush_timeout_ms 300 && seconds hintstat 2 flush --timeout 3 && says 'are with the host' || return
	[ "$took" -ge 2 ] || fail "hintstat flush --timeout 3 took $took s" || return
	set_knob flush_timeout_ms 3600000 && within 30 hintstat 2 flush --timeout 1
}

test_explains_a_stall() {
	wait_for "status stalled" status_is stalled && hintstat 0 explain && says 'has not answered for'
}

test_without_a_device() {
	sim_answer_all && sim_unload && hintstat 3 flush && says 'no device' &&
	hintstat 0 explain && says 'no balloon device'
}

test_without_the_module() {
	unload && hintstat 1 && says 'is not loaded' && hintstat 3 flush && hintstat 0 explain &&
	says 'modprobe page_hinting'
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
	test_flush_in_its_own_time \
	test_explains_a_stall \
	test_without_a_device \
	test_without_the_module \
	test_manual_and_completions

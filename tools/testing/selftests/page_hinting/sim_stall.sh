#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A host that does not answer, for a while or for good, and a device that goes
# while it has blocks: it is seen, nothing is lost, nothing is used too early.

. "$(dirname "$0")/lib.sh"

MIB=256
# Longest time in seconds for what must not wait for the host. A debug guest on a
# busy machine needs some; a wait for the host never ends.
BOUND=20

# All is hinted, then the host falls silent and has what memhog frees.
fall_silent() {
	sim_set mode never && memhog -t $MIB &&
	wait_for "blocks with a silent host" sim_at_least in_flight_kb 4096 &&
	memhog -t "$(spill_mib)" &&
	wait_for "$STALLED_KB KiB with it" sim_at_least in_flight_kb $STALLED_KB
}

reports_at_least() { # NUMBER
	sim_at_least reports "$1"
}

# A machine that stands still for a second while a request is out has a stall of its own: so
# the stalls are counted from here on.
test_never_is_a_stall() {
	load_with_sim mode=now && wait_settled || return
	stalls=$(($(get stats/stalls) + 1))
	fall_silent && wait_for "status stalled" status_is stalled &&
	wait_for "stats/stalls of $stalls" stat_is stalls $stalls
}

# The second word of the status are the seconds since the oldest submission.
stalled_for_at_least() { # SECONDS
	local word seconds

	read -r word seconds < "$SYSFS/status"
	[ "$word" = stalled ] && [ "${seconds:-0}" -ge "$1" ]
}

test_status_says_since_when() {
	local first second begin least most

	wait_for "a stall of 2 s" stalled_for_at_least 2 || return
	get_now
	begin=$now
	read -r _ first < "$SYSFS/status"
	get_now
	least=$now
	sleep 3
	get_now
	least=$((now - least - 1))
	read -r _ second < "$SYSFS/status"
	get_now
	most=$((now - begin + 1))
	second=$((second - first))
	if [ $second -lt $least ] || [ $second -gt $most ]; then
		fail "the stall of $first s is $second s longer, $least to $most s later"
	fi
}

# Neither returned nor used while memory is wanted, and no more than the batch.
test_nothing_is_used_before_the_answer() {
	local before isolated acked

	before=$(get stats/isolated_kb)
	acked=$(sim_get acked)
	wait_for "what is out to be with the host" all_is_with_the_host || return
	"$DIR/zerocheck" "$(spare_mib)" || fail "zerocheck: status $?" || return
	memhog -t $MIB && sleep 1 || return

	# What was freed meanwhile may have joined it.
	isolated=$(get stats/isolated_kb)
	[ "$isolated" -ge "$before" ] ||
		fail "isolated_kb went from $before to $isolated" || return
	[ "$isolated" -le "$(get batch_kb)" ] ||
		fail "$isolated KiB are out with a batch of $(get batch_kb)" || return
	wait_for "what is out to be with the host" all_is_with_the_host &&
	expect "acked requests" "$(sim_get acked)" "$acked" &&
	expect stalls "$(get stats/stalls)" "$stalls" &&
	wait_for "the most that was out to have been with the host" peaks_are_equal
}

peaks_are_equal() {
	[ "$(sim_get in_flight_peak_kb)" -eq "$(get stats/isolated_peak_kb)" ]
}

test_hinting_resumes_by_itself() {
	sim_answer_all && wait_settled && sim_nothing_corrupted && sim_counts_agree || return
	# That it ends is none; another by chance may be.
	[ $(($(get stats/stalls) - stalls)) -le 1 ] ||
		fail "$(get stats/stalls) stalls, there were $stalls"
}

warnings() {
	kernel_log | grep -c 'the host does not answer'
}

# An answer after seconds: a stall that ends without anybody's doing. The log has a warning of
# the first stall since insmod, and of no other.
test_late_by_seconds() {
	local want before

	before=$(get stats/stalls)
	want=$(($(get stats/hinted_kb) + MIB * 1024 / 8))
	sim_set delay_ms 4000 && sim_set mode late && memhog -t $MIB &&
	wait_for "status stalled" status_is stalled &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want &&
	sim_set mode now && wait_settled && sim_nothing_corrupted &&
	sim_counts_agree || return
	[ "$(get stats/stalls)" -gt "$before" ] ||
		fail "$(get stats/stalls) stalls, there were $before" || return
	expect "the number of warnings" "$(warnings)" 1 || return
	[ "$(get stats/ack_us_max)" -ge 4000000 ] ||
		fail "ack_us_max is $(get stats/ack_us_max), with a delay of 4 s"
}

# The blocks stay with the host; the device goes to page reporting with the last.
test_rmmod_with_a_silent_host() {
	local held

	take_stock && fall_silent && wait_for "status stalled" status_is stalled || return
	held=$(sim_get in_flight_kb)
	within $BOUND unload && nothing_left || return
	sim_at_least in_flight_kb "$held" ||
		fail "the host has $(sim_get in_flight_kb) KiB, had $held"
}

# Who looks whether the host has answered does not keep others from being told.
test_a_range_is_refused_after_rmmod() {
	local first count

	read -r first count < $SIM/held
	expect "allocating pages that are in flight" "$(sim_contig "$first" $HALF)" EBUSY
}

test_answer_after_rmmod() {
	local reports

	reports=$(sim_get reports)
	set_reporting_delay 100 && sim_answer_all &&
	wait_for "the host to have nothing" sim_is in_flight_kb 0 &&
	nothing_is_lost &&
	memhog -t $MIB && wait_for "reports of page reporting" \
		reports_at_least $((reports + 1)) &&
	sim_nothing_corrupted
}

# What a module before has left with the host is not this one's, and comes back.
test_insmod_while_blocks_are_out() {
	load && wait_settled && fall_silent && unload &&
	seconds load && took_at_most $BOUND insmod &&
	wait_for "what is out to be with the host" all_is_with_the_host &&
	wait_for "$STALLED_KB KiB to be out" stat_at_least isolated_kb $STALLED_KB &&
	sim_answer_all && memhog -t $MIB && wait_settled && sim_nothing_corrupted &&
	wait_for "an ack for each request" requests_are_acked &&
	expect "stats/errors" "$(get stats/errors)" 0
}

insmod_is_busy() {
	expect "the errno of insmod" "$("$DIR/finit_module" "$KO")" EBUSY
}

# Page reporting waits for a host that does not answer.
busy_while_reporting_waits() { # PARAMETER=VALUE...
	local reports

	if loaded; then
		unload || return
	fi
	{ ! sim_loaded || sim_unload; } && take_stock && set_reporting_delay 0 && sim_load mode=now "$@" &&
	memhog -t $MIB &&
	wait_for "a report" reports_at_least 1 &&
	sim_set mode never && memhog -t $MIB &&
	wait_for "a report to a silent host" sim_at_least in_flight_kb 1 &&
	within $BOUND insmod_is_busy && nothing_left || return

	# Reporting goes on as before, and the module is loaded once it can be.
	reports=$(sim_get reports)
	sim_answer_all && verify_memory $MIB &&
	wait_for "reports to go on" reports_at_least $((reports + 1)) &&
	set_reporting_delay 2000 && load && memhog -t $MIB && wait_settled &&
	nothing_is_lost && sim_nothing_corrupted
}

test_insmod_while_reporting_waits() {
	busy_while_reporting_waits
}

test_insmod_while_synchronous_reporting_waits() {
	busy_while_reporting_waits sync=1
}

# The blocks come back untagged, so they are hinted again to the next device.
test_device_goes_with_blocks() {
	local held requests backlog

	load_with_sim mode=now && take_stock && fall_silent || return
	held=$(sim_get in_flight_kb)
	backlog=$(get stats/backlog_kb)
	requests=$(sim_get submitted)
	seconds sim_unload && took_at_most $BOUND "the removal of the device" &&
	wait_for "status no-queue" status_is no-queue &&
	expect isolated_kb "$(get stats/isolated_kb)" 0 &&
	nothing_is_lost &&
	stat_at_least requests "$requests" &&
	wait_for "each request to be acknowledged or an error" requests_are_over || return
	backlog=$(($(get stats/backlog_kb) - backlog))
	# What others use meanwhile may be of it.
	[ $backlog -ge $((held / 2)) ] ||
		fail "the backlog has grown by $backlog KiB, and $held KiB came back" || return
	sim_load mode=now && wait_settled && sim_nothing_corrupted || return
	sim_at_least acked_kb "$held" ||
		fail "$(sim_get acked_kb) KiB were hinted again, of $held"
}

# Neither the module nor page reporting has the device when it goes.
test_device_goes_after_rmmod() {
	take_stock && fall_silent && unload && seconds sim_unload &&
	took_at_most $BOUND "the removal of the device" &&
	nothing_is_lost &&
	load && sim_load mode=now && wait_settled && sim_nothing_corrupted
}

run_tests \
	test_never_is_a_stall \
	test_status_says_since_when \
	test_nothing_is_used_before_the_answer \
	test_hinting_resumes_by_itself \
	test_late_by_seconds \
	test_rmmod_with_a_silent_host \
	test_a_range_is_refused_after_rmmod \
	test_answer_after_rmmod \
	test_insmod_while_blocks_are_out \
	test_insmod_while_reporting_waits \
	test_insmod_while_synchronous_reporting_waits \
	test_device_goes_with_blocks \
	test_device_goes_after_rmmod

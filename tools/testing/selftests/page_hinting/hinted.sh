#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Memory that is freed gets hinted, within the bound, and only when enabled.

. "$(dirname "$0")/lib.sh"

MIB=256
PERCENT=95

frees_and_hints() { # [-T]
	local want kb=$((MIB * 1024))

	# Small pages come from smaller blocks first, and go back there.
	[ "${1:--t}" = -t ] || kb=$((kb - $(small_kb)))
	want=$(($(get stats/hinted_kb) + kb * PERCENT / 100))
	memhog "${1:--t}" $MIB &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want
}

# What was freed before insmod, and that page reporting has not come to.
test_memory_freed_before_insmod() {
	local want=$((MIB * 1024 * PERCENT / 100))

	if loaded; then
		unload || return
	fi
	limit_pcp_lists && set_reporting_delay 3600000 || return
	# The report that is scheduled already, with the delay from before.
	sleep 2.5
	device=$(balloon_device)
	wait_for "$device to be quiet" balloon_is_quiet "$device" || return
	memhog -t $MIB && load
	set_reporting_delay 2000
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want && wait_settled
}

# What the host was told ends with the instance that told it: nobody keeps the tags
# true while there is none.
test_reload_hints_all_again() {
	unload && load && wait_settled || return
	[ "$(get stats/hinted_kb)" -ge $(($(buddy_kb) * 8 / 10)) ] ||
		fail "hinted $(get stats/hinted_kb) KiB of $(buddy_kb) KiB free"
}

test_freed_huge_pages() {
	frees_and_hints
}

# The host can use what the guest has freed: no counter of the guest's tells.
test_freed_memory_is_returned() {
	gives_back $MIB
}

# A burst: most of what the guest has, freed at one blow, as people have the module.
test_a_burst_is_returned() {
	local ret=0

	all_defaults=1
	load_fresh && gives_back $(($(spare_mib) * 3 / 4)) || ret=$?
	all_defaults=
	[ $ret -eq 0 ] || return $ret
	load_fresh && wait_settled
}

test_returned_after_unload_and_load() {
	unload && load && gives_back $MIB
}

test_freed_small_pages() {
	frees_and_hints -T
}

test_nothing_is_out_when_idle() {
	wait_settled &&
	expect isolated_kb "$(get stats/isolated_kb)" 0 &&
	expect acks "$(get stats/acks)" "$(get stats/requests)" &&
	expect errors "$(get stats/errors)" 0
}

# Each look of the thread may find a block that the rest of the system has freed, and
# looks are 2 s apart: a machine that takes long over 3 s has more of them. A thread that
# spins has hundreds.
test_idle_is_quiet() {
	local requests more most begin now

	requests=$(get stats/requests)
	get_now
	begin=$now
	sleep 3
	more=$(($(get stats/requests) - requests))
	get_now
	most=$((5 * (now - begin + 1)))
	[ $more -le $most ] || fail "$more requests in $((now - begin)) s of idleness, expected $most at most"
}

test_peak_within_batch() {
	[ "$(get stats/isolated_peak_kb)" -gt 0 ] || fail "isolated_peak_kb is 0" || return
	[ "$(get stats/isolated_peak_kb)" -le "$(get batch_kb)" ] ||
		fail "isolated_peak_kb $(get stats/isolated_peak_kb) is over batch_kb $(get batch_kb)"
}

# Without a device nothing is hinted between insmod and the first setting.
test_small_batch_is_kept() {
	unbind "$device" && load_fresh && set_knob batch_kb 4096 &&
	bind "$device" && memhog -t $MIB && wait_settled || return
	[ "$(get stats/hinted_kb)" -ge $((MIB * 1024 * PERCENT / 100)) ] ||
		fail "hinted_kb is $(get stats/hinted_kb)" || return
	[ "$(get stats/isolated_peak_kb)" -le 4096 ] ||
		fail "isolated_peak_kb is $(get stats/isolated_peak_kb) with batch_kb 4096"
}

test_disabled_hints_nothing() {
	local hinted

	set_knob batch_kb 65536 && set_knob enabled 0 || return
	wait_for "status off" status_is off &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 || return
	hinted=$(get stats/hinted_kb)
	memhog -t $MIB || return
	sleep 2.5
	expect "hinted_kb while disabled" "$(get stats/hinted_kb)" "$hinted" &&
	expect status "$(get status)" off || return
	[ "$(get stats/backlog_kb)" -ge $((MIB * 1024 / 2)) ] ||
		fail "backlog_kb is $(get stats/backlog_kb) with $MIB MiB freed and none hinted"
}

# Most of it: what others have used since is taken from what was not hinted. That nothing
# else is left shows when it is settled.
test_enabled_resumes() {
	local want

	want=$(($(get stats/hinted_kb) + MIB * 1024 * 3 / 4))
	set_knob enabled 1 &&
	wait_for "hinted_kb of $want" stat_at_least hinted_kb $want && wait_settled
}

run_tests \
	test_memory_freed_before_insmod \
	test_reload_hints_all_again \
	test_freed_huge_pages \
	test_freed_small_pages \
	test_freed_memory_is_returned \
	test_a_burst_is_returned \
	test_returned_after_unload_and_load \
	test_nothing_is_out_when_idle \
	test_idle_is_quiet \
	test_peak_within_batch \
	test_small_batch_is_kept \
	test_disabled_hints_nothing \
	test_enabled_resumes

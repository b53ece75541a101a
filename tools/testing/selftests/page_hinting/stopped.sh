#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The process that is the host's end of the guest is stopped for half a minute, as a
# debugger or a frozen control group does, while memory is used, freed and hinted:
# nothing is lost, what is in memory stays, and hinting goes on by itself.

. "$(dirname "$0")/lib.sh"

# The host has to bring its own side back as well before the guest runs as before.
GOES_ON=30

SECONDS_STOPPED=30

test_the_guest_is_stopped() {
	local before after

	before_the_host_acts 256 || return
	use_memory
	hints_more 128 || return
	before=$(date +%s)
	host stop $SECONDS_STOPPED || return
	after=$(date +%s)
	# The guest's clock need not have seen it; the host's answer came after it.
	ktap_print_msg "stopped for $SECONDS_STOPPED s, of which the guest has seen $((after - before))"
	hints_more 128 goes_on && contents_are_right
}

test_nothing_is_lost() {
	all_is_there_again
}

run_tests \
	test_the_guest_is_stopped \
	test_nothing_is_lost

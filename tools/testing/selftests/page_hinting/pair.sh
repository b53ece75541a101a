#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Two guests of 2 GiB use 1 GiB by turns, on a host that has 1.9 GiB: what the one has freed
# is there for the other. This guest only directs them.

. "$(dirname "$0")/lib.sh"

PEAKS=4
# Why there are no two guests, if there are none.
no_pair=

test_the_guests_are_there() {
	local said

	need_host || return
	said=$(host pair start) || {
		case $said in
		*"not here:"*) no_pair=${said#*not here: }; skip "$no_pair" ;;
		*) fail "${said#\# }" ;;
		esac
		return
	}
	host pair 0 insmod "$KO" && host pair 1 insmod "$KO" && sleep 3
}

# All that it has freed is with the host, but for what zones cannot spare.
has_returned() { # GUEST
	local backlog

	backlog=$(host pair "$1" cat "$SYSFS/stats/backlog_kb") && [ "$backlog" -le 65536 ] &&
	[ "$(host pair "$1" cat "$SYSFS/status")" = idle ]
}

# Each keeps its peak for a second once all of it is touched.
test_all_peaks_are_done() {
	local i=0 killed swapped

	[ -z "$no_pair" ] || skip "$no_pair" || return
	while [ $i -lt $PEAKS ]; do
		host pair $((i % 2)) /selftests/memhog -t -s 1 1024 > /dev/null ||
			fail "peak $i was not done; killed, and MiB swapped: $(host pair killed)" || return
		# One that has no CPU just then would be too late for the other.
		goes_on "peak $i to be returned" has_returned $((i % 2)) || return
		i=$((i + 1))
	done
	read -r killed swapped <<-END
		$(host pair killed)
	END
	expect "guests killed" "$killed" 0 && expect "MiB swapped" "$swapped" 0
}

run_tests test_the_guests_are_there test_all_peaks_are_done

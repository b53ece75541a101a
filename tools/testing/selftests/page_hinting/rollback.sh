#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# A guest is rolled back to a snapshot taken before it used memory: the host has memory
# of it that the guest knows to be hinted. It is told so, and returns it.

. "$(dirname "$0")/lib.sh"

test_is_rolled_back() {
	local said

	need_host || return
	hint_by_default && wait_settled && flush_all || return
	said=$(host savevm test) || return
	if [ "$said" != loaded ]; then
		# In use until the guest is another.
		hold_contents 1024 && host loadvm test
		fail "the guest is not what was saved"
		return
	fi
	resident=$(resident_kb) || return
	ktap_print_msg "$((resident / 1024)) MiB are resident after it"
	[ "$resident" -ge $((idle + 700 * 1024)) ] || fail "the rollback brought no memory"
}

test_rehint_returns_it() {
	set_knob rehint 1 && set_knob flush 1 && resident=$(resident_kb) || return
	[ "$resident" -le $((idle + 65536)) ] ||
		fail "$resident KiB are resident after flush, $idle were when all was hinted"
}

run_tests test_is_rolled_back test_rehint_returns_it

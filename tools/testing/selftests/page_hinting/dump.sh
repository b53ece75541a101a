#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Has the host dump the guest's memory for tools that read such dumps, before
# free memory is hinted and after: see scripts/beside-upstream.sh, which looks at what
# comes of it.  Runs with the series and without; in both page_reporting reports, with no module.

. "$(dirname "$0")/lib.sh"

# Memory that is used, not with zeros alone, and freed.
MIB=384
kernel=unpatched
! grep -q '[[:space:]]page_hinting_take$' /proc/kallsyms || kernel=patched

dump() { # STATE
	drop_caches
	host dump-guest-memory "out/dump/$kernel-$1.elf" || return
	ktap_print_msg "dump $kernel-$1: $(free_kb) KiB are free"
}

# Nothing has been reported since boot: see the scenario's kernel arguments.
test_unhinted() {
	need_host || return
	grep -q page_reporting_delay_ms= /proc/cmdline ||
		fail "page_reporting may have reported already" || return
	[ -r /sys/kernel/vmcoreinfo ] || fail "no /sys/kernel/vmcoreinfo" || return
	limit_pcp_lists && memhog -T $MIB && dump unhinted
}

# A device that is bound anew is told all that is free.
test_reported() {
	local device

	device=$(balloon_device)
	set_reporting_delay 100 && unbind "$device" && bind "$device" || return
	# A sixteenth of a list at a time; nothing in the guest tells when it is over.
	sleep 20
	dump reported
}

test_hinted() {
	load && wait_settled && dump hinted
}

if [ $kernel = patched ]; then
	run_tests test_unhinted test_reported test_hinted
else
	run_tests test_unhinted test_reported
fi

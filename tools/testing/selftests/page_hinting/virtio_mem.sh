#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Memory is plugged in and out by virtio-mem, again and again: what is freed before and after
# it is with the host.

. "$(dirname "$0")/lib.sh"

CYCLES=3
worst=0

vmem_is() { # BYTES
	[ "$(host qom-get /machine/peripheral/vm0 size)" = "$1" ]
}

plug_mib() { # MIB
	host qom-set /machine/peripheral/vm0 requested-size $(($1 << 20)) &&
	wait_for "$1 MiB to be plugged in" vmem_is $(($1 << 20))
}

test_memory_comes_and_goes() {
	local i=0 more

	need_host || return
	hint_by_default && vmem_is $((1 << 30)) || fail "virtio-mem has not 1 GiB" || return
	wait_settled && flush_all || return
	while [ $i -lt $CYCLES ]; do
		burst 1229 && burst_was_resident "$idle" && plug_mib 0 && plug_mib 1024 && sleep "$(scaled 5)" || return
		more=$(($(resident_kb) - idle))
		ktap_print_msg "some seconds after it is plugged in, $((more / 1024)) MiB more are resident"
		[ $more -le $worst ] || worst=$more
		i=$((i + 1))
	done
}

test_what_is_freed_is_returned() {
	[ $worst -le 65536 ] || fail "up to $worst KiB more stay resident"
}

run_tests test_memory_comes_and_goes test_what_is_freed_is_returned

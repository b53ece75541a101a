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
	# The driver tries once more after 50 s if some of it cannot go just now.
	local WAIT=$((WAIT * 2))

	host qom-set /machine/peripheral/vm0 requested-size $(($1 << 20)) &&
	wait_for "$1 MiB to be plugged in" vmem_is $(($1 << 20))
}

# Waits for some seconds for no more to be resident than a little.
returns_soon() {
	local now end

	get_now
	end=$((now + $(scaled 20)))
	until resident_at_most $((idle + 65536)) || [ "$now" -ge $end ]; do
		sleep 0.5
		get_now
	done
}

test_memory_comes_and_goes() {
	local i=0 more

	need_host || return
	hint_by_default && vmem_is $((1 << 30)) || fail "virtio-mem has not 1 GiB" || return
	wait_settled && flush_all || return
	while [ $i -lt $CYCLES ]; do
		burst 1229 && burst_was_resident "$idle" && plug_mib 0 && plug_mib 1024 && sleep "$(scaled 5)" && returns_soon || return
		more=$((resident - idle))
		ktap_print_msg "some seconds after it is plugged in, $((more / 1024)) MiB more are resident"
		[ $more -le $worst ] || worst=$more
		i=$((i + 1))
	done
}

test_what_is_freed_is_returned() {
	[ $worst -le 65536 ] || fail "up to $worst KiB more stay resident"
}

run_tests test_memory_comes_and_goes test_what_is_freed_is_returned

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The host unplugs the balloon device while the guest hints, and plugs it in
# again: no page is lost, and hinting goes on.

. "$(dirname "$0")/lib.sh"

MIB=128
CYCLES=3
[ "$PAGE_HINTING_SOAK" != 1 ] || CYCLES=50

ID=balloon0
PLUG="virtio-balloon-pci,id=$ID,bus=slot0,free-page-reporting=on"

has_device() {
	[ -n "$(balloon_device)" ]
}

has_no_device() {
	! has_device
}

# The guest has let go of it, and so has the host, where its name is free again.
unplug_device() {
	host device_del $ID && wait_for "the device to go" has_no_device &&
	wait_for "the host to take it back" host_has_none
}

host_has_none() {
	! host info qtree | grep -q "id \"$ID\""
}

plug_device() {
	host device_add "$PLUG" && wait_for "a device" has_device
}

test_unplug_while_hinting() {
	local i=0

	drop_caches
	load_fresh && set_knob min_order 0 && take_stock &&
	hold_contents 64 || return
	while [ $i -lt $CYCLES ]; do
		memhog -t $MIB && memhog -T 32 && unplug_device &&
		wait_for "status no-queue" status_is no-queue &&
		wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
		plug_device && hints_freed $MIB || return
		i=$((i + 1))
	done
	contents_are_right && nothing_is_lost
}

# What page_reporting has scheduled comes when its device has gone.
test_unplug_while_reporting() {
	local i=0

	unload && set_reporting_delay 500 || return
	while [ $i -lt $CYCLES ]; do
		memhog -t $MIB && unplug_device && sleep 1 && plug_device || return
		i=$((i + 1))
	done
	set_reporting_delay 2000 && load && hints_freed $MIB
}

need_host || {
	run_tests need_host
	exit
}
run_tests \
	test_unplug_while_hinting \
	test_unplug_while_reporting

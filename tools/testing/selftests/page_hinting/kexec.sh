#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# The guest goes over to a fresh kernel in the middle of hinting, in the memory
# whose blocks the host has. This runs twice, before and after ("again"): the
# host touches nothing of the fresh guest, and it hints.

. "$(dirname "$0")/lib.sh"

# Copies what is on the disk of this serial number, for the kernel wants files.
copy_disk() { # SERIAL FILE
	local dir

	for dir in /sys/block/vd*; do
		if [ "$(cat "$dir/serial")" = "$1" ]; then
			cat "/dev/${dir##*/}" > "$2"
			return
		fi
	done
	fail "there is no disk $1"
}

# The plan is for the second part: the first says only why it could not be.
restart() {
	copy_disk kernel /tmp/kernel && copy_disk initramfs /tmp/initramfs || return
	"$DIR/kexec" /tmp/kernel /tmp/initramfs "$(cat /proc/cmdline)" ||
		fail "the kernel is not loaded" || return
	rm /tmp/kernel /tmp/initramfs
	hint_all_the_time && host restarts || return
	"$DIR/kexec"
	fail "the guest does not go over"
}

need_host || {
	run_tests need_host
	exit
}
if [ "$1" = again ]; then
	run_tests test_hints_after_the_restart
else
	restart
	exit 1
fi

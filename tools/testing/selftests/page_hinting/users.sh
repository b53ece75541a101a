#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Who is not root may see how hinting goes, and change nothing; and no address of the
# kernel is told.

. "$(dirname "$0")/lib.sh"

NOBODY=65534

# Runs a command as a user without any right, and prints what it prints.
as_nobody() { # PROGRAM ARGUMENT...
	local program=$1

	shift
	# Without a file of that name it does not look for one that runs.
	start-stop-daemon -S -q -p /tmp/no-pid-file -c $NOBODY:$NOBODY -a "$program" -- "$@"
}

test_may_read() {
	local f value

	load_fresh || return
	expect "the user" "$(as_nobody /bin/busybox id -u)" $NOBODY || return
	for f in $KNOBS status; do
		value=$(as_nobody /bin/busybox cat "$SYSFS/$f") && [ -n "$value" ] ||
			fail "$f cannot be read" || return
	done
	for f in $STATS; do
		value=$(as_nobody /bin/busybox cat "$SYSFS/stats/$f") && [ -n "$value" ] ||
			fail "stats/$f cannot be read" || return
	done
}

# 0 is a value that each of them but batch_kb takes.
test_may_not_write() {
	local f before errno

	find "$SYSFS" -type f > /tmp/files
	while read -r f; do
		before=$(cat "$f" 2> /dev/null)
		errno=$(as_nobody "$DIR/sysfs_write" "$f" 0)
		expect "the errno of writing 0 to $f" "$errno" EACCES || return
		case $f in
		*/stats/* | */status | */flush) ;;
		*) expect "$f" "$(cat "$f")" "$before" || return ;;
		esac
	done < /tmp/files
	[ "$(wc -l < /tmp/files)" -ge 20 ] || fail "only these files: $(cat /tmp/files)"
}

# As all of debugfs: its root directory is for root alone.
test_may_not_see_the_free_lists() {
	local f

	[ -r /sys/kernel/debug/page_hinting/zones ] || fail "no zones in debugfs" || return
	for f in /sys/kernel/debug/page_hinting/zones /sys/kernel/debug/page_hinting; do
		if as_nobody /bin/busybox cat $f > /dev/null 2>&1 ||
		   as_nobody /bin/busybox ls $f > /dev/null 2>&1; then
			fail "$f can be read"
			return
		fi
	done
	# It was not for want of the programs.
	as_nobody /bin/busybox ls /sys/kernel/mm > /dev/null || fail "ls does not run"
}

test_tells_no_address() {
	local found

	memhog -t 64 && wait_settled || return
	found=$({ grep -r . "$SYSFS" /sys/kernel/debug/page_hinting 2> /dev/null
		kernel_log | grep page_hinting; } | grep -E '(^|[^0-9a-f])(0x)?ffff[0-9a-f]{12}') || return 0
	fail "an address of the kernel: $found"
}

run_tests \
	test_may_read \
	test_may_not_write \
	test_may_not_see_the_free_lists \
	test_tells_no_address

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Suites of others: the tests that a list names, of the kernel's own and of stress-ng, in
# a root directory that comes on a disk. Runs with the series, and then beside the module,
# which hints all that is free, and without: scripts/suites.sh compares what came out.
#
# A line of the list is "KIND SECONDS COMMAND...", with what it may take at most. KIND is
#
#   mm      a selftest of mm
#   user    the same, run by nobody
#   stress  "STRESSOR INSTANCES OPERATIONS [ARGUMENT...]" of stress-ng
#   kunit   a KUnit suite of the kernel's own
#   module  a test module, which tests as it is loaded, and its parameters
#   with    a module that the tests after it want; "with" without one takes it out again
#
# Each but "with" becomes a point, named after the line. What it prints is in the output,
# each line behind "# ".

. "$(dirname "$0")/lib.sh"

ROOT=/tmp/root
DISK=/dev/vda
ZRAM=/dev/zram0
KUNIT=/sys/kernel/debug/kunit

patched=
! grep -q '[[:space:]]page_hinting_take$' /proc/kallsyms || patched=1

# Its words, a minus of a number an m, all else that is not a letter or number an underscore.
name_of() { # KIND COMMAND...
	echo "$*" | sed -E 's/ -([0-9])/ m\1/g; s/[^a-zA-Z0-9]+/_/g; s/_$//'
}

# --- what can be in a line ---

in_root() { # COMMAND...
	timeout -s KILL "$limit" chroot $ROOT /bin/busybox env -i PATH=/bin HOME=/ \
		/bin/sh -c 'cd /mm && exec "$@"' sh "$@" < /dev/null
}

run_mm() { # PROGRAM [ARGUMENT...]
	local program=$1

	shift
	in_root "./$program" "$@"
}

run_user() { # PROGRAM
	in_root busybox su -s /bin/sh nobody -c "./$1"
}

# For so many operations, and none the less for a time.
run_stress() { # STRESSOR INSTANCES OPERATIONS [ARGUMENT...]
	local stressor=$1 instances=$2 operations=$3 ret=0

	shift 3
	in_root stress-ng --verify --timeout 0 --temp-path /tmp --no-rand-seed \
		"--$stressor" "$instances" "--$stressor-ops" "$operations" "$@" || ret=$?
	case $ret in
	# No resources for it, or not implemented
	3 | 4) return "$KSFT_SKIP" ;;
	*) return $ret ;;
	esac
}

run_kunit() { # SUITE
	[ -e "$KUNIT/$1/run" ] || { echo "no suite $1"; return 1; }
	# shellcheck disable=SC2016 # it is for that shell
	timeout -s KILL "$limit" sh -c 'echo 1 > "$1"' sh "$KUNIT/$1/run" || return
	cat "$KUNIT/$1/results"
	grep -q "^ok [0-9]* $1\$" "$KUNIT/$1/results"
}

# What the log has said since the mark.
since() { # MARK
	dmesg | awk -v mark="$1" 'index($0, mark) { is = 1; next } is' | sed 's/^\[[^]]*\] //'
}

# Some tell by their errno what came out; two are never loaded, and tell in the log.
run_module() { # MODULE [PARAMETER...]
	local module=$1 ret=0 at

	shift
	at="suites $module $*"
	echo "$at" > /dev/kmsg
	timeout -s KILL "$limit" insmod "$ROOT/modules/$module.ko" "$@" || ret=$?
	since "$at"
	case $module in
	test_vmalloc)
		since "$at" | grep -q 'Summary: .* passed: [1-9]' &&
			! since "$at" | grep 'Summary: ' | grep -v ' failed: 0 ' ;;
	page_frag_test)
		since "$at" | grep -q ' of iterations for ' &&
			! since "$at" | grep 'page_frag_test failed:' ;;
	*)
		[ $ret -eq 0 ] && rmmod "$module" ;;
	esac
}

# --- points ---

# Nothing that a test has left behind runs on, or is in the way of the next.
tidy() {
	local pid

	for pid in /proc/[0-9]*; do
		[ "$(readlink "$pid/root")" != $ROOT ] || kill -9 "${pid#/proc/}" 2> /dev/null
	done
	rm -rf $ROOT/tmp/* $ROOT/dev/shm/*
	echo 0 > /proc/sys/vm/nr_hugepages
	echo always > /sys/kernel/mm/transparent_hugepage/enabled
	echo 0 > /sys/kernel/mm/ksm/run
}

# One line of the list.
one() { # KIND SECONDS COMMAND...
	local kind=$1 limit=$2 ret=0 up begin

	shift 2
	# In the log of the kernel, too: for who wonders when it complained, or where it hangs.
	echo "suites: $kind $*" > /dev/kmsg
	read -r up _ < /proc/uptime
	begin=${up%.*}
	"run_$kind" "$@" > /tmp/said 2>&1 || ret=$?
	read -r up _ < /proc/uptime
	tr -d '\r' < /tmp/said | sed 's/^/# /'
	# Where the last line of it had no end
	echo
	ktap_print_msg "status $ret after $((${up%.*} - begin)) s"
	echo "suites: status $ret after $((${up%.*} - begin)) s" > /dev/kmsg
	tidy
	case $ret in
	0) return "$KSFT_PASS" ;;
	"$KSFT_SKIP") skip "it says so" ;;
	*) return "$KSFT_FAIL" ;;
	esac
}

with=
with() { # SECONDS [MODULE]
	[ -z "$with" ] || rmmod "$with"
	with=${2:-}
	[ -z "$with" ] || insmod "$ROOT/modules/$with.ko"
}

# Mounts and swap; what is mounted for the tests is theirs.
test_root_is_there() {
	mkdir -p $ROOT && tar -C $ROOT -xf $DISK || fail "there is no root directory on $DISK" || return
	mount -t proc proc $ROOT/proc && mount -t sysfs sys $ROOT/sys &&
		mount -t debugfs debug $ROOT/sys/kernel/debug && mount -t devtmpfs dev $ROOT/dev &&
		mkdir -p $ROOT/dev/shm && mount -t tmpfs shm $ROOT/dev/shm &&
		mount -t tmpfs tmp $ROOT/tmp || fail "not all is mounted" || return
	echo 512M > /sys/block/zram0/disksize && mkswap $ZRAM > /dev/null && swapon $ZRAM
}

# All that may be hinted is, however often it was used before.
test_module_hints() {
	[ -n "$patched" ] || skip "this kernel has no page hinting" || return
	load && set_knob min_order 4 && set_knob low_watermark_kb 0 && set_knob high_watermark_kb 1 &&
		wait_settled || return
	hinted=$(get stats/hinted_kb)
}

# While the tests ran, and it goes on.
test_module_hinted_meanwhile() {
	local f

	[ -n "$patched" ] || skip "this kernel has no page hinting" || return
	for f in $STATS; do
		ktap_print_msg "stats/$f: $(get "stats/$f")"
	done
	[ "$(get stats/hinted_kb)" -ge $((hinted + 1024 * 1024)) ] ||
		fail "not a GiB was hinted while the tests ran" || return
	expect "stats/errors" "$(get stats/errors)" 0 && wait_settled && requests_are_acked
}

list=$DIR/suites.list
tests=
with_next=
while read -r kind seconds command; do
	case $kind in
	'' | '#'*) ;;
	with) with_next="with $seconds $command; " ;;
	*)
		name=$(name_of "$kind" "$command")
		eval "test_$name() { ${with_next}one $kind $seconds $command; }"
		with_next=
		tests="$tests test_$name" ;;
	esac
done < "$list"

# shellcheck disable=SC2086 # names
run_tests test_root_is_there test_module_hints $tests test_module_hinted_meanwhile

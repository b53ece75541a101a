#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# Memory is used and freed from all sides while a host scribbles over each block
# that it has: nobody's data is what the host wrote, and nobody wrote to what
# the host had.

. "$(dirname "$0")/lib.sh"

# Seconds for each order, and how much memory each of the programs uses.
SECONDS_EACH=3
[ "$PAGE_HINTING_SOAK" != 1 ] || SECONDS_EACH=60
# Orders that a late host is given, and one that answers out of order.
ORDERS="9 8 7 6 5 4 3 2 1 0"
REORDERED="9 4 0"
MIB=48
READS=20000
contents_only=
# Not all in a debug guest, which takes 20 s for an order; less again where it is about
# what freed pages are filled with.
if [ -e /sys/kernel/debug/page_hinting_check ] && [ "$PAGE_HINTING_SOAK" != 1 ]; then
	ORDERS="9 5 2 0"
	READS=4000
	if grep -qE '(page_poison|init_on_free)=1' /proc/cmdline; then
		ORDERS="9 0"
		REORDERED=4
		contents_only=1
	fi
fi
wrong=/tmp/sim_stress.$$

worker() { # COMMAND...: again and again, until it fails or is ended
	while [ ! -e $wrong.stop ]; do
		"$@" > $wrong.out 2>&1 < /dev/null || {
			echo "$*: status $?" >> $wrong
			return
		}
	done &
	background="$background $!"
}

# Files in tmpfs: memory that the kernel itself writes and reads.
copier() {
	dd if=/dev/urandom of=$wrong.data bs=64k count=16 2> /dev/null
	while [ ! -e $wrong.stop ]; do
		cp $wrong.data $wrong.copy
		cmp -s $wrong.data $wrong.copy || {
			echo "a copied file differs" >> $wrong
			return
		}
		rm $wrong.copy
	done &
	background="$background $!"
}

start_workers() {
	rm -f $wrong $wrong.*
	: > $wrong
	worker "$DIR/zerocheck" $MIB
	worker "$DIR/zerocheck" -T $((MIB / 2))
	worker "$DIR/zerocheck" -T -s 1 $((MIB / 2))
	worker "$DIR/fragment" 3 $((MIB / 4))
	copier
}

end_workers() {
	local pid

	: > $wrong.stop
	for pid in $background; do
		wait "$pid"
	done
	background=
	rm -f $wrong.*
}

# Every order that is taken, with blocks going out and in all the time.
# More requests than these are answered in the time.
least=2
# What there is to be seen before it ends, if any: a command.
enough=

stress() { # MIN_ORDER PARAMETER=VALUE...
	local order=$1 requests ret=0

	shift
	load_with_sim "$@" && set_knob min_order "$order" || return
	requests=$(sim_get acked)
	start_workers
	sleep "$SECONDS_EACH"
	wait_for "more than $least requests of order $order" sim_at_least acked $((requests + least + 1)) &&
	{ [ -z "$enough" ] || wait_for "$enough" "$enough"; } || ret=$?
	end_workers
	[ $ret -eq 0 ] || return $ret
	[ ! -s $wrong ] || fail "min_order $order: $(head -n 3 $wrong)" || return
	sim_answer_all &&
	wait_for "isolated_kb of 0" stat_is isolated_kb 0 &&
	sim_nothing_corrupted
}

# Seen by the host: a page that is written to behind its back is found.
test_the_host_sees_who_writes() {
	load_with_sim mode=never && set_knob min_order 9 && memhog -t $MIB &&
	wait_for "blocks with the host" sim_at_least in_flight_kb 2048 &&
	expect corrupted "$(sim_get corrupted)" 0 &&
	echo 1 > $SIM/poke && sim_answer_all &&
	wait_for "corrupted of 1" sim_is corrupted 1 && sim_unload
}

# Ends after READS, or with a stall of more than an hour.
read_status() {
	local word seconds i=0

	while [ $i -lt $READS ]; do
		read -r word seconds < "$SYSFS/status"
		if [ "$word" = stalled ] && [ "$seconds" -gt 3600 ]; then
			echo "the status is: $word $seconds" >> $wrong
			return
		fi
		i=$((i + 1))
	done
}

# Something is read all the time while blocks of every order come and go.
while_blocks_come_and_go() { # COMMAND
	load_with_sim mode=now && set_knob min_order 0 || return
	rm -f $wrong $wrong.*
	: > $wrong
	worker "$DIR/memhog" -T $MIB
	"$1"
	end_workers
	[ ! -s $wrong ] || fail "$(head -n 3 $wrong)"
}

# The age of a request is never taken from before it was submitted.
test_no_stall_of_years() {
	while_blocks_come_and_go read_status
}

test_late() {
	local order

	for order in $ORDERS; do
		stress "$order" mode=late delay_ms=5 || return
	done
}

test_out_of_order() {
	local order

	for order in $REORDERED; do
		stress "$order" mode=reorder delay_ms=10 || return
	done
}

all_ways_were_taken() {
	sim_at_least errors 1 && sim_at_least doubled 1 && sim_at_least reordered 1
}

# In any way, by a chance that begins with PAGE_HINTING_SEED. A second answer and one to
# what was never asked are among them, which the core refuses, and errors.
test_in_any_way() {
	local seed=${PAGE_HINTING_SEED:-1} orders=0 order ret=0

	[ "$PAGE_HINTING_SOAK" != 1 ] || orders=$ORDERS
	# After an error there is a pause, and of large blocks there are few.
	least=0
	enough=all_ways_were_taken
	for order in $orders; do
		stress "$order" mode=random delay_ms=5 seed="$seed" || ret=$?
		[ $ret -eq 0 ] || break
		seed=$((seed + 1))
	done
	least=2
	enough=
	[ $ret -eq 0 ] || return $ret
	ktap_print_msg "PAGE_HINTING_SEED=${PAGE_HINTING_SEED:-1}: the last host refused $(sim_get errors)" \
		"requests, answered $(sim_get doubled) twice and $(sim_get reordered) out of order"
}

# With pacing, and in pages of the host. What goes round is kept, so one request may be all
# until it ends; then the rest is hinted.
test_with_defaults() {
	local ret=0

	all_defaults=1
	least=0
	stress 9 mode=late delay_ms=5 && wait_settled || ret=$?
	all_defaults=
	least=2
	return $ret
}

# Ends after READS, or with more not hinted than there is memory.
read_backlog() {
	local kb total i=0

	total=$(awk '/^MemTotal:/ { print $2 }' /proc/meminfo)
	while [ $i -lt $READS ]; do
		read -r kb < "$SYSFS/stats/backlog_kb"
		if [ "$kb" -gt "$total" ]; then
			echo "$kb of $total KiB are not hinted" >> $wrong
			return
		fi
		i=$((i + 1))
	done
}

# It is read without a lock.
test_no_backlog_beyond_memory() {
	while_blocks_come_and_go read_backlog
}

# Free memory is all there at the end.
test_nothing_is_lost() {
	unload && sim_unload && drop_caches && take_stock &&
	stress 0 mode=late delay_ms=1 && unload && sim_unload && drop_caches &&
	nothing_is_lost
}

[ -z "$contents_only" ] || {
	run_tests \
		test_the_host_sees_who_writes \
		test_late \
		test_out_of_order \
		test_in_any_way \
		test_nothing_is_lost
	exit
}
run_tests \
	test_the_host_sees_who_writes \
	test_no_stall_of_years \
	test_no_backlog_beyond_memory \
	test_with_defaults \
	test_late \
	test_out_of_order \
	test_in_any_way \
	test_nothing_is_lost

#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
# How much is hinted again that nobody has used since it was hinted, when blocks
# merge and are split.  The simulated host sees it, by a mark that it leaves in
# each page; the module's own count is right.  Also runs in a kernel without the
# series, where page_reporting reports: see scripts/beside-upstream.sh.

. "$(dirname "$0")/lib.sh"

# A step gives back a block of the highest order, and takes a part of another.
ORDER=5
REPORTING_ORDER=/sys/module/page_reporting/parameters/page_reporting_order
OUT_KIB=4096
IN_KIB=512
STEPS=8
# Taken in one step and given back in the next: more than is free in smaller blocks,
# which go first, so that each turn splits blocks of the highest order.  The next turn
# takes an eighth of such a block more, so that the rest of the last is of each size.
TAKEN_KIB=49152
MORE_KIB=512
TURNS=16
# How much is taken to be left in halves of blocks.
MIB=128
out=/tmp/rehint.$$

has_series() {
	grep -q ' page_hinting_take$' /proc/kallsyms
}

# Page reporting says nothing, so look for a second, which is ten of its delays.
reporting_is_quiet() {
	local before i=0

	before=$(host_has pages)
	while [ $i -lt 10 ]; do
		sleep 0.1
		[ "$(host_has pages)" = "$before" ] || return 1
		i=$((i + 1))
	done
}

# As is_settled(), but without a program that is started: there are many steps.
module_is_quiet() {
	local backlog

	read -r backlog < "$SYSFS/stats/backlog_kb"
	status_is idle && stat_is isolated_kb 0 && [ "$backlog" -le "$most" ]
}

all_is_hinted() {
	if [ -n "$most" ]; then
		wait_for "the module to be done" module_is_quiet
	else
		wait_for "page_reporting to be done" reporting_is_quiet
	fi
}

# What is less than the watermarks notice too.
all_is_flushed() {
	[ -z "$most" ] || echo 1 > "$SYSFS/flush" || fail "flush" || return
	all_is_hinted
}

at_step() {
	[ "$(tail -n 1 $out)" = "$1" ]
}

shift_memory() { # STEPS FUNCTION: what is waited for after each
	local step=1

	while [ $step -le "$1" ]; do
		echo >&4
		wait_for "step $step" at_step $step && "$2" || return
		step=$((step + 1))
	done
}

# How much may lose its tag by merging with what others free, when nothing else goes on.

reported() { # PAGES: KiB that came again since the host had so many
	echo $((($(host_has again) - $1) * 4))
}

# What is free is reported, and has the host's mark; some of it was used before.
test_all_is_marked() {
	set_reporting_delay 100 && limit_pcp_lists && plug watch=1 || return
	echo $ORDER > $REPORTING_ORDER || fail "$REPORTING_ORDER" || return
	most=
	# It may seem to be done if page_reporting has no CPU for a second.
	memhog -T 512 && wait_for "128 MiB to be reported" host_has_at_least pages $((128 * 1024 / 4 + 1)) &&
	all_is_hinted && all_is_hinted || return
	[ "$(host_has pages)" -gt $((128 * 1024 / 4)) ] ||
		fail "only $(host_has pages) pages were reported"
}

# Page reporting's mark and the module's tag are two things: a new instance tells all.
test_the_module_hints_all() {
	local before kib

	has_series || skip "it is a kernel without page_hinting" || return
	before=$(host_has again)
	load_fresh && set_knob min_order $ORDER && wait_settled || return
	most=$(($(get low_watermark_kb) * $(nr_areas) + $(dma_kb) + 4096))
	all_is_flushed || return
	kib=$(reported "$before")
	[ "$kib" -ge $(($(buddy_kb) / 2)) ] || fail "only $kib KiB were hinted of $(buddy_kb) KiB" || return
	memhog -T 512 && all_is_hinted
}

# What has lost its tag before and is hinted only now would be taken for what loses it
# from now on. The module looks every two seconds for what is left.
nothing_is_left_over() {
	local before after

	read -r before < "$SYSFS/stats/backlog_kb"
	sleep 5
	read -r after < "$SYSFS/stats/backlog_kb"
	[ $((before - after)) -le 256 ]
}

begin() {
	[ -z "$most" ] || wait_for "no more to be hinted" nothing_is_left_over || return
	pages=$(host_has pages)
	again=$(host_has again)
	counted=
	[ -z "$most" ] || counted=$(get stats/rehinted_kb)
}

# The module counts what merged with memory that was not hinted; beside that there
# is what the per-CPU lists take and give back unused, a batch or two in each step.
end() { # WHAT STEPS
	again=$((($(host_has again) - again) * 4))
	pages=$((($(host_has pages) - pages) * 4))
	[ -z "$counted" ] || counted=$(($(get stats/rehinted_kb) - counted))
	ktap_print_msg "$1: $again of $pages KiB again${counted:+, rehinted_kb $counted}"
	[ -z "$counted" ] || [ "$again" -le $((counted + 4096 + $2 * 256)) ] ||
		fail "$1: $again KiB were hinted again, and rehinted_kb says $counted"
}

start() { # PROGRAM ARGUMENT...: its lines are in $out, it reads what 4 is written to
	local program="$DIR/$1"

	shift
	rm -f $out $out.in
	mkfifo $out.in || fail "mkfifo" || return
	"$program" "$@" < $out.in > $out &
	background=$!
	exec 4> $out.in
	wait_for "$program to be ready" test -s $out && all_is_hinted
}

stop() {
	exec 4>&-
	wait "$background"
	background=
	rm -f $out $out.in
}

# Each free half of a block is hinted before the other half is free too.
test_merge() {
	local kb

	start fragment 9 $MIB || return
	kb=$(cat $out)
	[ "$kb" -ge $((MIB * 1024 / 8)) ] || fail "only $kb KiB in free halves" || return
	begin || return
	stop
	all_is_hinted && end "halves of $kb KiB merge" 1 || return
	[ "$again" -ge $((kb / 2)) ] ||
		fail "$again KiB came again, when $kb KiB merged with what was not hinted"
}

# Each step gives back some memory and takes less than a block of other memory.
test_split() {
	start shift $OUT_KIB $IN_KIB $STEPS || return
	begin && shift_memory $STEPS all_is_hinted && end "$STEPS steps of $OUT_KIB KiB back and $IN_KIB KiB taken" $STEPS || return
	stop
	[ "$pages" -gt $OUT_KIB ] ||
		fail "$pages KiB were hinted after $((STEPS * OUT_KIB)) had been given back"
}

# Somebody takes some memory where all free memory is hinted, and gives it back: the rest
# of the blocks that were split is still hinted, until they merge again.
test_take_and_give_back() {
	start shift 0 $TAKEN_KIB $((TURNS * 2)) $MORE_KIB || return
	all_is_flushed && begin && shift_memory $((TURNS * 2)) all_is_flushed || return
	end "$TURNS times $((TAKEN_KIB / 1024)) MiB and more taken and given back" $((TURNS * 2)) || return
	stop
	[ "$pages" -ge $((TURNS * TAKEN_KIB * 3 / 4)) ] ||
		fail "$pages KiB were hinted after $((TURNS * TAKEN_KIB)) had been given back"
}

test_unplug() {
	echo 9 > $REPORTING_ORDER
	no_faults && unplug
}

run_tests \
	test_all_is_marked \
	test_the_module_hints_all \
	test_merge \
	test_split \
	test_take_and_give_back \
	test_unplug

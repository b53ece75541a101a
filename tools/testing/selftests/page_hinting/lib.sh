# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash source-path=SCRIPTDIR
#
# Helpers of the page_hinting selftests, for a POSIX shell such as busybox ash.
#
# A test file defines one function per behaviour, named test_*, and ends with
# "run_tests test_a test_b ...".  A function returns 0 if the behaviour is
# right; "fail TEXT" and "skip TEXT" say why and make the value for return.
# "xfail ISSUE test_a" before it marks a test that fails until ISSUE is closed.
#
# Environment:
#   PAGE_HINTING_KO     the module, default /lib/modules/page_hinting.ko
#   PAGE_HINTING_SYSFS  its directory, default /sys/kernel/mm/page_hinting
#   PAGE_HINTING_HOST   number of the open file that takes requests to the host
#   PAGE_HINTING_SOAK   1 for many more cycles of what can be repeated
#   PAGE_HINTING_SECONDS, PAGE_HINTING_SEED   how long fuzz.sh runs, and what
#                       its chance begins with
#   PAGE_HINTING_WAIT   longest wait in seconds, default 60: more for a busy or slow
#                       machine; every other limit of time grows with it
#   PAGE_HINTING_LAST   leave off after this test, such as "unload"

DIR=$(dirname "$(readlink -f "$0")")
if [ -r "$DIR/ktap_helpers.sh" ]; then
	# shellcheck source=/dev/null
	. "$DIR/ktap_helpers.sh"
else
	# shellcheck source=/dev/null
	. "$DIR/../kselftest/ktap_helpers.sh"
fi

KO=${PAGE_HINTING_KO:-/lib/modules/page_hinting.ko}
SYSFS=${PAGE_HINTING_SYSFS:-/sys/kernel/mm/page_hinting}
KNOBS="enabled min_order high_watermark_kb low_watermark_kb batch_kb
	hold_ms host_granule_kb flush_timeout_ms rehint_on_vmfork"
STATS="hinted_kb rehinted_kb offline_used_kb backlog_kb kept_kb isolated_kb isolated_peak_kb requests acks errors stalls ack_us_max wakeups rehints"
BALLOON=/sys/bus/virtio/drivers/virtio_balloon

# Longest waits in seconds.  A debug guest under TCG needs most of them, a
# release guest none: a wait ends as soon as what it waits for is there.
WAIT=${PAGE_HINTING_WAIT:-60}

# All other limits of time are for a WAIT of 60, and grow with it.
scaled() { # SECONDS
	echo $((($1 * WAIT + 59) / 60))
}

LAST=${PAGE_HINTING_LAST:-}

# --- verdicts ---

fail() { # TEXT
	ktap_print_msg "$*"
	return "$KSFT_FAIL"
}

skip() { # TEXT
	skip_reason=$*
	return "$KSFT_SKIP"
}

# "ISSUE test_NAME" of each test that is expected to fail, one a line.
expected_failures=

# Marks tests that fail until an issue is closed: such a failure is an XFAIL, and a
# pass is a failure, so that whoever closes the issue removes the mark.
xfail() { # ISSUE TEST...
	local issue=$1 t

	shift
	for t in "$@"; do
		expected_failures="$expected_failures
$issue $t"
	done
}

# The issue for which the test is expected to fail; fails if there is none.
expected_issue() { # TEST
	local issue t

	while read -r issue t; do
		[ "$t" != "$1" ] || {
			echo "$issue"
			return 0
		}
	done <<-END
		$expected_failures
	END
	return 1
}

# Prints the point of a test that ended with this status.
report() { # TEST STATUS
	local name=${1#test_} issue

	if [ "$2" = "$KSFT_SKIP" ]; then
		__ktap_test ok "$name" "SKIP $skip_reason"
		KTAP_CNT_SKIP=$((KTAP_CNT_SKIP + 1))
	elif issue=$(expected_issue "$1"); then
		if [ "$2" = "$KSFT_PASS" ]; then
			ktap_print_msg "$name passes, but is expected to fail until issue $issue is closed"
			ktap_test_fail "$name"
		else
			__ktap_test ok "$name" "XFAIL issue $issue"
			KTAP_CNT_XFAIL=$((KTAP_CNT_XFAIL + 1))
		fi
	elif [ "$2" = "$KSFT_PASS" ]; then
		ktap_test_pass "$name"
	else
		ktap_test_fail "$name"
	fi
}

# The tests as far as they are wanted: all, unless one of them is to be the last.
wanted() { # TEST...
	local t

	for t in "$@"; do
		echo "$t"
		[ "$t" != "test_$LAST" ] || return 0
	done
}

# Runs each test, then the check that none of them upset the kernel.
run_tests() { # TEST...
	local t ret

	# shellcheck disable=SC2046 # names
	set -- $(wanted "$@")
	ktap_print_header
	ktap_set_plan $(($# + 1))
	mark="page_hinting selftest $(basename "$0") $$"
	echo "$mark" > /dev/kmsg
	trap 'clean_up' EXIT
	trap 'exit 1' INT TERM
	for t in "$@" test_no_kernel_complaint; do
		skip_reason=
		ret=0
		"$t" || ret=$?
		report "$t" $ret
	done
	clean_up
	trap - EXIT
	ktap_finished
}

background=
# The process that holds contents, if any, and the file for what it says.
holder=
contents=/tmp/contents

# Ends what runs in the background.
end_background() {
	local pid

	for pid in $background; do
		kill "$pid" 2> /dev/null
		wait "$pid" 2> /dev/null
	done
	background=
}

# Ends what a test left running and takes the module out.
clean_up() {
	end_background
	let_contents_go
	# What sim_isolate.sh has allocated.
	exec 4>&-
	if sim_loaded; then
		sim_answer_all
	fi
	if loaded; then
		rmmod page_hinting
	fi
	if sim_loaded; then
		rmmod page_hinting_sim
	fi
	if [ -d "$VSIM" ]; then
		sim_host now
		rmmod page_hinting_virtio_sim
	fi
	[ "$(cat $PCP_FRACTION)" = 0 ] || echo 0 > $PCP_FRACTION
}

# --- what the kernel says ---

COMPLAINTS='WARNING|(^|[^A-Z])BUG|Oops|KASAN|UBSAN|KFENCE|possible circular|possible recursive|inconsistent lock|invalid wait context|suspicious RCU|scheduling while atomic|sleeping function|blocked for more than|soft lockup|detected stall|list_(add|del) corruption|Bad page|bad page|page_owner.*invalid|refcount_t:|Call Trace'

# The kernel log since run_tests began, all of it if the mark has been lost.
kernel_log() {
	dmesg | awk -v mark="$mark" '
		index($0, mark) { n = 0; next }
		{ line[n++] = $0 }
		END { for (i = 0; i < n; i++) print line[i] }'
}

no_complaint_in() { # LOG
	local found

	found=$(printf '%s\n' "$1" | grep -E "$COMPLAINTS" | head -n 5)
	[ -z "$found" ] || fail "kernel log: $found"
}

# Out-of-tree (4096), unsigned (8192), and in a guest whose module carries
# KUnit tests, "an in-kernel test was run" (262144) are all there may be.
no_taint() {
	local taint

	# Not by "read", which takes one byte at a time: a sysctl gives no second.
	taint=$(cat /proc/sys/kernel/tainted)
	[ $((taint & ~(4096 | 8192 | 262144))) -eq 0 ] ||
		fail "the kernel is tainted: $taint"
}

# A kernel with CONFIG_PAGE_HINTING_DEBUG compares lists, tags and counters.
lists_agree() {
	local file=/sys/kernel/debug/page_hinting_check said

	# dmesg.sh finds a debug guest without it.
	[ -e $file ] || return 0
	said=$(cat $file)
	[ "$said" = ok ] || fail "$file: $said"
}

test_no_kernel_complaint() {
	lists_agree && no_complaint_in "$(kernel_log)" && no_taint
}

# --- the module ---

loaded() {
	grep -q '^page_hinting ' /proc/modules
}

nothing_left() {
	if loaded || [ -e "$SYSFS" ]; then
		fail "the module or $SYSFS is there"
	fi
}

# Most tests want to see all that is free hinted at once, however often it was
# used before, and tags in halves of a host's page. Who does not sets this to 1.
all_defaults=

load() {
	local errno

	errno=$("$DIR/finit_module" "$KO") || return 1
	[ "$errno" = ok ] || fail "loading $KO: $errno" || return
	# How long a flush takes is up to the machine: what it hints is what counts.
	[ -n "$all_defaults" ] ||
		{ set_knob hold_ms 0 && set_knob host_granule_kb 4 &&
		set_knob flush_timeout_ms $((WAIT * 1000)); }
}

unload() {
	rmmod page_hinting || fail "rmmod failed"
}

# Leaves a module that was loaded now, with every knob as load() leaves it.
load_fresh() {
	if loaded; then
		unload || return 1
	fi
	load
}

get() { # FILE, such as status or stats/hinted_kb
	local value=

	# No program: under TCG, to start one costs more than to wait.
	read -r value < "$SYSFS/$1"
	echo "$value"
}

set_knob() { # NAME VALUE
	local errno

	errno=$("$DIR/sysfs_write" "$SYSFS/$1" "$2")
	[ "$errno" = ok ] || fail "$1: writing '$2' gives $errno"
}

expect() { # WHAT VALUE EXPECTED
	[ "$2" = "$3" ] || fail "$1 is '$2', expected '$3'"
}

# --- waiting ---

# Sets $now to the seconds since boot; starts no program.
get_now() {
	read -r now _ < /proc/uptime
	now=${now%.*}
}

# Waits until the command succeeds; says what it waited for if it never did.
wait_for() { # WHAT COMMAND...
	local what="$1" now end

	shift
	get_now
	end=$((now + WAIT))
	until "$@"; do
		get_now
		if [ "$now" -ge "$end" ]; then
			fail "waited $WAIT s for $what"
			show_state
			return 1
		fi
		sleep 0.1
	done
}

# Sets $took to the seconds that a command takes; fails if it does.
seconds() { # COMMAND...
	local begin

	get_now
	begin=$now
	"$@" || return
	get_now
	took=$((now - begin))
}

# Runs a test whose exact counts other users of memory may spoil, up to three times: a fault
# fails each time. It ends at once with any other status than that of fail.
a_few_times() { # COMMAND...
	local try=1 ret

	while :; do
		ret=0
		"$@" || ret=$?
		[ $ret -eq "$KSFT_FAIL" ] && [ $try -lt 3 ] || return $ret
		try=$((try + 1))
		ktap_print_msg "once more, as others may have used or freed memory meanwhile: try $try"
	done
}

took_at_most() { # SECONDS, for a WAIT of 60, WHAT
	[ "$took" -le "$(scaled "$1")" ] || fail "$2 took $took s, expected $(scaled "$1") at most"
}

show_state() {
	local f

	[ -d "$SYSFS" ] || return 0
	for f in $KNOBS status; do
		ktap_print_msg "  $f: $(get "$f")"
	done
	for f in $STATS; do
		ktap_print_msg "  stats/$f: $(get "stats/$f")"
	done
}

status_is() { # WORD, the first of the status
	local value

	read -r value _ < "$SYSFS/status"
	[ "$value" = "$1" ]
}

status_is_not() { # WORD
	! status_is "$1"
}

stat_is() { # NAME VALUE
	local value

	read -r value < "$SYSFS/stats/$1"
	[ "$value" = "$2" ]
}

stat_at_least() { # NAME VALUE
	local value

	read -r value < "$SYSFS/stats/$1"
	[ "$value" -ge "$2" ]
}

is_settled() {
	local requests acks errors backlog

	status_is idle && stat_is isolated_kb 0 || return
	read -r requests < "$SYSFS/stats/requests"
	read -r acks < "$SYSFS/stats/acks"
	read -r errors < "$SYSFS/stats/errors"
	read -r backlog < "$SYSFS/stats/backlog_kb"
	[ "$requests" -eq $((acks + errors)) ] && [ "$backlog" -le "$unhinted" ]
}

# Nothing is out, and what is free and not hinted is what may be: the low
# watermark's reserve in each free area, what zone DMA is too small to spare,
# and a little that comes and goes.  And it stays so for longer than the module
# waits for what may still merge.
wait_settled() {
	local unhinted

	unhinted=$(($(get low_watermark_kb) * $(nr_areas) + $(dma_kb) + 4096))
	wait_for "the module to hint all and be idle" stays_settled
}

stays_settled() {
	is_settled && sleep 0.15 && is_settled
}

# How long hinting may take to go on by itself once what kept it from that is over, in
# seconds for a WAIT of 60. A tenth of it is usual; a debug guest on a busy machine takes longer.
GOES_ON=10
[ ! -e /sys/kernel/debug/page_hinting_check ] || GOES_ON=30

# Like wait_for, of what the module does by itself after a fault: it does so in time, and
# how long it took is printed.
goes_on() { # WHAT COMMAND...
	local up begin took

	read -r up _ < /proc/uptime
	begin=${up%.*}${up#*.}
	wait_for "$@" || return
	read -r up _ < /proc/uptime
	took=$((${up%.*}${up#*.} - begin))
	ktap_print_msg "after $((took / 100)).$((took / 10 % 10)) s: $1"
	[ $took -le $(($(scaled "$GOES_ON") * 100)) ] || fail "that took more than $(scaled "$GOES_ON") s"
}

# Memory is used and freed again: fresh it is zero, and what is written to it stays.
verify_memory() { # MIB
	"$DIR/zerocheck" "$1" > /tmp/verified 2>&1 < /dev/null ||
		fail "zerocheck $1: status $?, $(cat /tmp/verified)"
}

# Memory that is freed now is hinted, beside what was out before; the second time it is
# used while it may be on its way.
hints_freed() { # MIB
	local want

	want=$(($(get stats/hinted_kb) + $(get stats/isolated_kb) + $1 * 512))
	verify_memory "$1" && verify_memory "$1" &&
	goes_on "hinted_kb of $want" stat_at_least hinted_kb $want
}

requests_are_acked() {
	[ "$(get stats/acks)" -eq "$(get stats/requests)" ]
}

# --- the host ---

# Asks what runs the guest for something (the lab: see serve() in its qemu.rs;
# most requests are commands of QEMU's human monitor), and prints its answer.
host() { # REQUEST...
	local answer=

	printf '{"event":"host","request":"%s"}\n' "$*" >&"$PAGE_HINTING_HOST"
	# An empty line may have been sent to wake the guest.
	while [ -z "$answer" ]; do
		# shellcheck disable=SC3045 # busybox has it
		read -r -t $((WAIT * 4)) answer <&"$PAGE_HINTING_HOST" ||
			fail "no answer to: host $*" || return
	done
	case $answer in
	ok*)
		answer=${answer#ok}
		[ -z "$answer" ] || echo "${answer# }" ;;
	*)
		fail "host $*: $answer" ;;
	esac
}

# The lab's port, a virtio port or a serial one, is here.
booted_by_lab() {
	grep -qs '^org.page_hinting.lab$' /sys/class/virtio-ports/*/name ||
		grep -q 'lab\.port=' /proc/cmdline
}

# For a test that needs the host. A guest of the lab always has it.
need_host() {
	[ -z "$PAGE_HINTING_HOST" ] || return 0
	if booted_by_lab; then
		fail "the lab takes no requests: PAGE_HINTING_HOST is not set"
	else
		skip "the host takes no requests (PAGE_HINTING_HOST)"
	fi
}

# Guest RAM in KiB that is resident on the host; where that fails, the reason.
resident_kb() {
	host resident
}

# Sets $resident, which must have fallen to LIMIT_KB.
resident_at_most() { # LIMIT_KB
	resident=$(resident_kb) && [ "$resident" -le "$1" ]
}

# Of FREED_KB that the guest has freed, the host has PERCENT again. BEFORE_KB was
# resident just before, while all of it was in use.
returned() { # PERCENT FREED_KB BEFORE_KB
	local resident='' limit=$(($3 - $2 * $1 / 100))

	wait_for "$1 % of $(($2 / 1024)) MiB to be returned to the host" resident_at_most $limit ||
		fail "resident guest RAM went from $3 to $resident KiB, expected $limit at most" || return
	ktap_print_msg "resident guest RAM went from $(($3 / 1024)) to $((resident / 1024)) MiB," \
		"$(($2 / 1024)) MiB were freed"
}

# What the guest has, as the host sees it.
actual_mib() {
	host info balloon | sed -n 's/.*actual=\([0-9]*\).*/\1/p'
}

balloon_is() { # MIB
	[ "$(actual_mib)" = "$1" ]
}

set_balloon() { # MIB, which the guest is to have
	host balloon "$1" && wait_for "the guest to have $1 MiB" balloon_is "$1"
}

# From now on memory is used and freed all the time, until end_background.
use_memory() {
	while :; do
		"$DIR/memhog" -t 128
		"$DIR/memhog" -T 32
	done < /dev/null > /dev/null 2>&1 &
	background="$background $!"
}

hints_more() { # MIB [goes_on]
	local want

	want=$(($(get stats/hinted_kb) + $1 * 1024))
	"${2:-wait_for}" "another $1 MiB to be hinted" stat_at_least hinted_kb $want
}

# For a test of a restart: memory is used and freed all the time, and much of it is
# hinted by now, blocks of every order.
hint_all_the_time() {
	load_fresh && set_knob min_order 0 || return
	use_memory
	hints_more 256
}

# For a test of what the host does to the whole guest: blocks of every order are hinted,
# and what memory there is is known, with the contents of some of it.
before_the_host_acts() { # MIB
	need_host || return
	drop_caches
	load_fresh && set_knob min_order 0 && wait_settled && take_stock && hold_contents "$1"
}

# And what must hold after it, when nobody uses memory any more.
all_is_there_again() {
	end_background
	wait_for "all who used memory to end" no_memhog && wait_settled && nothing_is_lost &&
	counts_agree && wait_for "an ack for each request" requests_are_acked
}

total_kb() {
	awk '/^MemTotal:/ { print $2 }' /proc/meminfo
}

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

# For a test that goes over to a fresh kernel, which is told how much memory this one has.
prepare_kexec() {
	copy_disk kernel /tmp/kernel && copy_disk initramfs /tmp/initramfs || return
	"$DIR/kexec" /tmp/kernel /tmp/initramfs "$(cat /proc/cmdline) lab.total_kb=$(total_kb)" ||
		fail "the kernel is not loaded" || return
	rm /tmp/kernel /tmp/initramfs
}

# In the guest after it: all memory of the one before is managed, but for what a longer
# command line may take; all that is free can be used, and nobody discards it then.
test_the_fresh_kernel_has_all_memory() {
	local before word mib resident less

	before=
	# shellcheck disable=SC2013 # words
	for word in $(cat /proc/cmdline); do
		case $word in
		lab.total_kb=*) before=${word#*=} ;;
		esac
	done
	ktap_print_msg "MemTotal is $(total_kb) KiB, and was $before"
	less=$((before - $(total_kb)))
	[ $less -ge -64 ] && [ $less -le 64 ] || fail "MemTotal is $less KiB less" || return
	mib=$(spare_mib)
	hold_contents "$mib" && sleep 1 && resident=$(host resident) || return
	ktap_print_msg "$((resident / 1024)) MiB are resident, with $mib that are used"
	contents_are_right
}

# In the guest after it: nothing is left of the module, and all begins anew.
test_hints_after_the_restart() {
	nothing_left && load && set_knob min_order 0 && hints_freed 128 && take_stock &&
	hold_contents 64 && hints_freed 128 && contents_are_right && nothing_is_lost && wait_settled
}

# --- memory ---

# QEMU's balloon discards nothing of a guest that poisons its free pages.
need_discards() {
	! grep -q 'page_poison=1' /proc/cmdline ||
		skip "QEMU discards nothing of a guest that poisons free pages"
}

# Memory that is used is resident on the host; once it is freed, the host has it again.
gives_back() { # MIB
	local holder='' contents=/tmp/given before

	need_host && need_discards && wait_settled && hold_contents "$1" || return
	before=$(resident_kb) || fail "${before#\# }" || return
	contents_are_right && returned 90 $(($1 * 1024)) "$before"
}

memhog() { # ARGUMENT...: touches memory and frees it again at once
	"$DIR/memhog" "$@" < /dev/null > /dev/null || fail "memhog $*: status $?"
}

# Uses and frees memory until the module knows that it recurs, and keeps it. How many turns
# that takes is up to how often the thread runs.
keep_loop() { # MIB [WRAPPER...]
	wait_for "the memory of a loop to be kept" loops_and_is_kept "$@"
}

loops_and_is_kept() { # MIB [WRAPPER...]
	local mib=$1

	shift
	"$@" "$DIR/memhog" -t "$mib" < /dev/null > /dev/null || fail "memhog: status $?" || return
	keeps "$mib"
}

keeps() { # MIB, or half of it at least
	stat_at_least kept_kb $(($1 * 512)) && status_is paced
}

no_memhog() {
	! pidof memhog > /dev/null
}

# Starts to hold memory with known contents, until contents_are_right, in the same test
# or in another.
hold_contents() { # MIB [WRAPPER...]
	# A slow guest needs a second for 32 MiB.
	local mib=$1 WAIT=$((WAIT + $1 / 32))

	shift
	let_contents_go
	"$@" "$DIR/zerocheck" -s 86400 "$mib" > "$contents" 2>&1 < /dev/null &
	holder=$!
	# All of it is allocated and written once the process sleeps.
	wait_for "zerocheck to hold $mib MiB" holds "$mib" || fail "zerocheck: $(cat "$contents")"
}

let_contents_go() {
	[ -n "$holder" ] || return 0
	kill "$holder" 2> /dev/null
	wait "$holder" 2> /dev/null
	holder=
}

holds() { # MIB
	local rss

	rss=$(awk '/^VmRSS:/ { print $2 }' "/proc/$holder/status" 2> /dev/null) &&
	[ "${rss:-0}" -ge $(($1 * 1024)) ] && grep -q '^State:.*sleeping' "/proc/$holder/status"
}

contents_are_right() {
	local ret=0

	[ -n "$holder" ] || fail "nobody holds any contents" || return
	kill -USR1 "$holder"
	wait "$holder" || ret=$?
	holder=
	[ $ret -eq 0 ] || fail "zerocheck: status $ret, $(cat "$contents")"
}

# The last test of a file whose first test holds some.
test_contents_stay() {
	contents_are_right
}

nr_areas() { # free areas of at least min_order, in all zones
	awk -v min="$(get min_order)" '/^ *managed/ && $2 > 0 { n += 11 - min } END { print n + 0 }' \
		/proc/zoneinfo
}

# Free memory in KiB, with what the per-CPU lists hold and MemFree leaves out.
free_kb() {
	awk '/^ *count:/ { n += $2 } /^  pages free/ { n += $3 } END { print n * 4 }' \
		/proc/zoneinfo
}

# The same from the counters of the free areas, without the per-CPU lists.
buddy_kb() { # [ZONE]
	awk -v zone="$1" 'zone == "" || $4 == zone {
		kb = 4; for (i = 5; i <= NF; i++) { n += $i * kb; kb *= 2 } }
		END { print n + 0 }' /proc/buddyinfo
}

dma_kb() {
	buddy_kb DMA
}

# Free memory in KiB that is in blocks below 2 MiB, and used up first by small pages.
small_kb() {
	awk '{ kb = 4; for (i = 5; i < 14; i++) { n += $i * kb; kb *= 2 } } END { print n + 0 }' \
		/proc/buddyinfo
}

# What a flush may leave: what zone DMA is too small to spare, and blocks of 2 MiB that have
# merged since, of what programs free as they end.
after_flush_kb() {
	echo $(($(dma_kb) + 16384))
}

# Memory in MiB that a test can take without the guest getting short of it.
spare_mib() {
	local kb

	kb=$(awk '/^MemFree:/ { print $2 }' /proc/meminfo)
	echo $(((kb - kb / 16) / 1024 - 64))
}

# Memory in KiB that is free or in a use that the kernel counts: unlike free memory
# alone it stays the same when slabs grow, or KASAN keeps what was freed. What is out
# for hinting is in none of these.
accounted_kb() {
	# The processors' own shares of the counts are added.
	cat /proc/sys/vm/stat_refresh > /dev/null
	awk '
		/^ *count:/ { pages += $2 }
		/^  pages free/ { pages += $3 }
		/^nr_(anon_pages|file_pages|slab_reclaimable|slab_unreclaimable) / { pages += $2 }
		/^nr_(page_table_pages|sec_page_table_pages|vmalloc) / { pages += $2 }
		/^Percpu:/ { kb = $2 }
		END { print pages * 4 + kb }' /proc/zoneinfo /proc/vmstat /proc/meminfo
}

# Before what may lose memory, with nothing out for hinting.
take_stock() {
	if loaded; then
		wait_settled || return
	fi
	stock=$(accounted_kb)
	wait_for "a steady count of all memory" stock_is_steady
}

# The thread counts what was with a device that went.
requests_are_over() {
	[ $(($(get stats/errors) + $(get stats/acks))) -eq "$(get stats/requests)" ]
}

# Pages that go from one kind to another in between are missed, or counted twice.
stock_is_steady() {
	local before=$stock

	stock=$(accounted_kb)
	before=$((stock - before))
	# The module may have found some more meanwhile, and what is out is not counted.
	[ ${before#-} -le 512 ] && { ! loaded || stat_is isolated_kb 0; }
}

# What nobody counts moves by a MiB; a huge page of zeros comes and goes as well.
SLACK_KB=6144
# Guard pages are neither free nor used, and come with small allocations.
! grep -q debug_guardpage_minorder /proc/cmdline || SLACK_KB=131072

is_as_much() {
	local more

	more=$(($(accounted_kb) - stock))
	[ ${more#-} -le $SLACK_KB ]
}

# Right samples in a row that a test wants of a count with noise: memory that is lost
# under noise of the other sign looks right once, and not so many times.
SAMPLES=4

is_steadily() { # COMMAND...
	local i=0

	while [ $i -lt $SAMPLES ]; do
		"$@" || return
		i=$((i + 1))
		[ $i -eq $SAMPLES ] || sleep 0.1
	done
}

# All memory is accounted for as when stock was taken, and none of it twice.
nothing_is_lost() {
	wait_for "all memory to be accounted for" is_steadily is_as_much ||
		fail "$(accounted_kb) KiB are accounted for, $stock were"
}

# Freed pages may stay in the per-CPU lists for seconds, many MiB of them, where
# nobody can hint them.  This keeps the lists at about a MiB until clean_up.
PCP_FRACTION=/proc/sys/vm/percpu_pagelist_high_fraction

limit_pcp_lists() {
	echo 100000 > $PCP_FRACTION || fail "$PCP_FRACTION" || return
	wait_for "the per-CPU lists to shrink" pcp_lists_are_short
}

pcp_lists_are_short() {
	awk '/^ *count:/ { n += $2 } END { exit n > 2048 }' /proc/zoneinfo
}

drop_caches() {
	sync
	echo 3 > /proc/sys/vm/drop_caches
}

# --- the free lists ---

# Free memory, counted in three ways, of each zone: the blocks that are on the
# lists (pagetypeinfo), the counters of the free areas (buddyinfo), and the zone's
# own of pages. Prints what differs; fails if there is nothing to compare.
# shellcheck disable=SC2016 # it is for awk
COUNTS='
	FNR == 1 { file++ }
	file == 1 && /^Node.*type/ {
		gsub(",", "")
		for (i = 7; i <= NF; i++)
			listed[$2 " " $4, i - 7] += $i
	}
	file == 2 {
		gsub(",", "")
		zone = $2 " " $4
		zones++
		size = 1
		for (i = 5; i <= NF; i++) {
			counted[zone] += $i * size
			size *= 2
			if ($i != listed[zone, i - 5])
				print "node " zone ", order " i - 5 ": " \
					listed[zone, i - 5] " listed, " $i " counted"
		}
	}
	file == 3 && /^Node/ { gsub(",", ""); zone = $2 " " $4 }
	file == 3 && /^  pages free/ { free = $3 }
	file == 3 && /^ *managed/ && $2 > 0 {
		managed++
		if (free != counted[zone])
			print "node " zone ": " free " pages free, " \
				counted[zone] " counted"
	}
	END { exit !zones || zones != managed }'

counts_are_equal() {
	# Brings what each CPU has counted by itself to the zones.
	read -r _ < /proc/sys/vm/stat_refresh
	differs=$(awk "$COUNTS" /proc/pagetypeinfo /proc/buddyinfo /proc/zoneinfo) ||
		differs="no zones, or not the same in all files" || return
	[ -z "$differs" ]
}

# The files can't be read at one moment: equal sets are waited for, three of them. In a busy
# guest they need not come in a row, and chance does not make each order of each zone equal.
counts_agree() {
	right=0
	wait_for "the counts of free memory to agree" counts_are_equal_again || fail "$differs"
}

counts_are_equal_again() {
	counts_are_equal && right=$((right + 1)) && [ "$right" -ge 3 ]
}

# Pageblocks of a type, such as Isolate, in all zones.
pageblocks() { # TYPE
	awk -v type="$1" '
		/^Number of blocks type/ {
			for (i = 5; i <= NF; i++)
				if ($i == type)
					column = i
			next
		}
		/^Node.*type/ { column = 0 }
		column && /^Node/ { n += $column }
		END { print n + 0 }' /proc/pagetypeinfo
}

# Sets $pages, and of these $buddy, $buddy_offline, $offline (and not Buddy),
# $hwpoison and $hwpoison_buddy; see kpageflags.c.
count_flags() { # [ARGUMENT...]
	local counts

	counts=$("$DIR/kpageflags" "$@") || fail "kpageflags $*" || return
	# shellcheck disable=SC2034 # the tests use them
	read -r pages buddy buddy_offline offline hwpoison hwpoison_buddy <<-END
		$counts
	END
}

# All of it is free, and the host knows.
range_is_offline() { # FIRST NUMBER
	count_flags "$@" && [ "$pages" -eq "$2" ] && [ "$buddy_offline" -eq "$2" ]
}

# All of it is free, and the host does not know.
range_is_unhinted() { # FIRST NUMBER
	count_flags "$@" && [ "$buddy" -eq "$2" ] && [ "$buddy_offline" -eq 0 ]
}

# Pages of all free blocks that are tagged Offline, by the module's table.
offline_pages() {
	awk '!/^#/ { n += $9 } END { print n / 4 }' /sys/kernel/debug/page_hinting/zones
}

# --- tracing ---

TRACING=/sys/kernel/tracing

# The trace is empty and nothing is traced.
trace_nothing() {
	[ -e $TRACING/trace ] || mount -t tracefs tracing $TRACING || fail "no tracefs" || return
	echo 0 > $TRACING/events/enable && echo > $TRACING/trace
}

# Begins or ends to trace an event, if a process meets the condition. 0 is none.
trace_event() { # EVENT 0|1 [FILTER]
	if ! echo "${3:-0}" > "$TRACING/events/$1/filter" || ! echo "$2" > "$TRACING/events/$1/enable"; then
		fail "event $1"
	fi
}

# --- the balloon device ---

balloon_device() { # prints the name of the bound device, such as virtio0
	local d

	for d in "$BALLOON"/virtio*; do
		[ -e "$d" ] && basename "$d"
	done
}

unbind() { # DEVICE
	echo "$1" > "$BALLOON/unbind" || fail "unbind of $1"
}

bind() { # DEVICE
	echo "$1" > "$BALLOON/bind" || fail "bind of $1"
}

# How long page reporting waits after a free.
set_reporting_delay() { # MS
	echo "$1" > /sys/module/page_reporting/parameters/page_reporting_delay_ms ||
		fail "page_reporting_delay_ms of $1"
}

# Interrupts that the balloon device has raised since boot.
balloon_interrupts() { # DEVICE
	awk -v dev="$1" '
		$0 ~ ("[ ,]" dev "([-,]|$)") {
			for (i = 2; i <= NF && $i ~ /^[0-9]+$/; i++)
				n += $i
		}
		END { print n + 0 }' /proc/interrupts
}

# Nothing moves for a second: what was to be reported has been.
balloon_is_quiet() { # DEVICE
	local before

	before=$(balloon_interrupts "$1")
	sleep 1
	[ "$(balloon_interrupts "$1")" -eq "$before" ]
}

balloon_interrupts_above() { # DEVICE NUMBER
	[ "$(balloon_interrupts "$1")" -gt "$2" ]
}

# --- the simulated host, see sim/page_hinting_sim.c ---

SIM_KO=${PAGE_HINTING_SIM_KO:-/lib/modules/page_hinting_sim.ko}
SIM=/sys/kernel/debug/page_hinting_sim
SIM_PARAMETERS=/sys/module/page_hinting_sim/parameters

sim_loaded() {
	grep -q '^page_hinting_sim ' /proc/modules
}

sim_load() { # PARAMETER=VALUE...
	if sim_loaded; then
		sim_unload || return
	fi
	insmod "$SIM_KO" "$@" || fail "insmod $SIM_KO $*"
}

sim_unload() {
	rmmod page_hinting_sim || fail "rmmod page_hinting_sim failed"
}

sim_set() { # PARAMETER VALUE
	echo "$2" > "$SIM_PARAMETERS/$1" || fail "$SIM_PARAMETERS/$1 of $2"
}

sim_get() { # COUNTER
	local value=

	read -r value < "$SIM/$1"
	echo "$value"
}

sim_at_least() { # COUNTER VALUE
	[ "$(sim_get "$1")" -ge "$2" ]
}

sim_is() { # COUNTER VALUE
	[ "$(sim_get "$1")" = "$2" ]
}

# Whether the range may be allocated now is said by the errno.
sim_contig() { # FIRST NUMBER [MS]: see contig in page_hinting_sim.c
	"$DIR/sysfs_write" $SIM/contig "$*"
}

# Pages of an order-10 block, and of its halves, which are pageblocks.
BLOCK=1024
HALF=$((BLOCK / 2))

# Allocates so many of them and frees them again. There is none larger, so that what is not
# hinted is used first.
sim_blocks() { # NUMBER movable|unmovable
	local i=0

	[ -w $SIM/blocks ] || fail "no $SIM/blocks" || return
	exec 5> $SIM/blocks
	while [ $i -lt "$1" ]; do
		printf '10 %s' "$2" >&5 || fail "block $i of order 10 is not to be had" || break
		i=$((i + 1))
	done
	exec 5>&-
	[ $i -eq "$1" ]
}

# Tries, where the host has to answer while somebody waits for it: how long the
# machine takes meanwhile is not up to the test. A busy one may be late each second time.
TRIES=10

# No more than one such block is out at a time.
one_block_at_a_time() {
	load_with_sim mode=now && wait_settled && set_knob min_order 10 &&
	set_knob batch_kb $((BLOCK * 4))
}

# Memory is used and freed, so much that it is not only of smaller blocks that are
# free, whose other halves are in use.
frees_a_block() {
	memhog -t 384 && sim_is in_flight_kb $((BLOCK * 4))
}

# Then the host, which is silent, has one block. Sets $block to its first page.
# What is submitted later is answered at once.
hold_range() {
	local count

	sim_answer_all && wait_settled && sim_set mode never &&
	wait_for "a block with the host" frees_a_block || return
	# shellcheck disable=SC2034 # for who calls
	read -r block count < $SIM/held
	expect "pages with the host" "$count" $BLOCK && sim_set mode now
}

in_cma() { # FIRST NUMBER
	local dir first count

	for dir in /sys/kernel/debug/cma/*/; do
		[ -r "$dir/base_pfn" ] || continue
		read -r first < "$dir/base_pfn"
		read -r count < "$dir/count"
		if [ $(($1 + $2)) -gt "$first" ] && [ "$1" -lt $((first + count)) ]; then
			return 0
		fi
	done
	return 1
}

# An order-10 block of no CMA area, which alloc_contig_range() would refuse.
hold_block() {
	local tries=0

	while [ $tries -lt $TRIES ]; do
		hold_range || return
		in_cma "$block" $BLOCK || return 0
		tries=$((tries + 1))
	done
	fail "each of $TRIES blocks was of a CMA area"
}

# --- memory hot-remove ---

MEMORY=/sys/devices/system/memory

memory_state() { # STATE: prints the errno
	"$DIR/sysfs_write" "$memory/state" "$1"
}

# Finds memory that can be offlined and leaves it so: sets $memory to its
# directory, and $first and $number to its pages.
find_memory() {
	local dir index

	read -r number < $MEMORY/block_size_bytes
	number=$((0x$number / 4096))
	for dir in $(printf '%s\n' $MEMORY/memory[0-9]* | sort -r -t y -k 4n); do
		read -r index < "$dir/phys_index"
		first=$((0x$index * number))
		memory=$dir
		if ! in_cma $first $number && [ "$(memory_state offline)" = ok ]; then
			return
		fi
	done
	memory=
	fail "no memory can be offlined"
}

# --- memory failure ---

HWPOISON=/sys/kernel/debug/hwpoison

need_hwpoison() {
	[ -d $HWPOISON ] || skip "this kernel has no hwpoison-inject"
}

corrupted_kb() {
	awk '/^HardwareCorrupted:/ { print $2 }' /proc/meminfo
}

# A page in the second half of the block.
poison_page() {
	page=$((block + HALF + 5))
	"$DIR/sysfs_write" $HWPOISON/corrupt-pfn $page > /dev/null
	count_flags "$page" 1 && expect "the page, poisoned" "$hwpoison" 1 &&
	expect HardwareCorrupted "$(corrupted_kb)" 4
}

unpoison() {
	expect "unpoisoning" "$("$DIR/sysfs_write" $HWPOISON/unpoison-pfn "$page")" ok &&
	expect HardwareCorrupted "$(corrupted_kb)" 0 &&
	count_flags "$page" 1 && expect "the page, poisoned" "$hwpoison" 0
}

# From now on the host answers at once, and what it has as well.
sim_answer_all() {
	sim_set mode now && echo 0 > $SIM/release
}

# The module is loaded anew, with a host of its own from the start, so that the
# counters of the two are of the same requests; any free block wakes it.
load_with_sim() { # PARAMETER=VALUE...
	if sim_loaded; then
		sim_answer_all && sim_unload || return
	fi
	load_fresh && set_knob high_watermark_kb 4 && sim_load "$@"
}

# What the host says of the requests is what the module says. Each read of a
# file frees memory that may be hinted at once, so the two may be of different
# moments; they agree as soon as they are of the same one.
sim_counts_agree() {
	wait_for "the counts of host and module to agree" sim_counts_are_equal ||
		fail "acks, hinted_kb, errors, requests, KiB with the host: $sim_says; the module: $module_says"
}

sim_counts_are_equal() {
	sim_says="$(sim_get acked) $(sim_get acked_kb) $(sim_get errors) \
		$(($(sim_get submitted) + $(sim_get errors))) $(sim_get in_flight_kb)"
	module_says="$(get stats/acks) $(get stats/hinted_kb) $(get stats/errors) \
		$(get stats/requests) 0"
	[ "$sim_says" = "$module_says" ]
}

all_is_with_the_host() {
	[ "$(sim_get in_flight_kb)" -eq "$(get stats/isolated_kb)" ]
}

# Nobody has used a block that was with the host.
sim_nothing_corrupted() {
	expect "words written to while the host had them" "$(sim_get corrupted)" 0
}

# --- the simulated balloon ---

# Its module, see virtio_sim/: insmod is the plugging of the device.
VSIM_KO=${PAGE_HINTING_VIRTIO_SIM_KO:-/lib/modules/page_hinting_virtio_sim.ko}
VSIM=/sys/module/page_hinting_virtio_sim/parameters
VSIM_STATS=/sys/kernel/debug/page_hinting_virtio_sim

plug() { # parameter=value...
	insmod "$VSIM_KO" "$@" || fail "insmod $VSIM_KO" || return
	device=$(balloon_device)
	[ -n "$device" ] || fail "no driver for the simulated balloon"
}

unplug() {
	rmmod page_hinting_virtio_sim || fail "rmmod page_hinting_virtio_sim"
}

sim_host() { # MODE [DELAY_MS]: what the host does with a request
	if [ $# -gt 1 ]; then
		echo "$2" > $VSIM/delay_ms || fail "a delay of $2" || return
	fi
	echo "$1" > $VSIM/mode || fail "a host that answers $1"
}

host_has() { # NAME: one of the host's counters
	local value

	read -r value < "$VSIM_STATS/$1"
	echo "$value"
}

host_has_at_least() { # NAME VALUE
	[ "$(host_has "$1")" -ge "$2" ]
}

host_has_nothing() {
	[ "$(host_has in_flight)" -eq 0 ]
}

# The host's counts and the module's, of a device that had no reset since the module
# was loaded. They agree as soon as they are of one moment: see sim_counts_agree.
host_counts_agree() {
	wait_for "the counts of host and module to agree" host_counts_are_equal ||
		fail "requests, acks, in flight, hinted KiB with the host: $host_says; the module: $module_says"
}

host_counts_are_equal() {
	local requests acks

	requests=$(get stats/requests)
	acks=$(get stats/acks)
	host_says="$(host_has requests) $(host_has answered) $(host_has in_flight)"
	host_says="$host_says $(($(host_has pages) * 4))"
	module_says="$requests $acks $((requests - acks))"
	module_says="$module_says $(($(get stats/hinted_kb) + $(get stats/isolated_kb)))"
	[ "$host_says" = "$module_says" ]
}

# What the driver did that no driver may do; the kernel log says what it was.
no_faults() {
	expect "faults that the host saw" "$(host_has faults)" 0
}

# What is out of a zone is bounded by its size: enough memory to be freed in each.
spill_mib() {
	awk '/^Node/ { normal = $4 == "Normal" }
		/^ *managed/ && normal { pages += $2 }
		END { print int(pages / 256) + 256 }' /proc/zoneinfo
}

# With a silent host: many times what a check for lost memory can overlook.
STALLED_KB=24576

# The module is loaded, and has given the host what it may have, which does not
# answer: first one request, of what one zone has freed, and then from each zone what
# there may be.
stall() {
	sim_host never && memhog -t 64 &&
	wait_for "the host to have something" host_has_at_least in_flight 1 &&
	memhog -t "$(spill_mib)" &&
	wait_for "$STALLED_KB KiB to be out" stat_at_least isolated_kb $STALLED_KB &&
	wait_for "a second request" host_has_at_least in_flight 2 &&
	wait_for "status stalled" is_stalled
}

# page_reporting has handed a report to the host, which does not answer. Much of it:
# what was used before the device came was never reported.
stall_page_reporting() {
	memhog -t "$(spill_mib)" && set_reporting_delay 100 && plug mode=never &&
	wait_for "page_reporting to report $STALLED_KB KiB" \
		host_has_at_least pages $((STALLED_KB / 4)) && host_has_at_least in_flight 1
}

# The guest reboots while somebody waits for a silent host, which COMMAND brings about.
# PART is "again" in the guest after it.
restart_while_silent() { # PART COMMAND...
	part=$1
	shift
	need_host || {
		run_tests need_host
		exit
	}
	[ "$part" != again ] || return
	"$@" && host restarts || return
	# In the background, as nothing ends a task that waits in the kernel.
	reboot -f &
	sleep "$WAIT"
	fail "the guest does not go down"
}

# The plan is for the second part: the first gives one only if there will be none.
test_restarts_and_hints() {
	[ "$part" = again ] || fail "the guest did not restart" || return
	set_reporting_delay 600000 && plug mode=now && test_hints_after_the_restart
}

is_stalled() {
	local word

	read -r word _ < "$SYSFS/status"
	[ "$word" = stalled ]
}

# Runs the command, which may take so many seconds and no longer. One that
# hangs is left to itself, as nothing ends a task that waits in the kernel.
within() { # SECONDS, for a WAIT of 60, COMMAND...
	local limit pid end now

	limit=$(scaled "$1")
	shift
	"$@" &
	pid=$!
	get_now
	end=$((now + limit))
	while kill -0 $pid 2> /dev/null; do
		get_now
		if [ "$now" -gt "$end" ]; then
			fail "'$*' did not end within $limit s; it waits in" \
				"$(tr '\n' ' ' < /proc/$pid/stack 2> /dev/null)"
			return
		fi
		sleep 0.1
	done
	wait $pid
}

# --- what operators do ---

# As most run it: with every knob at its default.
hint_by_default() {
	all_defaults=1
	load_fresh
}

# How long what was freed may stay with the guest, in hundredths of seconds. The module may
# keep memory for 1 s and takes 0.2 s to return it; the rest is for a guest that is emulated
# on a busy machine.
RETURN_CS=$((300 * WAIT / 60))

# Sets $cs to the hundredths of seconds since boot.
get_cs() {
	local up

	read -r up _ < /proc/uptime
	cs=${up%.*}${up#*.}
}

# What the burst holds, in KiB, and what was resident while it did.
held_kb=
resident_then=

# Holds memory for so long, at least while the host is asked, and frees it again.
burst() { # MIB
	local fifo=/tmp/burst

	rm -f $fifo /tmp/burst.out
	mkfifo $fifo && held_kb=$(($1 * 1024)) || return
	"$DIR/memhog" -t "$1" < $fifo > /tmp/burst.out &
	exec 5> $fifo
	wait_for "memhog to touch $1 MiB" grep -q touched /tmp/burst.out || return
	resident_then=$(resident_kb) || return
	exec 5>&-
	wait $! || fail "memhog: status $?" || return
	get_cs
	freed_cs=$cs
}

# The burst has come about: that much of it was resident on the host.
burst_was_resident() { # IDLE_KB
	[ "$resident_then" -ge $(($1 + held_kb * 9 / 10)) ] ||
		fail "$resident_then KiB were resident, $1 before $held_kb were used"
}

# What the burst freed is with the host in time. A machine that stands still for a moment only
# adds to that, so there is another burst if it was late, when nobody takes it for a cycle.
burst_returns() { # PERCENT
	local again

	for again in 1 1 ''; do
		! burst_returns_in_time "$1" || return 0
		[ -z "$again" ] || { sleep "$(scaled 5)" && burst $((held_kb / 1024)); } || return
	done
	return "$KSFT_FAIL"
}

burst_returns_in_time() { # PERCENT
	local resident='' limit=$((resident_then - held_kb * $1 / 100))

	until resident_at_most $limit; do
		get_cs
		[ $((cs - freed_cs)) -le $RETURN_CS ] ||
			fail "after $((cs - freed_cs))0 ms $resident KiB are resident, expected $limit" || return
		sleep 0.1
	done
	get_cs
	ktap_print_msg "$1 % of $((held_kb / 1024)) MiB were returned after $((cs - freed_cs))0 ms"
}

# All is hinted; sets $idle to what is resident then.
flush_all() {
	# The time of a flush is no part of what operators rely on.
	set_knob flush_timeout_ms $((WAIT * 1000)) && set_knob flush 1 && idle=$(resident_kb) &&
	ktap_print_msg "$((idle / 1024)) MiB are resident with all hinted"
}

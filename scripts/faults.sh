#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# faults.sh [FAULT...]
#
# Puts the faults of scripts/faults/, or the named ones of them, into the kernel or
# the module, one at a time, and looks whether the test that is to catch it does:
#
#   caught    the point that the fault names failed, none before it did, and it
#             said what the fault expects
#   missed    all passed
#   invalid   anything else: the fault does not apply, or not compile; another
#             point failed, or this one for another reason; the guest hung; or the
#             point does not pass without the fault, in the same guest
#
# Fails if one was missed or invalid; the last line counts them. How a fault is
# written is in scripts/faults/README.
#
# The kernel that a fault is put into is a copy of the one in the cache, and so is the
# module's source one of this checkout's: neither ever has a fault in it.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
faults=$root/scripts/faults
out=$root/out/faults

names=("$@")
[ $# -gt 0 ] || mapfile -t names < <(cd "$faults" && compgen -G '*.patch' | sed 's/\.patch$//' | sort)

# --- A fault's file ---------------------------------------------------------

# field NAME FIELD: what stands behind "FIELD: " in its header.
field() {
	sed -n "/^--- /q; s/^$2: //p" "$faults/$1.patch"
}

# Which kernel, scenario and selftest it is for.
setting() {
	printf '%s %s %s\n' "$(field "$1" Kernel)" "$(field "$1" Scenario)" "$(field "$1" Test)"
}

check_header() {
	local name field
	for name in "${names[@]}"; do
		[ -f "$faults/$name.patch" ] || die "no such fault: $name" "there are those in scripts/faults"
		for field in Fault Kernel Scenario Test Point; do
			[ -n "$(field "$name" "$field")" ] || die "scripts/faults/$name.patch has no line \"$field: ...\""
		done
		[ -n "$(field "$name" Says)$(field "$name" Log)" ] ||
			die "scripts/faults/$name.patch does not say how it is caught: \"Says: ...\" or \"Log: ...\""
	done
}

# --- Where faults are put ---------------------------------------------------

# differences FROM TO: what of TO is not as in FROM, a path a line. Files that are
# one by a hard link are not read.
differences() {
	{ diff -rq --no-dereference "$1" "$2" || [ $? = 1 ]; } | sed -nE \
		-e "s,^Files $1/(.*) and $2/.* differ\$,\\1,p" \
		-e "s,^Only in $1/?(.*): (.*)\$,\\1/\\2,p" -e "s,^Only in $2/?(.*): (.*)\$,\\1/\\2,p"
}

# restore FROM TO: what differs becomes as in FROM again, and as new to make.
restore() {
	local path
	differences "$1" "$2" | while read -r path; do
		rm -rf "${2:?}/$path"
		[ ! -e "$1/$path" ] || cp -R --no-dereference "$1/$path" "$2/$path"
	done
	[ -z "$(differences "$1" "$2")" ] || die "$2 has a fault that cannot be taken out" "remove it"
}

# Sets $copy to the directory of a kernel like $clean, the one in the cache.
copy_kernel() {
	local old
	copy=$cache/faults/$(basename "$clean")
	make_dir "$cache/faults"
	lock "$cache/lock/faults-$1"
	for old in "$cache/faults/$1"-*; do
		[ "$old" = "$copy" ] || rm -rf "$old"
	done
	[ -e "$copy/complete" ] || {
		say "copying the $1 kernel"
		need_space "$cache/faults" $((600 + $(du -sm "$clean/build" | cut -f 1))) "a copy of the kernel"
		rm -rf "$copy"
		make_dir "$copy"
		# git apply does not write to a file, it replaces it.
		run cp -al "$clean/source" "$copy/source"
		run cp -a --reflink=auto "$clean/build" "$copy/build"
		# Where they name the old place, make would build all again.
		find "$copy/build" -name '*.cmd' -print0 |
			xargs -0 sed -i "s,$clean/,$copy/,g"
		touch "$copy/complete"
	}
	restore "$clean/source" "$copy/source"
}

# The module's source in this checkout, and the copy that faults are put into.
module_source=$out/module-source
module_copy=$out/module-copy
copy_module() {
	rm -rf "$module_source"
	make_dir "$module_source"
	cp -R Kbuild rust "$module_source"
	rm -rf "$module_source/rust/policy/target"
	make_dir "$module_copy"
	restore "$module_source" "$module_copy"
}

# is_in_module NAME: whether the module has the file that the fault changes.
is_in_module() {
	[ -e "$module_source/$(sed -nE 's,^\+\+\+ b/([^[:space:]]+).*,\1,p' "$faults/$1.patch" | head -n 1)" ]
}

# inject NAME TREE
inject() {
	# What modules are compiled with stays as it is, for they are not built again.
	! grep '^+++ b/include/' "$faults/$1.patch" >&2 || return
	# A repository above the tree, as this checkout's, is not meant.
	GIT_CEILING_DIRECTORIES=$(dirname "$2") git -C "$2" apply --whitespace=nowarn "$faults/$1.patch"
}

# --- Building and running ---------------------------------------------------

# build_module VARIANT: what is in the copy of its source, for the kernel in the cache.
build_module() {
	local arguments=()
	# As build-module.sh does.
	[ "$1" != debug ] || arguments=(PAGE_HINTING_KUNIT=1)
	make_dir "$out/module-$1"
	make -C "$clean/build" M="$module_copy" MO="$out/module-$1" LLVM="$llvm" "${rust_words[@]}" -j"$jobs" \
		"${arguments[@]}" modules
}

# guest NAME VARIANT BUILD MODULE SCENARIO TEST [ARGUMENT...]: its logs are in $out/logs.
guest() {
	local limit=300
	# As in test.sh: the debug guest takes its time.
	[ "$2" != debug ] || limit=600
	progress "$out/logs/$1.txt" '^(not )?ok' "$1: $6" "$root/out/lab" test --name "$1" \
		--kernel "$3/arch/x86/boot/bzImage" --module "$4" --selftests "$root/out/selftests" \
		--scenario "$5" --only "$6" --jobs 1 --timeout $limit --out "$out/logs" "${@:7}" || true
}

# --- What came out ----------------------------------------------------------

# said TAP TEST: what a selftest said, without what ran after it.
said() {
	awk -v begin="# $2" '$0 == begin { on = 1; next } $0 == "# dmesg.sh" { exit } on' "$1"
}

# points: a line "ok", "skip" or "failed" and the name, of each point.
points() {
	sed -nE -e '/^ok [0-9]+ .*# SKIP/ { s/^ok [0-9]+ ([A-Za-z0-9_]+).*/skip \1/p; d }' \
		-e 's/^ok [0-9]+ ([A-Za-z0-9_]+).*/ok \1/p' -e 's/^not ok [0-9]+ ([A-Za-z0-9_]+).*/failed \1/p'
}

# failure: the name of the first point that failed, and what it said.
failure() {
	awk '/^(not )?ok / { if (/^not/) { print $4; printf "%s", notes; exit } notes = "" }
		/^#/ { notes = notes $0 "\n" }'
}

# baseline POINTS POINT: why the run without the fault is no measure, or nothing.
baseline() {
	local first
	first=$(grep -m 1 -E -e '^failed ' -e " $2\$" "$1" || true)
	case $first in
	"ok $2") ;;
	"skip $2") echo "without the fault it is skipped" ;;
	"failed $2") echo "it fails without the fault as well" ;;
	failed*) echo "without the fault ${first#failed } fails before it" ;;
	*) echo "without the fault there is no such point" ;;
	esac
}

# reason: the last that a point which failed said, without the state shown with it.
reason() {
	tail -n +2 "$out/failure" | sed -E '/^# +(stats\/)?[a-z_]+: /d' | tail -n 1
}

# judge NAME BASELINE: sets $verdict and $message for what the run of this name left.
judge() {
	local point first next log expected
	point=$(field "$1" Point)
	log=$out/logs/$1-$(field "$1" Scenario).log
	said "$out/logs/$1-$(field "$1" Scenario).tap" "$(field "$1" Test)" >"$out/said"
	failure <"$out/said" >"$out/failure"
	first=$(head -n 1 "$out/failure")
	# Who does not fail may have been the last to begin.
	next=$(grep -A 1 -xF "$(points <"$out/said" | tail -n 1)" "$2" | tail -n 1 || true)
	[ -n "$(points <"$out/said")" ] || next=$(head -n 1 "$2")
	verdict=invalid
	expected=$(field "$1" Log)
	if [ -n "$expected" ]; then
		message=$(grep -m 1 -E -e "$expected" "$log" || true)
		if [ -n "$first" ]; then
			message="$first failed: $(reason)"
		elif [ -n "$message" ] && [ "${next#* }" = "$point" ]; then
			verdict=caught
		elif [ -n "$message" ]; then
			message="not in $point, but in ${next#* }: $message"
		elif points <"$out/said" | grep -qxF "ok $point"; then
			verdict=missed
		else
			message="the guest ended in ${next#* }, and its log does not say so"
		fi
		return
	fi
	expected=$(field "$1" Says)
	message=$(tail -n +2 "$out/failure" | grep -m 1 -E -e "$expected" || true)
	if [ "$first" = "$point" ] && [ -n "$message" ]; then
		verdict=caught
	elif [ "$first" = "$point" ]; then
		message="it failed for another reason: $(reason)"
	elif [ -n "$first" ]; then
		message="$first failed: $(reason)"
	elif points <"$out/said" | grep -qxF "ok $point"; then
		verdict=missed
	else
		message="the guest ended or hung in ${next#* }"
	fi
}

declare -A verdicts=() messages=()
caught=0 missed=0 invalid=0

# result NAME VERDICT MESSAGE
result() {
	local text=${3#\# }
	verdicts[$1]=$2
	messages[$1]=$(tr -s '[:space:]' ' ' <<<"${text:-"$(field "$1" Point) passed"}")
	case $2 in
	caught) caught=$((caught + 1)) ;;
	missed) missed=$((missed + 1)) ;;
	*) invalid=$((invalid + 1)) ;;
	esac
	say "$1: $2: ${messages[$1]}"
}

# try NAME BASELINE
try() {
	local kernel scenario test problem tree build=$clean/build module=$clean_module
	read -r kernel scenario test < <(setting "$1")
	problem=$(baseline "$2" "$(field "$1" Point)")
	if [ -n "$problem" ]; then
		result "$1" invalid "$problem"
		return
	fi
	if is_in_module "$1"; then
		tree=$module_copy
		module=$out/module-$kernel/page_hinting.ko
		make=(build_module "$kernel")
	else
		copy_kernel "$kernel"
		tree=$copy/source
		build=$copy/build
		make=(kernel_make "$copy/source" "$build" bzImage)
	fi
	if ! inject "$1" "$tree" 2>"$out/inject.log"; then
		result "$1" invalid "it does not apply: $(head -n 1 "$out/inject.log")"
	elif ! progress "$out/build.log" '^  [A-Z]' "building $1" "${make[@]}"; then
		result "$1" invalid "it does not build: $(grep -m 1 -E 'error' "$out/build.log")"
	else
		guest "$1" "$kernel" "$build" "$module" "$scenario" "$test" --last "$(field "$1" Point)"
		judge "$1" "$2"
		result "$1" "$verdict" "$message"
	fi
	if is_in_module "$1"; then
		restore "$module_source" "$module_copy"
	else
		restore "$clean/source" "$copy/source"
	fi
}

# ----------------------------------------------------------------------------

check_header
make_dir "$out"
lock "$root/out/lock-faults"
rm -rf "$out/logs"
make_dir "$out/logs"
"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
copy_module

for kernel in release debug; do
	mapfile -t chosen < <(for name in "${names[@]}"; do
		[ "$(field "$name" Kernel)" != "$kernel" ] || echo "$name"
	done)
	[ ${#chosen[@]} -gt 0 ] || continue
	run "$root/scripts/build-kernel.sh" "$kernel" >"$out/built"
	clean=$(dirname "$(cat "$out/built")")
	run "$root/scripts/build-module.sh" "$kernel" >"$out/built"
	clean_module=$(cat "$out/built")
	run "$root/scripts/build-lab.sh"
	run "$root/scripts/build-test-modules.sh" "$kernel" >"$out/built"
	while read -r _ scenario test; do
		name=without-$kernel-${test%.sh}
		guest "$name" "$kernel" "$clean/build" "$clean_module" "$scenario" "$test"
		said "$out/logs/$name-$scenario.tap" "$test" | points >"$out/points-$kernel-$scenario-$test"
	done < <(for name in "${chosen[@]}"; do setting "$name"; done | sort -u)
	for name in "${chosen[@]}"; do
		read -r _ scenario test < <(setting "$name")
		try "$name" "$out/points-$kernel-$scenario-$test"
	done
done

printf '%-28s %-8s %-24s %-34s %s\n' fault verdict selftest point message
for name in "${names[@]}"; do
	[ -n "${verdicts[$name]:-}" ] || result "$name" invalid "there is no such kernel: $(field "$name" Kernel)"
	printf '%-28s %-8s %-24s %-34s %s\n' "$name" "${verdicts[$name]}" \
		"$(field "$name" Scenario)/$(field "$name" Test)" "$(field "$name" Point)" "${messages[$name]}"
done
printf '%d caught, %d missed, %d invalid\n' "$caught" "$missed" "$invalid"
[ "$missed" = 0 ] && [ "$invalid" = 0 ] && [ "$caught" -gt 0 ]

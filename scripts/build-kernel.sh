#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build-kernel.sh release|debug|base|release-dwarf|base-dwarf|kcsan|coverage|suites|base-suites|package
#
# Builds a guest kernel and prints its build directory (as O= has it, complete)
# on stdout. base and base-... are without the series, all others have it applied; those
# with dwarf have what tools that read dumps want to know, kcsan detects data races,
# coverage counts which lines of the series are executed, those with suites have what the
# kernel's own tests of memory want, and package is for a guest with Debian in it.
# What is in the cache already, from the same source, series, configuration and toolchain,
# is not built again.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

variant=${1:-release}
configs=$root/scripts/configs

# More words for the kernel's make.
words=()
case $variant in
release | base) fragments=("$configs/release.config") need_mib=1500 ;;
release-dwarf | base-dwarf) fragments=("$configs/release.config" "$configs/dwarf.config") need_mib=4000 ;;
debug) fragments=("$configs/release.config" "$configs/debug.config") need_mib=2500 ;;
suites | base-suites) fragments=("$configs/release.config" "$configs/suites.config") need_mib=3000 ;;
package) fragments=("$configs/release.config" "$configs/package.config") need_mib=2500 ;;
kcsan)
	fragments=("$configs/release.config" "$configs/kcsan.config") need_mib=2500
	words=(KCSAN_SANITIZE_page_alloc.o=y)
	;;
coverage)
	fragments=("$configs/release.config" "$configs/coverage.config") need_mib=2000
	mapfile -t words < <(series_sources | sed 's,.*/,,; s,\(.*\)\.c$,GCOV_PROFILE_\1.o=y,')
	;;
*) die "no such kernel: $variant" "usage: scripts/build-kernel.sh release|debug|base|release-dwarf|base-dwarf|kcsan|coverage|suites|base-suites|package" ;;
esac
if [ -f "$configs/$kernel_series.config" ]; then
	fragments+=("$configs/$kernel_series.config")
fi
if [[ $variant = base* ]]; then
	patches=/nonexistent
elif [ -n "$(series)" ]; then
	fragments+=("$configs/series.config")
	[ "$variant" != suites ] || fragments+=("$configs/suites-series.config")
fi

# --- The tree ---------------------------------------------------------------

# Links to the pristine tree: git am replaces the files which it changes.
patch_tree() {
	local patch count=0
	rm -rf "$entry/source" "$entry/source.git"
	cp -al "$pristine" "$entry/source"
	series_begin "$entry/source.git" "$entry/source"
	while read -r patch; do
		series_apply "$entry/source.git" "$entry/source" "$patch" >&2 ||
			die "$(basename "$patch") does not apply to $(basename "$pristine")"
		count=$((count + 1))
	done < <(series)
	[ "$count" = 0 ] || say "$count patches applied"
	touch "$entry/patched"
}

# --- The configuration ------------------------------------------------------

kmake() {
	kernel_make "$entry/source" "$build" "${words[@]}" "$@"
}

# What the fragments ask for, as NAME=VALUE, the last word on each.
asked() {
	sed -nE 's/^# (CONFIG_[A-Z0-9_]+) is not set$/\1=n/p; s/^(CONFIG_[A-Z0-9_]+=.*)$/\1/p' \
		"${fragments[@]}" | tac | sort -t = -k 1,1 -u
}

configure() {
	local name value got wrong=0
	kmake -s tinyconfig >&2
	(cd "$build" && "$entry/source/scripts/kconfig/merge_config.sh" -Q -m .config "${fragments[@]}" >/dev/null)
	kmake -s olddefconfig >&2
	while IFS='=' read -r name value; do
		got=$(sed -n "s/^$name=//p" "$build/.config")
		[ "${got:-n}" = "$value" ] || {
			say "$name: asked for $value, got ${got:-n}"
			wrong=1
		}
	done < <(asked)
	[ "$wrong" = 0 ] || {
		[ "${got_rust:=$(sed -n 's/^CONFIG_RUST=//p' "$build/.config")}" = y ] ||
			kmake rustavailable >&2 || true
		die "the $variant configuration did not get all it asks for" \
			"an option above has lost a dependency, or the toolchain lacks what it needs"
	}
}

# --- The cache --------------------------------------------------------------

# The three of a variant that were used last stay, and those in use.
prune() {
	local old
	rm -rf "$cache/kernel/"*.old || true # another build may do so too
	compgen -G "$cache/kernel/$tag$variant-????????????????" | xargs -r -d '\n' ls -dt | tail -n +4 | while read -r old; do
		(
			exec 8>"$cache/lock/$(basename "$old")"
			flock -n 8 || exit 0
			say "removing $(basename "$old") from the cache, it is old"
			mv "$old" "$old.old"
			rm -rf "$old.old"
		)
	done
}

# ----------------------------------------------------------------------------

"$root/scripts/setup.sh"
use_toolchain
make_dir "$cache/kernel"
pristine=$("$root/scripts/fetch-kernel.sh")

key=$({
	echo "$pristine"
	series_code
	cat "${fragments[@]}"
	[ ${#words[@]} = 0 ] || echo "${words[@]}"
	toolchain_id
} | sha256sum | cut -c 1-16)
entry=$cache/kernel/$tag$variant-$key
build=$entry/build

lock "$cache/lock/$(basename "$entry")"
if [ ! -e "$entry/complete" ]; then
	need_space "$cache/kernel" "$need_mib" "the $variant kernel"
	make_dir "$build"
	[ -e "$entry/patched" ] || patch_tree
	[ -e "$entry/configured" ] || {
		configure
		touch "$entry/configured"
	}
	say "building the $variant kernel (log: $entry/build.log)"
	start=$SECONDS
	progress "$entry/build.log" '^  [A-Z]' "the $variant kernel" kmake all || {
		disk_full "$cache/kernel" || {
			grep -nE -A 5 '(error|Error|undefined symbol)' "$entry/build.log" | tail -n 40 >&2
			say "the whole log: $entry/build.log"
		}
		die "the $variant kernel was not built"
	}
	touch "$entry/complete"
	say "the $variant kernel is built, in $(clock $((SECONDS - start)))"
	prune
fi
touch "$entry"
printf '%s\n' "$build"

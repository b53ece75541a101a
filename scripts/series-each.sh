#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# series-each.sh [FIRST]
#
# Builds and boots the guest kernel after each patch of the series, from the patch
# with the number FIRST on, or from the first: a reviewer, or a bisection, may stop
# anywhere. Each kernel runs the selftest that compares what the kernel tells of
# free memory, which needs no module. A warning of the compiler fails a patch. The
# last line counts the patches.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
first=${1:-1}
case $first in
*[!0-9]* | '') die "no number of a patch: $first" "usage: scripts/series-each.sh [FIRST]" ;;
esac

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
pristine=$("$root/scripts/fetch-kernel.sh")
run "$root/scripts/build-lab.sh"
built=$(mktemp)
at_exit "rm -f $built"
# The lab wants a module; none is loaded.
run "$root/scripts/build-module.sh" release >"$built"
module=$(cat "$built")

out=$root/out/${tag}series-each
tree=$out/source
build=$out/build
configs=$root/scripts/configs
lock "$root/out/lock-series-each"
make_dir "$build"
need_space "$out" 2500 "the series, patch by patch"
rm -rf "$tree" "$out/source.git"
run cp -a "$pristine" "$tree"
series_begin "$out/source.git" "$tree"

# The same configuration as the release kernel's: what a patch adds to Kconfig is
# on from there.
# shellcheck disable=SC2317 # called by progress
build() {
	local fragments=("$configs/release.config" "$configs/series.config")

	[ ! -f "$configs/$kernel_series.config" ] || fragments+=("$configs/$kernel_series.config")
	kernel_make "$tree" "$build" -s tinyconfig || return
	(cd "$build" && "$tree/scripts/kconfig/merge_config.sh" -Q -m .config "${fragments[@]}" >/dev/null) || return
	kernel_make "$tree" "$build" -s olddefconfig && kernel_make "$tree" "$build" bzImage
}

# one NAME: the tree as it is now.
one() {
	progress "$out/$1.log" '^  [A-Z]' "$1" build || {
		disk_full "$out" || grep -nE -A 5 '(error|Error)' "$out/$1.log" | tail -n 40 >&2
		return 1
	}
	! grep -A 5 -E '(^|: )warning: ' "$out/$1.log" >&2 || return 1
	run out/lab test --kernel "$build/arch/x86/boot/bzImage" --module "$module" \
		--selftests out/selftests --name "$1" --scenario figures --out "$out/$1" >>"$out/$1.log" 2>&1 || {
		tail -n 40 "$out/$1.log" >&2
		return 1
	}
}

number=0 passed=0 failed=0
while read -r patch; do
	number=$((number + 1))
	name=$(basename "$patch" .patch)
	series_apply "$out/source.git" "$tree" "$patch" >/dev/null || die "$name does not apply"
	[ "$number" -ge "$first" ] || continue
	start=$SECONDS
	if one "$name"; then
		passed=$((passed + 1))
		printf 'ok %d - %s (%s)\n' "$number" "$name" "$(clock $((SECONDS - start)))"
	else
		failed=$((failed + 1))
		printf 'not ok %d - %s (%s)\n' "$number" "$name" "$(clock $((SECONDS - start)))"
	fi
done < <(series)
[ "$number" -ge "$first" ] || die "there are only $number patches"
printf '%d passed, %d failed, 0 skipped\n' "$passed" "$failed"
[ "$failed" = 0 ]

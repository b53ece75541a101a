#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build-test-modules.sh [release|debug|base] [MAKE-ARGUMENT...]
#
# Builds the selftests' own modules, each directory there that has a Kbuild, for
# a guest kernel, out of source in out/test-modules/VARIANT, and puts them among
# the installed selftests, from where the lab takes them into the guest; those
# of another variant are replaced. Prints their paths on stdout.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

variant=${1:-release}
[ $# = 0 ] || shift
out=$root/out/test-modules/$tag$variant
log=$out/build.log
installed=$root/out/selftests

[ -d "$installed" ] || die "there is no $installed" "run scripts/build-lab.sh first"

built=$(mktemp)
at_exit "rm -f $built"
run "$root/scripts/build-kernel.sh" "$variant" >"$built"
build=$(cat "$built")
use_toolchain

make_dir "$out"
lock "$out/lock"
for kbuild in "$root"/tools/testing/selftests/page_hinting/*/Kbuild; do
	source=$(dirname "$kbuild")
	name=$(basename "$source")
	# What needs the series cannot be built for the kernel without it.
	[[ $variant != base* ]] || ! grep -qs '<linux/page_hinting.h>' "$source"/*.c || continue
	make_dir "$out/$name"
	progress "$log" '^  [A-Z]' "the $variant test module $name" \
		make -C "$build" M="$source" MO="$out/$name" LLVM="$llvm" "${rust_words[@]}" -j"$jobs" "$@" modules || {
		disk_full "$out" || cat "$log" >&2
		die "the test module $name was not built for the $variant kernel"
	}
	grep -A 20 -E '(^|: )warning: ' "$log" >&2 || true
	cp "$out/$name"/*.ko "$installed/"
	printf '%s\n' "$out/$name"/*.ko
done

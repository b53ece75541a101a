#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# instructions.sh [ARGUMENT...]
#
# Counts what the series costs a guest that is not hinted: makes the release
# kernel and the same without the series, the test module for both, and starts
# the lab with them. Arguments are the lab's: see out/lab instructions --help.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

bench=$root/tools/testing/selftests/page_hinting/alloc_bench
out=$root/out/test-modules

built=$(mktemp)
at_exit "rm -f $built"

# build_bench VARIANT: the kernel, and the test module for it.
build_bench() {
	run "$root/scripts/build-kernel.sh" "$1" >"$built"
	build=$(cat "$built")
	make_dir "$out/$1/alloc_bench"
	lock "$out/$1/lock"
	progress "$out/$1/alloc_bench.log" '^  [A-Z]' "the test module alloc_bench for $1" \
		make -C "$build" M="$bench" MO="$out/$1/alloc_bench" LLVM="$llvm" -j"$jobs" modules || {
		disk_full "$out" || cat "$out/$1/alloc_bench.log" >&2
		die "the test module alloc_bench was not built for the $1 kernel"
	}
}

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
build_bench base
base=$build
build_bench release
release=$build
run "$root/scripts/build-module.sh" release >"$built"
module=$(cat "$built")
run "$root/scripts/build-lab.sh"

run "$root/out/lab" instructions \
	--kernel "$release/arch/x86/boot/bzImage" --base "$base/arch/x86/boot/bzImage" \
	--module "$module" --selftests "$root/out/selftests" \
	--bench "$out/release/alloc_bench/page_hinting_alloc_bench.ko" \
	--base-bench "$out/base/alloc_bench/page_hinting_alloc_bench.ko" "$@"

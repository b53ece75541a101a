#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# instructions.sh [hinting] [ARGUMENT...]
#
# Counts what the series costs a guest that is not hinted, or with "hinting" what
# hinting itself costs, beside what mm/page_reporting costs for the same: makes
# the release kernel and the same without the series, test modules or QEMU's
# plugin, and starts the lab with them. Arguments are the lab's: see
# out/lab instructions --help and out/lab hinting --help.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

what=instructions
[ "${1:-}" != hinting ] || {
	what=hinting
	shift
}

out=$root/out/test-modules

built=$(mktemp)
at_exit "rm -f $built"

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
make_dir "$out"
for variant in base release; do
	run "$root/scripts/build-kernel.sh" "$variant" >"$built"
	declare "$variant=$(cat "$built")"
	[ "$what" = hinting ] || build_alloc_bench "$variant" "${!variant}" "$out"
done
run "$root/scripts/build-module.sh" release >"$built"
module=$(cat "$built")
run "$root/scripts/build-lab.sh"

case $what in
instructions)
	arguments=(--bench "$out/release/alloc_bench/page_hinting_alloc_bench.ko"
		--base-bench "$out/base/alloc_bench/page_hinting_alloc_bench.ko")
	;;
hinting)
	build_plugin "$out/count.so"
	arguments=(--vmlinux "$release/vmlinux" --base-vmlinux "$base/vmlinux"
		--plugin "$out/count.so" --objdump "llvm-objdump$llvm")
	;;
esac
# shellcheck disable=SC2154 # declared above
run "$root/out/lab" "$what" \
	--kernel "$release/arch/x86/boot/bzImage" --base "$base/arch/x86/boot/bzImage" \
	--module "$module" --selftests "$root/out/selftests" "${arguments[@]}" "$@"

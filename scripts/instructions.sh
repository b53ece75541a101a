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

# The plugin that counts, for the QEMU there is: from 9.0 on it wants a version of
# 2 or more. The declarations it needs are in the source itself.
build_plugin() {
	local major version=1
	command -v cc >/dev/null || die "there is no cc, to compile QEMU's plugin with" "apt-get install gcc"
	major=$(qemu-system-x86_64 --version | sed -nE '1s/^QEMU emulator version ([0-9]+)\..*/\1/p')
	[ "${major:-0}" -lt 9 ] || version=2
	run cc -shared -fPIC -O2 -Wall "-DVERSION=$version" -o "$out/count.so" "$root/tools/lab/plugin/count.c" ||
		die "tools/lab/plugin/count.c was not compiled"
}

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
make_dir "$out"
for variant in base release; do
	case $what in
	instructions) build_bench "$variant" ;;
	hinting) run "$root/scripts/build-kernel.sh" "$variant" >"$built" && build=$(cat "$built") ;;
	esac
	declare "$variant=$build"
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
	build_plugin
	arguments=(--vmlinux "$release/vmlinux" --base-vmlinux "$base/vmlinux"
		--plugin "$out/count.so" --objdump "llvm-objdump$llvm")
	;;
esac
# shellcheck disable=SC2154 # declared above
run "$root/out/lab" "$what" \
	--kernel "$release/arch/x86/boot/bzImage" --base "$base/arch/x86/boot/bzImage" \
	--module "$module" --selftests "$root/out/selftests" "${arguments[@]}" "$@"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# bench.sh [ARGUMENT...]
#
# Measures page_hinting beside mm/page_reporting, and writes a report: makes the
# release kernel and the same without the series, the module, the test modules and
# QEMU's plugin, and starts the lab with them. WHAT= in the environment has the
# parts to run, separated by commas, and QUICK=1 makes it a short run. Arguments
# are the lab's: see out/lab bench --help.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
out=$root/out/test-modules
arguments=(--what "${WHAT:-all}")
case ${QUICK:-0} in
0) ;;
1) arguments+=(--quick) ;;
*) die "QUICK is $QUICK" "it is 1 for a short run, or 0" ;;
esac

built=$(mktemp)
at_exit "rm -f $built"

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
run "$root/scripts/build-lab.sh"
case ,${WHAT:-all}, in
*,all,* | *,latency,* | *,footprint,* | *,orders,*) run "$root/scripts/bench-tools.sh" ;;
esac
case ,${WHAT:-all}, in
*,model,*) run "$root/scripts/sim.sh" --help >/dev/null ;;
esac
# A part that there is not is better told before kernels are built.
run "$root/out/lab" bench "${arguments[@]}" --help >/dev/null
make_dir "$out"
need_space "$out" 256 "the bench"
for variant in base release; do
	run "$root/scripts/build-kernel.sh" "$variant" >"$built"
	declare "$variant=$(cat "$built")"
	build_alloc_bench "$variant" "${!variant}" "$out"
done
run "$root/scripts/build-module.sh" release >"$built"
module=$(cat "$built")
build_plugin "$out/count.so"

# shellcheck disable=SC2154 # declared above
run "$root/out/lab" bench "${arguments[@]}" \
	--kernel "$release/arch/x86/boot/bzImage" --vmlinux "$release/vmlinux" \
	--base "$base/arch/x86/boot/bzImage" --base-vmlinux "$base/vmlinux" \
	--module "$module" --selftests "$root/out/selftests" --tools "$root/out/bench-tools" \
	--bench "$out/release/alloc_bench/page_hinting_alloc_bench.ko" \
	--base-bench "$out/base/alloc_bench/page_hinting_alloc_bench.ko" \
	--plugin "$out/count.so" --objdump "llvm-objdump$llvm" \
	--sim "$root/out/cargo/release/sim" "$@"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# coverage.sh [SCENARIO,...]
#
# Which lines of the policy its own tests execute, by cargo-llvm-cov, which is built first
# where it is not there; and of the series, the selftests. Builds a kernel that counts (gcov),
# boots it with each scenario or those named, and prints for each file how many of the lines
# that the series adds were executed, and which were not. What a guest has counted before
# it restarts is lost with it, so that the tests of power and vsim that come before that run
# once more, each in a guest of its own, unless scenarios are named. A kernel that counts is
# slower, and so a test may time out in it; this says so and goes on, as it is not to test.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
out=$root/out/coverage

llvm_cov_pinned=0.6.21

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain

# --- The policy ---------------------------------------------------------------

command -v cargo-llvm-cov >/dev/null || {
	lock "$cache/lock/tools"
	need_space "$cache" 500 "building cargo-llvm-cov"
	progress "$cache/llvm-cov.log" '^ *(Downloaded|Compiling)' cargo-llvm-cov \
		cargo install cargo-llvm-cov --version "$llvm_cov_pinned" --locked --root "$cache/tools" || {
		tail -n 20 "$cache/llvm-cov.log" >&2
		disk_full "$cache" || true
		die "cargo-llvm-cov was not built" "check the network and run the same command again"
	}
}
# The toolchain's own, if it has them; else those of LLVM, which read what is no newer.
compgen -G "$(rustc --print sysroot)/lib/rustlib/*/bin/llvm-profdata" >/dev/null || {
	newest=$(rustc -vV | sed -n 's/^LLVM version: \([0-9]*\).*/\1/p')
	[ "$newest" -le "${llvm#-}" ] || die "rustc has LLVM $newest, whose counts LLVM ${llvm#-} cannot read" \
		"run: rustup component add llvm-tools"
	export LLVM_COV=llvm-cov$llvm LLVM_PROFDATA=llvm-profdata$llvm
}
make_dir "$root/out"
progress "$root/out/llvm-cov.log" . "the policy's tests" \
	env CARGO_TARGET_DIR="$root/out/llvm-cov" cargo llvm-cov test --locked --show-missing-lines \
	--ignore-filename-regex tests/ --manifest-path rust/policy/Cargo.toml || {
	tail -n 40 "$root/out/llvm-cov.log" >&2
	die "the policy's tests failed, or were not counted"
}
sed -n '/^Filename/,$p' "$root/out/llvm-cov.log"

# --- The series ---------------------------------------------------------------

pristine=$("$root/scripts/fetch-kernel.sh")
build_guest coverage

rm -rf "$out"
make_dir "$out"

count_in() { # NAME SCENARIO [ARGUMENT...]
	run "$root/out/lab" test --kernel "$kernel/arch/x86/boot/bzImage" --module "$module" \
		--selftests "$root/out/selftests" --name "$1" --scenario "$2" --timeout 600 \
		--coverage --out "$out" "${@:3}" || say "not all tests passed in the kernel that counts"
}
count_in coverage "${1:-every}"
[ $# -gt 0 ] || for test in power/unplug power/suspend vsim/vsim_basic vsim/vsim_silent vsim/vsim_wrong \
	vsim/vsim_suspend; do
	count_in "coverage-${test#*/}" "${test%/*}" --only "${test#*/}.sh"
done
compgen -G "$out/*.gcov" >/dev/null || die "no guest has counted anything" "see the logs in $out"
for log in "$out"/coverage-*.tap; do
	[ -s "${log%.tap}.gcov" ] || say "of $(basename "$log" .tap) nothing was counted: what it alone executes is missing below"
done
run python3 "$root/scripts/coverage.py" "llvm-cov$llvm" "$pristine" "$(dirname "$kernel")/source" \
	"$kernel" "$out"/*.gcov

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# suites.sh [TAP TAP]
#
# Suites of others, before and after the series: a pinned list of the kernel's mm
# selftests, of stress-ng's stressors of memory, and of the KUnit suites and test modules
# of memory (tools/testing/selftests/page_hinting/suites.list). Builds a kernel without the
# series and one with it, of one configuration, boots a guest of each, runs the list in
# both, in the second one while the module hints all that is free, and prints for each test
# what came out, and how many passed. Fails if that is not the same in both, but for what
# configs/suites.known says, with why; if the module has not hinted; or if the kernel of
# the second guest has complained. Of two files of such runs, as they lie in
# out/suites, it only compares them.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
out=$root/out/suites
known=$root/scripts/configs/suites.known

if [ $# = 2 ]; then
	run python3 "$root/scripts/suites.py" "$1" "$2" "$known"
	exit
fi
[ $# = 0 ] || die "usage: scripts/suites.sh [TAP TAP]"

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
lock "$root/out/lock-suites"
run "$root/scripts/suites-tools.sh"
tools=$root/out/suites-tools
rm -rf "$out"
make_dir "$out"

# disk VARIANT: what its guest has on a disk, the tools and the test modules of its kernel.
disk() {
	local modules=$out/modules-$1 module
	make_dir "$modules/modules"
	cp -r "$tools/page_frag" "$modules/page_frag"
	progress "$modules/build.log" '^  [A-Z]' "the test module page_frag for $1" \
		make -C "$kernel" M="$modules/page_frag" LLVM="$llvm" "${rust_words[@]}" -j"$jobs" modules || {
		cat "$modules/build.log" >&2
		die "the test module page_frag was not built for the $1 kernel"
	}
	for module in "$modules"/page_frag/page_frag_test.ko "$kernel"/lib/test_{vmalloc,hmm,maple_tree,xarray}.ko; do
		cp "$module" "$modules/modules/"
	done
	run tar --owner=0 --group=0 --sort=name -cf "$out/$1.tar" -C "$tools/root" . -C "$modules" ./modules
	rm -r "$modules"
}

# run_in VARIANT: the list in a guest; tests may fail in both. The disk's size is a multiple
# of a sector's, as a tar's is.
run_in() {
	run "$root/out/lab" test --kernel "$kernel/arch/x86/boot/bzImage" --module "$module" \
		--selftests "$root/out/selftests" --name "$1" --scenario suites --disk "$out/$1.tar" \
		--timeout 12000 --out "$out" >"$out/$1.txt" || true
	say "$1: $(tail -n 1 "$out/$1.txt") (log: ${out#"$root"/}/$1.txt)"
	grep -q ' module_hints' "$out/$1-suites.tap" || die "the tests were not run in the $1 guest" "see the logs in $out"
}

# The module is the patched kernel's in both: one that cannot load it never tries.
for variant in suites base-suites; do
	start=$SECONDS
	if [ "$variant" = suites ]; then
		build_guest suites
	else
		run "$root/scripts/build-kernel.sh" "$variant" >"$out/built"
		kernel=$(cat "$out/built")
	fi
	disk "$variant"
	run_in "$variant"
	say "$variant: that took $(clock $((SECONDS - start)))"
done

sed 's/^/# /' "$tools/versions"
run python3 "$root/scripts/suites.py" "$out/base-suites-suites.tap" "$out/suites-suites.tap" "$known" || {
	status=$?
	[ $status = 1 ] || exit $status
	die "what came out differs" "see above, and the logs in $out"
}
for point in module_hints module_hinted_meanwhile no_kernel_complaint log_since_boot taint; do
	grep -qE "^ok [0-9]+ $point *\$" "$out/suites-suites.tap" || die "$point did not pass in the patched guest" "see the logs in $out"
done
grep -q '^ok .* suites/suites/kernel log$' "$out/suites.txt" || die "the patched guest's kernel has complained" "see the logs in $out"

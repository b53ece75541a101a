#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# kcsan.sh
#
# Looks for data races in mm/page_hinting.c and mm/page_alloc.c: builds a kernel with
# KCSAN over both, boots it with the scenario kcsan, and prints each race once, by the
# functions that it was between, if one of them is of these files. Fails if one is not in
# configs/kcsan.known, which says of each why it stays, or if KCSAN has hardly watched. Rust is
# not instrumented, so the module itself is not looked at.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
known=$root/scripts/configs/kcsan.known
out=$root/out/kcsan

functions=$(mktemp)
at_exit "rm -f $functions"

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
build_guest kcsan
"llvm-nm$llvm" --defined-only "$kernel/mm/page_hinting.o" "$kernel/mm/page_alloc.o" |
	awk '$2 ~ /^[tT]$/ { print $3 }' | grep -v '[.$]' | sort -u >"$functions"

rm -rf "$out"
make_dir "$out"
mv "$functions" "$out/functions"
# A race fails the tests as well, as any complaint of the kernel does; which races there
# were is what counts here.
run "$root/out/lab" test --kernel "$kernel/arch/x86/boot/bzImage" --module "$module" \
	--selftests "$root/out/selftests" --name kcsan --scenario kcsan --timeout 1800 --out "$out" "$@" || true
grep -q '^ok .* switch_on$' "$out"/*.tap || die "KCSAN was not switched on" "see the logs in $out"
# A guest that has died has found nothing.
for point in contents_survive_unload hand_over_ten_times_while_reporting unload_under_churn \
	while_memory_is_used_and_freed in_any_order all_is_there_then it_has_watched; do
	grep -q "^ok .* $point\$" "$out"/*.tap || die "$point did not pass, which is to look for races in" "see the logs in $out"
done

# races: each with how often it was found: "3 function / function".
races() {
	cat "$out"/*.log | tr -d '\r' | sed -nE 's/.*BUG: KCSAN: (assert|data-race|assert: race) in //p' | sort | uniq -c | sort -rn
}
ours() {
	races | grep -wFf "$out/functions" || true
}
say "races found: $(races | wc -l), of which in mm/page_hinting.c or mm/page_alloc.c:"
ours
new=0
while read -r _ race; do
	grep -qxF "$race" <(sed -E '/^#/d; /^$/d' "$known") || {
		say "not known: $race"
		new=$((new + 1))
	}
done < <(ours)
[ "$new" = 0 ] || die "$new races are not known" "look at them in the logs in $out"
say "every race that was found is known, see scripts/configs/kcsan.known"

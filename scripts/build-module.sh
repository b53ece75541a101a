#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build-module.sh [release|debug] [MAKE-ARGUMENT...]
#
# Builds page_hinting.ko of this checkout for a guest kernel, out of source in
# out/module/VARIANT, and prints the module's path on stdout. The debug module
# has the KUnit tests in it. CLIPPY=1 as an argument lints with clippy, apart from
# the rest. INSTALL_MOD_PATH= in the environment installs the module below there.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

variant=${1:-release}
[ $# = 0 ] || shift
out=$root/out/module/$tag$variant
case " $* " in
*" CLIPPY=1 "*) out=$out-clippy ;;
esac
log=$out/build.log

[ -f "$root/Kbuild" ] || die "there is no Kbuild in $root: this is no whole checkout"
arguments=("$@")
[ "$variant" != debug ] || arguments+=(PAGE_HINTING_KUNIT=1)

built=$(mktemp)
at_exit "rm -f $built"
run "$root/scripts/build-kernel.sh" "$variant" >"$built"
build=$(cat "$built")
use_toolchain

# shellcheck disable=SC2317 # called by progress and run
mmake() {
	make -C "$build" M="$root" MO="$out" LLVM="$llvm" "${rust_words[@]}" -j"$jobs" "${arguments[@]}" "$@"
}

make_dir "$out"
lock "$out/lock"
progress "$log" '^  [A-Z]' "the $variant module" mmake modules || {
	disk_full "$out" || cat "$log" >&2
	die "the module was not built for the $variant kernel"
}
grep -A 20 -E '(^|: )warning: ' "$log" >&2 || true
if [ -n "${INSTALL_MOD_PATH:-}" ]; then
	run mmake modules_install >&2
fi
printf '%s\n' "$out/page_hinting.ko"

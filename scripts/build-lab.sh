#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds what guests are run with: the host program out/lab, and in out/selftests what
# goes into the guest, static: the selftests and hintstat.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

selftests=$root/tools/testing/selftests/page_hinting

"$root/scripts/setup.sh"
source=$("$root/scripts/fetch-kernel.sh")
make_dir "$root/out"
lock "$root/out/lock-lab"

progress "$root/out/lab.log" '^ *(Downloaded|Compiling)' "the lab program" \
	env CARGO_TARGET_DIR="$cargo_target" CARGO_TERM_COLOR=never \
	cargo build --release --locked --manifest-path "$root/tools/lab/Cargo.toml" || {
	disk_full "$root/out" || cat "$root/out/lab.log" >&2
	die "tools/lab was not built" "if crates could not be downloaded, check the network"
}
cp "$cargo_target/release/lab" "$root/out/lab.new"
mv "$root/out/lab.new" "$root/out/lab"

"$root/scripts/build-hintstat.sh" >/dev/null

rm -rf "$root/out/selftests"
make_dir "$root/out/selftests-build"
progress "$root/out/selftests.log" . "the selftests" \
	make -C "$selftests" LIB_MK="$source/tools/testing/selftests/lib.mk" \
	OUTPUT="$root/out/selftests-build" INSTALL_PATH="$root/out/selftests" install || {
	disk_full "$root/out" || cat "$root/out/selftests.log" >&2
	die "the selftests were not built"
}
cp "$root/out/hintstat" "$root/out/selftests/hintstat"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Builds the program for the guest, out/hintstat, static so that any guest runs it,
# and prints its path.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

target=$(uname -m)-unknown-linux-gnu

"$root/scripts/setup.sh"
make_dir "$root/out"
lock "$root/out/lock-hintstat"

# With a target named, what runs while it is built is not made static as well.
progress "$root/out/hintstat.log" '^ *(Downloaded|Compiling)' "hintstat" \
	env CARGO_TARGET_DIR="$cargo_target" CARGO_TERM_COLOR=never RUSTFLAGS="-C target-feature=+crt-static" \
	cargo build --release --locked --target "$target" --manifest-path "$root/tools/hintstat/Cargo.toml" || {
	disk_full "$root/out" || cat "$root/out/hintstat.log" >&2
	die "tools/hintstat was not built" "if crates could not be downloaded, check the network"
}
cp "$cargo_target/$target/release/hintstat" "$root/out/hintstat.new"
mv "$root/out/hintstat.new" "$root/out/hintstat"
printf '%s\n' "$root/out/hintstat"

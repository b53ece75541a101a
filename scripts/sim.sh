#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# sim.sh [guest|fleet|replay [ARGUMENT...]]
#
# Builds the simulator and runs it; without an argument, the synthetic workloads
# of one guest and then the fleet. Arguments are the simulator's: see
# scripts/sim.sh guest --help. What it draws and the figures are in out/sim.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

"$root/scripts/setup.sh"
make_dir "$root/out"
lock "$root/out/lock-sim"

progress "$root/out/sim.log" '^ *(Downloaded|Compiling)' "the simulator" \
	env CARGO_TARGET_DIR="$cargo_target" CARGO_TERM_COLOR=never \
	cargo build --release --locked --manifest-path "$root/tools/sim/Cargo.toml" || {
	disk_full "$root/out" || cat "$root/out/sim.log" >&2
	die "tools/sim was not built" "if crates could not be downloaded, check the network"
}

sim=$cargo_target/release/sim
if [ $# -gt 0 ]; then
	run "$sim" "$@"
else
	run "$sim" guest --out "$root/out/sim"
	echo
	run "$sim" fleet --out "$root/out/sim"
fi

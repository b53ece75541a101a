#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# guest.sh demo|shell [ARGUMENT...]
#
# Makes all that a guest needs, then starts the lab program with it. Arguments
# are the lab's: see out/lab demo --help.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

command=${1:-demo}
shift || true

built=$(mktemp)
at_exit "rm -f $built"
run "$root/scripts/build-kernel.sh" release >"$built"
kernel=$(cat "$built")/arch/x86/boot/bzImage
PAGE_HINTING_SET_UP=1
export PAGE_HINTING_SET_UP
run "$root/scripts/build-module.sh" release >"$built"
module=$(cat "$built")
run "$root/scripts/build-lab.sh"

lab=("$root/out/lab" "$command" --kernel "$kernel" --module "$module")
case $command in
shell)
	trap - EXIT
	rm -f "$built"
	exec "${lab[@]}" "$@"
	;;
*)
	run "${lab[@]}" "$@"
	;;
esac

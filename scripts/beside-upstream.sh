#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# beside-upstream.sh rehint|dump|read
#
# Measures the series beside the kernel without it, and prints what came out:
#
#   rehint:  how much is hinted again, of what nobody used since it was hinted
#   dump:    what makedumpfile makes of a guest's memory, dumped by QEMU
#   read:    what drgn and crash find of free memory in the same dumps; crash only if
#            it is there, as it has to know the kernel's release
#
# Makes the release kernel and the same without the series, and boots each; for
# "read" with debugging information, which takes as long again to build.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
scenario=${1:-}
case $scenario in
rehint) ;;
dump) command -v makedumpfile >/dev/null ||
	die "there is no makedumpfile" "apt-get install --no-install-recommends makedumpfile" ;;
read) command -v drgn >/dev/null ||
	die "there is no drgn" "install it: python3 -m pip install drgn, in a virtual environment" ;;
*) die "no such measurement: $scenario" "usage: scripts/beside-upstream.sh rehint|dump|read" ;;
esac
what=$scenario dwarf=
if [ "$what" = read ]; then
	scenario=dump dwarf=-dwarf
fi
# Where the scenario puts its dumps.
out=$root/out/$scenario

built=$(mktemp)
at_exit "rm -f $built"

"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain
run "$root/scripts/build-lab.sh"
run "$root/scripts/build-module.sh" "release$dwarf" >"$built"
module=$(cat "$built")

# measure VARIANT: boots its kernel with the scenario, what is said is in $out.
measure() {
	local build
	run "$root/scripts/build-kernel.sh" "$1" >"$built"
	build=$(cat "$built")
	run "$root/scripts/build-test-modules.sh" "$1" >/dev/null
	run "$root/out/lab" test --kernel "$build/arch/x86/boot/bzImage" --module "$module" \
		--selftests "$root/out/selftests" --name "$1" --scenario "$scenario" --out "$out"
}

# QEMU 7.2 puts the section headers of an ELF dump between the file's header
# and the program headers, where makedumpfile does not look for these; there is
# only a section for what the file's header says anyway.
put_program_headers_first() {
	python3 - "$1" <<-'END'
		import struct, sys
		with open(sys.argv[1], 'r+b') as f:
		    head = bytearray(f.read(64))
		    phoff, = struct.unpack_from('<Q', head, 32)
		    size, count = struct.unpack_from('<HH', head, 54)
		    if phoff != 64:
		        f.seek(phoff)
		        programs = f.read(size * count)
		        struct.pack_into('<QQ', head, 32, 64, 0)
		        struct.pack_into('<HHH', head, 58, 0, 0, 0)
		        f.seek(0)
		        f.write(head + programs)
	END
}

# pages LOG WHAT: how many pages makedumpfile says it left out, or nothing.
pages() {
	sed -nE "s/^ *$2 *: 0x([0-9a-f]+)$/\\1/p" "$1" | head -n 1
}

# filter ELF: what each level leaves out.
filter() {
	local level log=$out/makedumpfile.log zero free
	put_program_headers_first "$1"
	for level in 1 16 17 31; do
		rm -f "$out/filtered"
		run makedumpfile -c -d "$level" --message-level 31 "$1" "$out/filtered" >"$log" 2>&1 || {
			cat "$log" >&2
			die "makedumpfile cannot read $1"
		}
		zero=$(pages "$log" 'Pages filled with zero')
		free=$(pages "$log" 'Free pages')
		[ -n "$zero$free" ] || die "makedumpfile does not say what it left out: see $log"
		printf '%-22s -d %-3s %8d zero %8d free %8d KiB\n' "$(basename "$1" .elf)" "$level" \
			$((16#${zero:-0})) $((16#${free:-0})) $(($(stat -c %s "$out/filtered") / 1024))
	done
	rm -f "$out/filtered" "$1"
}

# read_dump VARIANT ELF
read_dump() {
	local vmlinux elf=$out/$2.elf log=$out/crash.log
	run "$root/scripts/build-kernel.sh" "$1" >"$built"
	vmlinux=$(cat "$built")/vmlinux
	put_program_headers_first "$elf"
	printf '%-20s drgn:  %s\n' "$2" "$(run drgn -q -c "$elf" -s "$vmlinux" "$root/scripts/read-dump.py" 2>"$out/drgn.log" || tail -n 1 "$out/drgn.log")"
	if command -v crash >/dev/null; then
		printf 'kmem -i\nkmem -f\nquit\n' | run crash -s "$vmlinux" "$elf" >"$log" 2>&1 || true
		printf '%-20s crash: %s\n' "$2" "$(grep -E '^ *FREE |^nr_free_pages|crash: ' "$log" | tr -s ' ' | paste -s -d ';')"
	fi
	rm -f "$elf"
}

# again TAP KERNEL: what a guest says was hinted again.
again() {
	grep -hE '^# .* KiB again' "$1" | sed "s/^#/$2/"
}

# taken_and_given_back FILE: how much of that, in KiB.
taken_and_given_back() {
	sed -nE 's/.*taken and given back: ([0-9]+) of .*/\1/p' "$1"
}

rm -rf "$out"
make_dir "$out"
measure "base$dwarf"
measure "release$dwarf"
case $what in
read)
	read_dump base-dwarf unpatched-unhinted
	read_dump base-dwarf unpatched-reported
	read_dump release-dwarf patched-unhinted
	read_dump release-dwarf patched-hinted
	;;
rehint)
	again "$out/base-rehint.tap" unpatched: >"$out/unpatched"
	again "$out/release-rehint.tap" patched: >"$out/patched"
	cat "$out/unpatched" "$out/patched"
	# With what merges there is chance in it: how much is free in halves.
	[ "$(taken_and_given_back "$out/patched")" -lt "$(taken_and_given_back "$out/unpatched")" ] ||
		die "the module hints no less again than page_reporting does, where memory is taken and given back"
	;;
dump)
	grep -hE '^# dump ' "$out"/*.tap | sed 's/^# dump //'
	for elf in unpatched-unhinted unpatched-reported patched-unhinted patched-reported patched-hinted; do
		filter "$out/$elf.elf"
	done
	;;
esac

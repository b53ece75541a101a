#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes what "make suites" runs in its guests and the project has none of its own, in
# out/suites-tools:
#
#   root/       a root directory: in /mm the mm selftests of the kernel's source, static, in
#               /usr Debian's stress-ng with the libraries it is linked with, and a busybox
#   page_frag/  the source of the selftests' module, to be built for each kernel
#   versions    what they are, a line each
#
# The packages are downloaded and unpacked, not installed.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

out=$root/out/suites-tools
lib=lib/x86_64-linux-gnu
selftests=tools/testing/selftests

"$root/scripts/setup.sh"
source=$("$root/scripts/fetch-kernel.sh")
make_dir "$root/out"
lock "$root/out/lock-suites-tools"

# What is there serves until it is made from something else.
made_from() {
	cat /etc/debian_version "${BASH_SOURCE[0]}"
	gcc --version
	printf '%s\n' "$source"
}
id=$(made_from | sha256sum | cut -c -16)
[ "$(cat "$out/id" 2>/dev/null)" != "$id" ] || exit 0

scratch=$(mktemp -d)
at_exit "rm -rf $(printf %q "$scratch")"
rm -rf "$out"
make_dir "$out/root/mm"
for dir in dev proc sys tmp usr/bin "usr/$lib"; do
	make_dir "$out/root/$dir"
done
for dir in bin lib; do
	ln -s "usr/$dir" "$out/root/$dir"
done

# --- Packages ---------------------------------------------------------------

say "downloading stress-ng, libnuma and libcap"
make_dir "$scratch/packages"
make_dir "$scratch/unpacked"
codename=$(debian_codename)
private_apt "$(debian_mirror)" "$codename" "$codename-updates" || die "no package lists of $codename"

# get PACKAGE...: those that are not there yet, each unpacked in a directory of its name.
get() {
	local package deb wanted=()
	for package; do
		[ -d "$scratch/unpacked/$package" ] || wanted+=("$package")
	done
	[ ${#wanted[@]} -gt 0 ] || return 1
	(cd "$scratch/packages" && apt_get download "${wanted[@]}") ||
		die "not all of these could be downloaded: ${wanted[*]}" "check the network and run the same command again"
	for package in "${wanted[@]}"; do
		deb=$(compgen -G "$scratch/packages/${package}_*.deb")
		run dpkg-deb -x "$deb" "$scratch/unpacked/$package"
	done
}

# depends PACKAGE: what it depends on, the first of alternatives.
depends() {
	apt_cache show --no-all-versions "$1" | sed -n 's/^Depends: //p' | tr ',' '\n' |
		sed -E 's/^ *//; s/[ |(:].*//' | grep .
}

get stress-ng libnuma-dev libnuma1 libcap-dev libcap2

# --- stress-ng --------------------------------------------------------------

cp "$scratch/unpacked/stress-ng/usr/bin/stress-ng" "$out/root/usr/bin/"

# needed FILE...: what the dynamic loader will look for.
needed() {
	readelf -d "$@" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p' | sort -u
}

# owner NAME: who of the unpacked has that library, as "package file".
owner() {
	local file
	file=$(find "$scratch/unpacked" -name "$1" -path "*/$lib/*" -print -quit)
	[ -n "$file" ] || return 1
	printf '%s %s\n' "$(cut -d / -f 1 <<<"${file#"$scratch"/unpacked/}")" "$file"
}

# libraries_of PACKAGE FILE: those of FILE, which is from PACKAGE, and of these, into the
# root directory. Who is linked with it depends on the package that has it.
libraries_of() {
	local name package file
	while read -r name; do
		[ ! -e "$out/root/usr/$lib/$name" ] || continue
		read -r package file < <(owner "$name") || {
			# shellcheck disable=SC2046 # names
			get $(depends "$1") || true
			read -r package file < <(owner "$name") || die "$name, which $2 is linked with, is in no package that $1 depends on"
		}
		cp -L "$file" "$out/root/usr/$lib/$name"
		libraries_of "$package" "$file"
	done < <(needed "$2")
}
libraries_of stress-ng "$out/root/usr/bin/stress-ng"
make_dir "$out/root/lib64"
cp -L "$out/root/usr/$lib/ld-linux-x86-64.so.2" "$out/root/lib64/"

# --- The mm selftests ---------------------------------------------------------

# They write beside their sources.
(cd "$source" && cp -a --parents -t "$scratch" tools/include tools/scripts tools/arch/x86/include \
	mm/gup_test.h lib/test_hmm_uapi.h include/vdso include/asm-generic \
	$selftests/{mm,lib.mk,kselftest,kselftest.h,kselftest_harness.h,x86,pidfd,clone3})
build_selftests() {
	local deps=$scratch/unpacked
	make -C "$source" O="$scratch/headers" ARCH=x86_64 headers &&
		make -C "$scratch/$selftests/mm" -j"$jobs" ARCH=x86_64 OUTPUT="$out/root/mm" CAN_BUILD_I386=0 \
			KHDR_INCLUDES="-isystem $scratch/headers/usr/include" \
			EXTRA_CFLAGS="-static -isystem $deps/libnuma-dev/usr/include -isystem $deps/libcap-dev/usr/include -L$deps/libnuma-dev/usr/$lib -L$deps/libcap-dev/usr/$lib"
}
make_dir "$scratch/headers"
progress "$out/selftests.log" '^  CC' "the mm selftests" build_selftests || {
	tail -n 40 "$out/selftests.log" >&2
	die "the mm selftests were not built" "the whole log: $out/selftests.log"
}
strip "$out"/root/mm/*
cp -a "$scratch/$selftests/mm/page_frag" "$out/page_frag"

# --- The rest ---------------------------------------------------------------

cp /bin/busybox "$out/root/usr/bin/busybox"
ln -s busybox "$out/root/usr/bin/sh"
make_dir "$out/root/etc"
printf '%s\n' root:x:0:0::/:/bin/sh nobody:x:65534:65534::/:/bin/sh >"$out/root/etc/passwd"
{
	printf 'mm selftests of Linux %s\n' "$kernel_version"
	printf 'stress-ng %s\n' "$(cd "$scratch/packages" && compgen -G 'stress-ng_*' | cut -d _ -f 2)"
	gcc --version | head -n 1
} >"$out/versions"
printf '%s\n' "$id" >"$out/id"

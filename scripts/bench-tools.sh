#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Makes what the bench runs in its guests and the project has none of its own, in
# out/bench-tools:
#
#   cyclictest/   Debian's rt-tests, with the libraries it is linked with
#   build.tar     a root directory with this machine's gcc and make, and in /build the
#                 source of Debian's Lua
#   versions      what they are, a line each
#
# The two packages are downloaded and unpacked, not installed.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

out=$root/out/bench-tools
lib=lib/x86_64-linux-gnu

"$root/scripts/setup.sh"
make_dir "$root/out"
lock "$root/out/lock-bench-tools"

# What is there serves until it is made from something else.
made_from() {
	cat /etc/debian_version "${BASH_SOURCE[0]}"
	gcc --version
}
id=$(made_from | sha256sum | cut -c -16)
[ "$(cat "$out/id" 2>/dev/null)" != "$id" ] || exit 0

scratch=$(mktemp -d)
at_exit "rm -rf $(printf %q "$scratch")"
rm -rf "$out"
make_dir "$out/cyclictest/lib"
make_dir "$scratch/packages"

say "downloading rt-tests and the source of lua5.4"
codename=$(debian_codename)
private_apt "$(debian_mirror)" "$codename" "$codename-updates" || die "no package lists of $codename"
(cd "$scratch/packages" && apt_get download rt-tests libnuma1 &&
	apt_get source --download-only lua5.4) ||
	die "rt-tests or the source of lua5.4 could not be downloaded" \
		"check the network and run the same command again"

# libraries PROGRAM...: the files that these are linked with, the loader too.
libraries() {
	ldd "$@" | sed -nE 's,^.*[[:space:]](/[^[:space:]]+) \(0x[0-9a-f]+\)$,\1,p' | sort -u
}

# --- cyclictest -------------------------------------------------------------

for deb in "$scratch"/packages/*.deb; do
	run dpkg-deb -x "$deb" "$scratch/rt"
done
cp "$scratch/rt/usr/bin/cyclictest" "$out/cyclictest/"
# libnuma comes from the package that was downloaded: this machine need not have it.
export LD_LIBRARY_PATH=$scratch/rt/usr/$lib
libraries "$out/cyclictest/cyclictest" | xargs -d '\n' cp -L -t "$out/cyclictest/lib"
unset LD_LIBRARY_PATH

# --- A root directory with a compiler ---------------------------------------

tree=$scratch/tree
make_dir "$tree/usr/lib"
for dir in bin sbin lib lib64; do
	make_dir "$tree/usr/$dir"
	ln -s "usr/$dir" "$tree/$dir"
done
for dir in build dev proc tmp; do
	make_dir "$tree/$dir"
done

# The packages that these files are from, whole but for what no C program needs.
cc1=$(gcc -print-prog-name=cc1)
dpkg -S "$(readlink -f "$(command -v gcc)")" /usr/bin/gcc "$cc1" "$(gcc -print-libgcc-file-name)" \
	/usr/bin/as "$(readlink -f /usr/bin/as)" /usr/bin/make /usr/include/stdio.h \
	/usr/include/linux/types.h | sed 's/: .*//' | sort -u |
	xargs dpkg -L | sort -u | sed 's,^/,,' |
	grep -vE '^usr/share/|/(lto1|lto-wrapper|g\+\+-mapper-server)$|lto-dump|/lib[a-z]+san[._]|/gconv/|-(dwp|gp-[a-z-]*|gcov[a-z-]*|ld\.gold)|/libc\.a$|/libm-.*\.a$|/libmvec\.a$' |
	while read -r file; do
		{ [ ! -f "/$file" ] && [ ! -L "/$file" ]; } || printf '%s\n' "$file"
	done >"$scratch/files"
run tar -C / -cf "$scratch/files.tar" --no-recursion --files-from="$scratch/files"
run tar -C "$tree" -xf "$scratch/files.tar" --keep-directory-symlink --no-same-owner
find "$tree/usr/bin" "$(dirname "$tree$cc1")" -maxdepth 1 -type f -perm /100 ! -name '*.so*' >"$scratch/programs"
while read -r program; do
	libraries "$program" 2>/dev/null || true
done <"$scratch/programs" | sort -u >"$scratch/libraries"
# What libm.so and libc.so, which are linker scripts, name.
for name in libc.so.6 libm.so.6 libmvec.so.1 ld-linux-x86-64.so.2; do
	printf '/%s\n' "$lib/$name"
done >>"$scratch/libraries"
while read -r library; do
	make_dir "$tree$(dirname "$library")"
	[ -f "$tree$library" ] || cp -L "$library" "$tree$library"
done <"$scratch/libraries"
cp /bin/busybox "$tree/usr/bin/busybox"
for applet in sh cp rm mkdir uname install; do
	ln -s busybox "$tree/usr/bin/$applet"
done

for archive in "$scratch"/packages/lua5.4_*.orig.tar.*; do
	run tar -C "$tree/build" --strip-components=1 -xf "$archive" --no-same-owner
done
# The program as it is to be made in the guest, here: what is missing shows now.
[ -f "$tree/build/src/lua.c" ] || die "there is no src/lua.c in the source of lua5.4"
run tar -C "$tree" --owner=0 --group=0 --sort=name -cf "$out/build.tar" .

{
	printf 'cyclictest of rt-tests %s\n' "$(cd "$scratch/packages" && compgen -G 'rt-tests_*' | cut -d _ -f 2)"
	gcc --version | head -n 1
	make --version | head -n 1
	printf 'Lua %s\n' "$(cd "$scratch/packages" && compgen -G 'lua5.4_*.dsc' | sed -E 's/^[^_]*_(.*)\.dsc$/\1/')"
} >"$out/versions"
printf '%s\n' "$id" >"$out/id"

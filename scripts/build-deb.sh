#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# build-deb.sh
#
# Builds Debian packages into out/deb, and prints their paths:
#
#   linux-image-RELEASE         the guest kernel with the series, by the kernel's own
#                               bindeb-pkg, as scripts/configs/package.config has it
#   linux-headers-RELEASE       to build modules for it, with what modules in Rust need and
#                               bindeb-pkg leaves out; they need the same rustc
#   page-hinting-modules-RELEASE  page_hinting.ko, built with these headers
#   page-hinting                loads the module at boot, lets drop-ins set its knobs, and
#                               brings hintstat, its systemd units and its examples
#
# page-hinting serves any kernel for which there is a page-hinting-modules.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
out=$root/out/${tag}deb
lock "$root/out/lock-deb"

"$root/scripts/setup.sh" debhelper:dh_testdir cpio:cpio
export PAGE_HINTING_SET_UP=1
use_toolchain
built=$(mktemp)
scratch=$(mktemp -d)
# shellcheck disable=SC2016
at_exit 'rm -rf "$built" "$scratch"'
umask 022

run "$root/scripts/build-kernel.sh" package >"$built"
build=$(cat "$built")
source=$(dirname "$build")/source
release=$(cat "$build/include/config/kernel.release")
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' tools/hintstat/Cargo.toml | head -n 1)-1
rm -rf "$out"
make_dir "$out"

# --- The kernel and its headers ------------------------------------------------

# It leaves its packages beside the build directory, which others may share.
lock "$cache/lock/$(basename "$(dirname "$build")")"
rm -f "$build"/../*.deb "$build"/../*.changes "$build"/../*.buildinfo
# What it builds with is what setup.sh has found, whatever packages that is from.
progress "$out/kernel.log" '^ *[A-Za-z]' "the kernel's packages" \
	kernel_make "$source" "$build" bindeb-pkg DPKG_FLAGS=-d KDEB_PKGVERSION="$kernel_version-1" \
	KDEB_CHANGELOG_DIST=unstable DEBEMAIL=page_hinting@localhost DEBFULLNAME=page_hinting || {
	disk_full "$out" || tail -n 40 "$out/kernel.log" >&2
	die "the kernel's packages were not built" "the whole log: $out/kernel.log"
}
for package in "$build"/../linux-image-"$release"_*.deb "$build"/../linux-headers-"$release"_*.deb; do
	[ -f "$package" ] || die "bindeb-pkg has built no $(basename "$package")" "see $out/kernel.log"
	mv "$package" "$scratch/"
done
rm -f "$build"/../*.deb "$build"/../*.changes "$build"/../*.buildinfo
mv "$scratch"/linux-image-*.deb "$out/"

# package DIR: a package of that tree, whose files are root's.
package() {
	(cd "$1" && find . -path ./DEBIAN -prune -o -type f -print0 | sort -z | xargs -0 -r md5sum | sed 's,  \./,  ,' >DEBIAN/md5sums)
	run dpkg-deb --root-owner-group --build "$1" "$out" >/dev/null || die "no package of $1"
}

headers=$scratch/headers
run dpkg-deb -R "$scratch"/linux-headers-*.deb "$headers"
where=$headers/usr/src/linux-headers-$release
make_dir "$where/rust"
# The crates that a module names, and the macros that rustc loads.
find "$build/rust" -maxdepth 1 \( -name '*.rmeta' -o -name '*.so' \) -exec cp -t "$where/rust" {} +
cp "$build/include/config/auto.conf" "$where/include/config/"
cp "$build/.config" "$where/.config"
package "$headers"

# --- The module, from these headers ----------------------------------------------

progress "$out/module.log" '^  [A-Z]' "the module" \
	make -C "$where" M="$root" MO="$scratch/module" LLVM="$llvm" "${rust_words[@]}" -j"$jobs" modules || {
	cat "$out/module.log" >&2
	die "the module was not built with the packaged headers"
}

# control DIR NAME ARCHITECTURE DEPENDS DESCRIPTION, and more of it from stdin
control() {
	make_dir "$1/DEBIAN"
	{
		printf 'Package: %s\nVersion: %s\nArchitecture: %s\nMaintainer: page_hinting <page_hinting@localhost>\n' \
			"$2" "$version" "$3"
		printf 'Section: kernel\nPriority: optional\n%sDescription: %s\n' "${4:+Depends: $4$'\n'}" "$5"
		sed 's/^$/./; s/^/ /'
	} >"$1/DEBIAN/control"
}

modules=$scratch/modules
install -D -m 644 "$scratch/module/page_hinting.ko" "$modules/lib/modules/$release/updates/page_hinting.ko"
control "$modules" "page-hinting-modules-$release" amd64 "linux-image-$release" \
	"page_hinting.ko for Linux $release" <<-END
	Tells the host which memory of this guest is free, so that it can take it back.
	For this kernel alone, which has the series applied.
END
sed -i '/^Depends:/a Provides: page-hinting-modules' "$modules/DEBIAN/control"
for script in postinst postrm; do
	cat >"$modules/DEBIAN/$script" <<-END
		#!/bin/sh
		set -e
		[ ! -d /lib/modules/$release ] || depmod $release
	END
	chmod 755 "$modules/DEBIAN/$script"
done
package "$modules"

# --- What does not depend on the kernel ------------------------------------------

run "$root/scripts/build-hintstat.sh" >/dev/null
tree=$scratch/page-hinting
install -D -m 755 out/hintstat "$tree/usr/bin/hintstat"
make_dir "$tree/usr/share/man/man1"
out/hintstat man | gzip -9n >"$tree/usr/share/man/man1/hintstat.1.gz"
make_dir "$tree/usr/share/bash-completion/completions"
make_dir "$tree/usr/share/zsh/vendor-completions"
make_dir "$tree/usr/share/fish/vendor_completions.d"
out/hintstat completions bash >"$tree/usr/share/bash-completion/completions/hintstat"
out/hintstat completions zsh >"$tree/usr/share/zsh/vendor-completions/_hintstat"
out/hintstat completions fish >"$tree/usr/share/fish/vendor_completions.d/hintstat.fish"
for file in tools/hintstat/examples/systemd/*; do
	install -D -m 644 "$file" "$tree/usr/lib/systemd/system/$(basename "$file")"
done
make_dir "$tree/usr/share/doc/page-hinting/examples"
cp -r tools/hintstat/examples/{grafana,prometheus,qemu-guest-agent} "$tree/usr/share/doc/page-hinting/examples/"
for file in Documentation/ABI/testing/sysfs-kernel-mm-page_hinting Documentation/admin-guide/page_hinting*.rst; do
	install -D -m 644 "$file" "$tree/usr/share/doc/page-hinting/$(basename "$file")"
done
install -D -m 644 COPYING "$tree/usr/share/doc/page-hinting/copyright"
make_dir "$tree/usr/lib/modules-load.d"
echo page_hinting >"$tree/usr/lib/modules-load.d/page_hinting.conf"
# What sets the knobs comes after what loads the module, of which nobody else makes sure.
make_dir "$tree/usr/lib/systemd/system/systemd-tmpfiles-setup.service.d"
printf '[Unit]\nAfter=systemd-modules-load.service\n' \
	>"$tree/usr/lib/systemd/system/systemd-tmpfiles-setup.service.d/page_hinting.conf"
cat >"$tree/usr/share/doc/page-hinting/knobs.conf" <<-'END'
	# Copy this to /etc/tmpfiles.d/page_hinting.conf, and say what is to be other than
	# the default. It is done at boot, and now by: systemd-tmpfiles --create page_hinting.conf
	#w /sys/kernel/mm/page_hinting/min_order             - - - - 9
	#w /sys/kernel/mm/page_hinting/hold_ms - - - - 1000
END
control "$tree" page-hinting amd64 'page-hinting-modules, kmod' \
	"gives a guest's free memory back to its host" <<-END
	Loads the module page_hinting at boot, which tells the host what memory is free.
	Its knobs are set by drop-ins of tmpfiles.d; hintstat shows what it does.
END
package "$tree"

printf '%s\n' "$out"/*.deb

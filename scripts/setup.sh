#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# setup.sh [PACKAGE:PROBE...]
#
# Makes this machine, a Debian 12 or 13, able to build the guest kernel and the
# module and to boot guests. Installs what is missing, and only that; quick when
# nothing is. The kernel's source is fetch-kernel.sh's. Of packages that few need,
# those named, each with a command or the path of a file that it brings.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

# A script that has called this already says so to those which it calls.
[ -z "${PAGE_HINTING_SET_UP:-}" ] || [ $# -gt 0 ] || exit 0

rustc_min=1.85.0
bindgen_min=0.71.1
bindgen_pinned=0.72.1

[ "$(uname -m)" = x86_64 ] || die "this works on x86_64 machines only, not on $(uname -m)"

# --- Packages ---------------------------------------------------------------

missing=()

# need PACKAGE PROBE: PROBE is a command, or the full path of a file.
need() {
	case $2 in
	/*) [ -e "$2" ] || missing+=("$1") ;;
	*) command -v "$2" >/dev/null || missing+=("$1") ;;
	esac
}

lib=/usr/lib/x86_64-linux-gnu
need make make
need gcc gcc
need libc6-dev $lib/libc.a
need flex flex
need bison bison
need bc bc
need libelf-dev $lib/libelf.so
need perl perl
need python3 python3
need git git
need xz-utils xz
need kmod depmod
need rsync rsync
need curl curl
need ca-certificates /etc/ssl/certs/ca-certificates.crt
need debian-archive-keyring /usr/share/keyrings/debian-archive-keyring.gpg
need busybox-static /bin/busybox
need qemu-system-x86 qemu-system-x86_64
need qemu-utils qemu-img
need shellcheck shellcheck
need python3-sphinx sphinx-build
for more; do
	need "${more%%:*}" "${more#*:}"
done
[ -n "$(find_llvm)" ] || missing+=(clang-19 lld-19 llvm-19 libclang1-19)

# candidate PACKAGE: the upstream version that apt would install.
candidate() {
	apt-cache policy "$1" 2>/dev/null | sed -nE 's/^  Candidate: ([0-9]+:)?([0-9.]+).*/\2/p'
}

rust_ok() {
	version_ge "$(rustc_version)" "$rustc_min" && cargo --version >/dev/null 2>&1
}

# Debian 12 carries a current Rust too, under the names which its browsers use.
distribution_rust() {
	if version_ge "$(candidate rustc)" "$rustc_min"; then
		missing+=(rustc cargo rust-src rustfmt rust-clippy)
	elif version_ge "$(candidate rustc-web)" "$rustc_min"; then
		missing+=(rustc-web cargo-web rust-web-src rustfmt-web rust-web-clippy)
	else
		die "no Rust: this needs rustc $rustc_min or newer, with cargo" \
			"Debian 13 has it (rustc), Debian 12 in its updates (rustc-web); or install rustup"
	fi
}

as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

may_be_root() {
	[ "$(id -u)" = 0 ] && return
	command -v sudo >/dev/null || return 1
	sudo -n true 2>/dev/null || { [ -t 0 ] && [ -t 2 ]; }
}

# apt_install APT-GET-ARGUMENT... PACKAGE...: never at the price of another package.
apt_install() {
	as_root apt-get -o DPkg::Lock::Timeout=120 -q --no-remove --no-install-recommends -y install "$@" </dev/null >&2
}

# All packages of one QEMU have one version. Where some of them are from the
# backports, apt would remove them for the rest of an older one, which it prefers.
qemu_from_backports() { # PACKAGE...
	local have codename
	have=$(dpkg-query -W -f '${Version}\n' qemu-utils 'qemu-system-*' 2>/dev/null | awk '/~bpo/ && !n++') || true
	[ -n "$have" ] || return
	! apt-cache policy qemu-system-x86 | grep -F "Candidate: $have" >/dev/null || return
	codename=$(debian_codename)
	say "installing $* $have from $codename-backports, as other packages of QEMU here are from there"
	private_apt "$(debian_mirror)" "$codename" "$codename-updates" "$codename-backports" &&
		apt_install -c="$cache/apt/apt.conf" -t "$codename-backports" "$@"
}

install_packages() {
	local qemu command="apt-get install --no-install-recommends -y ${missing[*]}"
	command -v apt-get >/dev/null ||
		die "missing, and this is no Debian: ${missing[*]}" "install what these Debian packages have"
	may_be_root || die "packages are missing; as root, run this one command, then this one again:" "  $command"
	say "installing: ${missing[*]}"
	export DEBIAN_FRONTEND=noninteractive
	mapfile -t qemu < <(printf '%s\n' "${missing[@]}" | grep '^qemu-')
	if [ ${#qemu[@]} -gt 0 ] && qemu_from_backports "${qemu[@]}"; then
		mapfile -t missing < <(printf '%s\n' "${missing[@]}" | grep -v '^qemu-')
	fi
	[ ${#missing[@]} = 0 ] || apt_install "${missing[@]}" || {
		disk_full /var || true
		die "the packages were not installed; apt says why above" \
			"check the network and the disk, or see what this says as root: $command"
	}
}

if [ ${#missing[@]} -gt 0 ] || ! rust_ok; then
	if command -v apt-get >/dev/null && may_be_root; then
		say "reading the package lists"
		as_root apt-get -q update </dev/null >&2 || say "apt-get update failed; going on with the lists there are"
	fi
	rust_ok || {
		[ -z "$(rustc_version)" ] || say "rustc $(rustc_version) is too old, $rustc_min is the oldest that will do"
		distribution_rust
	}
	if ! version_ge "$(tool_version bindgen --version)" "$bindgen_min" &&
		version_ge "$(candidate bindgen)" "$bindgen_min"; then
		missing+=(bindgen)
	fi
	install_packages
	hash -r
	rust_ok || die "rustc on the PATH is $(rustc_version), and $rustc_min is needed" \
		"$(command -v rustc) hides the one that was just installed: remove it, or update it with rustup"
fi

# --- bindgen ----------------------------------------------------------------

if ! version_ge "$(tool_version bindgen --version)" "$bindgen_min"; then
	lock "$cache/lock/tools"
	if ! version_ge "$(tool_version bindgen --version)" "$bindgen_min"; then
		need_space "$cache" 600 "building bindgen"
		say "building bindgen $bindgen_pinned"
		# bindgen runs for seconds in each kernel build: optimizing it takes longer than it saves.
		CARGO_PROFILE_RELEASE_OPT_LEVEL=1 progress "$cache/bindgen.log" '^ *(Downloaded|Compiling)' bindgen \
			cargo install bindgen-cli --version "$bindgen_pinned" --locked --root "$cache/tools" || {
			tail -n 20 "$cache/bindgen.log" >&2
			disk_full "$cache" || true
			die "bindgen $bindgen_pinned was not built" "check the network and run the same command again"
		}
	fi
fi

# --- The source of Rust's standard library ----------------------------------

have_rust_src() {
	[ -f "$(rustc --print sysroot)/lib/rustlib/src/rust/library/core/src/lib.rs" ] ||
		[ -f "$(rust_src_cache)/library/core/src/lib.rs" ]
}

# unpack_library DEB DIR: only the library, not the compiler.
unpack_library() {
	dpkg-deb --fsys-tarfile "$1" |
		tar -x -C "$2" --strip-components=4 --wildcards \
			--no-wildcards-match-slash './usr/src/rustc*/library' &&
		[ -f "$2/library/core/src/lib.rs" ]
}

# Debian's package of exactly the rustc's version, unpacked but not installed:
# installed, it would conflict with rustup.
rust_src_from_debian() {
	local version mirror suites package deb
	version=$(rustc_version)
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || return 1
	for suites in trixie-backports "trixie bookworm-security bookworm-updates" "forky sid"; do
		# shellcheck disable=SC2086
		private_apt "$mirror" $suites || continue
		for package in rust-src rust-web-src; do
			deb=$(apt_cache madison "$package" 2>/dev/null |
				awk -F ' *[|] *' -v v="$version" '/Packages/ && ($2 ~ "^" v "[+~-]" || $2 == v) { print $2; exit }')
			[ -n "$deb" ] || continue
			make_dir "$cache/download"
			need_space "$cache" 800 "the source of Rust's standard library"
			(cd "$cache/download" && apt_get download "$package=$deb") || continue
			rm -rf "$(rust_src_cache)" "$(rust_src_cache).tmp"
			make_dir "$(rust_src_cache).tmp"
			run unpack_library "$cache/download/$package"_*.deb "$(rust_src_cache).tmp" || continue
			rm -f "$cache/download/$package"_*.deb
			mv "$(rust_src_cache).tmp" "$(rust_src_cache)"
			return
		done
	done
	return 1
}

if ! have_rust_src; then
	lock "$cache/lock/tools"
	say "getting the source of Rust $(rustc_version)'s standard library"
	# rustup may hang where there is no network.
	if ! have_rust_src && command -v rustup >/dev/null; then
		run timeout 60 rustup component add rust-src >&2 ||
			say "rustup did not deliver it; trying Debian's package"
	fi
	have_rust_src || rust_src_from_debian || true
	have_rust_src ||
		die "no source of Rust $(rustc_version)'s standard library, which the kernel compiles" \
			"install rust-src of exactly this version: rustup component add rust-src, or Debian's package"
fi

# --- An older Rust, for a kernel that needs one -------------------------------

# Debian's packages of it, unpacked but not installed: the one on the PATH stays.
older_rust_from_debian() {
	local mirror codename names name version deb
	mirror=$(debian_mirror)
	codename=$(debian_codename)
	private_apt "$mirror" "$codename" "$codename-updates" || return 1
	for names in "rustc-web libstd-rust-web-1.85 libstd-rust-web-dev rust-web-src" \
		"rustc libstd-rust-1.85 libstd-rust-dev rust-src"; do
		rm -rf "$older_rust.tmp"
		make_dir "$older_rust.tmp/packages"
		for name in $names; do
			version=$(apt_cache madison "$name" 2>/dev/null |
				awk -F ' *[|] *' '/Packages/ && $2 ~ /^1\.85\./ { print $2; exit }')
			[ -n "$version" ] || continue 2
			(cd "$older_rust.tmp/packages" && apt_get download "$name=$version") || return 1
		done
		for deb in "$older_rust.tmp"/packages/*.deb; do
			case $deb in
			*-src_*) run unpack_library "$deb" "$older_rust.tmp" || return 1 ;;
			*) run dpkg-deb -x "$deb" "$older_rust.tmp" || return 1 ;;
			esac
		done
		rm -r "$older_rust.tmp/packages"
		# The programs are where they were not built to be.
		cat >"$older_rust.tmp/rustc" <<-END
			#!/bin/sh
			LD_LIBRARY_PATH=$older_rust/$lib exec $older_rust/usr/bin/rustc "\$@"
		END
		chmod 755 "$older_rust.tmp/rustc"
		mv "$older_rust.tmp" "$older_rust"
		return
	done
	return 1
}

if needs_older_rust && [ ! -d "$older_rust" ]; then
	lock "$cache/lock/tools"
	[ -d "$older_rust" ] || {
		rm -rf "$older_rust.tmp"
		need_space "$cache" 1500 "an older Rust"
		say "getting Rust 1.85: rustc $(rustc_version) does not build Linux $kernel_series"
		older_rust_from_debian ||
			die "there is no rustc that builds Linux $kernel_series" \
				"put a rustc before $rustc_max and its rust-src on the PATH, or check the network"
	}
	"$older_rust/rustc" --version >/dev/null || die "$older_rust/rustc does not run" "remove $older_rust, and run the same command again"
fi

# --- QEMU -------------------------------------------------------------------

qemu-system-x86_64 -device virtio-balloon-pci,help 2>/dev/null | grep free-page-reporting >/dev/null ||
	die "$(qemu-system-x86_64 --version 2>/dev/null | head -n 1 || echo QEMU) is too old: its balloon has no free page reporting" \
		"QEMU 5.1 has it, 7.2 (Debian 12) is the oldest tried; this one is $(command -v qemu-system-x86_64)"

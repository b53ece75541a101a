#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fetch-kernel.sh [cached]
#
# Gets the source of the kernel that the series is made for, unpacked into the
# cache, and prints its directory on stdout. In this order:
#
#   1. KERNEL_SRC=, a tree or a tarball of the user's, which is only read;
#   2. the cache;
#   3. Debian's linux-source package or source package, by an apt configuration
#      of our own with the suites that carry it and the machine's own mirror;
#   4. kernel.org's tarball, checked against the checksums published with it;
#   5. if the pinned version is nowhere: the newest of its series that Debian
#      or the cache has and that the patches apply to.
#
# With cached, it fails where it would have to download something.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

sources=$cache/source
download=$cache/download
kernel_org=${KERNEL_ORG_URL:-https://cdn.kernel.org/pub/linux/kernel/v${kernel_series%%.*}.x}

# Enough for the archive and the unpacked tree.
source_mib=2400

found() {
	printf '%s\n' "$1"
	exit 0
}

tree_version() {
	awk -F ' *= *' '/^(VERSION|PATCHLEVEL|SUBLEVEL) =/ { v = v s $2; s = "." } END { print v }' \
		"$1/Makefile" 2>/dev/null
}

# unpack NAME COMMAND...: COMMAND writes a tar stream or a tree into its last
# argument; what is complete gets its name, so nothing is ever half-used.
unpack() {
	local name=$1
	shift
	say "unpacking ${name%%+*}"
	rm -rf "$sources/$name.tmp"
	make_dir "$sources/$name.tmp"
	run "$@" "$sources/$name.tmp" 2>"$cache/unpack.log" || {
		tail -n 2 "$cache/unpack.log" >&2
		disk_full "$sources" || true
		rm -rf "$sources/$name.tmp"
		die "the kernel source was not unpacked" "run the same command again"
	}
	[ -f "$sources/$name.tmp/mm/page_alloc.c" ] ||
		die "$name is no kernel source: it has no mm/page_alloc.c"
	mv "$sources/$name.tmp" "$sources/$name"
}

# shellcheck disable=SC2317 # these three are called by unpack
unpack_tar() {
	tar -xf "$1" -C "$2" --strip-components=1
}

# shellcheck disable=SC2317
unpack_deb() {
	local tarball
	tarball=./usr/src/linux-source-$kernel_series.tar.xz
	dpkg-deb --fsys-tarfile "$1" | tar -xO "$tarball" | tar -xJ -C "$2" --strip-components=1
}

# shellcheck disable=SC2317
copy_tree() {
	tar -C "$1" --exclude=./.git --exclude='*.o' -cf - . | tar -xf - -C "$2"
	# Built in its own directory once: a tree for O= must be clean.
	if [ -f "$2/.config" ] || [ -d "$2/include/config" ]; then
		make -s -C "$2" ARCH=x86 mrproper
	fi
}

# --- 1. The user's ----------------------------------------------------------

from_user() {
	local name id
	if [ -d "$KERNEL_SRC" ]; then
		[ -f "$KERNEL_SRC/mm/page_alloc.c" ] || die "KERNEL_SRC=$KERNEL_SRC is no kernel source tree"
		id=$(cd "$KERNEL_SRC" && find . -name .git -prune -o -type f ! -name '*.o' -printf '%P %s %T@\n' |
			sort | sha256sum | cut -c 1-16)
		name=linux-$(tree_version "$KERNEL_SRC")+tree-$id
	elif [ -f "$KERNEL_SRC" ]; then
		id=$(sha256sum <"$KERNEL_SRC" | cut -c 1-16)
		name=linux-user+tarball-$id
	else
		die "KERNEL_SRC=$KERNEL_SRC is neither a kernel source tree nor a tarball of one"
	fi
	if [ ! -d "$sources/$name" ]; then
		need_space "$sources" "$source_mib" "the kernel source"
		if [ -d "$KERNEL_SRC" ]; then
			unpack "$name" copy_tree "$KERNEL_SRC"
		else
			unpack "$name" unpack_tar "$(realpath "$KERNEL_SRC")"
		fi
	fi
	found "$sources/$name"
}

# --- 2. The cache -----------------------------------------------------------

# cached VERSION-PATTERN: those in the cache, newest first. What came from
# KERNEL_SRC is only for those who ask for it.
cached() {
	find "$sources" -maxdepth 1 -type d ! -name '*.tmp' \
		\( -name "linux-$1+debian*" -o -name "linux-$1+kernel.org" \) | sort -rV
}

# --- 3. Debian --------------------------------------------------------------

# use_suites SUITE...: reads their package lists, if that did not happen yet.
use_suites() {
	local mirror suite
	mirror=$(debian_mirror)
	[ -n "$mirror" ] || return 1
	say "reading Debian's package lists of: $*"
	private_apt "$mirror" "$@" || return 1
}

# What Debian has of the series as lines of VERSION PACKAGE-KIND, newest first.
offered() {
	{
		apt_cache madison "linux-source-$kernel_series" |
			awk -F ' *[|] *' '/Packages/ { print $2, "binary" }'
		apt_cache showsrc --only-source linux |
			awk '/^Version:/ { print $2, "source" }'
	} 2>/dev/null | awk -v v="$kernel_series." 'index($1, v) == 1' | sort -u -k 1,1rV -k 2,2
}

# from_debian VERSION KIND
from_debian() {
	local version=$1 kind=$2 name file
	name=linux-${version%%-*}+debian-$(tr -c 'A-Za-z0-9.\n-' _ <<<"${version#*-}")
	need_space "$cache" "$source_mib" "the kernel source"
	make_dir "$download"
	cd "$download"
	say "downloading the kernel source $version from Debian"
	if [ "$kind" = binary ]; then
		apt_get download "linux-source-$kernel_series=$version" || return 1
		file=$(compgen -G "linux-source-${kernel_series}_*.deb" | head -n 1)
		unpack "$name" unpack_deb "$download/$file"
	else
		apt_get source --download-only --tar-only "linux=$version" || return 1
		file=linux_${version%%-*}.orig.tar.xz
		unpack "$name" unpack_tar "$download/$file"
	fi
	rm -f "$download/$file"
	cd "$root"
	tree=$sources/$name
}

# from_debian_pinned: backports first, whose lists are small.
from_debian_pinned() {
	local suites version kind
	for suites in trixie-backports "trixie-backports forky sid"; do
		# shellcheck disable=SC2086
		use_suites $suites || continue
		while read -r version kind; do
			[ "${version%%-*}" = "$kernel_version" ] || continue
			from_debian "$version" "$kind" && return
		done < <(offered)
	done
	return 1
}

from_debian_newest() {
	local version kind
	while read -r version kind; do
		[ "${version%%-*}" != "$kernel_version" ] || continue
		from_debian "$version" "$kind" || continue
		! series_applies "$tree" || return 0
		rm -rf "$tree"
	done < <(offered)
	return 1
}

# --- 4. kernel.org ----------------------------------------------------------

fetch() {
	run curl -fL --connect-timeout 20 --retry 3 --retry-delay 2 -C - "$([ -t 2 ] && echo -# || echo -sS)" \
		-o "$2" "$1"
}

from_kernel_org() {
	local file=linux-$kernel_version.tar.xz try
	need_space "$cache" "$source_mib" "the kernel source"
	make_dir "$download"
	cd "$download"
	say "downloading the kernel source $kernel_version from kernel.org"
	rm -f sha256sums.asc
	fetch "$kernel_org/sha256sums.asc" sha256sums.asc || return 1
	grep -E "^[0-9a-f]{64}  $file\$" sha256sums.asc >"$file.sha256" || return 1
	for try in 1 2; do
		if [ ! -f "$file" ]; then
			fetch "$kernel_org/$file" "$file.part" || return 1
			mv "$file.part" "$file"
		fi
		if sha256sum --quiet -c "$file.sha256" >&2; then
			unpack "linux-$kernel_version+kernel.org" unpack_tar "$download/$file"
			rm -f "$file" "$file.sha256" sha256sums.asc
			tree=$sources/linux-$kernel_version+kernel.org
			cd "$root"
			return
		fi
		say "$file is damaged (try $try)"
		rm -f "$file"
	done
	return 1
}

# ----------------------------------------------------------------------------

make_dir "$sources"
lock "$cache/lock/source"

tree=
[ -z "${KERNEL_SRC:-}" ] || from_user
tree=$(cached "$kernel_version" | head -n 1)
[ -z "$tree" ] || found "$tree"
[ "${1:-}" != cached ] || exit 1
from_debian_pinned && found "$tree"
from_kernel_org && found "$tree"

say "Linux $kernel_version is not to be had; looking for a newer $kernel_series.x that the series applies to"
while read -r tree; do
	if series_applies "$tree"; then
		say "using $(basename "$tree"), which is in the cache, in place of $kernel_version"
		found "$tree"
	fi
done < <(cached "$kernel_series.*")
if from_debian_newest; then
	say "using $(basename "$tree") in place of $kernel_version"
	found "$tree"
fi
die "no source of Linux $kernel_version: neither Debian's mirror nor kernel.org could be read" \
	"check the network, or give a tree or tarball of it: make demo KERNEL_SRC=/path/to/linux-$kernel_version.tar.xz"

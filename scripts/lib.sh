# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=bash
# shellcheck disable=SC2034 # variables for those who source this
#
# Shared by the scripts beside it: messages, the cache, the toolchain, and
# running commands so that an interrupt leaves nothing behind. Source it first.

set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
: "${HOME:=$(getent passwd "$(id -u)" | cut -d : -f 6)}"
export HOME
cache=${PAGE_HINTING_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/page_hinting}
case $cache in
/*) ;;
*) cache=$PWD/$cache ;;
esac
jobs=${JOBS:-$(nproc)}

# Where cargo builds. Not in the cache: two checkouts that build in one place get
# each other's programs, as cargo goes by the files' times.
cargo_target=$root/out/cargo

# The kernel that the series is made for, and where the series is: KERNEL_SERIES chooses
# one of those in patches/. What is built for others than the first has its number in its
# name. rustc_max is the oldest rustc that builds it no more.
kernel_series=${KERNEL_SERIES:-7.3}
tag=$kernel_series-
rustc_max=
case $kernel_series in
7.3) kernel_version=7.3.4 tag= ;;
6.18) kernel_version=6.18.15 rustc_max=1.95.0 ;;
*)
	printf 'page_hinting: error: there is no series for Linux %s\n' "$kernel_series" >&2
	printf 'page_hinting:        KERNEL_SERIES is one of: 7.3 6.18\n' >&2
	exit 1
	;;
esac
patches=$root/patches/$kernel_series

# What a make above us was told is not meant for the kernel's make or cargo's.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES GNUMAKEFLAGS
unset GIT_DIR GIT_WORK_TREE GIT_INDEX_FILE GIT_PREFIX CDPATH
export LC_ALL=C.UTF-8

say() {
	printf 'page_hinting: %s\n' "$*" >&2
}

# die MESSAGE [WHAT TO DO]: the end of the script.
die() {
	printf 'page_hinting: error: %s\n' "$1" >&2
	shift
	[ $# = 0 ] || printf 'page_hinting:        %s\n' "$@" >&2
	exit 1
}

# Seconds as 1:05.
clock() {
	printf '%d:%02d' $(($1 / 60)) $(($1 % 60))
}

# version_ge A B: true if version A is B or newer.
version_ge() {
	[ "$(printf '%s\n%s\n' "$1" "$2" | sort -V | head -n 1)" = "$2" ]
}

make_dir() {
	mkdir -p "$1" 2>/dev/null ||
		die "cannot create the directory $1" "free space there, or choose another cache with PAGE_HINTING_CACHE=DIR"
}

# need_space DIR MIB WHAT: stop early and clearly instead of in mid-build.
need_space() {
	local free
	free=$(($(df -Pk "$1" | awk 'NR == 2 { print $4 }') / 1024))
	[ "$free" -ge "$2" ] ||
		die "$3 needs $2 MiB in $1, and only $free MiB are free" \
			"free some space, or choose another cache with PAGE_HINTING_CACHE=DIR"
}

# Whether a failed command failed because the disk was full; says so if it did.
disk_full() {
	local free
	free=$(($(df -Pk "$1" | awk 'NR == 2 { print $4 }') / 1024))
	[ "$free" -lt 64 ] || return 1
	say "the disk is full: $free MiB free in $1; free some space and run the same command again"
}

# lock FILE: one at a time, across checkouts; held until the script ends.
declare -A locked=()
lock() {
	local fd
	[ -z "${locked[$1]:-}" ] || return 0
	make_dir "$(dirname "$1")"
	exec {fd}>"$1"
	flock -n "$fd" || {
		say "waiting for another run that holds $1"
		flock "$fd"
	}
	locked[$1]=$fd
}

# --- Children ---------------------------------------------------------------

child=
ticker=
cleanups=()

# at_exit COMMAND: run it when the script ends, however it ends.
at_exit() {
	cleanups+=("$1")
}

# run COMMAND ARG...: wait for it, in a process group of its own, which an
# interrupt ends as a whole. It has no standard input.
run() {
	local status=0
	set -m
	"$@" </dev/null &
	child=$!
	set +m
	wait "$child" || status=$?
	child=
	return "$status"
}

end_ticker() {
	[ -n "$ticker" ] || return 0
	kill -TERM -- "-$ticker" 2>/dev/null || true
	wait "$ticker" 2>/dev/null || true
	ticker=
	[ ! -t 2 ] || printf '\r\033[K' >&2
}

end_child() {
	local i
	end_ticker
	[ -n "$child" ] || return 0
	kill -TERM -- "-$child" 2>/dev/null || return 0
	for i in {1..100}; do
		kill -0 -- "-$child" 2>/dev/null || return 0
		sleep 0.1
	done
	kill -KILL -- "-$child" 2>/dev/null || true
}

on_signal() {
	trap '' INT TERM HUP
	end_child
	say "interrupted; nothing half-done is used, run the same command again to go on"
	exit $((128 + $1))
}

on_exit() {
	local status=$? command
	end_child
	for command in "${cleanups[@]}"; do
		eval "$command" || true
	done
	exit "$status"
}

trap 'on_signal 2' INT
trap 'on_signal 15' TERM
trap 'on_signal 1' HUP
trap on_exit EXIT

# build_guest VARIANT: all that the lab needs to test that kernel; sets $kernel to its build
# directory and $module.
build_guest() {
	local built
	built=$(mktemp)
	at_exit "rm -f $built"
	run "$root/scripts/build-kernel.sh" "$1" >"$built"
	kernel=$(cat "$built")
	run "$root/scripts/build-module.sh" "$1" >"$built"
	# shellcheck disable=SC2034 # for who calls it
	module=$(cat "$built")
	run "$root/scripts/build-lab.sh"
	run "$root/scripts/build-test-modules.sh" "$1" >/dev/null
}

# time_left STEPS SECONDS: ", about 3:20 left" once that many of $steps are done; empty while
# that cannot be told.
time_left() {
	local left
	[ "${steps:-0}" -gt "$1" ] && [ "$1" -gt $((steps / 20)) ] || return 0
	left=$(($2 * (steps - $1) / $1))
	printf ' of about %d, about %s left' "$steps" "$(clock "$left")"
}

# [steps=N] progress LOG PATTERN WHAT COMMAND...: run COMMAND with its output in LOG. Show every
# second on a terminal, else every 30 s, how many lines of it match PATTERN, and how much time is
# left if about N lines will match.
progress() {
	local log=$1 pattern=$2 what=$3 start=$SECONDS status=0 interval=30 tick='' finished=''
	shift 3
	: >"$log"
	set -m
	"$@" >>"$log" 2>&1 </dev/null &
	child=$!
	(
		trap - INT TERM HUP EXIT
		[ ! -t 2 ] || interval=1
		while sleep "$interval" && kill -0 "$child" 2>/dev/null; do
			finished=$(grep -cE "$pattern" "$log") || true
			printf -v tick '%s: %s, %s steps done%s' "$what" "$(clock $((SECONDS - start)))" \
				"$finished" "$(time_left "$finished" $((SECONDS - start)))"
			if [ -t 2 ]; then
				printf '\rpage_hinting: %s \033[K' "$tick" >&2
			else
				say "$tick"
			fi
		done
	) &
	ticker=$!
	set +m
	wait "$child" || status=$?
	child=
	end_ticker
	return "$status"
}

# --- The toolchain ----------------------------------------------------------

# tool_version COMMAND...: the first x.y.z that it prints.
tool_version() {
	"$@" 2>/dev/null | grep -oE '[0-9]+\.[0-9]+\.[0-9]+' | head -n 1
}

rustc_version() {
	tool_version rustc --version
}

# The directory in the cache where the rustc's standard library goes when it
# comes without its source.
rust_src_cache() {
	printf '%s/rust-src/%s\n' "$cache" "$(rustc_version)"
}

# The newest LLVM from 19 on that is whole, as LLVM= wants it; empty if none.
find_llvm() {
	local v
	for v in {30..19}; do
		if command -v "clang-$v" >/dev/null && command -v "ld.lld-$v" >/dev/null &&
			command -v "llvm-ar-$v" >/dev/null &&
			compgen -G "/usr/lib/llvm-$v/lib/libclang*.so*" >/dev/null; then
			echo "-$v"
			return
		fi
	done
}

# Where tools may be that are not on the PATH of every shell.
PATH=$cache/tools/bin:$PATH:/usr/sbin:/sbin
[ ! -d "${CARGO_HOME:-$HOME/.cargo}/bin" ] || PATH=$PATH:${CARGO_HOME:-$HOME/.cargo}/bin
export PATH

# Everything that a make of the kernel or of the module needs in the
# environment. Call after setup.sh has made it available.
use_toolchain() {
	llvm=$(find_llvm)
	export LIBCLANG_PATH=/usr/lib/llvm$llvm/lib
	if [ -d "$(rust_src_cache)/library" ]; then
		RUST_LIB_SRC=$(rust_src_cache)/library
		export RUST_LIB_SRC
	fi
	if [ -d "$older_rust" ] && needs_older_rust; then
		kernel_rustc=$older_rust/rustc
		rust_words=("RUSTC=$kernel_rustc" "HOSTRUSTC=$kernel_rustc")
		RUST_LIB_SRC=$older_rust/library
		export RUST_LIB_SRC
	fi
}

# What the kernel and the module are built with, if it is not the rustc on the PATH: words
# for their make.
kernel_rustc=rustc
rust_words=()
older_rust=$cache/rust-1.85

needs_older_rust() {
	[ -n "$rustc_max" ] && version_ge "$(rustc_version)" "$rustc_max"
}

# kernel_make SOURCE BUILD ARGUMENT...: the kernel's make, always with the same words, or
# it would build all anew.
kernel_make() {
	make -C "$1" O="$2" ARCH=x86_64 LLVM="$llvm" "${rust_words[@]}" LOCALVERSION= \
		KBUILD_BUILD_USER=page_hinting KBUILD_BUILD_HOST=localhost -j"$jobs" "${@:3}"
}

# What the result of a build depends on, besides its sources.
toolchain_id() {
	"$kernel_rustc" -vV
	bindgen --version
	"clang$llvm" --version | head -n 1
	"ld.lld$llvm" --version
}

# --- What the measurements count with ------------------------------------------

# build_alloc_bench VARIANT BUILD DIR: the module for that kernel, in
# DIR/VARIANT/alloc_bench.
build_alloc_bench() {
	local to=$3/$1/alloc_bench
	make_dir "$to"
	lock "$3/$1/lock"
	progress "$to.log" '^  [A-Z]' "the test module alloc_bench for $1" \
		make -C "$2" M="$root/tools/testing/selftests/page_hinting/alloc_bench" MO="$to" \
		LLVM="$llvm" "${rust_words[@]}" -j"$jobs" modules || {
		disk_full "$3" || cat "$to.log" >&2
		die "the test module alloc_bench was not built for the $1 kernel"
	}
}

# build_plugin FILE: the plugin that counts, for the QEMU there is: from 9.0 on it
# wants a version of 2 or more. The declarations it needs are in the source itself.
build_plugin() {
	local major version=1
	command -v cc >/dev/null || die "there is no cc, to compile QEMU's plugin with" "apt-get install gcc"
	major=$(qemu-system-x86_64 --version | sed -nE '1s/^QEMU emulator version ([0-9]+)\..*/\1/p')
	[ "${major:-0}" -lt 9 ] || version=2
	run cc -shared -fPIC -O2 -Wall "-DVERSION=$version" -o "$1" "$root/tools/lab/plugin/count.c" ||
		die "tools/lab/plugin/count.c was not compiled"
}

# --- Debian's packages that the system's own lists don't offer ---------------

debian_codename() {
	sed -nE 's/^VERSION_CODENAME="?([a-z]+)"?$/\1/p' /etc/os-release
}

# The mirror which this machine is configured with.
debian_mirror() {
	local codename
	codename=$(debian_codename)
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI) $(RELEASE) $(COMPONENT)' 'Created-By: Packages' |
		awk -v c="$codename" '$3 == "main" && ($2 == c || $2 ~ /^(stable|oldstable|testing|sid|unstable)$/) { print $1; exit }'
}

# private_apt MIRROR SUITE...: lists of those suites, in the cache. The system's
# stay as they are. apt checks the signatures of all that it gets this way.
private_apt() {
	local mirror=$1 suite
	shift
	lock "$cache/lock/apt"
	make_dir "$cache/apt/lists/partial"
	make_dir "$cache/apt/archives/partial"
	for suite; do
		printf '%s [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] %s %s main\n' \
			deb "$mirror" "$suite" deb-src "$mirror" "$suite"
	done >"$cache/apt/sources.list"
	cat >"$cache/apt/apt.conf" <<-END
		Dir::Etc::sourcelist "$cache/apt/sources.list";
		Dir::Etc::sourceparts "-";
		Dir::State::lists "$cache/apt/lists";
		Dir::Cache "$cache/apt";
		Acquire::Languages "none";
		Acquire::IndexTargets::deb::DEP-11::DefaultEnabled "false";
		Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled "false";
		Acquire::Retries "3";
		Acquire::http::Timeout "30";
		Acquire::https::Timeout "30";
		APT::Sandbox::User "";
		#clear APT::Update::Pre-Invoke;
		#clear APT::Update::Post-Invoke;
		#clear APT::Update::Post-Invoke-Success;
	END
	run apt-get -c="$cache/apt/apt.conf" -q update >"$cache/apt/update.log" 2>&1 || true
	# A suite that this mirror lacks is no error as long as another is there.
	compgen -G "$cache/apt/lists/*_Packages*" >/dev/null && return
	grep -E '^(E|Err|W):' "$cache/apt/update.log" | head -n 2 >&2 || true
	return 1
}

apt_get() {
	local quiet=-q
	[ ! -t 2 ] || quiet=-q=0
	run apt-get -c="$cache/apt/apt.conf" "$quiet" "$@" >&2
}

apt_cache() {
	apt-cache -c="$cache/apt/apt.conf" -q "$@"
}

# --- The series -------------------------------------------------------------

# Its patches, in order, one a line.
series() {
	compgen -G "$patches/backports/*.patch" | sort || true
	compgen -G "$patches/fixes/*.patch" | sort || true
	compgen -G "$patches/*.patch" | sort || true
}

# series_code: what of the series a kernel is built from: neither documents nor logs.
series_code() {
	# shellcheck disable=SC2016
	series | xargs -r awk '
		FNR == 1 { code = 0 }
		/^diff --git / { code = $3 !~ "^a/(Documentation/|MAINTAINERS$)" }
		code'
}

# series_files TREE: those files of TREE which the series changes.
series_files() {
	local patch file
	series | while read -r patch; do
		sed -nE 's,^(---|\+\+\+) [ab]/([^[:space:]]+).*,\2,p' "$patch"
	done | sort -u | while read -r file; do
		[ ! -f "$1/$file" ] || printf '%s\n' "$file"
	done
}

# series_sources: the C files that the series changes, in the pristine tree or not.
series_sources() {
	series | xargs -r sed -nE 's,^\+\+\+ b/([^[:space:]]+\.c)$,\1,p' | sort -u
}

# series_git GITDIR TREE ARG...: git with nobody's own settings. The repository
# is outside of the tree, so that the tree stays what the kernel's make expects.
series_git() {
	GIT_CONFIG_GLOBAL=/dev/null GIT_CONFIG_SYSTEM=/dev/null \
		GIT_AUTHOR_NAME=page_hinting GIT_AUTHOR_EMAIL=page_hinting@localhost \
		GIT_COMMITTER_NAME=page_hinting GIT_COMMITTER_EMAIL=page_hinting@localhost \
		git -c core.hooksPath=/dev/null -c gc.auto=0 -C "$2" \
		--git-dir="$1" --work-tree="$2" "${@:3}"
}

# series_begin GITDIR TREE: a repository of the files that the series changes;
# the eighty thousand others need not be in it for git am.
series_begin() {
	git init -q --bare "$1"
	git --git-dir="$1" config core.bare false
	[ -z "$(series)" ] ||
		series_files "$2" | series_git "$1" "$2" add -f --pathspec-from-file=-
	series_git "$1" "$2" commit -q --allow-empty -m Linux
}

# series_apply GITDIR TREE PATCH
series_apply() {
	series_git "$1" "$2" am -q "$3" && return
	series_git "$1" "$2" am --abort 2>/dev/null || true
	return 1
}

# series_applies TREE: true if all of it does; TREE is only read.
series_applies() {
	local scratch patch file status=0
	scratch=$(mktemp -d)
	mkdir "$scratch/tree"
	series_files "$1" | while read -r file; do
		mkdir -p "$scratch/tree/$(dirname "$file")"
		cp "$1/$file" "$scratch/tree/$file"
	done
	series_begin "$scratch/git" "$scratch/tree"
	while read -r patch; do
		series_apply "$scratch/git" "$scratch/tree" "$patch" >&2 || {
			say "$(basename "$patch") does not apply to $1"
			status=1
			break
		}
	done < <(series)
	rm -rf "$scratch"
	return "$status"
}

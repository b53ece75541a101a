#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# test.sh [CHECK...]
#
# Runs the named checks, or all there are, and goes on after a failure so that
# all are reported. One line per check as TAP has it; the last line counts the
# tests, those of the runners below it included. Fails if one of them failed or
# none ran. The checks:
#
#   fmt:        rustfmt on the module and the host crates
#   clippy:     clippy on the same, a warning is a failure
#   shell:      every shell script
#   docs:       the documents: that they build, that knobs, metrics and tests are as they say, and
#               with promtool the alerts
#   series:     the patches: checkpatch, and that they apply one by one; those for other
#               releases as well, if their sources are in the cache
#   unit:       cargo test (nextest if it is there) on the host crates
#   guests:     the selftests: each scenario in the guest that suits it best, the release guest,
#               the debug guest (KASAN, lockdep, DEBUG_VM, KUnit), or the kernel without the series
#
# and, if they are named:
#
#   debug:      every scenario in the debug guest: an hour
#   soak:       the policy's properties with many more cases and by chance, what may be done in
#               random order in the debug guest, for HOURS, by default 1, beginning with the
#               number SEED, and every scenario in either guest, with many more cycles
#
# T=SCENARIO[/TEST[/POINT]] runs just that, in the guest that VARIANT names: release (the
# default) or debug. JOBS is how many guests run at a time.

# shellcheck disable=SC2034,SC2317 # check_* and the variables of made are used by name
# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
out=$root/out/test
number=0 passed=0 failed=0 skipped=0
status=0

all=(fmt clippy shell docs series unit guests)
more=(debug soak)
checks=("$@")
[ $# -gt 0 ] || checks=("${all[@]}")

# --- Counting and reporting -------------------------------------------------

# result STATUS NAME SECONDS [COMMENT]
result() {
	number=$((number + 1))
	printf '%s %d - %s (%s)%s\n' "$1" "$number" "$2" "$(clock "$3")" "${4:+ # $4}"
}

# test_one NAME COMMAND...: one test, its output is shown if it fails.
test_one() {
	local name=$1 start=$SECONDS
	shift
	if progress "$out/log" . "$name" "$@"; then
		passed=$((passed + 1))
		result ok "$name" $((SECONDS - start))
	else
		failed=$((failed + 1))
		tail -n 100 "$out/log" | sed 's/^/    /'
		disk_full "$root" || true
		result "not ok" "$name" $((SECONDS - start))
	fi
}

# test_each NAME COMMAND...: a test for each line of standard input, which is COMMAND's last
# argument; as many at a time as there are processors.
test_each() {
	local name=$1 logs=$out/each start=$SECONDS item log
	shift
	rm -rf "$logs"
	mkdir -p "$logs"
	cat >"$logs/items"
	# shellcheck disable=SC2016 # for the shell that xargs starts
	run xargs -a "$logs/items" -d '\n' -P "$jobs" -I '{}' bash -c '
		log=$0/$(printf %s "${!#}" | tr / _)
		"$@" >"$log.failed" 2>&1 && mv "$log.failed" "$log"' "$logs" "$@" '{}' || true
	while read -r item; do
		log=$logs/$(printf %s "$item" | tr / _)
		if [ -e "$log" ]; then
			passed=$((passed + 1))
			result ok "$name: ${item#"$root/"}" 0
		else
			failed=$((failed + 1))
			[ ! -e "$log.failed" ] || tail -n 100 "$log.failed" | sed 's/^/    /'
			result "not ok" "$name: ${item#"$root/"}" 0
		fi
	done <"$logs/items"
	say "$name: $(wc -l <"$logs/items") files, $(clock $((SECONDS - start)))"
}

# count LOG: the sums of a runner's closing lines, as "passed failed skipped".
count() {
	sed -r 's/\x1b\[[0-9;]*m//g' "$1" | awk '
		# the lab: 12 passed, 0 failed, 1 skipped
		/^[0-9]+ passed, [0-9]+ failed/ { p += $1; f += $3; s += $5 }
		# cargo test: test result: ok. 3 passed; 0 failed; 1 ignored; ...
		/^test result: / { p += $4; f += $6; s += $8 }
		# nextest: Summary [ 0.1s] 3 tests run: 3 passed (1 slow), 1 failed, 1 skipped
		/^ *Summary \[/ {
			for (i = 2; i <= NF; i++) {
				if ($i ~ /^passed/) p += $(i - 1)
				if ($i ~ /^(failed|timed)/) f += $(i - 1)
				if ($i ~ /^skipped/) s += $(i - 1)
			}
		}
		END { print p + 0, f + 0, s + 0 }'
}

# test_runner NAME COMMAND...: a runner of many tests, shown as it goes. One
# that fails without saying which test did, or that ran none, counts as one.
test_runner() {
	local name=$1 start=$SECONDS log p f s code=0
	shift
	log=$out/${name//[^a-z0-9-]/_}.log
	# shellcheck disable=SC2016
	run bash -c 'set -o pipefail; "$@" 2>&1 | tee "$0" | sed -u "s/^/    /"' "$log" "$@" || code=$?
	read -r p f s < <(count "$log")
	if [ "$f" = 0 ] && { [ "$code" != 0 ] || [ $((p + s)) = 0 ]; }; then
		f=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	if [ "$f" = 0 ]; then
		result ok "$name" $((SECONDS - start)) "$p passed, $s skipped"
	else
		result "not ok" "$name" $((SECONDS - start)) "$p passed, $f failed, $s skipped; log: ${log#"$root"/}"
	fi
}

# made VARIABLE NAME COMMAND...: what COMMAND prints goes to VARIABLE; a test,
# because what comes after it needs it.
made() {
	local variable=$1 name=$2 start=$SECONDS
	shift 2
	[ -z "${!variable:-}" ] || return 0
	if run "$@" >"$out/made"; then
		printf -v "$variable" '%s' "$(cat "$out/made")"
		passed=$((passed + 1))
		result ok "$name" $((SECONDS - start))
	else
		failed=$((failed + 1))
		result "not ok" "$name" $((SECONDS - start))
		return 1
	fi
}

have_source() {
	made source "the kernel's source is there" "$root/scripts/fetch-kernel.sh"
}

# The host crates of this checkout.
crates() {
	local crate
	for crate in tools/lab tools/sim tools/hintstat tools/model rust/policy; do
		[ ! -f "$crate/Cargo.toml" ] || echo "$crate"
	done
}

# --- Checks -----------------------------------------------------------------

check_fmt() {
	local crate files
	have_source || return 0
	mapfile -t files < <(find rust -name '*.rs' -not -path 'rust/policy/*' -not -path '*/target/*' 2>/dev/null | sort)
	[ ${#files[@]} = 0 ] ||
		test_one "rustfmt: the module" rustfmt --check --edition 2021 --config-path "$source/.rustfmt.toml" "${files[@]}"
	for crate in $(crates); do
		test_one "rustfmt: $crate" cargo fmt --check --manifest-path "$crate/Cargo.toml"
	done
}

check_clippy() {
	local crate
	test_one "clippy: the module" scripts/build-module.sh release CLIPPY=1
	for crate in $(crates); do
		test_one "clippy: $crate" env CARGO_TARGET_DIR="$cargo_target" \
			cargo clippy --locked --all-targets --manifest-path "$crate/Cargo.toml" -- -D warnings
	done
}

check_shell() {
	local file
	# Not at the end of a pipe, which would count in a shell of its own.
	test_each shellcheck shellcheck -x < <(git ls-files --cached --others --exclude-standard | while read -r file; do
		[ -f "$file" ] || continue
		case $file in
		*.sh) echo "$file" ;;
		*) ! head -n 1 "$file" | grep -aqE '^#!.*[/ ](ba|da)?sh( |$)' || echo "$file" ;;
		esac
	done | sort)
}

check_docs() {
	have_source || return 0
	test_one "documents: the knobs are those of the code" scripts/check-knobs.sh
	test_one "documents: no warning from Sphinx" scripts/check-docs.sh "$source"
	test_one "the fault matrix names tests that there are" scripts/check-matrix.sh
	if command -v promtool >/dev/null; then
		test_one "the alerts of hintstat's examples" promtool test rules tools/hintstat/examples/prometheus/page_hinting.test.yml
	else
		skipped=$((skipped + 1))
		result ok "the alerts of hintstat's examples" 0 "SKIP no promtool: apt-get install prometheus"
	fi
}

# one_series TREE: that of $patches, on a tree of its release.
one_series() {
	local patch name scratch file
	scratch=$out/series
	rm -rf "$scratch"
	mkdir -p "$scratch/tree"
	while read -r file; do
		install -D -m 644 "$1/$file" "$scratch/tree/$file"
	done < <(series_files "$1")
	series_begin "$scratch/git" "$scratch/tree"
	test_one "there is a series in ${patches#"$root"/}" test -n "$(series)"
	test_each checkpatch checkpatch "$1" < <(series)
	while read -r patch; do
		name=${patch#"$root/patches/"}
		test_one "applies: $name" series_apply "$scratch/git" "$scratch/tree" "$patch"
	done < <(series)
}

# checkpatch TREE PATCH. Where there is a repository, it leaves a file: so not from the top. In
# this one are no commits of Linux. Page flags are CamelCase; checkpatch knows it of PageFoo, not
# of __SetPageFoo. How trace events are written everywhere, --strict does not know; nor what a
# macro is that is a loop in a loop.
checkpatch() {
	local strict=--strict ignore=CAMELCASE,UNKNOWN_COMMIT_ID
	! grep -q '^+TRACE_EVENT(' "$2" || strict=--no-summary
	! grep -q '^+#define for_each_' "$2" || ignore+=,COMPLEX_MACRO,MACRO_ARG_REUSE
	env -C "$out" "$1/scripts/checkpatch.pl" --no-tree "$strict" --ignore "$ignore" --quiet "$2"
}
export -f checkpatch
export out

# Those of other releases as well, if their sources are in the cache: to fetch them and to
# build their kernels is for who asks for it, with KERNEL_SERIES.
check_series() {
	local patches other tree
	have_source || return 0
	patches=$root/patches/$kernel_series
	one_series "$source"
	for patches in "$root"/patches/*; do
		other=$(basename "$patches")
		[ "$other" != "$kernel_series" ] || continue
		if tree=$(env -u KERNEL_SRC KERNEL_SERIES="$other" scripts/fetch-kernel.sh cached); then
			one_series "$tree"
		else
			skipped=$((skipped + 1))
			result ok "the series in patches/$other" 0 "SKIP no source of Linux $other in the cache"
		fi
	done
}

check_unit() {
	local crate runner=(cargo test --no-fail-fast)
	! cargo nextest --version >/dev/null 2>&1 || runner=(cargo nextest run --no-tests=pass --no-fail-fast)
	for crate in $(crates); do
		# The same cases each time; chance is for soak.
		test_runner "cargo test: $crate" env CARGO_TARGET_DIR="$cargo_target" CARGO_TERM_COLOR=never \
			PROPTEST_RNG_SEED=602947 \
			"${runner[@]}" --locked --manifest-path "$crate/Cargo.toml"
	done
}

# swap_on FILE
swap_on() {
	fallocate -l 2G "$1" && chmod 600 "$1" && mkswap -q "$1" && swapon "$1"
}

# Swap, if there is none, for the tests in which the host is short of memory; its skip is
# expected in the selftests' directory DIR only where that cannot be. One that a killed run
# left is used.
have_swap() {
	local file=$out/swap
	at_exit "swapoff $(printf %q "$file") 2>/dev/null; grep -qsF $(printf %q "$file ") /proc/swaps || rm -f $(printf %q "$file")"
	if ! grep -qsF "$file " /proc/swaps; then
		[ "$(wc -l </proc/swaps)" -le 1 ] || return 0
		swap_on "$file" >"$out/swap.log" 2>&1 || {
			rm -f "$file"
			say "no swap can be had here, so tests of a host that swaps are skipped: $(tail -n 1 "$out/swap.log")"
			return 0
		}
	fi
	sed -i '/swapped\.sh/d' "$1/skips"
}

have_lab() {
	made lab_built "the lab and the selftests are built" bash -c 'scripts/build-lab.sh && echo yes'
}

# have VARIANT: its kernel, module and selftests, in guests[VARIANT] as the lab takes them: kernel
# image, module, directory of selftests. The kernel without the series gets the release module.
declare -A guests=()
have() {
	local variant=$1 kernel='' module='' modules='' of=$1
	[ -z "${guests[$variant]:-}" ] || return 0
	[ "$variant" != base ] || of=release
	made kernel "the $variant kernel is built" scripts/build-kernel.sh "$variant" || return
	made module "the $of module is built" scripts/build-module.sh "$of" || return
	have_lab || return
	made modules "the $variant test modules are built" scripts/build-test-modules.sh "$variant" || return
	rm -rf "$out/selftests-$variant"
	cp -a out/selftests "$out/selftests-$variant"
	case ${T:-fuzz} in
	fuzz*) have_swap "$out/selftests-$variant" ;;
	esac
	guests[$variant]="$kernel/arch/x86/boot/bzImage $module $out/selftests-$variant"
}

# lab NAME VARIANT SCENARIOS SECONDS [ARGUMENT...]: a run of the lab's, each test of which may take
# so long.
lab() {
	local kernel module selftests
	read -r kernel module selftests <<<"${guests[$2]}"
	test_runner "$1" out/lab test --kernel "$kernel" --module "$module" --selftests "$selftests" \
		--name "$2" --scenario "$3" --out out/test/guests --timeout "$4" \
		${JOBS:+--jobs "$JOBS"} "${@:5}"
}

# Builds a kernel beside the next one: Rust's crates wait for one another, and CPUs would idle.
# have() waits for the build's lock, and reports a failure.
build_beside() {
	[ "$jobs" -gt 1 ] || return 0
	set -m
	scripts/build-kernel.sh "$1" </dev/null >/dev/null &
	beside=$!
	set +m
	# shellcheck disable=SC2016 # at exit
	at_exit 'jobs -pr | grep -qx "$beside" && kill -- "-$beside" && wait "$beside"'
}

check_debug() {
	have debug || return 0
	lab "every scenario in the debug guest" debug every 600
}

check_guests() {
	local debug base
	build_beside base
	have debug || return 0
	have base || return 0
	have release || return 0
	read -ra debug <<<"${guests[debug]}"
	read -ra base <<<"${guests[base]}"
	lab "the selftests in guests" release all,figures 600 \
		--also debug "${debug[@]}" all --also base "${base[@]}" unpatched,figures
	test_one "the figures' formats are those of the unpatched kernel" same_formats \
		out/test/guests/base-figures.tap out/test/guests/release-figures.tap
}

# One scenario, test or point by its name.
check_named() {
	local variant=${VARIANT:-release} scenario file point
	IFS=/ read -r scenario file point <<<"$T"
	have "$variant" || return 0
	lab "$T in the $variant guest" "$variant" "$scenario" 600 ${file:+--only "$file"} ${point:+--last "$point"}
	say "what the tests printed: out/test/guests/$variant-$scenario.tap"
	say "what the guest's kernel said: out/test/guests/$variant-$scenario.log"
}

# formats TAP: the formats of files that a guest's test wrote.
formats() {
	grep '^# format ' "$1"
}

# same_formats TAP TAP
same_formats() {
	[ -n "$(formats "$1")" ] && diff <(formats "$1") <(formats "$2")
}

check_soak() {
	local debug hours=${HOURS:-1} seed=${SEED:-$((SRANDOM & 0xffffff))}
	[[ $hours =~ ^[1-9][0-9]{0,2}$ ]] || die "HOURS is $hours" "it is a number of hours from 1 to 999"
	[[ $seed =~ ^[0-9]{1,8}$ ]] || die "SEED is $seed" "it is a number of up to eight digits"
	say "soak for $hours hours; the same again: make soak HOURS=$hours SEED=$seed"
	test_runner "the policy's properties" env CARGO_TARGET_DIR="$cargo_target" CARGO_TERM_COLOR=never \
		PROPTEST_RNG_SEED="$seed" PROPTEST_CASES=$((100000 * hours)) PROPTEST_MAX_GLOBAL_REJECTS=1000000000 \
		cargo test --locked --release --manifest-path rust/policy/Cargo.toml
	have debug || return 0
	have release || return 0
	export PAGE_HINTING_SECONDS=$((hours * 3600)) PAGE_HINTING_SEED=$seed
	lab "soak in the debug guest" debug fuzz $((hours * 3600 + 1800))
	unset PAGE_HINTING_SECONDS PAGE_HINTING_SEED
	read -ra debug <<<"${guests[debug]}"
	export PAGE_HINTING_SOAK=1
	lab "every scenario in either guest" release every 3600 \
		--also debug "${debug[@]}" every,power,sim-init,kunit
	unset PAGE_HINTING_SOAK
}

# ----------------------------------------------------------------------------

for check in "${checks[@]}"; do
	case " ${all[*]} ${more[*]} " in
	*" $check "*) ;;
	*) die "no such check: $check" "there are: ${all[*]} ${more[*]}" ;;
	esac
done

start=$SECONDS
make_dir "$out"
lock "$root/out/lock-test"
rm -f "$out"/*.log
"$root/scripts/setup.sh"
export PAGE_HINTING_SET_UP=1
use_toolchain

source='' lab_built=''
[ -z "${T:-}" ] || checks=(named)
for check in "${checks[@]}"; do
	say "$check (after $(clock $((SECONDS - start))))"
	"check_$check"
done

[ "$failed" = 0 ] && [ $((passed + failed)) -gt 0 ] || status=1
printf '1..%d\n' "$number"
grep -hE '^# [0-9]+ (expected|tests run once more)' "$out"/*.log 2>/dev/null || true
printf '# it took %s\n' "$(clock $((SECONDS - start)))"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
exit "$status"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-knobs.sh
#
# Compares what the documents say of the files in /sys/kernel/mm/page_hinting with
# the code. Each difference is a line; any fails the script, and so does it if there
# is nothing to compare. The files are those of rust/knobs.rs, the ranges and
# defaults those of rust/policy/src/policy.rs, on x86-64. Compares hintstat's metrics and
# exit statuses with its code, too, wherever the documents and its examples name them.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
sysfs=rust/knobs.rs
policy=rust/policy/src/policy.rs
guide=Documentation/admin-guide/page_hinting.rst
abi=Documentation/ABI/testing/sysfs-kernel-mm-page_hinting
wrong=0

# What the kernel gives the policy on x86-64, and the order that comes of it, which the policy's
# tests check.
# shellcheck disable=SC2034 # value() has them by name
page_kb=4
# shellcheck disable=SC2034
max_order=10
# shellcheck disable=SC2034
min_order=9

differs() {
	printf '%s\n' "$*"
	wrong=$((wrong + 1))
}

# --- The code ---------------------------------------------------------------

# files TABLE PREFIX: the files of a table, one a line.
files() {
	sed -nE "/^const $1:/,/^\];/s,.*c_str!\(\"([a-z_]+)\"\).*,$2\1,p" "$sysfs"
}

# In the table, a file's name may be on the line before what it is.
knobs() {
	tr -d '\n' <"$sysfs" | grep -oE 'c_str!\("[a-z_]+"\),[[:space:]]*What::Knob' | sed 's/.*("//; s/".*//'
}

# arms BEGIN END: the arms of the match between two lines of the policy, each on one
# line, as "knob_name expression".
arms() {
	awk -v begin="$1" -v end="$2" '
		!on { on = index($0, begin); next }
		index($0, end) == 1 { exit }
		{ gsub(/^ +/, ""); text = text " " $0 }
		END {
			n = split(text, arm, / Knob::/)
			for (i = 2; i <= n; i++) {
				split(arm[i], part, / => /)
				name = part[1]
				gsub(/[A-Z]/, "_&", name)
				sub(/^_/, "", name)
				sub(/,$/, "", part[2])
				print tolower(name), part[2]
			}
		}' "$policy" | bash_like
}

# value EXPRESSION: as a number, if it is one for x86-64. Bash takes Rust's operators,
# and the constants by their names.
value() {
	case $1 in
	true) echo 1 ;;
	false) echo 0 ;;
	# What another knob is set to.
	*_watermark_kb*) echo "$1" ;;
	*) echo "$(($1))" ;;
	esac
}

# bash_like: Rust as bash has it, and other knobs by their names.
bash_like() {
	sed -E 's/([0-9])_/\1/g; s/\.(into|(min|max)\([a-z_]+\)|\(\))//g; s/\(\)//g
		s/self\.get\(Knob::(High|Low)WatermarkKb\)/\L\1_watermark_kb/g; s/self\.//g
		s/\.saturating_add\(([0-9]+)\)/ + \1/; s/\.saturating_sub\(([0-9]+)\)/ - \1/'
}

# range EXPRESSION: "least to most".
range() {
	[[ $1 =~ ^[\{\ ]*(.+)\.\.=([^\}]*) ]] || return 0
	printf '%s to %s\n' "$(value "${BASH_REMATCH[1]}")" "$(value "${BASH_REMATCH[2]}")"
}

# default KNOB: what Knobs::new() sets it to, in the order of the enum.
default() {
	local number
	number=$(sed -nE '/^pub enum Knob /,/^}/s/^    ([A-Z][A-Za-z]+),$/\1/p' "$policy" |
		sed -E 's/([A-Z])/_\L\1/g; s/^_//' | grep -nx "$1" | cut -d : -f 1)
	value "$(sed -n '/^            values: \[/,/^            \],/s/^                \(.*\),$/\1/p' "$policy" |
		sed -n "${number}p" | bash_like)"
}

# The constants, as variables of their names.
while read -r name expression; do
	declare "$name=$((expression))"
done < <(sed -nE 's/^pub const ([A-Z_]+): (u32|u64|usize) = ([^;]+);.*/\1 \3/p' "$policy" | bash_like)

# --- The documents ----------------------------------------------------------

documented() {
	sed -nE 's,^What:\t+/sys/kernel/mm/page_hinting/(.*[^/])$,\1,p' "$abi"
}

# described FILE: its text in the ABI document, on one line.
described() {
	awk -v what="/sys/kernel/mm/page_hinting/$1" '
		/^What:/ { on = $2 == what; next }
		on && /^(Description:|\t)/ { sub(/^Description:/, ""); gsub(/[ \t]+/, " "); printf "%s", $0 }' "$abi"
}

# rows: those of the guide's table, as "file|range|default".
rows() {
	awk '
		/^=+( =+)+$/ && on { exit }
		/^=+( =+)+$/ { on = header; split($0, column, " ") }
		{ header = /^file +range +default/ }
		on && /^``/ {
			a = length(column[1]) + 2; b = a + length(column[2]) + 1
			name = substr($0, 1, a - 2); gsub(/[` ]/, "", name)
			range = substr($0, a, b - a - 1); sub(/ +$/, "", range)
			is = substr($0, b, length(column[3])); gsub(/ /, "", is)
			print name "|" range "|" is
		}' "$guide"
}

# plain RANGE: in the words that range() has.
plain() {
	sed -E "s/ *\([^)]*\)//g; s/, and .*//; s/0(,| or) 1/0 to 1/; s/ on x86-64.*//
		s/^a power of two, from the guest's page size/$page_kb/
		s/\b(low|high) ([+-])/\1_watermark_kb \2/; s/2\^32/$((1 << 32))/" <<<"$1"
}

# --- Compare ----------------------------------------------------------------

in_code=$({ files FILES '' && files STATS stats/; } | sort)
in_abi=$(documented | sort)
in_table=$(rows)
[ -n "$in_code" ] || die "no files were found in $sysfs"
[ -n "$in_abi" ] || die "no files were found in $abi"
[ -n "$in_table" ] || die "no table of knobs was found in $guide"
[ -n "$(knobs)" ] || die "no knobs were found in $sysfs"

while read -r file; do
	differs "$file: in $sysfs, and not in $abi"
done < <(comm -23 <(echo "$in_code") <(echo "$in_abi"))
while read -r file; do
	differs "$file: in $abi, and not in $sysfs"
done < <(comm -13 <(echo "$in_code") <(echo "$in_abi"))
while read -r file; do
	differs "$file: in the table of $guide, and no knob in $sysfs"
done < <(comm -13 <(knobs | sort) <(cut -d '|' -f 1 <<<"$in_table" | sort))

compared=0
while read -r knob; do
	condition=$(arms 'let range = match knob {' '        };' | sed -n "s/^$knob //p")
	code_range=$(range "$condition" || true)
	code_default=$(default "$knob" || true)
	if [ -z "$code_range" ] || [ -z "$code_default" ]; then
		differs "$knob: its range or its default was not found in $policy"
		continue
	fi
	compared=$((compared + 1))

	row=$(grep "^$knob|" <<<"$in_table" || true)
	if [ -z "$row" ]; then
		differs "$knob: not in the table of $guide"
	else
		IFS='|' read -r _ table_range table_default <<<"$row"
		[ "$(plain "$table_range")" = "$code_range" ] ||
			differs "$knob: range '$table_range' in the table of $guide, '$code_range' in $policy"
		[ "$table_default" = "$code_default" ] ||
			differs "$knob: default '$table_default' in the table of $guide, '$code_default' in $policy"
	fi

	text=$(described "$knob")
	abi_range=$(sed -nE 's/.* Range: (.*[^ ])\. +Default: .*/\1/p' <<<"$text")
	abi_default=$(sed -nE 's/.* Default: ([0-9]+).*/\1/p' <<<"$text")
	[ "$(plain "$abi_range")" = "$code_range" ] ||
		differs "$knob: range '$abi_range' in $abi, '$code_range' in $policy"
	[ "$abi_default" = "$code_default" ] ||
		differs "$knob: default '$abi_default' in $abi, '$code_default' in $policy"
	[ "$knob" != host_granule_kb ] || [[ $abi_range == *"power of two"* ]] ||
		differs "$knob: only powers of two in $policy, and $abi does not say so"
done < <(knobs)

# --- hintstat ---------------------------------------------------------------

# both_ways WHERE IN-CODE IN-GUIDE: each line that one has and the other has not.
both_ways() {
	local line
	[ -n "$2" ] || die "nothing was found in $1"
	while read -r line; do
		differs "$line: in $1, and not in the table of $guide"
	done < <(comm -23 <(sort <<<"$2") <(sort <<<"$3"))
	while read -r line; do
		differs "$line: in the table of $guide, and not in $1"
	done < <(comm -13 <(sort <<<"$2") <(sort <<<"$3"))
}

hintstat=tools/hintstat/src
metrics=$(grep -oE '"page_hinting_[a-z_]+"' $hintstat/metrics.rs | tr -d '"' || true)
both_ways $hintstat/metrics.rs "$metrics" "$(sed -nE 's/^\W{2}(page_hinting_[a-z_]+)\W.*/\1/p' "$guide")"
exits=$(sed -nE 's/^    [A-Za-z]+ = ([0-9]+), "(.*)";$/\1 \2/p' $hintstat/exit.rs)
both_ways $hintstat/exit.rs "$exits" "$(sed -nE '/^The exit status is/,/^Metrics$/{/^[0-9]+ /p}' "$guide")"

# In the examples every name of that form is a metric's, elsewhere those with a metric's end.
mapfile -t texts < <(git ls-files --cached --others --exclude-standard -- Documentation README.md CHANGELOG.md tools/hintstat/README.md)
while IFS=: read -r file name; do
	grep -qx "$name" <<<"$metrics" || differs "$name: in $file, and no metric in $hintstat/metrics.rs"
done < <(
	grep -roE 'page_hinting_[a-z_]+' tools/hintstat/examples
	grep -oIE '\bpage_hinting_([a-z_]+_(bytes|seconds|total)|info|up)\b' "${texts[@]}" /dev/null
)
while IFS=: read -r file name; do
	grep -q "^${name##* } " <<<"$exits" || differs "$name: in $file, and not in $hintstat/exit.rs"
done < <(grep -oIE '\bexit status [0-9]+' "${texts[@]}" /dev/null)

[ "$wrong" = 0 ] || die "the documents and the code do not agree"
printf '%d files, %d knobs, %d metrics and %d exit statuses are documented as they are\n' \
	"$(wc -l <<<"$in_code")" "$compared" "$(wc -l <<<"$metrics")" "$(wc -l <<<"$exits")"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-matrix.sh [DOCUMENT]
#
# Whether what Documentation/fault-matrix.rst says of the tests is so: each ``file.sh
# point`` is a selftest and a point that it runs; each of them with an (f) behind it is
# caught by it, as a fault in scripts/faults says; and its overview has a row for each
# fault below it, and says "no test" and "part" where that does; and whether the guest, test and
# point that each fault names are there. Names what is not, and prints how many points it
# looked up.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

document=${1:-$root/Documentation/fault-matrix.rst}
selftests=$root/tools/testing/selftests/page_hinting
faults=$root/scripts/faults
name=${document#"$root"/}
bad=0

[ -f "$document" ] || die "there is no document $document"

complain() {
	say "$name: $*"
	bad=$((bad + 1))
}

# defines FILE POINT: whether there is such a function.
defines() {
	grep -qE "^test_$2\(\) *\{" "$1"
}

# run_by FILE: the points that its run_tests names, and what that adds by itself.
run_by() {
	sed -e :a -e '/\\$/N; s/\\\n//; ta' "$1" |
		sed -nE 's/^[[:space:]]*run_tests[[:space:]]//p' | grep -owE 'test_[a-z0-9_]+' || true
	sed -n '/^run_tests()/,/^}/p' "$selftests/lib.sh" | grep -owE 'test_[a-z0-9_]+' || true
}

# look_up FILE POINT
look_up() {
	local file=$selftests/$1
	if [ ! -f "$file" ]; then
		complain "\"$1 $2\": there is no selftest $1"
	elif ! defines "$file" "$2" && ! defines "$selftests/lib.sh" "$2"; then
		complain "\"$1 $2\": there is no test_$2 in it"
	elif ! run_by "$file" | grep -qx "test_$2"; then
		complain "\"$1 $2\": its run_tests does not run test_$2"
	fi
}

# has_fault FILE POINT: whether a fault is to be caught by it.
has_fault() {
	local fault
	while read -r fault; do
		! grep -qx "Point: $2" "$fault" || return 0
	done < <(grep -lx "Test: $1" "$faults"/*.patch)
	return 1
}

# What the overview and the rows below it do not say alike, a line each.
compare() {
	awk '
		# What a column of the overview is to say of this text.
		function mark(text) {
			return text ~ /^no test/ ? "no test" : text ~ /no test/ ? "part" : "yes"
		}
		function trim(text) {
			gsub(/^ +| +$/, "", text)
			return text
		}
		function end_field() {
			if (column && fault)
				says[fault, column] = mark(trim(text))
			column = text = ""
		}
		BEGIN { n = split("pages contents log resumes time", columns) }
		/^=+  =/ {
			rules++
			split($0, width, "  ")
			next
		}
		rules == 2 {
			begin = 1
			for (i = 0; i <= n; i++) {
				cell = trim(substr($0, begin, length(width[i + 1])))
				begin += length(width[i + 1]) + 2
				if (!i) {
					row = cell
					rows[++nr] = row
				} else
					overview[row, columns[i]] = cell
			}
			next
		}
		rules < 2 { next }
		/^   :[A-Z][a-z]+: / {
			end_field()
			if (!(fault in below))
				below[fault] = ++faults
			column = tolower(substr($1, 2, length($1) - 2))
			text = substr($0, index($0, ": ") + 2)
			next
		}
		column && /^      / {
			text = text " " trim($0)
			next
		}
		{
			end_field()
			fault = $0
		}
		END {
			end_field()
			if (!nr || !faults)
				print "there is no overview, or no row below it"
			for (i = 1; i <= nr; i++)
				for (k = 1; k <= n; k++) {
					said = overview[rows[i], columns[k]]
					is = (rows[i] in below) ? says[rows[i], columns[k]] : "no test"
					if (said != is)
						printf "\"%s\", %s: \"%s\" in the overview, \"%s\" below\n", \
							rows[i], columns[k], said, is ? is : "nothing"
					in_overview[rows[i]] = 1
				}
			for (fault in below)
				if (!(fault in in_overview))
					printf "\"%s\" is not in the overview\n", fault
		}' "$document"
}

# shellcheck disable=SC2016 # no command, but how a literal is written
named() {
	tr -s '\n\t ' ' ' <"$document" | grep -oE '``[^` ]+\.sh [^`]+``( \(f\))?' |
		sed -E 's/^``([^`]+)``/\1/' | grep -vx 'file\.sh point' | sort -u
}

points=0 caught=0 last=
while read -r file point is_caught; do
	[ "$file $point" = "$last" ] || {
		points=$((points + 1))
		look_up "$file" "$point"
	}
	last="$file $point"
	[ -n "$is_caught" ] || continue
	caught=$((caught + 1))
	has_fault "$file" "$point" ||
		complain "\"$file $point\" (f): no fault in scripts/faults is to be caught by it"
done < <(named)
[ "$points" -gt 0 ] || die "$name names no point of a selftest"

while read -r line; do
	complain "$line"
done < <(compare)

# field FAULT NAME: what its header says.
field() {
	sed -n "/^---/q; s/^$2: //p" "$1"
}

for fault in "$faults"/*.patch; do
	read -r scenario file point <<<"$(field "$fault" Scenario) $(field "$fault" Test) $(field "$fault" Point)"
	sed -n "s/^$scenario: /&/p" "$selftests/scenarios" | grep -qwF "$file" ||
		complain "scripts/faults/${fault##*/}: the guest $scenario does not run $file"
	[ "$point" = no_kernel_complaint ] || look_up "$file" "$point"
done

say "$name: looked up $points points, $caught of them with a fault"
[ "$bad" = 0 ] || die "$bad of what $name says is not so"

#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-docs.sh [KERNEL-SOURCE]
#
# Builds the documents with Sphinx, into out/docs/html, and fails at a warning; and
# at a path in Documentation/ that a document names and that is not there; and if the
# cover letter of a series, for any kernel, lists other patches than there are. With the
# source of a kernel, the ABI document is among them, as the kernel's own script makes
# it: without, it is left out, which is said.

# shellcheck source=scripts/lib.sh
. "$(dirname "$0")/lib.sh"

cd "$root"
source=${1:-}
command -v sphinx-build >/dev/null || die "there is no sphinx-build" "apt-get install python3-sphinx"

out=$root/out/docs
lock "$root/out/lock-docs"
rm -rf "$out"
make_dir "$out/source"

# documents PATTERN: those of this checkout, one a line.
documents() {
	git ls-files --cached --others --exclude-standard -- "$1" | while read -r file; do
		[ ! -f "$file" ] || printf '%s\n' "$file"
	done | sort -u
}

mapfile -t rst < <(documents 'Documentation/*.rst')
mapfile -t images < <(documents 'Documentation/*.png')
[ ${#rst[@]} -gt 0 ] || die "there are no documents"
tar -c "${rst[@]}" "${images[@]}" | tar -x -C "$out/source" --strip-components=1

wrong=0
for file in "${rst[@]}"; do
	[ "$(head -n 1 "$file")" = ".. SPDX-License-Identifier: GPL-2.0" ] || {
		say "$file: its first line is no SPDX-License-Identifier"
		wrong=1
	}
	while read -r path; do
		[ -e "$path" ] || {
			say "$file: names $path, which is not there"
			wrong=1
		}
	done < <(grep -oE '\bDocumentation/[a-zA-Z0-9_./-]*[a-zA-Z0-9_]' "$file" | sort -u)
done

# subjects DIR...: those of their patches, one a line.
subjects() {
	local dir
	for dir; do
		compgen -G "$dir/*.patch" | sort || true
	done | while read -r patch; do
		sed -nE '/^Subject: /,/^[^ ]*$/{/^Subject: /{s/^Subject: \[PATCH [0-9/]+\] //;p};/^ /p}' "$patch" | tr -d '\n'
		echo
	done
}

# listed DIR: what its cover letter has as such; a line that goes on has two more spaces.
listed() {
	sed -nE '/^page_hinting developers \([0-9]+\):$/,/^$/{s/^  //p}' "$1/cover-letter" |
		awk '/^  / { sub(/^ +/, ""); text = text " " $0; next } NR > 1 { print text } { text = $0 } END { print text }'
}

# The patches of a directory without a cover letter are listed in the next one's.
for release in "$root"/patches/*; do
	dirs=()
	for dir in "$release/backports" "$release/fixes" "$release"; do
		dirs+=("$dir")
		[ -f "$dir/cover-letter" ] || [ "$dir" = "$release" ] || continue
		diff <(subjects "${dirs[@]}") <(listed "$dir") >&2 || {
			say "${dir#"$root"/}/cover-letter does not list the patches that there are"
			wrong=1
		}
		dirs=()
	done
done

# The kernel's script fails at nothing, but complains.
pages=("${rst[@]#Documentation/}")
if [ -n "$source" ]; then
	abi=$source/tools/docs/get_abi.py
	[ -f "$abi" ] || die "there is no tools/docs/get_abi.py in $source"
	PYTHONDONTWRITEBYTECODE=1 run python3 "$abi" --dir Documentation/ABI rest \
		>"$out/source/abi.rst" 2>"$out/abi.log" || wrong=1
	[ -s "$out/source/abi.rst" ] || wrong=1
	[ ! -s "$out/abi.log" ] || {
		cat "$out/abi.log" >&2
		wrong=1
	}
	pages+=(abi.rst)
else
	say "no source of a kernel was named: the ABI document is not checked"
fi

cat >"$out/source/index.rst" <<END
page_hinting
============

.. toctree::
   :maxdepth: 1

$(printf '   %s\n' "${pages[@]%.rst}")
END
cat >"$out/source/conf.py" <<'END'
project = 'page_hinting'
html_theme = 'basic'
highlight_language = 'none'
END
run sphinx-build -n -W --keep-going -q -b html -d "$out/doctrees" "$out/source" "$out/html" || wrong=1

[ "$wrong" = 0 ] || die "the documents have mistakes"
printf '%d documents: %s\n' "${#pages[@]}" "$out/html/index.html"

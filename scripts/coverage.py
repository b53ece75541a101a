#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""Which lines of the series were executed, by what gcov has counted in guests.

usage: coverage.py LLVM-COV PRISTINE PATCHED BUILD FILE.gcov...

FILE.gcov is what "lab test --coverage" keeps of a guest: several files, each a line
"gcda PATH" and then its contents in base64. A line counts if the series adds or
changes it and the compiler has code for it; it is covered if it was executed in any
of the guests. Prints the sum for each file, and the lines that are not covered.
"""

import base64
import collections
import difflib
import pathlib
import subprocess
import sys
import tempfile


def counters(kept):
    """The files in what was kept of a guest: path and contents."""
    path, text = None, []
    for line in pathlib.Path(kept).read_text().splitlines():
        if line.startswith("gcda "):
            if path:
                yield path, base64.b64decode("".join(text))
            path, text = line[5:], []
        else:
            text.append(line)
    if path:
        yield path, base64.b64decode("".join(text))


def executed(llvm_cov, build, path, contents):
    """(source, line, count) of each line of an object that has code."""
    # /sys/kernel/debug/gcov/BUILD/mm/page_alloc.gcda
    name = path.split("/gcov", 1)[1]
    relative = pathlib.Path(name).relative_to(build)
    with tempfile.TemporaryDirectory() as scratch:
        scratch = pathlib.Path(scratch)
        note = (pathlib.Path(build) / relative).with_suffix(".gcno")
        (scratch / note.name).write_bytes(note.read_bytes())
        (scratch / relative.name).write_bytes(contents)
        said = subprocess.run(
            [llvm_cov, "gcov", "-t", "-o", str(scratch), str(scratch / relative.name)],
            check=True, capture_output=True, text=True, cwd=build).stdout
    source = None
    for line in said.splitlines():
        parts = line.split(":", 2)
        if len(parts) < 3:
            continue
        count, number, text = parts[0].strip(), parts[1].strip(), parts[2]
        if number == "0" and text.startswith("Source:"):
            source = (pathlib.Path(build) / text[7:]).resolve()
        elif source and count != "-" and number.isdigit():
            value = 0 if count.startswith(("#", "=")) else int(count.rstrip("*"))
            yield source, int(number), value


def added(old, new):
    """Numbers of the lines of the file new that the file old does not have."""
    before = old.read_text().splitlines() if old.exists() else []
    after = new.read_text().splitlines()
    numbers = set()
    for tag, _, _, first, last in difflib.SequenceMatcher(None, before, after, False).get_opcodes():
        if tag != "equal":
            numbers.update(range(first + 1, last + 1))
    return numbers


def ranges(numbers):
    """1, 2, 3, 7 as (1, 3), (7, 7)."""
    result = []
    for number in sorted(numbers):
        if result and result[-1][1] == number - 1:
            result[-1][1] = number
        else:
            result.append([number, number])
    return result


def main():
    llvm_cov, pristine, patched, build, *kept = sys.argv[1:]
    patched = pathlib.Path(patched).resolve()
    lines = collections.defaultdict(dict)
    for guest in kept:
        for path, contents in counters(guest):
            for source, number, count in executed(llvm_cov, build, path, contents):
                counts = lines[source]
                counts[number] = counts.get(number, 0) + count

    changed = {
        path.relative_to(patched)
        for directory in ("mm", "kernel", "fs/proc", "drivers/virtio")
        for path in (patched / directory).glob("*.c")
        if not (pathlib.Path(pristine) / path.relative_to(patched)).exists()
        or not (pathlib.Path(pristine) / path.relative_to(patched)).samefile(path)
    }
    for name in sorted(changed):
        if patched / name not in lines:
            print(f"{name}: not counted")
    total = covered = 0
    for source in sorted(lines):
        if not source.is_relative_to(patched):
            continue
        name = source.relative_to(patched)
        if (pathlib.Path(pristine) / name).exists() and \
                (pathlib.Path(pristine) / name).samefile(source):
            continue
        wanted = added(pathlib.Path(pristine) / name, source) & lines[source].keys()
        if not wanted:
            continue
        missed = {number for number in wanted if not lines[source][number]}
        total += len(wanted)
        covered += len(wanted) - len(missed)
        print(f"{name}: {len(wanted) - len(missed)} of {len(wanted)} lines")
        text = source.read_text().splitlines()
        for first, last in ranges(missed):
            for number in range(first, last + 1):
                print(f"    {number}: {text[number - 1].strip()}")
    if not total:
        sys.exit("coverage.py: none of the series' lines was counted")
    print(f"the series: {covered} of {total} lines, {100 * covered / total:.1f} %")


main()

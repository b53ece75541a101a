#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0
"""suites.py BASELINE PATCHED KNOWN

Compares what the selftest suites.sh printed in two guests, test by test: of each line of
its list the verdict, and below it those of the tests that this has printed as TAP. Prints
a table, and what differs. Ends with 1 if something differs that KNOWN does not name, and
with 2 if there is nothing to compare, as when most tests of a kind do not pass in either.
"""

import re
import sys

POINT = re.compile(r"^(?P<no>not )?ok\s+(?P<number>\d+)\b[ \t]*(?:- )?(?P<name>.*)$")
DIRECTIVE = re.compile(r"\s*#\s*(SKIP|XFAIL|TODO)\b\s*(.*)$", re.IGNORECASE)
KINDS = {"mm": "mm selftests", "stress": "stress-ng", "kunit": "KUnit", "module": "test modules"}
# What may be another number in each boot: addresses, and what pagemap_ioctl counts.
VARYING = re.compile(r"0x[0-9a-fA-F]{4,}|(?<=Extra pages )\d+ \([\d.]+%\)|(?<=extra thread faults )\d+")


def verdict(line):
    """The name and outcome of a line of TAP, or nothing."""
    match = POINT.match(line)
    if not match:
        return None
    name, outcome = match["name"].strip(), "fail" if match["no"] else "pass"
    directive = DIRECTIVE.search(name)
    if directive:
        # Behind the name it says why; kselftest.h has the name there.
        name = name[: directive.start()] or directive[2]
        if directive[1].upper() == "SKIP":
            outcome = "skip"
        elif outcome == "fail":
            outcome = "xfail"
    return VARYING.sub("?", name.strip()), outcome


def read(path):
    """Of each point of the list its outcome, its subtests' by name, and its seconds."""
    points, subtests, seconds = {}, {}, None
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            line = line.rstrip("\n")
            if line.startswith("#"):
                took = re.match(r"^# status \d+ after (\d+) s$", line)
                if took:
                    seconds = int(took[1])
                    continue
                # A result that comes behind what was printed without an end.
                text = re.sub(r"^[# \t]+", "", line)
                found = verdict(text)
                if found and found[0]:
                    name, number = found[0], 1
                    while name in subtests:
                        number += 1
                        name = f"{found[0]} ({number})"
                    subtests[name] = found[1]
                continue
            found = verdict(line)
            if found is None:
                continue
            name, outcome = found
            kind = name.split("_")[0].replace("user", "mm")
            if kind in KINDS and seconds is not None:
                points[name] = (kind, outcome, subtests, seconds)
            subtests, seconds = {}, None
    return points


def count(outcomes):
    """As "3 pass, 1 skip"."""
    outcomes = list(outcomes)
    parts = (f"{outcomes.count(word)} {word}" for word in ("pass", "fail", "xfail", "skip"))
    return ", ".join(part for part in parts if not part.startswith("0 ")) or "none"


def main():
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    baseline, patched = read(sys.argv[1]), read(sys.argv[2])
    with open(sys.argv[3], encoding="utf-8") as file:
        known = {line.strip() for line in file if line.strip() and not line.startswith("#")}
    if not baseline or not patched:
        print("suites.py: there is nothing to compare", file=sys.stderr)
        sys.exit(2)

    differ = []
    used = set()

    def compare(name, before, after):
        if before == after:
            return
        if name in known:
            used.add(name)
            differ.append(f"known: {name}: {before} in the baseline, {after} patched")
        else:
            differ.append(f"DIFFERS: {name}: {before} in the baseline, {after} patched")

    print(f"{'test':<58} {'baseline':<28} {'patched':<28} seconds")
    gone = (None, "not run", {}, 0)
    for name in list(baseline) + [name for name in patched if name not in baseline]:
        cells = []
        one, two = baseline.get(name, gone), patched.get(name, gone)
        for _, outcome, subtests, _ in (one, two):
            cells.append(outcome + (f" ({count(subtests.values())})" if subtests else ""))
        print(f"{name:<58} {cells[0]:<28} {cells[1]:<28} {one[3]}, {two[3]}")
        compare(name, one[1], two[1])
        for sub in list(one[2]) + [sub for sub in two[2] if sub not in one[2]]:
            compare(f"{name}: {sub}", one[2].get(sub, "not there"), two[2].get(sub, "not there"))
    print()
    for kind, title in KINDS.items():
        for what, points in (("baseline", baseline), ("patched", patched)):
            mine = [point for point in points.values() if point[0] == kind]
            below = [outcome for point in mine for outcome in point[2].values()]
            print(
                f"{title + ', ' + what + ':':<24} {count(point[1] for point in mine)}"
                + (f"; tests in them: {count(below)}" if below else "")
                + f"; {sum(point[3] for point in mine)} s"
            )
    print()
    for line in differ:
        print(line)
    for name in sorted(known - used):
        print(f"known to differ, and does not: {name}")
    unknown = sum(line.startswith("DIFFERS") for line in differ)
    print(f"{len(differ)} of them differ, {len(differ) - unknown} of which are known")
    if unknown:
        sys.exit(1)
    for kind, title in KINDS.items():
        outcomes = [point[1] for point in baseline.values() if point[0] == kind]
        if 2 * outcomes.count("pass") <= len(outcomes):
            print(f"suites.py: most of {title} do not pass in the baseline", file=sys.stderr)
            sys.exit(2)


main()

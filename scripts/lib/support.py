#!/usr/bin/env python3
"""Keeps and draws the results of `scripts/test --everywhere`.

support.py CSV ROWS          puts the rows of ROWS in CSV, in place of those of the same name and check, and prints the table; a sample
                             of the shaders or cases takes no place of a run over all of them
support.py CSV ROWS README   likewise, and puts the table between the marks of README
"""

import csv
import pathlib
import re
import sys

FIELDS = ["date", "name", "device", "check", "passed", "failed", "skipped", "why"]
MARKS = ("<!-- support: scripts/test --everywhere writes this -->", "<!-- /support -->")


def read(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def table(rows):
    lines = ["| on | check | passed | failed | skipped | date |", "|---|---|---|---|---|---|"]
    for row in rows:
        name = f"{row['name']} ({row['device']})" if row["device"] else row["name"]
        passed, failed = row["passed"] or "-", row["failed"] or "-"
        skipped = "; ".join(part for part in (row["skipped"] if row["skipped"] not in ("", "0") else "", row["why"]) if part)
        lines.append(f"| {name} | {row['check']} | {passed} | {failed} | {skipped} | {row['date']} |")
    return "\n".join(lines)


def check(row):
    """What a row is about, and whether it is of a sample."""
    about, sample = re.subn(r", (all shaders|one (shader|case) in \d+)$", "", row["check"])
    return (row["name"], about), sample == 1 and not row["check"].endswith("all shaders")


def put(rows, row):
    about, sample = check(row)
    same = [n for n, old in enumerate(rows) if check(old)[0] == about]
    if not same:
        rows.append(row)
        return
    if sample and not all(check(rows[n])[1] for n in same):
        return
    rows[same[0]] = row
    for n in reversed(same[1:]):
        del rows[n]


def main():
    kept, new = pathlib.Path(sys.argv[1]), read(pathlib.Path(sys.argv[2]))
    rows = read(kept) if kept.exists() else []
    for row in new:
        put(rows, row)
    with kept.open("w", newline="") as file:
        writer = csv.DictWriter(file, FIELDS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    print(table(rows))
    if len(sys.argv) > 3:
        readme = pathlib.Path(sys.argv[3])
        before, rest = readme.read_text().split(MARKS[0])
        after = rest.split(MARKS[1])[1]
        readme.write_text(f"{before}{MARKS[0]}\n\n{table(rows)}\n\n{MARKS[1]}{after}")


if __name__ == "__main__":
    main()

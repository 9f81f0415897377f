"""What became of all cases: a line each in a file that a run goes on with, and the table that is kept."""

from __future__ import annotations

import csv
import json
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

from benchmarks.fuzz.cases import Result
from benchmarks.timing import RESULTS

BAD = ("crash", "hang", "memory", "breach", "died")  # what no file may lead to
COLUMNS = ("surface", "mutation", "outcome", "cases", "slowest_s", "peak_mib")


def read(path: Path) -> dict[int, Result]:
    """The cases that are done; a line that was cut off is of none."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else ():
        try:
            result = Result(**json.loads(line))
        except (ValueError, TypeError):
            continue
        found[result.number] = result
    return found


def append(path: Path, result: Result) -> None:
    """One line more."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def write(found: Iterable[Result]) -> Path:
    """The table: how many cases of every mutation came to what."""
    cells: dict[tuple[str, str, str], list[Result]] = defaultdict(list)
    for each in found:
        cells[each.surface, each.mutation, each.outcome].append(each)
    path = RESULTS / "fuzz.csv"
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(COLUMNS)
        for key, cases in sorted(cells.items()):
            writer.writerow([*key, len(cases), max(c.seconds for c in cases), max(c.peak for c in cases)])
    return path

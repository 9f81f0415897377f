"""CSV files: what training logged, and networks that were measured elsewhere."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from itertools import accumulate
from math import isfinite
from pathlib import Path

from onnxmorph.cost import NAMES
from onnxmorph.errors import OnnxMorphError
from onnxmorph.report.page.subject import Point, Series
from onnxmorph.words import BYTES, SECONDS

COSTS = (*NAMES, *BYTES, *SECONDS)  # the columns of a table that are costs
METRICS = ("metric", "accuracy")
NAMED = ("name", "network", "method", "target", "seed", "round", "kind")  # columns that tell rows apart
LOGGED = {"step", "strength"}

Rows = list[dict[str, str]]


def read_table(path: Path) -> tuple[Series | None, tuple[Point, ...]]:
    """A log of training, or a table of measured networks.

    Raises:
        OnnxMorphError: it is neither.
    """
    columns, rows = _rows(path)
    if LOGGED.issubset(columns):
        return _series(path, columns, rows), ()
    metric = next((name for name in METRICS if name in columns), None)
    costs = [name for name in dict.fromkeys(COSTS) if name in columns]
    if metric is None or not costs:
        message = (
            f"{path} is neither a log of training (columns step, strength, width/…) nor a table of networks (a cost "
            "such as flops, and metric or accuracy); write one with CsvLog, or name its columns so"
        )
        raise OnnxMorphError(message, code="report-source")
    return None, tuple(_point(path, row, costs, metric) for row in rows)


def is_log(path: Path) -> bool:
    """Whether a file begins as a log of training does."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            return LOGGED.issubset(file.readline(1 << 20).strip().split(","))
    except (OSError, UnicodeDecodeError):
        return False


def joined(logs: Sequence[tuple[str, Series]]) -> Series:
    """Logs one after the other, each with its name at its beginning."""
    starts = [0.0, *accumulate(each.steps[-1] for _, each in logs)]
    lengths = [len(each.steps) for _, each in logs]

    every = [each for _, each in logs]

    def widths(id: str) -> list[int | None]:
        parts = (each.widths.get(id, [None] * n) for each, n in zip(every, lengths, strict=True))
        return [width for part in parts for width in part]

    ids = dict.fromkeys(id for each in every for id in each.widths)
    costs = dict.fromkeys(name for each in every for name in each.costs if all(name in e.costs for e in every))
    return Series(
        [start + step for start, each in zip(starts, every, strict=False) for step in each.steps],
        [strength for each in every for strength in each.strength or ()],
        {name: [value for each in every for value in each.costs[name]] for name in costs},
        {id: widths(id) for id in ids},
        [(start, name) for start, (name, _) in zip(starts, logs, strict=False)] if len(logs) > 1 else (),
    )


def _rows(path: Path) -> tuple[Sequence[str], Rows]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file, strict=True)
            rows = list(reader)
            if rows and None in rows[-1].values():  # the row that is being written, or was when a run was killed
                rows.pop()
    except (OSError, UnicodeDecodeError, csv.Error) as e:
        raise OnnxMorphError(f"{path} cannot be read as CSV ({e}); write it again", code="report-source") from None
    if not rows:
        raise OnnxMorphError(f"{path} has no rows; write it again", code="report-source")
    return reader.fieldnames or (), rows


def _number(path: Path, row: Mapping[str, str], column: str) -> float:
    try:
        return float(row[column])
    except (TypeError, ValueError):
        message = f"{path} has {row[column]!r} in column {column}, where a number belongs; mend the row"
        raise OnnxMorphError(message, code="report-source") from None


def _series(path: Path, columns: Sequence[str], rows: Rows) -> Series:
    def column(name: str) -> list[float]:
        return [_number(path, row, name) for row in rows]

    def prefixed(prefix: str) -> list[str]:
        return [name for name in columns if name.startswith(prefix)]

    return Series(
        column("step"),
        column("strength"),
        {name.removeprefix("cost/"): column(name) for name in prefixed("cost/")},
        {name.removeprefix("width/"): [int(n) for n in column(name)] for name in prefixed("width/")},
    )


def _point(path: Path, row: Mapping[str, str], costs: Sequence[str], metric: str) -> Point:
    said = [row[name] for name in NAMED if row.get(name)]
    found = _number(path, row, metric) if row[metric] else None
    found = found if found is not None and isfinite(found) else None
    numbers = {name: _number(path, row, name) for name in costs if row[name]}
    return Point(" ".join(said) or path.stem, numbers, found, multiplied(said))


def multiplied(words: Sequence[str]) -> bool:
    """Whether a network is told to be one of the width multiplier.

    >>> multiplied(["resnet20", "width", "flops=50%"]), multiplied(["width × 1"]), multiplied(["wide"])
    (True, True, False)
    """
    return any(word == "scale" or word.split(" ")[0] == "width" for word in words)

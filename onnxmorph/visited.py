"""The networks that a run visits: structures in its folder, what they cost, and which of them none dominates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxmorph.errors import RunError
from onnxmorph.files import write_text
from onnxmorph.reading import LARGEST, Reader, is_table, is_whole
from onnxmorph.structure import Structure

FINAL = "final"
# Of every file in the folder of a round: its kind, the model that it applies to, and the network that it gives.
FILES = (
    ("milestone-*.json", "milestone", "trained.onnx", None),
    ("shrunk.json", "shrunk", "trained.onnx", "shrunk.onnx"),
    ("expanded.json", "expanded", "trained.onnx", "expanded.onnx"),
    ("final.json", FINAL, "trained.onnx", "trained.onnx"),
)
DONE = ("shrunk.json", "final.json")  # written when what a round was trained to is kept


@dataclass(frozen=True)
class Visited:
    """One network of a run.

    ``kind`` is ``milestone`` (met while training), ``shrunk``, ``expanded`` or ``final``. ``structure`` applies to
    ``model``; ``network`` is the result as ONNX, None for milestones, whose weights were trained on. Paths are relative
    to the folder of the run. ``metric`` is what the train function said, larger being better. ``pareto``: no other
    costs as little and is as good; None where there is no metric.
    """

    round: int
    kind: str
    structure: str
    model: str
    network: str | None
    costs: Mapping[str, float]
    metric: float | None
    pareto: bool | None = None

    def row(self) -> dict[str, Any]:
        """For CSV and JSON: a column per cost."""
        found = asdict(self)
        costs: dict[str, Any] = found.pop("costs")
        return {key: found.pop(key) for key in ("round", "kind", "metric", "pareto")} | costs | found


def visited(folder: Path, costs: Sequence[str]) -> tuple[Visited, ...]:
    """Everything in the folder of a run, in order, judged by these costs."""
    named = [(path.name.partition("-")[2], path) for path in folder.glob("round-[0-9]*")]
    rounds = [path for _, path in sorted((int(number), path) for number, path in named if number.isdecimal())]
    found = [each for path in (*rounds, folder / FINAL) for each in _of_round(path, folder)]
    return marked(found, costs)


def _of_round(path: Path, folder: Path) -> Iterable[Visited]:
    if not any((path / name).exists() for name in DONE):
        return
    end = Structure.load(path / "shrunk.json").groups if (path / "shrunk.json").exists() else None
    for pattern, kind, model, network in FILES:
        for file in sorted(path.glob(pattern)):
            structure = Structure.load(file)
            said = Reader(str(file), structure.provenance, "provenance.", _malformed)
            number, metric = said.take("round", "a whole number", is_whole), said.take("metric", "a number", _metric)
            if kind == "milestone" and structure.groups == end:  # the last one, which is listed as shrunk
                continue
            names = (file, path / model, *([] if network is None else [path / network]))
            at, of, *result = (each.relative_to(folder).as_posix() for each in names)
            after = Reader(str(file), structure.costs, "costs.", _malformed).take("after", "a table", is_table)
            yield Visited(number, kind, at, of, result[0] if result else None, after, metric[0])


def _metric(value: Any) -> tuple[float | None] | None:
    """A number, or nothing; as a tuple, for None is what is neither."""
    finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= LARGEST
    return (value,) if value is None or finite else None


def _malformed(message: str, key: bool) -> RunError:
    """A structure in the folder of a run is not as the run wrote it."""
    return RunError(f"{message}; take the file out of the folder, or give another folder", code="run-file")


def marked(rows: Sequence[Visited], costs: Sequence[str]) -> tuple[Visited, ...]:
    """The same, each with its `pareto`.

    >>> def one(flops, metric): return Visited(1, "shrunk", "s", "m", None, {"flops": flops}, metric)
    >>> [each.pareto for each in marked([one(9, 0.9), one(5, 0.8), one(6, 0.7), one(9, None)], ["flops"])]
    [True, True, False, None]
    """
    points = [
        None
        if row.metric is None or not set(costs) <= set(row.costs)
        else (-row.metric, *(row.costs[c] for c in costs))
        for row in rows
    ]
    known = {point for point in points if point is not None}

    def best(point: tuple[float, ...]) -> bool:
        return not any(other != point and all(a <= b for a, b in zip(other, point, strict=True)) for other in known)

    return tuple(replace(row, pareto=None if p is None else best(p)) for row, p in zip(rows, points, strict=True))


def write_tables(folder: Path, name: str, rows: Sequence[Mapping[str, Any]]) -> None:
    """``NAME.csv`` and ``NAME.json``, each whole or not at all. Raises OutputError."""
    columns = dict.fromkeys(column for row in rows for column in row)
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(text.getvalue(), folder / f"{name}.csv")
    write_text(json.dumps(rows, indent=1) + "\n", folder / f"{name}.json")

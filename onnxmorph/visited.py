"""The networks that a run visits: structures in its folder, what they cost, and which of them none dominates."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from onnxmorph.files import write_text
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
    rounds = sorted(folder.glob("round-[0-9]*"), key=lambda path: int(path.name.partition("-")[2]))
    found = [each for path in (*rounds, folder / FINAL) for each in _of_round(path, folder)]
    return marked(found, costs)


def _of_round(path: Path, folder: Path) -> Iterable[Visited]:
    if not any((path / name).exists() for name in DONE):
        return
    end = Structure.load(path / "shrunk.json").groups if (path / "shrunk.json").exists() else None
    for pattern, kind, model, network in FILES:
        for file in sorted(path.glob(pattern)):
            structure = Structure.load(file)
            said = structure.provenance
            if kind == "milestone" and structure.groups == end:  # the last one, which is listed as shrunk
                continue
            names = (file, path / model, *([] if network is None else [path / network]))
            at, of, *result = (each.relative_to(folder).as_posix() for each in names)
            after = structure.costs["after"]
            yield Visited(int(said["round"]), kind, at, of, result[0] if result else None, after, said["metric"])


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

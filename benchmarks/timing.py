"""Timing in turns, and the table that results go to."""

from __future__ import annotations

import csv
import gc
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import median

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Row:
    """One comparison: ours against theirs, medians in seconds unless a unit is given; the bound is on ours / theirs.

    With ``exact`` they are counts, which have to be equal.
    """

    what: str
    ours: float
    against: str
    theirs: float
    bound: float = 1.0
    exact: bool = False
    unit: str = "s"

    @property
    def ratio(self) -> float:
        return self.ours / self.theirs if self.theirs else float(self.ours == self.theirs)

    @property
    def holds(self) -> bool:
        return self.ours == self.theirs if self.exact else self.ratio <= self.bound


def in_turns(tasks: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Median seconds of every task; tasks take turns, so that the machine's mood falls on all alike."""
    taken: dict[str, list[float]] = {name: [] for name in tasks}
    for n in range(rounds + 1):  # the first round warms up
        for name, task in tasks.items():
            gc.collect()
            start = time.perf_counter()
            task()
            if n:
                taken[name].append(time.perf_counter() - start)
    return {name: median(each) for name, each in taken.items()}


def write(name: str, rows: list[Row]) -> Path:
    """Write the rows and what they were measured on as CSV."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.csv"
    facts = {
        "cpus": os.cpu_count(),
        "machine": platform.machine(),
        "python": platform.python_version(),
        **{package: version(package) for package in ("onnx", "onnx-ir", "onnxruntime", "numpy", "torch")},
    }
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, [*asdict(rows[0]), "ratio", "holds", *facts])
        writer.writeheader()
        for row in rows:
            writer.writerow({**asdict(row), "ratio": round(row.ratio, 4), "holds": row.holds, **facts})
    return path

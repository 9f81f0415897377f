"""The runs of `benchmarks.budgets`, and their strengths over the steps, as files, table and plot."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.tasks import TASKS

Rows = list[dict[str, str]]
Key = tuple[str, str, str]
KEY = ("network", "data", "budget")
POINT = (*KEY, "step", "strength", "flops")


def key_of(row: Mapping[str, str]) -> Key:
    return row["network"], row["data"], row["budget"]


def read(path: Path) -> Rows:
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def put(path: Path, columns: Sequence[str], key: Key, new: Sequence[Sequence[object]]) -> None:
    """Write rows in place of those of the same run, whole or not at all, in the order of the tasks."""
    rows = [list(row.values()) for row in read(path) if key_of(row) != key] + [list(row) for row in new]
    names, first = [task.name for task in TASKS], [columns.index(name) for name in KEY]

    def order(row: Sequence[object]) -> tuple[int, str, int]:
        network, data, budget = (str(row[k]) for k in first)
        return names.index(network), data, int(budget)

    part = path.with_suffix(".part")
    with part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(sorted(rows, key=order))
    part.replace(path)


def plot(curves: Rows, path: Path) -> None:
    """Above the strength of every run, below its share of FLOPs."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "onnxmorph"
    from matplotlib import pyplot

    runs: dict[tuple[str, str], dict[str, Rows]] = {}
    for row in curves:
        runs.setdefault((row["network"], row["data"]), {}).setdefault(row["budget"], []).append(row)
    figure, axes = pyplot.subplots(2, len(runs), figsize=(3 * len(runs), 5), layout="constrained", squeeze=False)
    for (above, below), ((network, data), budgets) in zip(axes.T, runs.items(), strict=True):
        for budget, rows in budgets.items():
            steps = [int(row["step"]) for row in rows]
            (line,) = above.plot(steps, [float(row["strength"]) or math.nan for row in rows], label=f"{budget} %")
            colour = line.get_color()
            below.plot(steps, [float(row["flops"]) for row in rows], color=colour)
            below.axhline(int(budget) / 100, color=colour, linewidth=0.6, linestyle="--")
        above.set(title=f"{network}, {data}", yscale="log", ylabel="strength λ")
        below.set(xlabel="step", ylim=(0, 1.05), ylabel="share of FLOPs")
        above.sharex(below)
    axes[1, 0].legend(*axes[0, 0].get_legend_handles_labels())
    figure.savefig(path, metadata={"Date": None})


def show(rows: Rows) -> None:
    table = Table(title="budgets", title_justify="left")
    columns = ("network", "budget", "verdict", "used", "met", "steps", "seed", "accuracy", "locked", "floor", "turns")
    for column in columns:
        table.add_column(column)
    for row in rows:
        table.add_row(*(row[column] for column in columns), style=None if row["verdict"] == "met" else "bold red")
    Console().print(table)

"""docs/evidence.md and its plots, from the files of the runs and nothing else."""

from __future__ import annotations

import csv
import os
from collections import defaultdict
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from statistics import mean, stdev

import matplotlib
import numpy as np

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.accuracy.experiment import Recipe
from benchmarks.accuracy.experiment import read as experiment
from benchmarks.timing import RESULTS
from onnxmorph.files import write_text

matplotlib.rcParams["svg.hashsalt"] = "onnxmorph"  # the same picture is the same file
DOCS = Path(__file__).parents[2] / "docs"
INTRODUCTION = """# Evidence

Made by `python -m benchmarks.accuracy.tables` from `benchmarks/results/accuracy/`. The TOML files in
`benchmarks/accuracy/` describe the experiments; `python -m benchmarks.accuracy NAME` runs one. All methods of one
table have, but for what its text says, the same recipe and as many epochs from the first to the last (where a
structure is trained from scratch, its search comes on top, and is counted). Costs are counted on the network that
comes out, as shares of the seed's. Accuracies are those of the last epoch on the test images, in percent, mean ±
standard deviation over seeds. *Over width* is in points, against the width multiplier at as many FLOPs (within a
hundredth of the seed's). *FLOPs saved* is how many fewer FLOPs a network has than the width multiplier would need for
the same accuracy, read off the line through its points (log FLOPs), where it lies between them and they rise.
*Latency* is that of the network in ONNX Runtime on one thread of a CPU, over the seed's, where it was measured
(`python -m benchmarks.accuracy.latencies NAME`). What was learnt from it: decisions
[0034](decisions/0034-what-the-loss-says.md) and [0035](decisions/0035-whole-steps.md).

These are short trainings, far from what the networks can reach: they compare methods, and are no aims. With three
seeds, differences of half a point are within the spread.
"""

WIDTHS = "Widths, in percent of the full ones, over the groups from input to output; deviation is the mean over groups."

COSTS = ("flops", "params", "latency")
NAMES = {"flops": "FLOPs", "params": "params", "latency": "latency"}
Row = Mapping[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spread(values: Iterable[float], scale: float = 100.0) -> str:
    each = [v * scale for v in values]
    return f"{mean(each):.2f}" + (f" ± {stdev(each):.2f}" if len(each) > 1 else "")


def average(rows: Iterable[Row], column: str) -> float:
    return mean(float(row[column]) for row in rows)


def grouped(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["network"], row["target"], row["method"]].append(row)
    return found


def multiplier(rows: list[Row], network: str) -> tuple[list[float], list[float]]:
    """The width multiplier's points: accuracies, ascending, and FLOPs; none where more FLOPs are not better."""
    of = [own for (name, _, method), own in grouped(rows).items() if (name, method) == (network, "width")]
    points = sorted((average(own, "flops"), average(own, "accuracy")) for own in of)
    accuracies = [accuracy for _, accuracy in points]
    return (accuracies, [flops for flops, _ in points]) if accuracies == sorted(accuracies) else ([], [])


def timed(path: Path, rows: list[Row]) -> list[Row]:
    """The rows with the latency over that of the seed network, where it was measured."""
    if not path.exists():
        return rows
    key = itemgetter("network", "target", "method", "seed")
    found = {key(r): float(r["milliseconds"]) / float(r["seed_network"]) for r in read(path)}
    return [{**r, "latency_share": str(found[key(r)])} if key(r) in found else r for r in rows]


def table(rows: list[Row]) -> str:
    """One line per network, target and method."""
    costs = [cost for cost in COSTS if any(f"{cost}_share" in row for row in rows)]
    head = (
        "network",
        "target",
        "method",
        "accuracy",
        "over width",
        "FLOPs saved",
        *(NAMES[cost] for cost in costs),
        "epochs",
        "seeds",
    )
    lines = [f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
    groups = grouped(rows)
    order = sorted(groups.items(), key=lambda item: (item[0][0], -share(item[0][1]), item[0][2] != "width"))
    for (network, target, method), own in order:
        shares = (
            f"{100 * average(own, f'{cost}_share'):.1f} %" if all(f"{cost}_share" in r for r in own) else ""
            for cost in costs
        )
        found = average(own, "accuracy")
        same = [
            average(each, "accuracy")
            for (name, _, how), each in groups.items()
            if (name, how) == (network, "width")
            and abs(average(each, "flops_share") - average(own, "flops_share")) < 0.01
        ]
        over = f"{100 * (found - same[0]):+.2f}" if same and method != "width" else ""
        saved, (accuracies, flops) = "", multiplier(rows, network)
        if method != "width" and len(flops) > 1 and accuracies[0] <= found <= accuracies[-1]:
            needed = np.exp(np.interp(found, accuracies, np.log(flops)))
            saved = f"{100 * (1 - average(own, 'flops') / needed):.0f} %"
        accuracy = spread(float(r["accuracy"]) for r in own)
        cells = (network, target, method, accuracy, over, saved, *shares, own[0]["epochs"], str(len(own)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(target: str) -> float:
    return float(target.rpartition("=")[2].rstrip("%"))


def plot(name: str, rows: list[Row]) -> Path:
    """Accuracy over every cost, a line per method, a row per network."""
    networks = sorted({row["network"] for row in rows})
    costs = [cost for cost in COSTS if any(f"{cost}_share" in row for row in rows)]
    figure, axes = pyplot.subplots(
        len(networks), len(costs), figsize=(6 * len(costs), 4 * len(networks)), squeeze=False
    )
    for line, network in zip(axes, networks, strict=True):
        for axis, cost in zip(line, costs, strict=True):
            points: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
            for (of, _, method), own in grouped(rows).items():
                if of == network and all(f"{cost}_share" in r for r in own):
                    accuracies = [float(r["accuracy"]) * 100 for r in own]
                    deviation = stdev(accuracies) if len(own) > 1 else 0.0
                    points[method].append((100 * average(own, f"{cost}_share"), mean(accuracies), deviation))
            for method, each in points.items():
                x, y, error = zip(*sorted(each), strict=True)
                axis.errorbar(x, y, error, marker="o", capsize=3, label=method)
            axis.set(title=network, xlabel=f"{cost}, % of the seed", ylabel="accuracy, %")
            axis.grid(alpha=0.3)
        line[0].legend(fontsize="small")
    return saved(figure, name, "accuracy")


def saved(figure: pyplot.Figure, name: str, what: str) -> Path:
    path = RESULTS / "accuracy" / name / f"{what}.svg"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


Widths = dict[str, tuple[int, int]]  # of a group: before, after


def structures(name: str) -> dict[str, list[Widths]]:
    """By method, target and network: the widths of every seed."""
    found: dict[str, list[Widths]] = defaultdict(list)
    for path in sorted((RESULTS / "accuracy" / name / "structures").glob("*.csv")):
        own = {row["group"]: (int(row["before"]), int(row["after"])) for row in read(path)}
        found[path.stem.rpartition("_")[0].replace("_", " ")].append(own)
    return {key: each for key, each in found.items() if " width " not in key}


def kept(found: Mapping[str, list[Widths]]) -> str:
    """What is left of the groups in each third of the network, and how far widths differ between seeds."""
    lines = [
        "| runs | groups | width kept in the first third | in the middle | in the last | deviation over seeds |",
        "|---|---|---|---|---|---|",
    ]
    for key, each in found.items():
        shares = np.array([[100 * after / before for before, after in own.values()] for own in each])
        thirds = (f"{part.mean():.0f} %" for part in np.array_split(shares.mean(0), 3))
        deviation = f"{shares.std(0, ddof=1).mean():.1f} %" if len(each) > 1 else ""
        lines.append(f"| {key} | {shares.shape[1]} | {' | '.join(thirds)} | {deviation} |")
    return "\n".join(lines)


def plot_widths(name: str, found: Mapping[str, list[Widths]]) -> Path:
    """What is left of every group, mean over seeds with the deviation."""
    figure, axes = pyplot.subplots(len(found), 1, figsize=(12, 2 * len(found)), squeeze=False)
    for (axis,), (key, each) in zip(axes, found.items(), strict=True):
        left = np.array([[100 * after / before for before, after in own.values()] for own in each])
        axis.bar(range(left.shape[1]), left.mean(0), yerr=left.std(0, ddof=1) if len(each) > 1 else None, capsize=2)
        axis.axhline(100, color="grey", linewidth=0.8)
        axis.set(title=key, ylabel="% of width", xticks=range(left.shape[1]))
        axis.tick_params(labelsize="x-small")
    axes[-1][0].set_xlabel("channel group, from input to output")
    return saved(figure, name, "widths")


def described(recipe: Recipe, rows: list[Row]) -> str:
    first = rows[0]
    size = f"{first['image_size']}×{first['image_size']}"
    machines = sorted({f"{row['machine']} (torch {row['torch']})" for row in rows})
    held_out = f" (accuracies are on {recipe.validation:,} others)" if recipe.validation else ""
    return (
        f"{recipe.data}, {int(first['train_images']):,} training images of {size}{held_out}, {recipe.epochs} epochs of "
        f"batches of {recipe.batch}, {recipe.optimizer} at {recipe.rate}, {recipe.precision}, {', '.join(machines)}."
    )


def main() -> None:
    parts = [INTRODUCTION]
    for path in sorted((RESULTS / "accuracy").glob("*/runs.csv")):
        name, rows = path.parent.name, timed(path.parent / "latencies.csv", read(path))
        asked, found = experiment(name), structures(name)
        picture, widths = (
            Path(os.path.relpath(p, DOCS)).as_posix() for p in (plot(name, rows), plot_widths(name, found))
        )
        parts += [f"## {name}\n", f"{asked.about}\n", f"{described(asked.recipe, rows)}\n", f"{table(rows)}\n"]
        parts += [f"![accuracy over cost]({picture})\n", f"{WIDTHS}\n\n{kept(found)}\n", f"![widths]({widths})\n"]
    write_text("\n".join(parts), DOCS / "evidence.md")


if __name__ == "__main__":
    main()

"""docs/evidence.md and its plots, from the files of the runs and nothing else."""

from __future__ import annotations

import csv
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import mean, stdev

import matplotlib

matplotlib.use("svg")
from matplotlib import pyplot

from benchmarks.timing import RESULTS
from onnxmorph.model import write_text

DOCS = Path(__file__).parents[2] / "docs"
INTRODUCTION = """# Evidence

Made by `python -m benchmarks.accuracy.tables` from `benchmarks/results/accuracy/`; the TOML files in
`benchmarks/accuracy/` describe the experiments. All methods of one table have the same recipe and as many epochs from
the first to the last (where a structure is trained from scratch, its search comes on top, and is counted). Costs
are counted on the network that comes out. Accuracies are those of the last epoch on test images, mean ± standard
deviation over seeds.
"""

Row = Mapping[str, str]


def read(path: Path) -> list[Row]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def spread(values: Iterable[float], scale: float = 100.0) -> str:
    each = [v * scale for v in values]
    return f"{mean(each):.2f}" + (f" ± {stdev(each):.2f}" if len(each) > 1 else "")


def grouped(rows: Iterable[Row]) -> dict[tuple[str, str, str], list[Row]]:
    found: dict[tuple[str, str, str], list[Row]] = defaultdict(list)
    for row in rows:
        found[row["network"], row["target"], row["method"]].append(row)
    return found


def table(rows: list[Row]) -> str:
    """One line per network, target and method."""
    lines = [
        "| network | target | method | accuracy, % | FLOPs, % | params, % | epochs | seeds |",
        "|---|---|---|---|---|---|---|---|",
    ]
    order = sorted(grouped(rows).items(), key=lambda item: (item[0][0], -share(item[0][1]), item[0][2] != "width"))
    for (network, target, method), own in order:
        shares = (spread(float(r[f"{cost}_share"]) for r in own).split(" ")[0] for cost in ("flops", "params"))
        accuracy = spread(float(r["accuracy"]) for r in own)
        cells = (network, target, method, accuracy, *shares, own[0]["epochs"], str(len(own)))
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def share(target: str) -> float:
    return float(target.rpartition("=")[2].rstrip("%"))


def plot(name: str, rows: list[Row]) -> Path:
    """Accuracy over FLOPs, a line per method."""
    networks = sorted({row["network"] for row in rows})
    figure, axes = pyplot.subplots(1, len(networks), figsize=(6 * len(networks), 4), squeeze=False)
    for axis, network in zip(axes[0], networks, strict=True):
        points: dict[str, list[tuple[float, float, float]]] = defaultdict(list)
        for (of, _, method), own in grouped(rows).items():
            if of == network:
                accuracies = [float(r["accuracy"]) * 100 for r in own]
                deviation = stdev(accuracies) if len(own) > 1 else 0.0
                points[method].append((mean(float(r["flops_share"]) * 100 for r in own), mean(accuracies), deviation))
        for method, each in points.items():
            x, y, error = zip(*sorted(each), strict=True)
            axis.errorbar(x, y, error, marker="o", capsize=3, label=method)
        axis.set(title=network, xlabel="FLOPs, % of the seed", ylabel="test accuracy, %")
        axis.grid(alpha=0.3)
        axis.legend(fontsize="small")
    path = RESULTS / "accuracy" / name / "accuracy.svg"
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def widths(name: str) -> str:
    """How far the learnt widths differ between seeds: the mean over groups of their deviation, in % of full width."""
    found: dict[str, list[dict[str, tuple[int, int]]]] = defaultdict(list)
    for path in sorted((RESULTS / "accuracy" / name / "structures").glob("*.csv")):
        own = {row["group"]: (int(row["before"]), int(row["after"])) for row in read(path)}
        found[path.stem.rpartition(" ")[0]].append(own)
    lines = ["| runs | groups | deviation of a width over seeds, % of the full width |", "|---|---|---|"]
    for key, each in found.items():
        if len(each) > 1:
            deviations = [stdev(w[g][1] / w[g][0] for w in each) for g in each[0]]
            lines.append(f"| {key} | {len(deviations)} | {100 * mean(deviations):.1f} |")
    return "\n".join(lines) if len(lines) > 2 else ""


def main() -> None:
    parts = [INTRODUCTION]
    for path in sorted((RESULTS / "accuracy").glob("*/runs.csv")):
        name, rows = path.parent.name, read(path)
        first = rows[0]
        what = (
            f"{first['data']}, {int(first['train_images']):,} training images of {first['image_size']}², "
            f"{first['optimizer']}, {first['machine']}, torch {first['torch']}."
        )
        plotted = plot(name, rows).relative_to(DOCS.parent)
        parts.append(f"## {name}\n\n{what}\n\n![accuracy over FLOPs](../{plotted})\n\n{table(rows)}\n")
        if spread_of := widths(name):
            parts.append(f"{spread_of}\n")
    write_text("\n".join(parts), DOCS / "evidence.md")


if __name__ == "__main__":
    main()

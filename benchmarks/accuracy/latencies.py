"""How long the networks of an experiment take here: ``python -m benchmarks.accuracy.latencies NAME…``.

From the widths that its runs left, in ONNX Runtime on one thread, in turns; nothing else should run meanwhile.
"""

from __future__ import annotations

import csv
import platform
import sys
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import torch
from rich.progress import track

from benchmarks.accuracy.experiment import Run, read
from benchmarks.accuracy.networks import NETWORKS
from benchmarks.accuracy.running import runs_file
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.calibration import Place
from onnxmorph.calibration.timing import time_model
from onnxmorph.converters.torch import export
from onnxmorph.surgery.emit import emit
from onnxmorph.surgery.verify import random_inputs
from onnxmorph.widths import spread

PLACE = Place("CPUExecutionProvider", threads=1)
ROUNDS = 5


def measured(name: str) -> list[dict[str, object]]:
    """A row for every run that is done, of networks whose groups are axes of parameters."""
    experiment, folder = read(name), runs_file(name).parent
    with runs_file(name).open(newline="", encoding="utf-8") as file:
        done = list(csv.DictReader(file))
    size, colours = int(done[0]["image_size"]), 1 if experiment.recipe.data == "digits" else 3
    one = (torch.zeros(1, colours, size, size),)
    analyses = {n: analyze(export(NETWORKS[n](colours).eval(), one)) for n in experiment.networks}
    ready = {(r["network"], r["method"], r["target"], r["seed"]) for r in done}
    runs = [r for r in experiment.runs() if (r.network, r.method.name, r.method.target, str(r.seed)) in ready]
    models = {run.key: (run.network, emitted(analyses[run.network], folder, run)) for run in runs}
    models |= {n: (n, of.graph.model) for n, of in analyses.items()}
    feeds = {n: random_inputs(of.graph, np.random.default_rng(0)) for n, of in analyses.items()}
    taken: dict[str, list[float]] = {key: [] for key in models}
    for _ in track(range(ROUNDS), f"timing {name}"):
        for key, (network, model) in models.items():
            taken[key].append(time_model(model, feeds[network], PLACE).seconds)
    return [
        {
            "network": run.network,
            "method": run.method.name,
            "target": run.method.target,
            "seed": run.seed,
            "milliseconds": round(1e3 * median(taken[run.key]), 5),
            "seed_network": round(1e3 * median(taken[run.network]), 5),
            "machine": f"{platform.machine()} CPU",
            "threads": PLACE.threads,
        }
        for run in runs
    ]


def emitted(analysis: Analysis, folder: Path, run: Run) -> ir.Model:
    """The network in the widths of a run; weights do not matter here."""
    with (folder / "structures" / f"{run.file}.csv").open(newline="", encoding="utf-8") as file:
        widths = {row["group"]: int(row["after"]) for row in csv.DictReader(file)}
    wanted = np.array([widths[group.id] for group in analysis.groups])
    return emit(analysis, spread(analysis, np.ones(analysis.channels + 1, np.int64), wanted))


def main(names: list[str]) -> None:
    for name in names:
        rows = measured(name)
        with (runs_file(name).parent / "latencies.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main(sys.argv[1:])

"""Predicted against measured latency, and what choosing for latency is worth. All on this machine, in one run.

Each network is calibrated on random widths, then shrunk by what the weights say to five budgets that calibration has
not seen. Then the structures chosen for FLOPs are compared with those chosen for latency that have as many FLOPs.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np

from benchmarks.networks import file
from benchmarks.timing import Row
from onnxmorph import latency
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.calibration import Place, calibrate
from onnxmorph.calibration.timing import time_model
from onnxmorph.surgery import Morphed, shrink
from onnxmorph.surgery.verify import random_inputs

NETWORKS = ("resnet18", "mobilenet_v2", "vit_s_16")
BUDGETS = (0.8, 0.6, 0.45, 0.3, 0.2)  # of the FLOPs
MINUTES = 1.5
PLACE = Place("CPUExecutionProvider", threads=1)
ROUNDS = 5  # of timing, in turns
ERROR, MEDIAN = 0.10, 0.05


def run() -> list[Row]:
    rows, errors = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in NETWORKS:
            analysis = _calibrated(name, Path(folder))
            predicted = list(_accuracy(name, analysis))
            errors += [row.ratio for row in predicted]
            rows += [*predicted, *_choice(name, analysis)]
    rows.append(Row("median of all these errors, of a second", median(errors), "measured", 1.0, MEDIAN))
    return rows


def _calibrated(name: str, folder: Path) -> Analysis:
    analysis, device = analyze(file(name, folder)), folder / "here.toml"
    found = calibrate(analysis, device, PLACE, minutes=MINUTES).network
    print(
        f"{name}: {len(found.runs)} runs, held-out error {found.median:.1%} (largest {found.largest:.1%}), "
        f"spread {found.spread:.1%}"
    )
    return analysis.with_costs(**latency.costs(analysis, latency.load(device)))


def _accuracy(name: str, analysis: Analysis) -> Iterator[Row]:
    """Predicted and measured, for structures that calibration has not seen."""
    small = [shrink(analysis, budget=f"flops={share:.0%}") for share in BUDGETS]
    for share, each, seconds in zip(BUDGETS, small, _measure(analysis, small), strict=True):
        predicted = each.structure.costs["after"]["latency"]
        what = f"{name} at {share:.0%} FLOPs: predicted {predicted * 1e3:.2f} ms, off by"
        yield Row(what, abs(predicted - seconds), "measured", seconds, ERROR)


def _choice(name: str, analysis: Analysis) -> Iterator[Row]:
    """What was chosen for latency against what was chosen for FLOPs: at as many FLOPs, and predicted as long."""
    for share in (0.6, 0.4):
        of_flops = shrink(analysis, budget=f"flops={share:.0%}")
        after = of_flops.structure.costs["after"]
        as_long = shrink(analysis, budget=f"latency={after['latency'] * 1e9:.0f}ns", round_to="auto")
        low, high = 0.05, 1.0
        for _ in range(8):  # the latency at which as many FLOPs are left
            middle = (low + high) / 2
            as_many = shrink(analysis, budget=f"latency={middle:.2%}", round_to="auto")
            low, high = (middle, high) if as_many.structure.costs["after"]["flops"] < after["flops"] else (low, middle)
        as_many = shrink(analysis, budget=f"latency={high:.2%}", round_to="auto")
        theirs, long, many = _measure(analysis, [of_flops, as_long, as_many])
        for how, each, ours in (("", as_many, many), (", predicted as long", as_long, long)):
            ratio = each.structure.costs["after"]["flops"] / after["flops"]
            what = f"{name}, chosen for latency{how}, {ratio:.2f} of the FLOPs"
            yield Row(what, ours, f"chosen for {share:.0%} FLOPs", theirs, 1.0)


def _measure(analysis: Analysis, models: list[Morphed]) -> list[float]:
    """Median seconds, the models in turns."""
    feeds = random_inputs(analysis.graph, np.random.default_rng(0))
    taken = [[time_model(each.model, feeds, PLACE).seconds for each in models] for _ in range(ROUNDS)]
    return [median(each) for each in zip(*taken, strict=True)]

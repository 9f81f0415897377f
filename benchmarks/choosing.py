"""Accuracy right after a cut to half the FLOPs, without training: the knapsack against a ranking without prices.

On the demo's images; CIFAR-10 where its file lies beside the repository. Every number is a mean over three networks.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean, stdev
from tempfile import TemporaryDirectory

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from rich.console import Console
from rich.table import Table
from torch import nn

from benchmarks.timing import RESULTS
from onnxmorph.adapters.demo.images import Images, read_images
from onnxmorph.adapters.demo.network import network
from onnxmorph.adapters.demo.recipe import RECIPES, Recipe
from onnxmorph.adapters.demo.training import new_optimizer, train
from onnxmorph.adapters.torch import gradients, load_weights, resize
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.importance import METHODS, scores
from onnxmorph.knapsack import select
from onnxmorph.search import multiply
from onnxmorph.structure import Structure
from onnxmorph.surgery import shrink
from onnxmorph.widths import keep_best

CIFAR = Path(__file__).parents[2] / "shared" / "data" / "cifar10_jpeg.npz"
SHAPES = {"digits": ((16, 32), 40), "cifar10": ((16, 32, 64), 4)}  # widths of the stages, epochs
SEEDS, BATCHES, BATCH, TESTED = 3, 6, 100, 2000
BUDGET = Budget.parse("flops=50%")


@dataclass(frozen=True)
class Cut:
    """Mean and deviation of the accuracy over the seeds."""

    images: str
    by: str
    how: str
    accuracy: float
    deviation: float


def ranked(analysis: Analysis, found: NDArray[np.float64]) -> NDArray[np.int64]:
    """As few channels go as have to, the lowest scores over all groups first, whatever they cost."""
    order, owner = np.argsort(found[1:], kind="stable"), analysis.group_of[1:]
    for removed in range(len(order) + 1):
        widths = np.maximum(np.bincount(owner[order[removed:]], minlength=len(analysis.groups)), 1)
        if BUDGET.met(analysis, widths):
            break
    return keep_best(analysis, found, widths)


def cuts(
    analysis: Analysis, seed: int, found: Mapping[str, NDArray[np.float32]]
) -> dict[tuple[str, str], NDArray[np.int64]]:
    """Copies by method and way of choosing."""
    result = {}
    for by in METHODS:
        each = scores(analysis, by, seed, found if by == "taylor" else None)
        result[by, "ranking"], result[by, "knapsack"] = ranked(analysis, each), select(analysis, each, BUDGET)
    _, widths = multiply(analysis, analysis.widths, BUDGET, grow=False)
    result["magnitude", "width multiplier"] = keep_best(analysis, scores(analysis), widths)
    return result


def accuracy(module: nn.Module, images: Images) -> float:
    with torch.no_grad():
        answers = module.eval()(torch.from_numpy(images.test[:TESTED])).argmax(1).numpy()
    return float((answers == images.test_labels[:TESTED]).mean())


def trained(recipe: Recipe, images: Images, epochs: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    module = network(images.train.shape[1], recipe.widths, recipe.depth, images.classes)
    rng = torch.Generator().manual_seed(seed)
    train(module, new_optimizer(module, recipe), images, recipe, epochs, rng, f"{recipe.data} {seed}", 1.0)
    return module


def measured(data: str, folder: Path) -> list[Cut]:
    widths, epochs = SHAPES[data]
    recipe = replace(RECIPES[data], widths=widths)
    images = read_images(recipe, CIFAR if data == "cifar10" else None, folder)
    x, y = torch.from_numpy(images.train), torch.from_numpy(images.train_labels)
    batches = [(x[i : i + BATCH], y[i : i + BATCH]) for i in range(0, BATCHES * BATCH, BATCH)]
    found: dict[tuple[str, str], list[float]] = {}
    for seed in range(SEEDS):
        module = trained(recipe, images, epochs, seed)
        found.setdefault(("", "uncut"), []).append(accuracy(module, images))
        analysis = analyze(export(module, (x[:2],)))
        slopes = gradients(module, lambda m, batch: F.cross_entropy(m(batch[0]), batch[1]), batches)
        for key, copies in cuts(analysis, seed, slopes).items():
            small = shrink(analysis, Structure.of(analysis, copies))
            resized = resize(module, small.structure)
            load_weights(resized, small.model)
            found.setdefault(key, []).append(accuracy(resized, images))
    return [Cut(data, by, how, round(mean(a), 4), round(stdev(a), 4)) for (by, how), a in found.items()]


def run() -> None:
    """Measure, show and write; there is no aim to be missed."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as folder:
        rows = [cut for data in SHAPES if data == "digits" or CIFAR.exists() for cut in measured(data, Path(folder))]
    table = Table("images", "by", "how", "accuracy", "±", title="half the FLOPs, no training", title_justify="left")
    for row in rows:
        table.add_row(row.images, row.by, row.how, f"{row.accuracy:.3f}", f"{row.deviation:.3f}")
    Console().print(table)
    with (RESULTS / "choosing.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["images", "by", "how", "accuracy", "deviation"])
        writer.writerows([row.images, row.by, row.how, row.accuracy, row.deviation] for row in rows)


if __name__ == "__main__":
    run()

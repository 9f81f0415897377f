"""One run of an experiment, in whatever process: the row of the table, the curve, the structure."""

from __future__ import annotations

import platform
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import torch
from torch import nn

from benchmarks.accuracy.experiment import Experiment, Run, read
from benchmarks.accuracy.fitting import DEVICE, Data, Fit, accuracy, data_of
from benchmarks.accuracy.methods import METHODS, exported, placed
from benchmarks.accuracy.networks import NETWORKS
from benchmarks.timing import RESULTS
from onnxmorph.analysis import Analysis, analyze

COLUMNS = [
    "network",
    "method",
    "target",
    "seed",
    "epochs",
    "accuracy",
    "flops",
    "params",
    "flops_share",
    "params_share",
    "seconds",
    "data",
    "train_images",
    "image_size",
    "optimizer",
    "machine",
    "threads",
    "torch",
]


def runs_file(name: str) -> Path:
    return RESULTS / "accuracy" / name / "runs.csv"


def trained(experiment: Experiment, run: Run, data: Data) -> dict[str, object]:
    """One row of the table."""
    recipe, start = run.method.recipe(experiment.recipe), time.perf_counter()
    torch.manual_seed(run.seed)
    torch.set_num_threads(recipe.threads)
    folder = runs_file(experiment.name).parent
    module = placed(NETWORKS[run.network](data.colours))
    fit = Fit(recipe, data, run.seed, folder / "curves" / f"{run.file}.csv")
    analysis = Worker.analysed(run.network, module, fit)
    before = analysis.count()
    module = METHODS[run.method.kind](module, run.method, recipe, fit)
    small = analyze(exported(module, fit))
    after, widths = small.count(), fit.widths or {group.id: group.width for group in small.groups}
    fit.save()
    path = folder / "structures" / f"{run.file}.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [f"{group.id},{group.width},{widths.get(group.id, 0)}" for group in analysis.groups]
    path.write_text("\n".join(["group,before,after", *rows, ""]), encoding="utf-8")
    return {
        "network": run.network,
        "method": run.method.name,
        "target": run.method.target,
        "seed": run.seed,
        "epochs": fit.before + fit.epoch,
        "accuracy": round(accuracy(module, data), 5),
        "flops": after["flops"],
        "params": after["params"],
        "flops_share": round(after["flops"] / before["flops"], 5),
        "params_share": round(after["params"] / before["params"], 5),
        "seconds": round(time.perf_counter() - start, 1),
        "data": recipe.data,
        "train_images": len(data.train),
        "image_size": data.train.shape[-1],
        "optimizer": recipe.optimizer,
        "machine": torch.cuda.get_device_name() if DEVICE.type == "cuda" else f"{platform.machine()} CPU",
        "threads": recipe.threads,
        "torch": torch.__version__,
    }


class Worker:
    """What a process keeps between runs."""

    path: Path | None = None  # of CIFAR-10
    data: Mapping[tuple[object, ...], Data] = {}  # of the experiment that it worked on last
    analyses: ClassVar[dict[tuple[object, ...], Analysis]] = {}

    @classmethod
    def start(cls, path: Path | None) -> None:
        cls.path = path
        if DEVICE.type == "cuda":
            torch.cuda.set_stream(torch.cuda.Stream())  # CUDA graphs are not recorded on the default one

    @classmethod
    def analysed(cls, network: str, module: nn.Module, fit: Fit) -> Analysis:
        """Of a network as it is before all training; its weights are not looked at."""
        key = (network, fit.data.test.shape[1:])
        if key not in cls.analyses:
            cls.analyses[key] = analyze(exported(module, fit))
        return cls.analyses[key]

    @classmethod
    def work(cls, name: str, run: Run) -> dict[str, object]:
        experiment = read(name)
        recipe = experiment.recipe
        key = (recipe.data, recipe.train_images, recipe.test_images, recipe.shrink_images, recipe.validation)
        if key not in cls.data:
            cls.data = {key: data_of(recipe, cls.path)}
        return trained(experiment, run, cls.data[key])

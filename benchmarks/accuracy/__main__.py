"""Train what an experiment asks for and is not done yet: ``python -m benchmarks.accuracy NAME [--data FILE]``."""

from __future__ import annotations

import argparse
import csv
import fnmatch
import platform
import sys
import time
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.accuracy.experiment import Experiment, Run, read
from benchmarks.accuracy.fitting import Data, Fit, accuracy, data_of
from benchmarks.accuracy.methods import METHODS, costs
from benchmarks.accuracy.networks import NETWORKS
from benchmarks.timing import RESULTS

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


def done(name: str) -> set[tuple[str, ...]]:
    """What has been trained already."""
    path = runs_file(name)
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {(r["network"], r["method"], r["target"], r["seed"]) for r in csv.DictReader(file)}


def trained(experiment: Experiment, run: Run, data: Data) -> dict[str, object]:
    """One row of the table."""
    recipe, start = experiment.recipe, time.perf_counter()
    torch.manual_seed(run.seed)
    torch.set_num_threads(recipe.threads)
    module = NETWORKS[run.network](data.colours)
    inputs = data.test[:2]
    before = costs(module, inputs)
    fit = Fit(recipe, data, run.seed, runs_file(experiment.name).parent / "curves" / f"{run.key}.csv")
    module, structure = METHODS[run.method.kind](module, run.method, recipe, fit)
    after = costs(module, inputs)
    fit.save()
    if structure is not None:
        path = runs_file(experiment.name).parent / "structures" / f"{run.key}.csv"
        path.parent.mkdir(exist_ok=True)
        rows = [f"{g.id},{g.width},{len(g.keep)}" for g in structure.groups]
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
        "machine": f"{platform.machine()} CPU" if not torch.cuda.is_available() else torch.cuda.get_device_name(),
        "threads": recipe.threads,
        "torch": torch.__version__,
    }


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("experiment", help="a TOML file's name in this folder")
    parser.add_argument("--data", type=Path, help="the npz of CIFAR-10 that docs/demo.md describes")
    parser.add_argument("--only", default="*", help="runs whose key matches, e.g. 'resnet20 *'")
    asked = parser.parse_args(arguments)
    experiment = read(asked.experiment)
    data = data_of(experiment.recipe, asked.data)
    path = runs_file(experiment.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    ready = done(experiment.name)
    wanted = [r for r in experiment.runs() if fnmatch.fnmatch(r.key, asked.only)]
    left = [r for r in wanted if (r.network, r.method.name, r.method.target, str(r.seed)) not in ready]
    for run in track(left, experiment.name):
        row = trained(experiment, run, data)
        new = not path.exists()
        with path.open("a", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
        print(f"{run.key}: {row['accuracy']:.4f} at {row['flops_share']:.1%} FLOPs, {row['seconds']} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

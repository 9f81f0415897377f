"""Train what experiments ask for and is not done yet: ``python -m benchmarks.accuracy NAME… [--data FILE]``."""

from __future__ import annotations

import argparse
import csv
import fnmatch
import sys
import traceback
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

from rich.progress import track

from benchmarks.accuracy.experiment import Run, read
from benchmarks.accuracy.fitting import data_of
from benchmarks.accuracy.running import COLUMNS, Worker, runs_file


def done(name: str) -> set[tuple[str, ...]]:
    """What has been trained already."""
    path = runs_file(name)
    if not path.exists():
        return set()
    with path.open(newline="", encoding="utf-8") as file:
        return {(r["network"], r["method"], r["target"], r["seed"]) for r in csv.DictReader(file)}


def append(row: Mapping[str, object], path: Path) -> None:
    """Write a row, and before the first the names of the columns."""
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow(row)


def left(name: str, only: str) -> list[tuple[str, Run]]:
    """What has not been trained yet."""
    ready = done(name)
    wanted = [run for run in read(name).runs() if fnmatch.fnmatch(run.key, only)]
    return [(name, r) for r in wanted if (r.network, r.method.name, r.method.target, str(r.seed)) not in ready]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("experiments", nargs="+", help="TOML files' names in this folder")
    parser.add_argument("--data", type=Path, help="the npz of CIFAR-10 that docs/demo.md describes")
    parser.add_argument("--only", default="*", help="runs whose key matches, e.g. 'resnet20 *'")
    parser.add_argument("--workers", type=int, default=1, help="processes; several share a GPU well")
    asked = parser.parse_args(arguments)
    failed = 0
    runs = [each for name in asked.experiments for each in left(name, asked.only)]
    for name in asked.experiments:
        data_of(read(name).recipe, asked.data)  # decoded before several need it
    with ProcessPoolExecutor(asked.workers, get_context("spawn"), Worker.start, (asked.data,)) as processes:
        started = {processes.submit(Worker.work, name, run): (name, run) for name, run in runs}
        for each in track(as_completed(started), "training", len(runs)):
            name, run = started[each]
            if error := each.exception():
                failed += 1
                print(f"{run.key}: failed", *traceback.format_exception(error), sep="\n", file=sys.stderr, flush=True)
                continue
            row = each.result()
            append(row, runs_file(name))
            print(f"{run.key}: {row['accuracy']:.4f} at {row['flops_share']:.1%} FLOPs, {row['seconds']} s", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

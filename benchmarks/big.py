"""Models whose weights lie in a file: time and the peak of memory, of the whole command line in a process of its own.

Eight billion parameters are a sparse file, which nothing reads; a shrunk model of 4 GB is held against a copy of its
files. Both read what was just written, so that neither waits for the disk to find it. The best of three rounds counts.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from math import prod
from pathlib import Path

import onnx

from benchmarks.timing import Row

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from llama import BILLIONS, write

FOUR_GB = replace(BILLIONS, layers=8, vocabulary=32000)
MB = 1_000_000
ROOM = 20_000 * MB  # on the disk: the model, a copy, and what is made of it
SPARE = 300  # MB over the largest tensor
ROUNDS = 3
AIMS = {"scale": 3, "expand": 4}  # all weights are worked on, and most are written


def run() -> list[Row]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if shutil.disk_usage(folder).free < ROOM:
            raise SystemExit(f"{folder} has no room for 20 GB; set TMPDIR to a folder that has")
        return [*_analysed(folder), *_cut(folder)]


def _analysed(folder: Path) -> Iterator[Row]:
    for what, fused in (("ordinary ops", False), ("fused attention", True)):
        model = write(replace(BILLIONS, fused=fused), folder / "billions.onnx")
        seconds, peaks = zip(*(_child(folder, "analyze", model) for _ in range(ROUNDS)), strict=True)
        yield Row(f"8 billion parameters, {what}: analyze", min(seconds), "the aim", 10)
        yield Row(f"8 billion parameters, {what}: peak of analyze", max(peaks), "the aim", 500, unit="MB")


def _cut(folder: Path) -> Iterator[Row]:
    model, kept = write(FOUR_GB, folder / "four.onnx", seed=0), folder / "s.json"
    out = folder / "out.onnx"
    share = ("-o", out, "--budget", "params=50%")
    tasks: dict[str, tuple[object, ...]] = {
        "shrink by random": ("shrink", model, *share, "--by", "random"),
        "shrink by magnitude": ("shrink", model, *share, "--save-structure", kept),
        "shrink by a structure": ("shrink", model, "-o", out, "--structure", kept),
        "scale": ("scale", model, *share),
        "expand": ("expand", model, "-o", out, "--structure", kept, "--budget", "params=100%"),
    }
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    copied, largest = [], {}
    for _ in range(ROUNDS):
        copied.append(_copy(model, folder / "copy"))
        for name, task in tasks.items():
            taken[name].append(_child(folder, *task))
            largest[name] = _largest(out)
            for made in folder.glob("out.onnx*"):
                made.unlink()
    for name, found in taken.items():
        yield Row(f"4 GB: {name}", min(s for s, _ in found), "a copy of its files", min(copied), AIMS.get(name, 2))
    for name, found in taken.items():
        against, most = f"the largest tensor and {SPARE} MB", max(_largest(model), largest[name]) + SPARE
        yield Row(f"4 GB: peak of {name}", max(p for _, p in found), against, most, unit="MB")


def _largest(model: Path) -> float:
    """MB of a model's largest tensor."""
    tensors = onnx.load(model, load_external_data=False).graph.initializer
    kinds = [onnx.helper.tensor_dtype_to_np_dtype(t.data_type) for t in tensors]
    return max(prod(t.dims) * kind.itemsize for t, kind in zip(tensors, kinds, strict=True)) / MB


def _copy(model: Path, to: Path) -> float:
    """Seconds; byte by byte, for some file systems only note that two files are alike."""
    os.sync()  # what is still to be written would hold up what comes next
    start = time.perf_counter()
    for source in (model, Path(f"{model}.data")):
        with source.open("rb") as read, to.open("wb") as written:
            shutil.copyfileobj(read, written, 16 * MB)
    seconds = time.perf_counter() - start
    to.unlink()
    return seconds


def _child(folder: Path, *arguments: object) -> tuple[float, float]:
    """Seconds and MB at the peak of the command line in a process of its own."""
    noted = folder / "peak"
    os.sync()
    start = time.perf_counter()
    command = [sys.executable, "-m", "benchmarks.peak", noted, *arguments]
    subprocess.run([str(each) for each in command], check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - start, int(noted.read_text(encoding="ascii")) / MB

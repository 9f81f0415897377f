"""The comparison: every number is read from the ONNX files that were written."""

from __future__ import annotations

import csv
import io
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from rich import box
from rich.progress_bar import ProgressBar
from rich.table import Table

from onnxmorph.adapters.demo.images import Floats, Images
from onnxmorph.analysis import analyze
from onnxmorph.report import amount, shorten
from onnxmorph.structure import Structure

BATCH = 500


@dataclass(frozen=True)
class Row:
    """One network: FLOPs per image, parameters, median milliseconds per batch, share of test images it gets right."""

    network: str
    file: str
    flops: int
    params: int
    latency_ms: float
    accuracy: float


def measure(files: Mapping[str, Path], images: Images, batch: int, rounds: int) -> list[Row]:
    """A row for every file.

    Args:
        files: the name of each network, and its ONNX file.
        images: whose test part gives accuracy, and the input of latency.
        batch: images per run for latency.
        rounds: runs per file for latency; all files take turns, one thread.
    """
    sessions = {name: open_session(path) for name, path in files.items()}
    latency = _latencies(sessions, images.test[:batch], rounds)
    rows = []
    for name, path in files.items():
        of = analyze(path)
        flops, params = (int(of.costs[cost].value(of.widths)) for cost in ("flops", "params"))
        right = float((answers(sessions[name], images.test).argmax(1) == images.test_labels).mean())
        rows.append(Row(name, path.name, flops, params, latency[name], right))
    return rows


def answers(session: onnxruntime.InferenceSession, x: Floats) -> NDArray[Any]:
    """What a network says to images, ``[n, channels, height, width] -> [n, classes]``."""
    name = session.get_inputs()[0].name
    return np.concatenate([session.run(None, {name: x[i : i + BATCH]})[0] for i in range(0, len(x), BATCH)])


def open_session(path: Path) -> onnxruntime.InferenceSession:
    """ONNX Runtime on one thread of the CPU."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def _latencies(sessions: Mapping[str, onnxruntime.InferenceSession], x: Floats, rounds: int) -> dict[str, float]:
    """Median milliseconds; in turns, so that a busy moment of the machine meets all alike."""
    times: dict[str, list[float]] = {name: [] for name in sessions}
    for _ in range(rounds):
        for name, session in sessions.items():
            feeds = {session.get_inputs()[0].name: x}
            start = time.perf_counter()
            session.run(None, feeds)
            times[name].append(time.perf_counter() - start)
    return {name: float(np.median(each)) * 1e3 for name, each in times.items()}


def as_csv(rows: Sequence[Row]) -> str:
    """A header and a line for every network."""
    text = io.StringIO()
    writer = csv.DictWriter(text, [f.name for f in fields(Row)], lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in rows)
    return text.getvalue()


def _empty_table(title: str, first: str) -> Table:
    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column(first, no_wrap=True)
    return table


def as_table(rows: Sequence[Row], batch: int) -> Table:
    """For people; shares are of the first row."""
    table = _empty_table("The networks compared", "")
    for heading in ("FLOPs", "", "params", "", f"ms per {batch}", "accuracy"):
        table.add_column(heading, justify="right", no_wrap=True)
    first = rows[0]
    for row in rows:
        flops, params = f"{row.flops / first.flops:.0%}", f"{row.params / first.params:.0%}"
        cells = (amount(row.flops), flops, amount(row.params), params, f"{row.latency_ms:.3f}", f"{row.accuracy:.2%}")
        table.add_row(row.network, *cells)
    return table


def width_table(structure: Structure) -> Table:
    """Where the channels went."""
    table = _empty_table("Live channels", "group")
    for heading in ("before", "after"):
        table.add_column(heading, justify="right")
    table.add_column("")
    for g in structure.groups:
        share = ProgressBar(g.width, len(g.keep), width=16, complete_style="cyan", finished_style="cyan")
        table.add_row(shorten(g.id, 34), str(g.width), str(len(g.keep)), share)
    return table


def verdict(one: Row, other: Row, images: int) -> str:
    """Which of two networks of about the same cost is more accurate, and whether so many images can tell.

    >>> verdict(Row("a", "", 0, 0, 0, 0.97), Row("b", "", 0, 0, 0, 0.95), 1000)
    'a is 2.0 points better than b, which is more than chance (±1.7 points).'
    """
    points = 100 * (one.accuracy - other.accuracy)
    noise = 196 * math.sqrt(sum(r.accuracy * (1 - r.accuracy) for r in (one, other)) / images)
    kind = "better" if points >= 0 else "worse"
    weight = "more than chance" if abs(points) > noise else "within chance"
    difference = f"{abs(points):.1f} points {kind} than {other.network}"
    return f"{one.network} is {difference}, which is {weight} (±{noise:.1f} points)."

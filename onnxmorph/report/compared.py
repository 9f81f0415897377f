"""A calibration, and predicted against measured time."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from itertools import groupby
from operator import attrgetter
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table

from onnxmorph.calibration import Calibration, Comparison, KernelTime
from onnxmorph.latency.machine import Network
from onnxmorph.report.documents import document
from onnxmorph.report.drawing import Document, add_row, paragraph, plain, plural, quantity, share_bar, shorten, table_of

ROWS = 24  # of the table of kernels


def calibration_document(of: Calibration, output: Path) -> Document:
    """What ``calibrate --json`` prints."""
    network, machine = of.network, of.machine
    fields = {
        "device": str(output),
        "runtime": machine.runtime,
        "provider": machine.provider,
        "threads": machine.threads,
        "processor": machine.processor,
        "network": network.name,
        "runs": len(network.runs),
        "held_out_error": {"median": network.median, "largest": network.largest},
        "spread": network.spread,
        "networks": [n.name for n in machine.networks.values()],
        "notes": list(of.notes),
    }
    return document("calibrate", fields)


def calibration(of: Calibration, output: Path, verbose: bool = False) -> list[RenderableType]:
    """What ``calibrate`` shows: how well the runs are explained, and what the file holds."""
    network, machine = of.network, of.machine
    threads = "as many threads as it chooses" if not machine.threads else plural(machine.threads, "thread")
    full = quantity("latency", network.runs[0].seconds)
    lines = [
        f"{plural(len(network.runs), 'run')} of {network.name} on {machine.processor}, {machine.provider}, {threads}.",
        f"The full network takes {full}; repetitions of a run differ by {network.spread:.1%}.",
        f"Runs that were held out are missed by {network.median:.1%} (median), {network.largest:.1%} at most.",
    ]
    others = [n.name for n in machine.networks.values() if n.name != network.name]
    lines += [f"The file also knows {', '.join(others)}."] if others else []
    notes = [f"Note: {note}." for note in of.notes]
    shown: list[RenderableType] = [paragraph(plain(text)) for text in (*lines, *notes)]
    shown += ["", _coefficients(network), ""] if verbose else []
    return [*shown, f"  Written: {plain(output)}"]


def _coefficients(network: Network) -> Table:
    """What was learnt of every kind of kernel."""
    table = table_of("What a unit of each feature takes", "kind", "feature", "time", "", right=2)
    for kind, features in network.coefficients.items():
        for name, seconds in features.items():
            add_row(table, shorten(kind, 40), name, f"{seconds:.3g} s", "")
    return table


def comparison_document(of: Comparison) -> Document:
    """What ``latency --json`` prints; seconds."""
    return document("latency", {**asdict(of), "error": of.error})


def comparison(of: Comparison, verbose: bool = False) -> list[RenderableType]:
    """What ``latency`` shows: kinds of kernels, dearest first, or every kernel; and the total."""
    by = attrgetter("nodes" if verbose else "ops")
    rows = [(names, list(same)) for names, same in groupby(sorted(of.kernels, key=by), by)]
    table = table_of("Time by kernel", "kernel", "count", "predicted", "measured", "of time", right=3)
    whole = of.measured or of.predicted
    for names, same in sorted(rows, key=lambda row: -_time(row[1]))[: None if verbose else ROWS]:
        known = [k.measured for k in same if k.measured is not None]
        shown = quantity("latency", sum(known)) if known else "-"
        cells = (str(len(same)), quantity("latency", sum(k.predicted for k in same)), shown)
        add_row(table, shorten(" + ".join(names), 34), *cells, share_bar(_time(same) / whole if whole else 0))
    table.add_section()
    total = "-" if of.measured is None else quantity("latency", of.measured)
    count = str(sum(Counter(k.ops for k in of.kernels).values()))
    add_row(table, "total", count, quantity("latency", of.predicted), total, "", style="bold")
    return [table, "", *(paragraph(plain(text)) for text in _remarks(of, 0 if verbose else len(rows)))]


def _time(kernels: Iterable[KernelTime]) -> float:
    return sum(k.predicted if k.measured is None else k.measured for k in kernels)


def _remarks(of: Comparison, kinds: int) -> Iterable[str]:
    if of.error is not None and of.spread is not None:
        yield f"Predicted is {of.error:+.1%} of measured; repetitions differ by {of.spread:.1%}."
    if kinds > ROWS:
        yield f"{kinds - ROWS} more kinds, and every kernel: --verbose."
    yield from (f"Note: {note}." for note in of.notes)

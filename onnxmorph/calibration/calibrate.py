"""Measure a machine with a network at many widths, and learn from it what any widths will take."""

from __future__ import annotations

import os
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tomli_w

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Array, Floats
from onnxmorph.calibration.attribution import attribute, per_kernel
from onnxmorph.calibration.fit import Runs, fit
from onnxmorph.calibration.timing import Place, Timed, processor, runtime, time_model
from onnxmorph.calibration.variants import build, variant
from onnxmorph.errors import CalibrationError
from onnxmorph.files import alone, write_text
from onnxmorph.latency.device import VERSION, load
from onnxmorph.latency.features import kinds
from onnxmorph.latency.kernels import Kernel, kernels
from onnxmorph.latency.machine import Machine, Network, Run, machine
from onnxmorph.latency.measured import key_of, predictor
from onnxmorph.surgery.verify import random_inputs

FEWEST, MOST = 24, 256  # runs
HELD_OUT = 4  # one run in so many is held out to find the error, then fitted too
RESTLESS = 0.1  # spread from which a run is repeated
REPEATS = 3
NOISY, TOO_NOISY = 0.08, 0.3  # median spread to warn of, and to give up at
POOR = 0.1  # median error to warn of
ADDS_UP = (0.7, 1.4)  # of the total, what kernels take together where their times can be used
SAVE_EVERY = 5.0  # seconds


@dataclass(frozen=True)
class Calibration:
    """What was learnt: the machine with the network, and what a user should know about it."""

    machine: Machine
    network: Network
    notes: tuple[str, ...]


def calibrate(
    analysis: Analysis,
    path: str | os.PathLike[str],
    place: Place,
    *,
    minutes: float = 3.0,
    most: int = MOST,
    seed: int = 0,
    progress: Callable[[int, float], None] = lambda runs, seconds: None,
) -> Calibration:
    """Measure, fit, and write what was learnt to a device file.

    A file that exists is added to: runs of the same network are gone on with, other networks stay and are the prior.

    Args:
        analysis: of the network.
        path: of the device file.
        place: where to run.
        minutes: how long to measure at most.
        most: how many runs to measure at most, those in the file included.
        seed: of the widths.
        progress: told how many runs there are and how many seconds have passed.

    Raises:
        CalibrationError: nothing runs there, the file is of another place, the machine is too busy, or the user
            interrupts (what was measured is kept).
        DeviceError: the file exists and is no device file.
        OutputError: it cannot be written, or another process calibrates into it.

    Source: AOWS (arXiv 2005.10481), section 3, for fitting the terms of ops to end-to-end times.
    """
    place.check()
    if not analysis.groups:
        message = "no channel of this model can go, so that it has one width only; there is nothing to calibrate"
        raise CalibrationError(message, code="calibrate-groups")
    with alone(Path(path).resolve()):
        return _calibrate(analysis, path, place, minutes, most, seed, progress)


def _calibrate(
    analysis: Analysis,
    path: str | os.PathLike[str],
    place: Place,
    minutes: float,
    most: int,
    seed: int,
    progress: Callable[[int, float], None],
) -> Calibration:
    found = kernels(analysis)
    key, known = key_of(analysis, found), _known(Path(path), place)
    before = known.networks.get(key, Network(Path(analysis.graph.source).name, (), {}))
    if before.runs and len(before.runs[0].widths) != len(analysis.groups):
        message = f"{path}: its runs of this network have other groups; calibrate into a new file"
        raise CalibrationError(message, code="calibrate-other")
    runs = list(before.runs)
    feeds = random_inputs(analysis.graph, np.random.default_rng(seed))
    start, saved, elsewhere = time.monotonic(), -SAVE_EVERY, list[str]()

    def keep() -> None:
        _write(known.with_network(key, replace(before, runs=tuple(runs))), path)

    try:
        while len(runs) < most and (time.monotonic() - start < minutes * 60 or not runs):
            widths = variant(analysis, seed, len(runs))
            timed = _settled(lambda: time_model(build(analysis, widths), feeds, place))  # noqa: B023 - called at once
            runs.append(_run(analysis, found, widths, timed))
            elsewhere = [p for p in timed.profile.providers if p != place.provider] if timed.profile else []
            progress(len(runs), time.monotonic() - start)
            if time.monotonic() - saved > SAVE_EVERY:
                keep()
                saved = time.monotonic()
    except KeyboardInterrupt:
        keep()
        message = f"interrupted; {len(runs)} runs are kept in {path}: call again to go on"
        raise CalibrationError(message, code="interrupted") from None
    keep()
    if len(runs) < FEWEST:
        message = f"{len(runs)} runs are too few to learn from, {FEWEST} are needed; call again with more --minutes"
        raise CalibrationError(message, code="calibrate-few")
    others = replace(known, networks={k: n for k, n in known.networks.items() if k != key})
    network = learn(analysis, found, replace(before, runs=tuple(runs)), others)
    result = known.with_network(key, network)
    _write(result, path)
    notes = _notes(network)
    if elsewhere:
        notes.append(f"{len(elsewhere)} nodes ran on {', '.join(sorted(set(elsewhere)))}, not on {place.provider}")
    return Calibration(result, network, tuple(notes))


def _known(path: Path, place: Place) -> Machine:
    """What a file holds, if there is one; it has to be of the same place."""
    here = Machine(runtime(), place.provider, place.threads, processor(), {})
    if not path.exists():
        return here
    device = load(path)
    if device.measured is None:
        message = f"{path}: a device file that was not measured; calibrate into a new file"
        raise CalibrationError(message, code="calibrate-other")
    if device.newer:
        message = f"{path}: of a newer version, of which this onnxmorph would lose a part; calibrate into a new file"
        raise CalibrationError(message, code="calibrate-other")
    there = machine(device.measured, str(path))
    for what in ("runtime", "provider", "threads", "processor"):
        was, now = getattr(there, what), getattr(here, what)
        if was != now:
            message = f"{path}: measured with {what} {was!r}, not {now!r}; calibrate into a new file"
            raise CalibrationError(message, code="calibrate-other")
    return there


def _write(of: Machine, path: str | os.PathLike[str]) -> None:
    there = tomllib.loads(Path(path).read_text(encoding="utf-8-sig")) if Path(path).exists() else {}
    document = {"version": VERSION, "title": f"{of.processor}, {of.provider}", **there, "measured": of.document()}
    write_text(tomli_w.dumps(document), path)


def _settled(measure: Callable[[], Timed]) -> Timed:
    """The calmest of a few measurements, or the first that is calm."""
    best = measure()
    for _ in range(REPEATS - 1):
        if best.spread <= RESTLESS:
            break
        best = min(best, measure(), key=lambda each: each.spread)
    return best


def _run(analysis: Analysis, found: Sequence[Kernel], widths: Array, timed: Timed) -> Run:
    kernel = np.zeros(0)
    if timed.profile is not None:
        owners = attribute(analysis, found, timed.profile.nodes)
        kernel = per_kernel(owners, timed.profile.seconds, len(found))
        low, high = ADDS_UP
        if not low <= kernel.sum() / timed.seconds <= high:  # a provider that only says when it started a kernel
            kernel = np.zeros(0)
    return Run(tuple(widths.tolist()), timed.seconds, timed.spread, tuple(kernel.round(9).tolist()))


def learn(analysis: Analysis, found: tuple[Kernel, ...], of: Network, others: Machine) -> Network:
    """The network with its coefficients, and the error on runs that were held out; other networks are the prior."""
    spread = float(np.median([run.spread for run in of.runs]))
    if spread > TOO_NOISY:
        message = (
            f"the machine is too busy to measure: repetitions of one run differ by {spread:.0%} (interquartile range "
            f"over median); stop other programs, then delete the file and calibrate again"
        )
        raise CalibrationError(message, code="calibrate-noise")
    runs, each = runs_of(of.runs), kinds(analysis, found)
    _, prior = others.means()
    held = np.arange(len(runs)) % HELD_OUT == HELD_OUT - 1
    overhead, coefficients = fit(each, runs.part(~held), prior)
    error = np.abs(predictor(analysis, found, overhead, coefficients).sweep(runs.widths[held]) / runs.seconds[held] - 1)
    overhead, coefficients = fit(each, runs, prior)
    return replace(
        of,
        coefficients=coefficients,
        overhead=overhead,
        median=float(np.median(error)),
        largest=float(error.max()),
        spread=spread,
    )


def runs_of(runs: Sequence[Run]) -> Runs:
    """Runs as arrays; times of kernels only where every run has them."""
    kernel: Floats | None = None
    if all(run.kernels for run in runs):
        kernel = np.array([run.kernels for run in runs])
    widths = np.array([run.widths for run in runs], np.int64)
    return Runs(widths, np.array([run.seconds for run in runs]), kernel)


def _notes(of: Network) -> list[str]:
    notes = []
    if of.spread > NOISY:
        notes.append(
            f"the machine was busy: repetitions of one run differed by {of.spread:.0%}; a calm one is below 5%"
        )
    if of.median > POOR:
        notes.append(f"held-out runs are missed by {of.median:.0%}: do not trust predictions beyond that")
    if not all(run.kernels for run in of.runs):
        notes.append("the runtime did not tell the times of kernels; they were fitted to the totals alone")
    return notes

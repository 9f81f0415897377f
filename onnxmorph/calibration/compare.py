"""Predicted and measured time, in total and kernel by kernel."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.calibration.attribution import attribute, per_kernel
from onnxmorph.calibration.timing import Place, processor, time_model
from onnxmorph.latency.device import load
from onnxmorph.latency.kernels import Kernel
from onnxmorph.latency.machine import machine
from onnxmorph.latency.measured import Measured
from onnxmorph.latency.roofline import Roofline
from onnxmorph.surgery.verify import random_inputs

KINDS = 4  # that a note names


@dataclass(frozen=True)
class KernelTime:
    """One kernel: the names and types of its nodes, predicted seconds, measured seconds where they are known."""

    nodes: tuple[str, ...]
    ops: tuple[str, ...]
    predicted: float
    measured: float | None


@dataclass(frozen=True)
class Comparison:
    """Seconds of a network as predicted, and as measured where it ran; ``spread`` is that of repetitions.

    ``overhead`` is predicted seconds outside all kernels.
    """

    kernels: tuple[KernelTime, ...]
    overhead: float
    predicted: float
    measured: float | None
    spread: float | None
    notes: tuple[str, ...]

    @property
    def error(self) -> float | None:
        """Predicted over measured, less 1."""
        return None if self.measured is None else self.predicted / self.measured - 1


def place_of(device: str) -> tuple[Place | None, tuple[str, ...]]:
    """Where a device file was measured, if that is here; else why nothing runs."""
    found = load(device)
    if found.measured is None:
        return None, ("nothing ran: the device was not measured, so that it is not known whether this is it",)
    there = machine(found.measured, device, newer=found.newer)
    if there.processor != processor():
        return None, (f"nothing ran: the device file is of another machine ({there.processor})",)
    return Place(there.provider, there.threads), ()


def compare(analysis: Analysis, place: Place | None, seed: int = 0, notes: tuple[str, ...] = ()) -> Comparison:
    """Predict the time of a network and, with a place to run it, measure it.

    Args:
        analysis: with the cost ``latency``.
        place: where to run; None predicts only.
        seed: of the inputs.
        notes: what else a user should know.

    Raises:
        CalibrationError: the runtime cannot run the network there.
    """
    cost = analysis.costs["latency"]
    assert isinstance(cost, Measured | Roofline)
    predicted = cost.per_kernel(analysis.widths)
    seconds = predicted if isinstance(cost, Measured) else predicted[0]
    measured, timed = None, None
    if place is not None:
        place.check()
        feeds = random_inputs(analysis.graph, np.random.default_rng(seed))
        timed = time_model(analysis.graph.model.clone(), feeds, place)
        if timed.profile is not None:
            owners = attribute(analysis, cost.kernels, timed.profile.nodes)
            measured = per_kernel(owners, timed.profile.seconds, len(cost.kernels))
    return Comparison(
        tuple(
            _row(analysis, kernel, float(seconds[k]), None if measured is None else float(measured[k]))
            for k, kernel in enumerate(cost.kernels)
        ),
        cost.overhead if isinstance(cost, Measured) else 0.0,
        cost.value(analysis.widths),
        None if timed is None else timed.seconds,
        None if timed is None else timed.spread,
        (*_notes(cost), *notes),
    )


def _row(analysis: Analysis, kernel: Kernel, predicted: float, measured: float | None) -> KernelTime:
    nodes = [analysis.plans[step].node for step in kernel.steps]
    names = tuple(node.name or node.outputs[0] for node in nodes)
    return KernelTime(names, tuple(node.type for node in nodes), predicted, measured)


def _notes(cost: Measured | Roofline) -> list[str]:
    if isinstance(cost, Roofline):
        return ["modelled from peaks and bandwidth: what the device could do at best"]
    notes = ["not calibrated on this network: what was learnt from others; the error is not known"]
    if (own := cost.calibrated) is not None:
        notes = [
            f"calibrated on this network: held-out runs were missed by {own.median:.1%}, at most {own.largest:.1%}"
        ]
    if cost.unknown:
        more = f" and {len(cost.unknown) - KINDS} more" if len(cost.unknown) > KINDS else ""
        notes.append(f"kinds of kernels that were never measured there: {', '.join(cost.unknown[:KINDS])}{more}")
    return notes

"""The widths at which a network is measured."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from onnxmorph.analysis import Analysis
from onnxmorph.polynomial import Widths
from onnxmorph.surgery.emit import emit
from onnxmorph.widths import keep_best, steps

NARROWEST = 0.1  # of the full widths
APART = (0.3, 0.8, 2.0)  # how far groups differ from each other, in log width
MULTIPLES = (1, 1, 1, 4, 8, 16, 32)  # a network off all multiples and one on them run differently


def variant(analysis: Analysis, seed: int, number: int) -> Widths:
    """The widths of run `number`, ``[groups]``: run 0 is the full network, the others are drawn.

    The level is drawn evenly over its logarithm or over itself, the groups around it, near or far. Widths are rounded
    to multiples that are drawn too: for all groups alike, or for each.
    """
    if number == 0:
        return analysis.widths
    rng = np.random.default_rng((seed, number))
    alike = number % 4 < 2
    drawn = (
        np.full(len(analysis.groups), rng.choice(MULTIPLES)) if alike else rng.choice(MULTIPLES, len(analysis.groups))
    )
    step = np.where(steps(analysis, 2) == 1, 1, drawn)
    level = np.log(rng.uniform(NARROWEST, 1)) if number % 2 else rng.uniform(np.log(NARROWEST), 0)
    apart = rng.choice(APART)
    raw = analysis.widths * np.exp(np.minimum(level + apart * rng.uniform(-1, 1, len(step)), 0))
    rounded = np.maximum(np.round(raw / step) * step, step)
    return np.asarray(np.minimum(rounded, analysis.widths), np.int64)


def build(analysis: Analysis, widths: Widths) -> ir.Model:
    """The network at these widths; which channels stay does not matter for its time."""
    return emit(analysis, keep_best(analysis, np.arange(analysis.channels + 1.0)[::-1], widths))

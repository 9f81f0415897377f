"""What a channel is charged: prices, the penalty and its proximal step. The reference that adapters are tested against.

MorphNet's regulariser C·(alive_in·Σ|γ_out| + alive_out·Σ|γ_in|) is Σ price × |magnitude| over all channels,
with price = ∂cost/∂width (arXiv 1711.06798, equation 5). Everything here is NumPy on arrays of one entry per
channel, numbered as in an `Analysis`: entry 0 stands for what is always alive. A framework supplies the
magnitudes and learning rates and multiplies its parameters by the factors it is handed back.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Floats, Mask
from onnxmorph.magnitudes import combine
from onnxmorph.polynomial import Number, Widths


def prices(analysis: Analysis, limits: Mapping[str, Number], widths: Widths, prunable: Mask) -> Floats:
    """The price of one channel of every group, ``[groups]``, of mean 1 over the live channels of prunable groups.

    A limit that is met charges nothing; several that are not are weighted by log(cost / limit). So neither
    the unit of a cost nor the size of the network enters, only the ratios of the marginal costs.

    Args:
        analysis: gives the costs.
        limits: the largest value allowed, per cost name.
        widths: the live widths, ``[groups]``.
        prunable: which groups may lose channels, ``[groups]``; the others are free of charge.
    """
    return charges(analysis, limits, widths, prunable)[0]


def charges(
    analysis: Analysis, limits: Mapping[str, Number], widths: Widths, prunable: Mask
) -> tuple[Floats, dict[str, float]]:
    """`prices`, and by name what a unit of each cost counts in them: the sum of these times the gradients is prices."""
    live = np.where(prunable, widths, 0)
    many = max(int(live.sum()), 1)
    total, factors = np.zeros(len(widths)), dict[str, float]()
    for name, most in limits.items():
        cost = analysis.costs[name].value(widths)
        if cost > most:
            each = np.where(prunable, analysis.costs[name].gradient(widths), 0).astype(float)
            mean = float(each @ live) / many
            factors[name] = float(np.log(cost / (most or 1))) / mean if mean > 0 else 0.0
            total += factors[name] * each
    scale = 1 / mean if (mean := float(total @ live) / many) > 0 else 0.0
    return total * scale, {name: factor * scale for name, factor in factors.items()}


def mean_one(values: Floats, weights: Widths) -> Floats:
    """Values, ``[groups]``, divided by their mean where each counts ``weights`` times, ``[groups]``."""
    mean = float(values @ weights) / max(int(weights.sum()), 1)
    return values / mean if mean > 0 else np.zeros_like(values)


def penalty(price: Floats, magnitudes: Floats, strength: float = 1.0) -> float:
    """``strength · Σ price · |magnitude|`` over channels; both arrays are ``[channels]``."""
    return strength * float(np.asarray(price) @ np.abs(magnitudes))


def shrink_factors(magnitudes: Floats, thresholds: Floats) -> Floats:
    """``max(0, 1 − threshold / magnitude)``, ``[channels]``; 0 where the magnitude is 0 and the threshold is not."""
    ratio = np.divide(thresholds, magnitudes, out=np.full(len(thresholds), np.inf), where=magnitudes > 0)
    return np.where(thresholds > 0, np.maximum(0.0, 1.0 - ratio), 1.0)


def proximal(sources: Floats, thresholds: Floats, how: str = "rms") -> Floats:
    """One step towards a smaller penalty: the group soft-threshold, ``[channels, sources]``.

    s ← s · max(0, 1 − threshold / magnitude), which for one source is sign(s) · max(|s| − threshold, 0). All sources
    of a channel vanish together, whatever `how` combines them (`combine`); for all but ``or`` the magnitude falls by
    exactly the threshold, which is learning rate · strength · price. This is the proximal operator of ``rms``, ``l2``.

    >>> proximal(np.array([[3.0], [-0.5]]), np.array([1.0, 1.0])).ravel().tolist()
    [2.0, -0.0]
    """
    return sources * shrink_factors(combine(sources, how), thresholds)[:, None]

"""From runs to coefficients: what every feature of every kind of kernel costs on a machine.

One non-negative least-squares problem over all kinds. Its rows are the totals of the runs, and the times of kernels
where the runtime tells them; every row is relative to what was measured, and rows far off (a machine that was busy)
count less. What earlier networks have taught is the prior.

Source: fitting the terms of ops to end-to-end times of random widths: AOWS (arXiv 2005.10481), section 3.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from onnxmorph.axes import Array, Floats
from onnxmorph.latency.features import ANY, PLAIN, Kind
from onnxmorph.latency.machine import Coefficients
from onnxmorph.polynomial import Widths

PRIOR = 1e-4  # weight of the prior against a row
ROUNDS = 4
FAR = 2.0  # times the median residual
KERNELS = 0.25  # weight of all kernels of a run together against its total: they place the time, it is what counts
SMALL = 0.01  # of the total: kernels below do not need to be right


@dataclass(frozen=True)
class Runs:
    """Measured runs: widths ``[runs, groups]``, seconds ``[runs]``, seconds of kernels ``[runs, kernels]``.

    ``kernels`` is None where the runtime does not tell the times of kernels.
    """

    widths: Widths
    seconds: Floats
    kernels: Floats | None

    def __len__(self) -> int:
        return len(self.seconds)

    def part(self, of: Array) -> Runs:
        """Some of the runs."""
        kernels = None if self.kernels is None else self.kernels[of]
        return Runs(self.widths[of], self.seconds[of], kernels)


def fit(kinds: Sequence[Kind], runs: Runs, prior: Coefficients) -> tuple[float, dict[str, dict[str, float]]]:
    """Seconds per run beside all kernels, and the coefficients of every kind, those that are 0 left out."""
    features = [{name: each() for name, each in kind.features(runs.widths).items()} for kind in kinds]
    names = [(kind.name, feature) for kind, own in zip(kinds, features, strict=True) for feature in own]
    start = np.array([prior.get(kind, {}).get(feature, 0.0) for kind, feature in names])
    totals = np.stack([each.sum(1) for own in features for each in own.values()], 1)
    rows, wanted, weights = [totals], [runs.seconds], [1 / runs.seconds]
    if runs.kernels is not None:
        at = 0
        share = KERNELS / np.sqrt(runs.kernels.shape[1])
        for kind, own in zip(kinds, features, strict=True):
            seconds = runs.kernels[:, kind.members]
            part = np.zeros((seconds.size, len(names)))
            part[:, at : at + len(own)] = np.stack([each.ravel() for each in own.values()], 1)
            at += len(own)
            rows.append(part)
            wanted.append(seconds.ravel())
            weights.append((share / (seconds + SMALL * runs.seconds[:, None])).ravel())
    matrix, seconds, weight = np.concatenate(rows), np.concatenate(wanted), np.concatenate(weights)
    matrix = np.column_stack([matrix, np.arange(len(matrix)) < len(runs)])  # the last: seconds per run
    found = _solve(matrix, seconds, weight, np.append(start, 0.0))
    result: dict[str, dict[str, float]] = {kind.name: {} for kind in kinds}
    for (kind_name, feature), value in zip(names, found[:-1].tolist(), strict=True):
        if value > 0:
            result[kind_name][feature] = value
    result[ANY] = _any(features, runs, prior.get(ANY, {}))
    return float(found[-1]), result


def _any(features: Sequence[Mapping[str, Floats]], runs: Runs, prior: Mapping[str, float]) -> dict[str, float]:
    """Coefficients that do for any kernel: of its work, its bytes and its start."""
    totals = np.stack([sum((own[name].sum(1) for own in features), np.zeros(1)) for name in PLAIN], 1)
    start = np.array([prior.get(name, 0.0) for name in PLAIN])
    found = _solve(totals, runs.seconds, 1 / runs.seconds, start)
    return {name: value for name, value in zip(PLAIN, found.tolist(), strict=True) if value > 0}


def _solve(matrix: Floats, wanted: Floats, weights: Floats, prior: Floats) -> Floats:
    """Non-negative coefficients that make ``matrix @ coefficients`` nearly `wanted`, by reweighted least squares."""
    from scipy.optimize import nnls

    scale = np.sqrt(((matrix * weights[:, None]) ** 2).mean(0))
    scale[scale == 0] = 1.0  # a feature that never occurs
    ridge = np.sqrt(PRIOR * len(matrix)) * np.eye(matrix.shape[1])
    trust, found = np.ones(len(matrix)), prior
    for _ in range(ROUNDS):
        weight = weights * trust
        q, r = np.linalg.qr(np.concatenate([matrix * weight[:, None] / scale, ridge]))
        found = (
            nnls(r, q.T @ np.concatenate([wanted * weight, ridge @ (prior * scale)]), maxiter=50 * len(r))[0] / scale
        )
        off = np.abs(matrix @ found - wanted) * weights
        trust = 1 / np.sqrt(np.maximum(1.0, off / max(FAR * float(np.median(off)), 1e-3)))
    return np.asarray(found)

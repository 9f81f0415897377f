"""What the loss says of channels while they train: how much it changes without each, to first order."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis
from onnxmorph.axes import Floats
from onnxmorph.cost import UNCOUNTED
from onnxmorph.magnitudes import Slices

KEPT = 0.95  # of the mean at every measurement: it goes over about 20


class Saliency:
    """The running root mean square of Σ w · ∂L/∂w over all slices of every channel.

    Gradients of single batches are squared before they are averaged: in a trained network they cancel out. Every layer
    in which a channel is made or read says the same of it (but for what a norm takes away again), so that sums over
    slices compare across groups as they are; there is nothing to normalise.

    Attributes:
        slices: where sums of w · ∂L/∂w are measured.

    Source: Molchanov et al. 2019 (arXiv 1906.10771), equation 8.
    """

    def __init__(self, analysis: Analysis, trained: Collection[str]) -> None:
        """Nothing is measured yet.

        Args:
            analysis: of the network.
            trained: the parameters that get gradients.
        """
        names = [n for n in analysis.parameters if n in trained and analysis.roles.get(n) not in UNCOUNTED]
        places = [(n, axis) for n in names for axis, rows in enumerate(analysis.rows[n]) if rows is not None]
        self.slices = Slices.of(analysis, (places, np.ones(len(analysis.groups), bool)))
        self._squares, self._count = np.zeros(analysis.channels + 1), 0

    def measure(self, sums: NDArray[np.floating]) -> None:
        """Take in Σ w · ∂L/∂w of a batch over the slice at every position, ``[positions]``; not where it overflowed."""
        if not np.isfinite(sums).all():
            return
        rows = self.slices.rows
        each = np.repeat(sums.astype(float), rows.shape[1])
        found = np.bincount(rows.ravel(), each, len(self._squares)) ** 2
        found[0] = 0.0
        self._count += 1
        kept = min(KEPT, 1 - 1 / self._count)
        self._squares = kept * self._squares + (1 - kept) * found

    @property
    def says(self) -> Floats | None:
        """Of every channel, in the unit of the loss, ``[channels + 1]``; None as long as nothing is measured."""
        return np.sqrt(self._squares) if self._count else None

    def state(self) -> dict[str, Any]:
        """Plain numbers and lists, for a checkpoint."""
        return {"squares": self._squares.tolist(), "count": self._count}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from `state()`."""
        self._squares, self._count = np.array(state["squares"]), state["count"]

"""A `Training` on NumPy arrays, a line for each thing an adapter does: what adapters are held against."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from onnxmorph.magnitudes import Dead, Slices
from onnxmorph.training import Training


def others(array: np.ndarray, axis: int) -> tuple[int, ...]:
    return tuple(t for t in range(array.ndim) if t != axis)


@dataclass
class NumpyMorph:
    training: Training
    arrays: dict[str, np.ndarray]
    rate: float
    squares: Mapping[str, np.ndarray] = field(default_factory=dict)
    eps: float = 0.0
    gradients: Mapping[str, np.ndarray] = field(default_factory=dict)
    calls: int = 0

    def __post_init__(self) -> None:
        self.training.start(self.norms(), self.rates())

    def norms(self) -> np.ndarray:
        """√Σ squares of every slice."""
        slices = self.training.map.sources.slices
        parts = (np.square(self.arrays[n]).sum(others(self.arrays[n], a)) for n, a in slices.places)
        return np.sqrt(np.concatenate([*parts]))

    def sums(self) -> np.ndarray | None:
        """Σ w · ∂L/∂w over every slice."""
        if self.training.saliency is None:
            return None
        places = self.training.saliency.slices.places
        parts = ((self.arrays[n] * self.gradients[n]).sum(others(self.arrays[n], a)) for n, a in places)
        return np.concatenate([*parts])

    def rates(self) -> np.ndarray:
        return np.full(self.training.map.sources.slices.positions, self.rate)

    def step(self) -> None:
        self.calls += 1
        if self.training.step():
            places = self.training.map.sources.slices.places
            means = [self.squares[n].mean(others(self.squares[n], a)) for n, a in places if n in self.squares]
            squares = np.concatenate(means) if means else None
            changes = self.training.update(self.norms(), self.rates(), squares, self.eps, self.sums())
            if changes.sources is not None:
                self.multiply(self.training.map.sources.slices, changes.sources)
            if changes.rest is not None:
                self.multiply(self.training.map.rest, changes.rest)
            self.zero(changes.buried)
        self.zero(self.training.dead)
        if self.calls % 10 == 0:
            self.zero(self.training.dead_weights)

    def multiply(self, slices: Slices, factors: np.ndarray) -> None:
        for (name, axis), each in zip(slices.places, slices.split(factors), strict=True):
            shape = [-1 if t == axis else 1 for t in range(self.arrays[name].ndim)]
            self.arrays[name] = self.arrays[name] * each.reshape(shape)

    def zero(self, dead: Dead) -> None:
        for name, axis, positions in dead:
            np.moveaxis(self.arrays[name], axis, 0)[positions] = 0


def assert_alike(ours: Mapping[str, np.ndarray], reference: Mapping[str, np.ndarray]) -> None:
    """To float32 rounding, over some dozens of steps."""
    for name, expected in reference.items():
        scale = np.abs(expected).max(initial=0)
        np.testing.assert_allclose(ours[name], expected, rtol=2e-5, atol=1e-6 * scale, err_msg=name)
        np.testing.assert_array_equal(ours[name] == 0, expected == 0, err_msg=name)

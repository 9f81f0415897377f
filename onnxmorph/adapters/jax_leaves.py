"""Slices of a pytree's leaves: measured, scaled, cut to a structure."""

from __future__ import annotations

from collections.abc import Mapping

import jax
import numpy as np
import onnx_ir as ir
from jax import Array
from jax import numpy as jnp
from numpy.typing import NDArray

from onnxmorph.converters.jax import Parameters, names
from onnxmorph.errors import StructureError
from onnxmorph.magnitudes import Slices
from onnxmorph.structure import Structure


class Leaves:
    """The leaves of a pytree that slices are of: measured and multiplied, compiled once."""

    def __init__(self, slices: Slices, labels: list[str]) -> None:
        self.slices, number = slices, {name: k for k, name in enumerate(labels)}
        self._numbers = [number[name] for name, _ in slices.places]
        self._names = [name for name, _ in slices.places]
        self._measured, self._multiplied = jax.jit(self._measure), jax.jit(self._multiply)
        self._heard = jax.jit(self._hear)

    def norms(self, params: Parameters) -> Array:
        """√Σ squares of the slice at every position, float32, ``[positions]``; with gradient, which is 0 at 0."""
        leaves = jax.tree.leaves(params)
        return self._measured([leaves[k] for k in self._numbers])

    def sensitivities(self, params: Parameters, gradients: Mapping[str, Array]) -> Array:
        """Σ w · ∂L/∂w over the slice at every position, float32, ``[positions]``; gradients by name."""
        leaves = jax.tree.leaves(params)
        return self._heard([leaves[k] for k in self._numbers], [gradients[name] for name in self._names])

    def multiply(self, params: Parameters, factors: NDArray[np.float32]) -> Parameters:
        """The parameters with every position scaled, ``[positions]``."""
        leaves, tree = jax.tree.flatten(params)
        if self._numbers:
            for k, leaf in self._multiplied({k: leaves[k] for k in self._numbers}, factors).items():
                leaves[k] = leaf
        return jax.tree.unflatten(tree, leaves)

    def _measure(self, leaves: list[Array]) -> Array:
        parts = [jnp.zeros(0)]
        for leaf, (_, axis), size in zip(leaves, self.slices.places, self.slices.sizes, strict=True):
            squares = jnp.square(jnp.moveaxis(leaf, axis, 0).astype(jnp.float32)).reshape(size, -1).sum(1)
            parts.append(jnp.where(squares == 0, 0, jnp.sqrt(jnp.where(squares == 0, 1, squares))))
        return jnp.concatenate(parts)

    def _hear(self, leaves: list[Array], gradients: list[Array]) -> Array:
        parts = [jnp.zeros(0)]
        for w, g, (_, axis), size in zip(leaves, gradients, self.slices.places, self.slices.sizes, strict=True):
            parts.append(jnp.moveaxis((w * g).astype(jnp.float32), axis, 0).reshape(size, -1).sum(1))
        return jnp.concatenate(parts)

    def _multiply(self, leaves: dict[int, Array], factors: Array) -> dict[int, Array]:
        start = 0
        for k, (_, axis), size in zip(self._numbers, self.slices.places, self.slices.sizes, strict=True):
            shape = [size if t == axis else 1 for t in range(leaves[k].ndim)]
            leaves[k] = leaves[k] * factors[start : start + size].reshape(shape).astype(leaves[k].dtype)
            start += size
        return leaves


def resize(params: Parameters, structure: Structure) -> Parameters:
    """A pytree of the structure's channels only, for a function or module of those widths.

    Args:
        params: that the structure's model was exported from.
        structure: indices may repeat (an expanded network); then `load_weights` gives the copies their weights.

    Raises:
        StructureError: the structure belongs to another network, or empties a group.
    """
    empty = next((g.id for g in structure.groups if not g.keep), None)
    if empty is not None:
        message = f"the structure removes all of group {empty!r}, which changes the network and not only its widths; "
        raise StructureError(f"{message}keep a channel of it, or use the ONNX model", code="structure-empty")
    labels, (leaves, tree) = names(params), jax.tree.flatten(params)
    if structure.parameters and not structure.parameters.keys() & set(labels):
        message = "no parameter of the structure is in the pytree; give the one it was made from"
        raise StructureError(message, code="structure-module")
    for k, label in enumerate(labels):
        for axis, keep in structure.parameters.get(label, {}).items():
            if axis >= jnp.ndim(leaves[k]) or max(keep) >= leaves[k].shape[axis]:
                message = f"{label} has the shape {jnp.shape(leaves[k])}, too small for the structure"
                raise StructureError(f"{message}; give the pytree it was made from", code="structure-module")
            leaves[k] = jnp.take(leaves[k], jnp.asarray(keep), axis)
    return jax.tree.unflatten(tree, leaves)


def load_weights(params: Parameters, model: ir.Model) -> Parameters:
    """The pytree with the initializers of a model in place of the leaves of the same names, whatever their shape."""
    leaves, tree = jax.tree.flatten(params)
    for k, label in enumerate(names(params)):
        value = model.graph.initializers.get(label)
        if value is not None and value.const_value is not None:
            leaves[k] = jnp.asarray(value.const_value.numpy())
    return jax.tree.unflatten(tree, leaves)

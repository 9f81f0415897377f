"""A structure applied to a Keras model: rebuilt from its configuration, with the weights that live."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir
from keras import layers, ops
from numpy.typing import NDArray

from onnxmorph.errors import StructureError
from onnxmorph.structure import Structure

Kept = Callable[[Any, int], Sequence[int]]  # a variable and an axis -> the kept indices
Sizes = Callable[[Any, Kept], dict[str, Any]]  # a layer -> what its configuration says about its new sizes


def cut(model: keras.Model, structure: Structure) -> dict[str, NDArray[Any]]:
    """The values of the model's variables along the kept indices, by path, for a model that you build yourself.

    Raises StructureError where the structure belongs to another model, or empties a group.
    """
    empty = next((g.id for g in structure.groups if not g.keep), None)
    if empty is not None:
        message = f"the structure removes all of group {empty!r}, which changes the network and not only its widths; "
        raise StructureError(f"{message}keep a channel of it, or use the ONNX model", code="structure-empty")
    if structure.parameters and not structure.parameters.keys() & {v.path for v in model.variables}:
        message = "no parameter of the structure is in the model; give the one it was made from"
        raise StructureError(message, code="structure-module")
    values: dict[str, NDArray[Any]] = {}
    for variable in model.variables:
        value = np.asarray(ops.convert_to_numpy(variable.value))
        for axis, keep in structure.parameters.get(variable.path, {}).items():
            if axis >= value.ndim or max(keep) >= value.shape[axis]:
                message = f"{variable.path} has the shape {value.shape}, too small for the structure"
                raise StructureError(f"{message}; give the model it was made from", code="structure-module")
            value = np.take(value, keep, axis)
        values[variable.path] = value
    return values


def resize(model: keras.Model, structure: Structure, expanded: ir.Model | None = None) -> keras.Model:
    """A new model with the structure's channels only, to be compiled; its names and other options are the model's.

    Weights are the model's, but for one thing: MultiHeadAttention divides by the root of its ``key_dim``, so that where
    that changes, its query is scaled to make up for it.

    Args:
        model: Sequential or functional; the structure's model was exported from it.
        structure: indices may repeat (an expanded network).
        expanded: the ONNX model that `onnxmorph.expand` gave with the structure, whose weights are taken.

    Raises:
        StructureError: the structure belongs to another model or empties a group; or, ``keras-layer``, a layer does not
            say its sizes in a way known here. The message names it; the ONNX graph has no such limit.
    """
    values = cut(model, structure)
    for name, value in expanded.graph.initializers.items() if expanded is not None else ():
        if name in values and value.const_value is not None:
            values[name] = value.const_value.numpy()

    def kept(variable: Any, axis: int) -> Sequence[int]:
        axis %= len(variable.shape)
        return structure.parameters.get(variable.path, {}).get(axis, range(variable.shape[axis]))

    def narrower(layer: layers.Layer) -> layers.Layer:
        config = layer.get_config()
        for kinds, sizes in _SIZES:
            if isinstance(layer, kinds):
                config.update(sizes(layer, kept))
        if isinstance(layer, layers.MultiHeadAttention):
            for query in layer.query_dense.variables:
                values[query.path] = values[query.path] * (config["key_dim"] / layer.get_config()["key_dim"]) ** 0.5
        return type(layer).from_config(config)

    try:
        small = keras.models.clone_model(model, clone_function=narrower, recursive=True)
        reshaped = next((m.name for m, n in zip(_each(model), _each(small), strict=True) if _reshapes(m, n)), None)
    except StructureError:
        raise
    except Exception as error:  # Keras raises many kinds
        reason = next(iter(str(error).strip().splitlines()), "")
        raise _unknown(model.name, f"cannot be rebuilt ({type(error).__name__}: {reason})") from error
    if reshaped is not None:
        raise _unknown(reshaped, "has a shape in its configuration")
    for old, new in zip(model.variables, small.variables, strict=True):
        if tuple(new.shape) != values[old.path].shape:
            problem = f"has {old.path.rpartition('/')[2]} of {tuple(new.shape)} where {values[old.path].shape} is left"
            raise _unknown(old.path.rpartition("/")[0], problem)
        new.assign(values[old.path])
    return small


def _each(model: keras.Model) -> Iterator[layers.Layer]:
    """The layers of a model and of the models in it."""
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _each(layer)
        else:
            yield layer


def _reshapes(old: layers.Layer, new: layers.Layer) -> bool:
    """Whether a layer with a target shape reads something else than before."""
    return isinstance(old, layers.Reshape) and old.input.shape[1:] != new.input.shape[1:]


def _unknown(layer: str, problem: str) -> StructureError:
    message = f"{layer} {problem}; build the model yourself and assign `cut`, or use the ONNX model"
    return StructureError(message, code="keras-layer")


def _groups(layer: Any, kept: Sequence[int], whole: int) -> int:
    """How many of a layer's groups are left; where they are not alike, or some are copies, the layer cannot say so."""
    left, sizes = np.unique(np.asarray(kept) // (whole // layer.groups), return_counts=True)
    if layer.groups > 1 and (len(set(sizes.tolist())) > 1 or len(set(kept)) < len(kept)):
        raise _unknown(layer.name, "has groups of different sizes, or copies of some")
    return len(left) if layer.groups > 1 else 1


def _conv(layer: Any, kept: Kept) -> dict[str, Any]:
    keep = kept(layer.kernel, -1)
    return {"filters": len(keep), "groups": _groups(layer, keep, layer.filters)}


def _attention(layer: Any, kept: Kept) -> dict[str, Any]:
    query, value = layer.query_dense.kernel, layer.value_dense.kernel
    return {"num_heads": len(kept(query, 1)), "key_dim": len(kept(query, 2)), "value_dim": len(kept(value, 2))}


def _group_norm(layer: Any, kept: Kept) -> dict[str, Any]:
    scale = layer.beta if layer.gamma is None else layer.gamma
    return {} if scale is None else {"groups": _groups(layer, kept(scale, 0), scale.shape[0])}


# Where a layer's configuration holds its widths; all other layers follow from their inputs, or are found not to.
_SIZES: tuple[tuple[tuple[type[layers.Layer], ...], Sizes], ...] = (
    ((layers.Dense,), lambda m, kept: {"units": len(kept(m.kernel, 1))}),
    ((layers.Conv1D, layers.Conv2D, layers.Conv3D), _conv),
    (
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        lambda m, kept: {"filters": len(kept(m.kernel, -2))},
    ),
    (
        (layers.SeparableConv1D, layers.SeparableConv2D),
        lambda m, kept: {
            "filters": len(kept(m.pointwise_kernel, -1)),
            "depth_multiplier": len(kept(m.depthwise_kernel, -1)),
        },
    ),
    (
        (layers.DepthwiseConv1D, layers.DepthwiseConv2D),
        lambda m, kept: {"depth_multiplier": len(kept(m.kernel, -1))},
    ),
    ((layers.Embedding,), lambda m, kept: {"output_dim": len(kept(m.embeddings, 1))}),
    (
        (layers.LSTM, layers.GRU, layers.SimpleRNN),
        lambda m, kept: {"units": len(kept(m.cell.recurrent_kernel, 0))},
    ),
    ((layers.MultiHeadAttention,), _attention),
    ((layers.GroupNormalization,), _group_norm),
)

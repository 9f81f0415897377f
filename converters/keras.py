"""Keras 3 models to ONNX, with the names and values of every variable kept, through the backend's own exporter.

Keras's export knows no names, folds constants, and writes norms out in arithmetic, where a mean is a sum divided by
a number that no cut follows. Here variables stay apart from the graph until it is done, and norms are nodes.
"""

from __future__ import annotations

import contextlib
import inspect
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx_ir as ir

from onnxmorph.errors import ConversionError
from onnxmorph.model import save

Call = Callable[[Any, Any], Any]  # a layer, its input -> its output


def export(
    model: keras.Model,
    example_inputs: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Export a built ``model`` for inference to an ONNX model with its variables' names, and save it at ``path``.

    The initializers are called by the paths of the variables (``dense/kernel``) and hold their values; BatchNorm and
    the other norms stay nodes. The backend is torch or jax; layouts are Keras's, so that images are NHWC.

    ``example_inputs`` is what the model is called with: an array, or arrays in a list or dict. With ``dynamic_batch``
    axis 0 of all of them is one free size, whatever it is in the examples. The model stays as it is.

    Raises ConversionError with the code ``keras-backend``, ``keras-names``, or one of the backend's exporter
    (``torch-…``, ``jax-…``), and OutputError where ``path`` cannot be written.
    """
    backend = keras.config.backend()
    if backend not in _BACKENDS:
        message = f"models on Keras's backend {backend!r} cannot be exported; set KERAS_BACKEND to one of"
        raise ConversionError(f"{message} {', '.join(_BACKENDS)}", code="keras-backend")
    paths = [v.path for v in model.variables]
    twice = next((p for p in paths if paths.count(p) > 1), None)
    if not model.built or twice is not None:
        problem = f"two variables are called {twice!r}; give their layers names" if twice else "the model is not built"
        raise ConversionError(f"{problem}, and call the model once on an example", code="keras-names")
    graph = _BACKENDS[backend](model, example_inputs, dynamic_batch)
    if path is not None:
        save(graph, path)
    return graph


def _call(model: keras.Model, example_inputs: Any, values: Mapping[str, Any], flat: Sequence[Any]) -> Any:
    """What the model says for inference with these values of its variables, to inputs in one sequence."""
    parts = ([values[v.path] for v in part] for part in (model.trainable_variables, model.non_trainable_variables))
    inputs = keras.tree.pack_sequence_as(example_inputs, list(flat))
    options = {"training": False} if "training" in inspect.signature(model.call).parameters else {}
    return model.stateless_call(*parts, inputs, **options)[0]


def _by_jax(model: keras.Model, example_inputs: Any, dynamic_batch: bool) -> ir.Model:
    from onnxmorph.converters import jax  # the backend that is not in use may not be installed

    def function(values: Mapping[str, Any], *flat: Any) -> Any:
        return _call(model, example_inputs, values, flat)

    values = {v.path: v.value for v in model.variables}
    flat = [np.asarray(x) for x in keras.tree.flatten(example_inputs)]
    with _replaced(_jax_layers()):
        return jax.export(function, values, flat, dynamic_batch=dynamic_batch)


def _by_torch(model: keras.Model, example_inputs: Any, dynamic_batch: bool) -> ir.Model:
    from torch import Tensor, nn

    from onnxmorph.converters import torch

    class Inference(nn.Module):
        """Holds the variables itself: the tensors inside Keras's are constants to the exporter."""

        def __init__(self) -> None:
            super().__init__()
            self.values = nn.ParameterList(nn.Parameter(v.value, requires_grad=False) for v in model.variables)

        def forward(self, *flat: Tensor) -> Any:
            return _call(model, example_inputs, dict(zip(paths, self.values, strict=True)), flat)

    paths = [v.path for v in model.variables]
    flat = [keras.ops.convert_to_tensor(x) for x in keras.tree.flatten(example_inputs)]
    with _replaced(_torch_layers()):
        graph = torch.export(Inference(), flat, dynamic_batch=dynamic_batch)
    for number, path in enumerate(paths):
        if (value := graph.graph.initializers.get(f"values.{number}")) is not None:
            value.name = path
    return graph


_BACKENDS: dict[str, Callable[[keras.Model, Any, bool], ir.Model]] = {"torch": _by_torch, "jax": _by_jax}

# -- layers as the backends' exporters know them: channels last, norms with their statistics ------


@contextlib.contextmanager
def _replaced(calls: Mapping[type[keras.layers.Layer], Call]) -> Iterator[None]:
    """Let the layers be computed by `calls`, where channels are last and their options are the usual ones."""
    before = {kind: kind.call for kind in calls}

    def replaced(usual: Callable[..., Any], call: Call) -> Callable[..., Any]:
        def new(self: Any, inputs: Any, training: Any = None, mask: Any = None) -> Any:
            last = getattr(self, "axis", -1) in (-1, [-1], len(inputs.shape) - 1, [len(inputs.shape) - 1])
            first = getattr(self, "data_format", None) == "channels_first"
            if not last or first or getattr(self, "rms_scaling", False):
                return usual(self, inputs)
            return keras.ops.cast(call(self, inputs), self.compute_dtype)

        return new

    for kind, call in calls.items():
        kind.call = replaced(before[kind], call)
    try:
        yield
    finally:
        for kind, usual in before.items():
            kind.call = usual


def _value(variable: Any) -> Any:
    return None if variable is None else variable.value


def _jax_layers() -> dict[type[keras.layers.Layer], Call]:
    from flax import linen

    def norm(kind: Callable[..., linen.Module], **options: Any) -> Call:
        def call(layer: Any, x: Any) -> Any:
            rms = isinstance(layer, keras.layers.RMSNormalization)
            known = {"scale": layer.scale if rms else layer.gamma, "bias": None if rms else layer.beta}
            variables = {"params": {name: v.value for name, v in known.items() if v is not None}}
            if hasattr(layer, "moving_mean"):
                variables["batch_stats"] = {"mean": layer.moving_mean.value, "var": layer.moving_variance.value}
            flags = {} if rms else {"use_bias": layer.center, "use_scale": layer.scale}
            groups = {"num_groups": layer.groups} if hasattr(layer, "groups") else {}
            return kind(epsilon=layer.epsilon, **options, **flags, **groups).apply(variables, x)

        return call

    def pool(by: Callable[..., Any], **options: Any) -> Call:
        def call(layer: Any, x: Any) -> Any:
            strides, padding = layer.strides, layer.padding.upper()
            return by(x, window_shape=layer.pool_size, strides=strides, padding=padding, **options)

        return call

    layers, largest, mean = keras.layers, pool(linen.max_pool), pool(linen.avg_pool, count_include_pad=False)
    return {
        layers.BatchNormalization: norm(linen.BatchNorm, use_running_average=True),
        layers.LayerNormalization: norm(linen.LayerNorm),
        layers.GroupNormalization: norm(linen.GroupNorm),
        layers.RMSNormalization: norm(linen.RMSNorm),
        **dict.fromkeys((layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D), largest),
        **dict.fromkeys((layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D), mean),
    }


def _torch_layers() -> dict[type[keras.layers.Layer], Call]:
    from torch.nn import functional

    def batch(layer: Any, x: Any) -> Any:
        statistics = layer.moving_mean.value, layer.moving_variance.value
        first = x.movedim(-1, 1)
        normed = functional.batch_norm(first, *statistics, _value(layer.gamma), _value(layer.beta), eps=layer.epsilon)
        return normed.movedim(1, -1)

    def group(layer: Any, x: Any) -> Any:
        first = x.movedim(-1, 1)
        normed = functional.group_norm(first, layer.groups, _value(layer.gamma), _value(layer.beta), layer.epsilon)
        return normed.movedim(1, -1)

    def layer_norm(layer: Any, x: Any) -> Any:
        return functional.layer_norm(x, x.shape[-1:], _value(layer.gamma), _value(layer.beta), layer.epsilon)

    return {
        keras.layers.BatchNormalization: batch,
        keras.layers.LayerNormalization: layer_norm,
        keras.layers.GroupNormalization: group,
        keras.layers.RMSNormalization: lambda m, x: functional.rms_norm(x, x.shape[-1:], _value(m.scale), m.epsilon),
    }

"""JAX functions and Flax modules to ONNX, with the names and values of every parameter kept.

jax2onnx writes weights as constants, which it folds, merges and renames. Here the parameters are arguments of
the exported function: what is an argument keeps its value and its place, and becomes an initializer afterwards.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax2onnx
import numpy as np
import onnx_ir as ir
from jax import numpy as jnp
from onnx_ir.passes import common as passes

from onnxmorph.converters import record_buffers
from onnxmorph.errors import ConversionError
from onnxmorph.model import save

# Written explicitly: newer defaults of the exporter may be ahead of the installed ONNX Runtime.
_OPSET = 23  # RMSNormalization is an op since then
_IR_VERSION = 11

Parameters = Any  # a pytree: dicts, lists and dataclasses of arrays, in each other
Function = Callable[..., Any]


def export(
    function: Function,
    params: Parameters,
    example_inputs: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Export ``function(params, *inputs)`` to an ONNX model with the names of its parameters, and save it at ``path``.

    The initializers are called by their path in ``params``, a pytree (``params/Dense_0/kernel``; see `names`), and
    hold its values; the norms of Flax stay nodes. Of linen pass ``module.apply`` and all its variables; of nnx a
    function that merges ``graphdef`` and ``state``. Leaves that hold no floating-point numbers (keys, counts) are
    constants. What the function does not read is left out.

    ``example_inputs`` are the arrays that follow ``params``, or one array. With ``dynamic_batch`` axis 0 of all of
    them is one free size, whatever it is in the examples.

    Raises ConversionError with the code ``jax-inputs`` or ``jax-export``, and OutputError where ``path`` cannot be
    written.
    """
    inputs = tuple(example_inputs) if isinstance(example_inputs, Sequence) else (example_inputs,)
    if not inputs or not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in inputs):
        message = "the example inputs are not arrays; pass an array or a tuple of the arrays that follow the parameters"
        raise ConversionError(message, code="jax-inputs")
    sizes = {x.shape[:1] for x in inputs}
    if dynamic_batch and (len(sizes) > 1 or () in sizes):
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        message = f"the example inputs share no batch axis (shapes {shapes}); give all of them the same size on axis 0"
        raise ConversionError(f"{message}, or export with dynamic_batch=False", code="jax-inputs")
    model = _trace(function, params, inputs, dynamic_batch)
    arrays = {n: np.array(a) for n, a in zip(names(params), jax.tree.leaves(params), strict=True) if _floating(a)}
    _settle(model, arrays)
    if path is not None:
        save(model, path)
    return model


def names(params: Parameters) -> list[str]:
    """The path of every leaf of a pytree, in the order of ``jax.tree.leaves``.

    >>> names({"params": {"Dense_0": {"kernel": 1.0, "bias": 2.0}}, "scales": [3.0]})
    ['params/Dense_0/bias', 'params/Dense_0/kernel', 'scales/0']
    """
    value = (jax.tree_util.GetAttrKey("value"),)  # what the variables of nnx wrap their array in
    found = (path for path, _ in jax.tree_util.tree_flatten_with_path(params)[0])
    return [
        jax.tree_util.keystr(path[:-1] if path[-1:] == value else path, simple=True, separator="/") for path in found
    ]


def _floating(leaf: Any) -> bool:
    return bool(jnp.issubdtype(jnp.result_type(leaf), jnp.floating))


def _trace(function: Function, params: Parameters, inputs: Sequence[Any], dynamic_batch: bool) -> ir.Model:
    """The graph of the function, its floating-point leaves first among the inputs."""
    leaves, tree = jax.tree.flatten(params)
    free = [k for k, leaf in enumerate(leaves) if _floating(leaf)]

    def flat(*arguments: Any) -> Any:
        changed = list(leaves)
        for k, value in zip(free, arguments, strict=False):
            changed[k] = value
        return function(jax.tree.unflatten(tree, changed), *arguments[len(free) :])

    given = [jax.ShapeDtypeStruct(jnp.shape(leaves[k]), jnp.result_type(leaves[k])) for k in free]
    batch = ("batch",) if dynamic_batch else ()
    # Shapes with a name in them are described, not built: only jax2onnx knows what the name stands for.
    given += [jax.ShapeDtypeStruct((*batch, *x.shape[len(batch) :]), x.dtype) for x in inputs]
    labels = names(params)
    called = [labels[k] for k in free]
    called += ["input"] if len(inputs) == 1 else [f"input_{k}" for k in range(len(inputs))]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model: ir.Model = jax2onnx.to_onnx(
                flat,
                given,
                opset=_OPSET,
                return_mode="ir",
                input_names=called,
                normalization_mode="prefer_native",
            )
    except Exception as error:  # the user's function may raise anything, and so does jax2onnx
        reason = f"{type(error).__name__}: {next(iter(str(error).strip().splitlines()), '')}"
        fixed = "; where it fixes its batch size, export with dynamic_batch=False" if dynamic_batch else ""
        message = f"jax2onnx cannot export the function; rewrite the operation it names{fixed} ({reason})"
        raise ConversionError(message, code="jax-export") from error
    return model


def _settle(model: ir.Model, arrays: dict[str, Any]) -> None:
    """Make initializers of the inputs that are parameters, and leave out what jax2onnx added, in place."""
    graph = model.graph
    for value in list(graph.inputs):
        if value.name not in arrays:
            continue
        graph.inputs.remove(value)
        if value.uses() or value.is_graph_output():
            value.const_value = ir.tensor(arrays[value.name], name=value.name)
            graph.register_initializer(value)
    for node in graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None  # moving Transposes away, jax2onnx leaves shapes as they were before
        added = (x for x in node.inputs[2:] if node.op_type == "Gemm" and x is not None and x.name not in arrays)
        if any(x.const_value is not None and not x.const_value.numpy().any() for x in added):
            node.resize_inputs(2)  # a bias of zeros would count as a parameter
    passes.RemoveUnusedNodesPass()(model)
    passes.ClearMetadataAndDocStringPass()(model)
    model.ir_version = _IR_VERSION
    record_buffers(model, arrays)

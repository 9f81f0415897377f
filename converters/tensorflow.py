"""TensorFlow functions, modules and Keras models to ONNX, with the names and values of every variable kept.

tf2onnx takes weights for constants, which it folds and transposes, and numbers what it makes anew in every export.
Here variables are inputs until the graph is done; nodes are then put in an order and under names that depend on the
graph alone, and every op is looked up in the schemas of ONNX.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import onnx
import onnx_ir as ir
import tensorflow as tf
import tf2onnx
from onnx_ir.passes import common as passes
from tensorflow.python.framework.convert_to_constants import convert_variables_to_constants_v2
from tf2onnx import optimizer, tf_loader, tfonnx

from onnxmorph.converters import record_buffers
from onnxmorph.converters.canonical import settle
from onnxmorph.converters.keras import replaced
from onnxmorph.errors import ConversionError
from onnxmorph.model import save

# Written explicitly: newer defaults of the exporter may be ahead of the installed ONNX Runtime.
_OPSET = 18  # the newest that tf2onnx writes
_IR_VERSION = 9

Function = Callable[..., Any]  # a tf.function, a tf.Module or a Keras model: what is called with the inputs


def export(
    function_or_model: Function,
    example_inputs: Any,
    path: str | os.PathLike[str] | None = None,
    *,
    dynamic_batch: bool = True,
) -> ir.Model:
    """Export ``function_or_model(*inputs)`` to an ONNX model with its variables' names, and save it at ``path``.

    It is a Keras model on the backend tensorflow, a ``tf.Module`` that can be called, or a function; a Keras model is
    exported for inference. The initializers are called by the names of the variables (``dense/kernel``) and hold
    their values. What the function does not read is left out. Layouts are TensorFlow's, so that images are NHWC.

    ``example_inputs`` is an array, or a sequence of the arrays that the function is called with; a Keras model is
    called with it as it is, as in ``converters.keras``. With ``dynamic_batch`` axis 0 of all of them is one free
    size, whatever it is in the examples. The variables stay as they are.

    Raises ConversionError with the code ``tensorflow-inputs``, ``tensorflow-names`` or ``tensorflow-export`` (an op
    that has no counterpart in ONNX among others), and OutputError where ``path`` cannot be written.
    """
    function, inputs = _as_function(function_or_model, example_inputs)
    if not inputs or not all(hasattr(x, "shape") and hasattr(x, "dtype") for x in inputs):
        message = "the example inputs are not arrays; pass an array or a tuple of the arrays of a call"
        raise ConversionError(message, code="tensorflow-inputs")
    sizes = {tuple(x.shape[:1]) for x in inputs}
    if dynamic_batch and (len(sizes) > 1 or () in sizes):
        shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
        message = f"the example inputs share no batch axis (shapes {shapes}); give all of them the same size on axis 0"
        raise ConversionError(f"{message}, or export with dynamic_batch=False", code="tensorflow-inputs")
    batch = [None] if dynamic_batch else []
    given = [tf.TensorSpec([*batch, *x.shape[len(batch) :]], x.dtype) for x in inputs]
    try:
        traced = tf.function(function, input_signature=given).get_concrete_function()
        variables = _read(traced, function_or_model)
        model = _convert(traced, [*variables])
    except ConversionError:
        raise
    except Exception as error:  # the user's function may raise anything, and so does tf2onnx
        lines = str(error).strip().splitlines()
        # An error in the user's code comes with the places before it.
        named = (line.strip() for line in reversed(lines) if re.match(r"\s*\w+(Error|Exception): ", line))
        reason = next(named, f"{type(error).__name__}: {next(iter(lines), '')}")
        fixed = "; where it fixes its batch size, export with dynamic_batch=False" if dynamic_batch else ""
        message = f"tf2onnx cannot export the function; rewrite the operation it names{fixed} ({reason})"
        raise ConversionError(message, code="tensorflow-export") from error
    _settle(model, variables, dynamic_batch)
    if path is not None:
        save(model, path)
    return model


def _as_function(function: Function, example_inputs: Any) -> tuple[Function, list[Any]]:
    """The function of flat inputs, for inference, and these."""
    if isinstance(function, keras.Layer):
        options = {"training": False} if "training" in inspect.signature(function.call).parameters else {}

        def call(*flat: Any) -> Any:
            with replaced({keras.layers.BatchNormalization: _batch_norm}):
                return function(keras.tree.pack_sequence_as(example_inputs, list(flat)), **options)

        return call, [np.asarray(x) for x in keras.tree.flatten(example_inputs)]
    inputs = example_inputs if isinstance(example_inputs, list | tuple) else [example_inputs]
    return lambda *flat: function(*flat), list(inputs)


def _batch_norm(layer: Any, x: Any) -> Any:
    """A node for images; TensorFlow has none for other ranks, and none without scale and shift."""
    scale, shift, mean, variance = layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance
    if len(x.shape) != 4 or scale is None or shift is None:
        return keras.ops.batch_normalization(x, mean, variance, -1, shift, scale, layer.epsilon)
    values = {"scale": scale, "offset": shift, "mean": mean, "variance": variance}
    given = {name: keras.ops.cast(v, "float32") for name, v in values.items()}
    return tf.raw_ops.FusedBatchNormV3(x=x, **given, epsilon=layer.epsilon, is_training=False).y


def _read(traced: Any, function: Function) -> dict[str, tuple[str, Any]]:
    """The floating-point variables that the function reads: what stands for each in the graph -> its name, itself."""
    paths = {id(v.value.handle): v.path for v in function.variables} if isinstance(function, keras.Layer) else {}
    variables = {id(v.handle): v for v in traced.variables}
    found = {}
    for handle, inside in traced.graph.captures:
        variable = variables.get(id(handle))
        if variable is not None and variable.dtype.is_floating:
            found[inside.op.name] = (paths.get(id(handle), variable.name.removesuffix(":0")), variable)
    names = [name for name, _ in found.values()]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        message = f"two variables are called {twice!r}; give them, or their layers, names of their own"
        raise ConversionError(message, code="tensorflow-names")
    return found


def _convert(traced: Any, variables: Sequence[str]) -> ir.Model:
    """The graph of a traced function, its inputs first and then what stands for the variables."""
    frozen = convert_variables_to_constants_v2(traced, lower_control_flow=False, aggressive_inlining=True)
    graph = frozen.graph.as_graph_def()
    for each in (*graph.node, *graph.library.function, *(n for f in graph.library.function for n in f.node_def)):
        for mark in _APART:
            each.attr.pop(mark, None)
    for node in graph.node:
        if node.name in variables:
            node.op = "Placeholder"
            node.attr["shape"].shape.CopyFrom(node.attr.pop("value").tensor.tensor_shape)
    inputs = [t.name for t in frozen.inputs] + [f"{name}:0" for name in variables]
    outputs = [t.name for t in frozen.outputs]
    with _failures() as failed:
        with tf.Graph().as_default():
            tf.import_graph_def(graph, name="")
            graph = tf_loader.tf_optimize(inputs, outputs, graph)
        with tf.Graph().as_default() as imported:
            tf.import_graph_def(graph, name="")
            # A rewriter that wants a constant where a variable is gives up, and the graph is converted as it is.
            options = {"opset": _OPSET, "custom_op_handlers": _OPS, "continue_on_error": True}
            found = tfonnx.process_tf_graph(imported, input_names=inputs, output_names=outputs, **options)
        proto = optimizer.optimize_graph(found).make_model("tensorflow")
    if failed:
        message = f"tf2onnx fails at node {failed[0]}; write it with other operations"
        raise ConversionError(message, code="tensorflow-export")
    model = ir.from_proto(proto)
    model.graph.sort()
    _check_ops(model)
    onnx.checker.check_model(proto)
    return model


@contextlib.contextmanager
def _failures() -> Iterator[list[str]]:
    """The nodes that tf2onnx fails at and why, which it logs and does not raise; its log is silent meanwhile."""
    failed: list[str] = []

    def hear(record: logging.LogRecord) -> bool:
        if str(record.msg).startswith("Failed to convert node") and isinstance(record.args, tuple):
            error = record.exc_info[1] if record.exc_info else None
            failed.append(f"{record.args[0]!r} ({type(error).__name__}: {error})")
        return False

    logger, silent = logging.getLogger("tf2onnx"), logging.Handler()
    silent.addFilter(hear)
    before = logger.handlers, logger.propagate
    logger.handlers, logger.propagate = [silent], False
    try:
        yield failed
    finally:
        logger.handlers, logger.propagate = before


def _erfc(graph: Any, node: Any, name: str, _: Any) -> None:
    """erfc(x) = 1 - erf(x)"""
    one = np.ones((), tf2onnx.utils.map_onnx_to_numpy_type(graph.get_dtype(node.input[0])))
    erf = graph.make_node("Erf", node.input)
    node.type = "Sub"
    graph.replace_inputs(node, [graph.make_const(f"{name}/one", one).output[0], erf.output[0]])


_OPS: dict[str, Any] = {"Erfc": (_erfc, [])}  # what tf2onnx does not know
# Attributes that keep a call from being inlined, as those of grouped convolutions are.
_APART = ("_XlaMustCompile", "_noinline", "_read_only_resource_inputs")


def _check_ops(model: ir.Model) -> None:
    """Raise where a node is no op of ONNX: tf2onnx leaves what it does not know in the graph."""
    for node in model.graph.all_nodes():
        version = model.opset_imports.get(node.domain)
        if node.op_identifier() in model.functions:
            continue
        try:
            known = version is not None and not onnx.defs.get_schema(node.op_type, version, node.domain).deprecated
        except onnx.defs.SchemaError:
            known = False
        if not known:
            op = f"{node.domain}.{node.op_type}" if node.domain else node.op_type
            message = f"tf2onnx knows no counterpart in ONNX of {op} (node {node.name!r})"
            raise ConversionError(f"{message}; write it with other operations", code="tensorflow-export")


def _settle(model: ir.Model, variables: Mapping[str, tuple[str, Any]], dynamic_batch: bool) -> None:
    """Make initializers of the inputs that are variables; order and names come from the graph alone. In place."""
    graph = model.graph
    for value in list(graph.inputs):
        stands = value.name.removesuffix(":0") if value.name else ""
        if stands not in variables:
            continue
        value.name, variable = variables[stands]
        graph.inputs.remove(value)
        if value.uses() or value.is_graph_output():
            value.const_value = ir.tensor(variable.numpy(), name=value.name)
            graph.register_initializer(value)
    passes.RemoveUnusedNodesPass()(model)
    names = {name for name, _ in variables.values()}
    settle(graph, names)
    for value in graph.inputs if dynamic_batch else ():
        value.shape = ir.Shape(["batch", *(value.shape or ())[1:]])
    for node in graph.all_nodes():
        for value in node.outputs:
            value.shape = None  # moving Transposes away, tf2onnx leaves shapes as they were before
    passes.ShapeInferencePass()(model)
    for value in graph.outputs:
        sizes = [size if isinstance(size, int) or size.value == "batch" else None for size in value.shape or ()]
        value.shape = None if value.shape is None else ir.Shape(sizes)  # inference numbers sizes that it does not know
    passes.ClearMetadataAndDocStringPass()(model)
    passes.RemoveUnusedOpsetsPass()(model)
    model.ir_version = _IR_VERSION
    record_buffers(model, names)

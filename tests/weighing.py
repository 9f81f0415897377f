"""Any op as a network in which every axis of every tensor carries channels.

Inputs become activations, a parameter times an input of one element; outputs are weighed with parameters and
summed up. Then every factor of the op can go, unless its rule says otherwise.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PROBES = 8  # sums of every output with different weights


def initializer(graph: onnx.GraphProto, name: str, array: NDArray[Any]) -> str:
    graph.initializer.append(numpy_helper.from_array(array, name))
    return name


def activation(
    graph: onnx.GraphProto,
    name: str,
    values: NDArray[Any],
    kind: int = TensorProto.FLOAT,
    batch: int | str = 1,
) -> str:
    """``values`` times the graph input ``<name>_one``, as a tensor of that kind."""
    shape = [*([batch] if values.shape else []), *[1] * (values.ndim - 1)]
    graph.input.append(helper.make_tensor_value_info(f"{name}_one", TensorProto.FLOAT, shape))
    initializer(graph, f"{name}_values", values.astype(np.float32))
    plain = name if kind == TensorProto.FLOAT else f"{name}_float"
    graph.node.append(helper.make_node("Mul", [f"{name}_one", f"{name}_values"], [plain]))
    if kind != TensorProto.FLOAT:
        graph.node.append(helper.make_node("Cast", [plain], [name], to=kind))
    return name


def ones(graph: onnx.GraphProto, seed: int) -> dict[str, NDArray[Any]]:
    """For the inputs of one element: values in [0.75, 1], so that activations stay in the domain of their op."""
    rng = np.random.default_rng(seed)
    found = {}
    for each in graph.input:
        if each.name.endswith("_one"):
            shape = [d.dim_value or 1 for d in each.type.tensor_type.shape.dim]
            found[each.name] = rng.uniform(0.75, 1, shape).astype(np.float32)
    return found


def weigh(graph: onnx.GraphProto, rng: np.random.Generator, name: str, kind: int, shape: list[int], opset: int) -> None:
    """Make the sums of a tensor with the parameter ``<name>_probe`` an output, ``[PROBES]``."""
    value, total = name, f"{name}_sums"
    if kind != TensorProto.FLOAT:
        value = f"{name}_as_float"
        graph.node.append(helper.make_node("Cast", [name], [value], to=TensorProto.FLOAT))
    probe = initializer(graph, f"{name}_probe", rng.uniform(-1, 1, (PROBES, *shape)).astype(np.float32))
    graph.node.append(helper.make_node("Mul", [value, probe], [f"{name}_weighed"]))
    axes = np.arange(1, len(shape) + 1)
    if not shape:
        graph.node.append(helper.make_node("Identity", [f"{name}_weighed"], [total]))
    elif opset >= 13:
        inputs = [f"{name}_weighed", initializer(graph, f"{name}_axes", axes)]
        graph.node.append(helper.make_node("ReduceSum", inputs, [total], keepdims=0))
    else:
        graph.node.append(helper.make_node("ReduceSum", [f"{name}_weighed"], [total], keepdims=0, axes=axes.tolist()))
    graph.output.append(helper.make_tensor_value_info(total, TensorProto.FLOAT, [PROBES]))

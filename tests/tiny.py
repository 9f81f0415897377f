"""Models of a few nodes, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Shape = Sequence[int | str | None]


def value(name: str, shape: Shape | None, kind: int = TensorProto.FLOAT) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def weight(name: str, *shape: int, seed: int = 0) -> onnx.TensorProto:
    return numpy_helper.from_array(np.random.default_rng(seed).normal(size=shape).astype(np.float32), name)


def integers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def integer(name: str, number: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(number, np.int64), name)


def node(op: str, inputs: str, outputs: str, name: str = "", domain: str = "", **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), outputs.split(), name=name, domain=domain, **attributes)


def model(
    nodes: Sequence[onnx.NodeProto],
    initializers: Sequence[onnx.TensorProto] = (),
    inputs: Sequence[onnx.ValueInfoProto] | None = None,
    outputs: Sequence[onnx.ValueInfoProto] | None = None,
    opset: int = 17,
    domains: Sequence[str] = (),
    functions: Sequence[onnx.FunctionProto] = (),
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "tiny",
        [value("x", ["n", 4])] if inputs is None else list(inputs),
        [value("y", ["n", 3])] if outputs is None else list(outputs),
        list(initializers),
    )
    opsets = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=list(functions))


MLP = (node("Gemm", "x a", "h", "one"), node("Relu", "h", "r", "act"), node("Gemm", "r b", "y", "two"))


def mlp(hidden: int = 8) -> onnx.ModelProto:
    """From x [n, 4] through Gemm, Relu, Gemm to y [n, 3]; one group of `hidden` channels."""
    return model(MLP, [weight("a", 4, hidden), weight("b", hidden, 3, seed=1)])


def convnet() -> onnx.ModelProto:
    """Two convolutions with a norm between, a mean and a Gemm; two groups, of 16 and 8 channels."""
    state = [
        numpy_helper.from_array(array.astype(np.float32), name)
        for name, array in (
            ("scale", np.linspace(0.5, 1.5, 16)),
            ("shift", np.linspace(-1, 1, 16)),
            ("mean", np.zeros(16)),
            ("variance", np.ones(16)),
        )
    ]
    nodes = [
        node("Conv", "x k1", "c", "first", pads=[1, 1, 1, 1]),
        node("BatchNormalization", "c scale shift mean variance", "d", "norm"),
        node("Relu", "d", "e", "act"),
        node("Conv", "e k2", "f", "second"),
        node("GlobalAveragePool", "f", "g", "pool"),
        node("Flatten", "g", "h", "flat"),
        node("Gemm", "h w", "y", "head"),
    ]
    weights = [weight("k1", 16, 3, 3, 3), *state, weight("k2", 8, 16, 3, 3, seed=1), weight("w", 8, 10, seed=2)]
    return model(nodes, weights, [value("x", ["n", 3, 8, 8])], [value("y", ["n", 10])])


def save(proto: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(proto.SerializeToString())
    return path


def deep(layers: int, channels: int = 32) -> onnx.ModelProto:
    """Convolutions of `channels` one after the other, each with its own group: `w0` to `w<layers>`."""
    names = ["x", *(f"x{i}" for i in range(layers))]
    nodes = [node("Conv", f"{names[i]} w{i}", names[i + 1], f"conv{i}", pads=[1] * 4) for i in range(layers)]
    nodes.append(node("Conv", f"{names[-1]} w{layers}", "y", "last"))
    sizes = [3, *[channels] * layers]
    weights = [weight(f"w{i}", channels, size, 3, 3, seed=i) for i, size in enumerate(sizes[:-1])]
    weights.append(weight(f"w{layers}", 10, channels, 1, 1))
    return model(nodes, weights, [value("x", [1, 3, 8, 8])], [value("y", [1, 10, 8, 8])])

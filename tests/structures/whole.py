"""Ops that keep all that they touch, in the middle of networks whose other layers can be cut."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from structures.registry import graph
from tiny import integer, model, node, value, weight


def around(
    middle: Sequence[onnx.NodeProto],
    *others: onnx.TensorProto,
    inputs: Sequence[onnx.ValueInfoProto] = (),
    outputs: Sequence[onnx.ValueInfoProto] = (),
    opset: int = 20,
    domains: Sequence[str] = (),
) -> onnx.ModelProto:
    """A Gemm of 8 channels, one of 6 (g), `middle` from g to e [n, 6], a Gemm of 7 channels, one of 3."""
    nodes = [
        *(node("Gemm", "x a", "h"), node("Relu", "h", "r"), node("Gemm", "r b", "g")),
        *middle,
        *(node("Gemm", "e c", "i"), node("Relu", "i", "j"), node("Gemm", "j d", "y")),
    ]
    sizes = {"a": (4, 8), "b": (8, 6), "c": (6, 7), "d": (7, 3)}
    weights = [weight(name, *shape, seed=seed) for seed, (name, shape) in enumerate(sizes.items())]
    given = [value("x", [2, 4]), *inputs]
    return model(nodes, [*weights, *others], given, [value("y", [2, 3]), *outputs], opset, domains)


FIRST = integer("first", 0)


@graph("sequence_of_parts", widths=[7, 8], removable=0.9, stays="sequence")
def sequence_of_parts() -> onnx.ModelProto:
    """A tensor in pieces, of which one is joined with itself."""
    middle = [
        node("SplitToSequence", "g three", "s", axis=1),
        node("SequenceAt", "s first", "t"),
        node("Concat", "t t", "e", axis=1),
    ]
    return around(middle, FIRST, integer("three", 3))


@graph("sequence_as_an_output", widths=[7, 8], removable=0.9, stays="sequence")
def sequence_as_an_output() -> onnx.ModelProto:
    """A sequence leaves the graph."""
    kind = helper.make_sequence_type_proto(helper.make_tensor_type_proto(TensorProto.FLOAT, None))
    middle = [node("SequenceConstruct", "g g", "s"), node("Identity", "g", "e")]
    return around(middle, outputs=[helper.make_value_info("s", kind)])


@graph("optional_in_between", widths=[7, 8], removable=0.9, stays="optional")
def optional_in_between() -> onnx.ModelProto:
    """A value that may be absent, and is there."""
    return around([node("Optional", "g", "o"), node("OptionalGetElement", "o", "e")])


@graph("noise", widths=[7, 8], removable=0.9, stays="random")
def noise() -> onnx.ModelProto:
    """Random numbers, times 0."""
    zero = numpy_helper.from_array(np.float32(0), "zero")
    return around([node("RandomNormalLike", "g", "z"), node("Mul", "z zero", "q"), node("Add", "g q", "e")], zero)


@graph("positions_added", widths=[7, 8], removable=0.9)
def positions_added() -> onnx.ModelProto:
    """Every position has its number added."""
    middle = [
        node("Range", "first six one", "n"),
        node("Cast", "n", "f", to=TensorProto.FLOAT),
        node("Add", "g f", "e"),
    ]
    return around(middle, FIRST, integer("six", 6), integer("one", 1))


@graph("text_beside", widths=[6, 7, 8])
def text_beside() -> onnx.ModelProto:
    """Text passes beside the network."""
    kind = [helper.make_tensor_value_info(n, TensorProto.STRING, [2]) for n in ("t", "u")]
    middle = [node("StringConcat", "t t", "u"), node("Identity", "g", "e")]
    return around(middle, inputs=kind[:1], outputs=kind[1:])


@graph("classical_model_in_between", widths=[8], removable=0.4, stays="classical unknown-shape")
def classical_model_in_between() -> onnx.ModelProto:
    """A scaler of a classical model between two layers; the shape of what it gives is not known."""
    scaler = node("Scaler", "g", "e", domain="ai.onnx.ml", offset=[0.5], scale=[2.0])
    return around([scaler], domains=["ai.onnx.ml"])

"""Vision networks as exporters write them: channels last, and sizes that are computed in the graph."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from structures.registry import graph
from tiny import integer, integers, model, node, value, weight


@graph("channels_last", widths=[8, 6, 5], stays="single")
def channels_last() -> onnx.ModelProto:
    """As tf2onnx writes Keras: NHWC outside, a Transpose around every convolution, biases added in NHWC."""
    to, back = {"perm": [0, 3, 1, 2]}, {"perm": [0, 2, 3, 1]}
    nodes = [
        node("Transpose", "x", "x1", **to),
        node("Conv", "x1 k1", "c1", pads=[1, 1, 1, 1]),
        node("Transpose", "c1", "c2", **back),
        node("Add", "c2 b1", "c3"),
        node("Relu", "c3", "r1"),
        node("Transpose", "r1", "r2", **to),
        node("Conv", "r2 k2", "d1", group=8, pads=[1, 1, 1, 1]),  # depthwise
        node("Transpose", "d1", "d2", **back),
        node("Mul", "d2 s2", "d3"),
        node("Add", "d3 b2", "d4"),
        node("Reshape", "k3 matrix", "w3"),  # a 1 × 1 convolution as a product
        node("MatMul", "d4 w3", "e1"),
        node("ReduceMean", "e1", "m1", axes=[1, 2], keepdims=1),
        node("MatMul", "m1 g1", "m2"),
        node("Relu", "m2", "m3"),
        node("MatMul", "m3 g2", "m4"),
        node("Sigmoid", "m4", "m5"),
        node("Mul", "e1 m5", "e2"),
        node("Transpose", "e2", "e3", **to),
        node("GlobalAveragePool", "e3", "p1"),
        node("Squeeze", "p1 space", "p2"),
        node("MatMul", "p2 w", "p3"),
        node("Add", "p3 b", "y"),
    ]
    weights = [
        weight("k1", 8, 3, 3, 3),
        weight("b1", 8, seed=1),
        weight("k2", 8, 1, 3, 3, seed=2),
        weight("s2", 8, seed=3),
        weight("b2", 1, 1, 1, 8, seed=4),
        weight("k3", 1, 1, 8, 6, seed=5),
        integers("matrix", 8, 6),
        weight("g1", 6, 5, seed=6),
        weight("g2", 5, 6, seed=7),
        integers("space", 2, 3),
        weight("w", 6, 4, seed=8),
        weight("b", 4, seed=9),
    ]
    return model(nodes, weights, [value("x", ["n", 8, 8, 3])], [value("y", ["n", 4])])


@graph("segmentation_of_any_size", widths=[6, 8, 5])
def segmentation_of_any_size() -> onnx.ModelProto:
    """What was pooled is resized to the size of its skip, read from the graph; batch, height and width are free."""
    nodes = [
        node("Conv", "x k1", "c1", pads=[1, 1, 1, 1]),
        node("Relu", "c1", "skip"),
        node("MaxPool", "skip", "pooled", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "pooled k2", "c2", pads=[1, 1, 1, 1]),
        node("Relu", "c2", "deep"),
        node("Shape", "deep", "own"),
        node("Slice", "own zero two zero", "kept"),  # batch and channels
        node("Shape", "skip", "there"),
        node("Slice", "there two four zero", "space"),
        node("Concat", "kept space", "sizes", axis=0),
        helper.make_node("Resize", ["deep", "", "", "sizes"], ["up"], mode="linear"),
        node("Concat", "skip up", "both", axis=1),
        node("Conv", "both k3", "c3"),
        node("Relu", "c3", "r3"),
        node("Conv", "r3 k4", "y"),
    ]
    weights = [
        weight("k1", 6, 3, 3, 3),
        weight("k2", 8, 6, 3, 3, seed=1),
        weight("k3", 5, 14, 1, 1, seed=2),
        weight("k4", 2, 5, 1, 1, seed=3),
        integers("zero", 0),
        integers("two", 2),
        integers("four", 4),
    ]
    return model(nodes, weights, [value("x", ["n", 3, "h", "w"])], [value("y", ["n", 2, "h2", "w2"])])


@graph("shapes_by_hand", widths=[2, 4, 2, 6])
def shapes_by_hand() -> onnx.ModelProto:
    """TorchScript without optimisation: a shuffle and a flattening whose sizes are all computed from shapes."""

    def size(of: str, axis: int) -> list[onnx.NodeProto]:
        return [
            node("Shape", of, f"{of}_shape{axis}"),
            node("Gather", f"{of}_shape{axis} i{axis}", f"{of}_{axis}", axis=0),
            node("Unsqueeze", f"{of}_{axis} zero", f"{of}{axis}"),
        ]

    nodes = [
        node("Conv", "x k1", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        *(each for axis in range(4) for each in size("r", axis)),
        node("Div", "r_1 groups", "each"),
        node("Unsqueeze", "each zero", "each1"),
        node("Concat", "r0 g each1 r2 r3", "wide", axis=0),
        node("Reshape", "r wide", "a"),
        node("Transpose", "a", "b", perm=[0, 2, 1, 3, 4]),
        node("Concat", "r0 rest r2 r3", "narrow", axis=0),
        node("Reshape", "b narrow", "d"),
        node("Conv", "d k2", "e", group=4),
        node("Relu", "e", "f"),
        *size("f", 0),
        *size("f", 1),
        node("Concat", "f0 f1 rest", "flat", axis=0),
        node("Reshape", "f flat", "h"),
        node("ReduceMean", "h", "m", axes=[2], keepdims=0),
        node("MatMul", "m w1", "u"),
        node("Relu", "u", "v"),
        node("MatMul", "v w2", "y"),
    ]
    weights = [
        weight("k1", 8, 3, 3, 3),
        weight("k2", 8, 2, 3, 3, seed=1),
        weight("w1", 8, 6, seed=2),
        weight("w2", 6, 3, seed=3),
        *(numpy_helper.from_array(np.array(t), f"i{t}") for t in range(4)),
        integer("groups", 2),
        integers("g", 2),
        integers("zero", 0),
        integers("rest", -1),
    ]
    return model(nodes, weights, [value("x", ["n", 3, "h", "w"])], [value("y", ["n", 3])])


@graph("gram_matrix", widths=[6], removable=0.4, stays="irregular")
def gram_matrix() -> onnx.ModelProto:
    """Bilinear pooling: of c channels c² products. A position i·c + j has two channels of one group, so both stay."""
    nodes = [
        node("Conv", "x k1", "a"),
        node("Reshape", "a flat", "b"),
        node("Transpose", "b", "t", perm=[0, 2, 1]),
        node("MatMul", "b t", "g"),
        node("Flatten", "g", "f"),
        node("MatMul", "f w1", "h"),
        node("Relu", "h", "r"),
        node("MatMul", "r w2", "y"),
    ]
    weights = [weight("k1", 4, 3, 1, 1), integers("flat", 0, 0, -1), weight("w1", 16, 6, seed=1), weight("w2", 6, 3)]
    return model(nodes, weights, [value("x", ["n", 3, 4, 4])], [value("y", ["n", 3])])


@graph("size_beside_the_result", widths=[8])
def size_beside_the_result() -> onnx.ModelProto:
    """A shape that is an output stays what it was: one with a dynamic axis, and one without."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("Relu", "h", "r"),
        node("Shape", "r", "free"),
        node("Shape", "a", "known"),
        node("MatMul", "r b", "y"),
    ]
    outputs = [value("y", ["n", 3]), value("free", [2], TensorProto.INT64), value("known", [2], TensorProto.INT64)]
    return model(nodes, [weight("a", 4, 8), weight("b", 8, 3, seed=1)], outputs=outputs)

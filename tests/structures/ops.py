"""Networks around single ops whose rule has to follow a cut: unpooling, scattering, repeating, making tensors."""

from __future__ import annotations

import numpy as np
import onnx
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

from structures.registry import graph, module
from tiny import integer, integers, model, node, value, weight

PADS = [1, 1, 1, 1]


def segnet(back: list[onnx.NodeProto]) -> onnx.ModelProto:
    """Convolution, pooling with indices, two convolutions within, the way back (from d and i to u), convolution."""
    nodes = [
        node("Conv", "x k1", "a", pads=PADS),
        node("MaxPool", "a", "p i", kernel_shape=[2, 2], strides=[2, 2]),
        node("Conv", "p k2", "b", pads=PADS),
        node("Relu", "b", "c"),
        node("Conv", "c k3", "d", pads=PADS),
        *back,
        node("Conv", "u k4", "y", pads=PADS),
    ]
    weights = [
        *(weight("k1", 6, 3, 3, 3), weight("k2", 10, 6, 3, 3, seed=1)),
        *(weight("k3", 6, 10, 3, 3, seed=2), weight("k4", 2, 6, 3, 3, seed=3)),
    ]
    return model(nodes, weights, [value("x", ["n", 3, 8, 8])], [value("y", ["n", 2, None, None])])


@graph("unpooling", widths=[6, 10])
def unpooling() -> onnx.ModelProto:
    """The numbers of positions go from the pooling straight to an unpooling of the same shape."""
    return segnet([node("MaxUnpool", "d i", "u", kernel_shape=[2, 2], strides=[2, 2])])


@graph("unpooling_to_another_shape", widths=[10], removable=0.5)
def unpooling_to_another_shape() -> onnx.ModelProto:
    """Eight rows are pooled, and twelve unpooled: the same numbers mean other channels."""
    return segnet([node("MaxUnpool", "d i", "u", kernel_shape=[3, 3], strides=[3, 3])])


@graph("pooling_whose_indices_are_looked_at", widths=[10], removable=0.5)
def pooling_whose_indices_are_looked_at() -> onnx.ModelProto:
    """The numbers of positions become an input of the next layer."""
    return segnet([node("Cast", "i", "f", to=TensorProto.FLOAT), node("Add", "d f", "u")])


@graph("pillars", widths=[5, 8])
def pillars() -> onnx.ModelProto:
    """Features of points are scattered over a canvas of zeros, as in detectors on point clouds."""
    nodes = [
        node("Gemm", "x w", "f"),
        node("Relu", "f", "r"),
        node("ConstantOfShape", "canvas_shape", "canvas"),
        node("ScatterND", "canvas at r", "grid"),
        node("Transpose", "grid", "t", perm=[1, 0]),
        node("Reshape", "t square", "s"),
        node("Conv", "s k1", "c", pads=PADS),
        node("Relu", "c", "d"),
        node("Conv", "d k2", "y"),
    ]
    weights = [weight("w", 4, 8), weight("k1", 5, 8, 3, 3), weight("k2", 2, 5, 1, 1, seed=1)]
    shapes = [integers("canvas_shape", 36, 8), integers("square", 1, 8, 6, 6)]
    places = numpy_helper.from_array(np.arange(0, 36, 3)[:, None], "at")
    return model(nodes, [*weights, *shapes, places], [value("x", [12, 4])], [value("y", [1, 2, 6, 6])])


@module("token_selection", (2, 9, 6), widths=[8])
class TokenSelection(nn.Module):
    """The best tokens go on: indices are repeated along the channels."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.score, self.head = nn.Linear(6, 8), nn.Linear(8, 1), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embed(x).relu()
        best = self.score(h).squeeze(-1).topk(4).indices
        kept = h.gather(1, best.unsqueeze(-1).expand(-1, -1, h.shape[-1]))
        return self.head(kept)


@module("einsum_attention", (2, 5, 6), widths=[3, 4, 4])
class EinsumAttention(nn.Module):
    """Attention as equations; heads and head dimension are axes of the weights."""

    def __init__(self) -> None:
        super().__init__()
        for name in ("q_weight", "k_weight", "v_weight"):
            setattr(self, name, nn.Parameter(torch.empty(6, 3, 4)))
        self.o_weight = nn.Parameter(torch.empty(3, 4, 6))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (torch.einsum("bti,ihd->bthd", x, w) for w in (self.q_weight, self.k_weight, self.v_weight))
        scores = torch.einsum("bqhd,bkhd->bhqk", q, k).softmax(-1)
        return torch.einsum("bhqk,bkhd,hdo->bqo", scores, v, self.o_weight)


@module("spatial_transformer", (2, 3, 8, 8), widths=[4, 5, 6], removable=0.85)
class SpatialTransformer(nn.Module):
    """Features are sampled where another branch says."""

    def __init__(self) -> None:
        super().__init__()
        self.features, self.where, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(3, 4, 3), nn.Conv2d(6, 5, 3)
        self.theta, self.out = nn.Linear(4, 2), nn.Conv2d(5, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        shift = self.theta(self.where(x).relu().mean((2, 3)))[:, None, None, :]
        line = torch.linspace(-1, 1, 6)
        grid = torch.stack(torch.meshgrid(line, line, indexing="xy"), -1)[None] + shift.tanh()
        sampled = torch.nn.functional.grid_sample(self.features(x).relu(), grid, align_corners=True)
        return self.out(self.head(sampled).relu())


@graph("squeezed_without_axes", widths=[2, 2])
def squeezed_without_axes() -> onnx.ModelProto:
    """A group that is cut to one channel must not be squeezed away with the axes of one position."""
    nodes = [
        node("Conv", "x k1", "a"),
        node("Relu", "a", "b"),
        node("GlobalAveragePool", "b", "c"),
        node("Squeeze", "c", "d"),
        node("Gemm", "d w1", "e"),
        node("Gemm", "e w2", "y"),
    ]
    weights = [weight("k1", 2, 3, 3, 3), weight("w1", 2, 2), weight("w2", 2, 3, seed=1)]
    return model(nodes, weights, [value("x", [4, 3, 8, 8])], [value("y", [4, 3])])


@graph("ten_branches", widths=[8])
def ten_branches() -> onnx.ModelProto:
    """A sum of more operands than any usual network has."""
    names = [f"h{i}" for i in range(10)]
    nodes = [node("MatMul", f"x w{i}", name) for i, name in enumerate(names)]
    nodes += [node("Sum", " ".join(names), "s"), node("Relu", "s", "r"), node("MatMul", "r v", "y")]
    return model(nodes, [*(weight(f"w{i}", 4, 8, seed=i) for i in range(10)), weight("v", 8, 3)])


@graph("made_to_measure", widths=[8])
def made_to_measure() -> onnx.ModelProto:
    """Zeros and ones of a shape that is computed from the features, whose first axis is dynamic."""
    fill = numpy_helper.from_array(np.ones(1, np.float32))
    nodes = [
        node("MatMul", "x a", "h"),
        node("Shape", "h", "shape"),
        node("ConstantOfShape", "shape", "ones", value=fill),
        node("Gather", "shape first", "n"),
        node("Concat", "n eight", "long", axis=0),
        node("ConstantOfShape", "long", "zeros"),
        node("Sub", "ones h", "i"),
        node("Add", "zeros level", "floor"),
        node("ReduceMax", "floor", "most", axes=[0], keepdims=0),
        node("Max", "i most", "j"),
        node("MatMul", "j b", "y"),
    ]
    constants = [integers("first", 0), integers("eight", 8)]
    weights = [weight("a", 4, 8), weight("level", 1, 8, seed=2), weight("b", 8, 3, seed=1)]
    return model(nodes, [*weights, *constants])


@graph("part_of_a_weight", widths=[1, 2, 5])
def part_of_a_weight() -> onnx.ModelProto:
    """Only a part of a weight's columns is read; nothing sums over the others."""
    nodes = [node("Slice", "w start end axes", "v"), node("MatMul", "x v", "h"), node("MatMul", "h b", "y")]
    bounds = [integers("start", 1), integers("end", 6), integers("axes", 1)]
    return model(nodes, [weight("w", 4, 8), weight("b", 5, 3, seed=1), *bounds])


@graph("repeated_vector", widths=[5, 8])
def repeated_vector() -> onnx.ModelProto:
    """One number per sample is repeated to a vector, which is then weighted."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("ReduceMax", "h", "m", axes=[1], keepdims=1),
        node("Tile", "m times", "t"),
        node("Mul", "t scale", "s"),
        node("MatMul", "s b", "y"),
    ]
    weights = [weight("a", 4, 8), weight("scale", 5), weight("b", 5, 3, seed=1)]
    return model(nodes, [*weights, integers("times", 1, 5)])


@graph("one_of_several", widths=[6, 7], removable=0.9)
def one_of_several() -> onnx.ModelProto:
    """A single position is picked by its number, from the end; what stands before it may go."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("Gather", "h last", "one", axis=1),
        node("Unsqueeze", "one axes", "column"),
        node("MatMul", "column b", "r"),
        node("MatMul", "r c", "y"),
    ]
    weights = [weight("a", 4, 8), weight("b", 1, 6, seed=1), weight("c", 6, 3, seed=2)]
    return model(nodes, [*weights, integer("last", -1), integers("axes", 1)])


@graph("detector_with_suppression", widths=[6, 16], removable=0.9, stays="single values")
def detector() -> onnx.ModelProto:
    """Boxes are proposed and thinned out; a head looks at the regions that are left, however many they are."""
    nodes = [
        node("Conv", "x k", "f", pads=PADS),
        node("Relu", "f", "g"),
        node("Conv", "g k_scores", "raw_scores"),
        node("Reshape", "raw_scores scores_shape", "scores"),
        node("Conv", "g k_boxes", "raw_boxes"),
        node("Sigmoid", "raw_boxes", "bounded_boxes"),
        node("Reshape", "bounded_boxes boxes_shape", "listed_boxes"),
        node("Transpose", "listed_boxes", "boxes", perm=[0, 2, 1]),
        node("NonMaxSuppression", "boxes scores most", "selected"),
        node("Gather", "selected two", "i", axis=1),
        node("Squeeze", "boxes zero", "all"),
        node("Gather", "all i", "rois"),
        node("Shape", "i", "count"),
        node("ConstantOfShape", "count", "which", value=numpy_helper.from_array(np.zeros(1, np.int64))),
        node("RoiAlign", "g rois which", "r", output_height=2, output_width=2),
        node("Flatten", "r", "s"),
        node("Gemm", "s w1", "h"),
        node("Relu", "h", "j"),
        node("Gemm", "j w2", "y"),
    ]
    weights = [
        *(weight("k", 6, 3, 3, 3), weight("k_scores", 1, 6, 1, 1), weight("k_boxes", 4, 6, 1, 1)),
        *(weight("w1", 24, 16), weight("w2", 16, 5, seed=1)),
    ]
    shapes = [integers("scores_shape", 1, 1, 64), integers("boxes_shape", 1, 4, 64)]
    numbers = [integers("most", 5), integer("two", 2), integers("zero", 0)]
    return model(nodes, [*weights, *shapes, *numbers], [value("x", [1, 3, 8, 8])], [value("y", [None, 5])])


@graph("selected_rows", widths=[6, 8])
def selected_rows() -> onnx.ModelProto:
    """Rows are selected by a mask: how many there are does not matter to what follows."""
    nodes = [
        node("MatMul", "x a", "h"),
        node("ReduceMax", "x", "top", axes=[1], keepdims=0),
        node("Greater", "top zero", "mask"),
        node("Compress", "h mask", "c", axis=0),
        node("MatMul", "c b", "d"),
        node("MatMul", "d e", "y"),
    ]
    weights = [weight("a", 4, 8), weight("b", 8, 6, seed=1), weight("e", 6, 3, seed=2)]
    zero = numpy_helper.from_array(np.float32(0), "zero")
    return model(nodes, [*weights, zero], outputs=[value("y", [None, 3])])


@graph("regions", widths=[6, 16], removable=0.9)
def regions() -> onnx.ModelProto:
    """A head over regions of an image, as in two-stage detectors."""
    nodes = [
        node("Conv", "x k", "f", pads=PADS),
        node("Relu", "f", "g"),
        node("RoiAlign", "g boxes which", "r", output_height=2, output_width=2),
        node("Flatten", "r", "s"),
        node("Gemm", "s w1", "h"),
        node("Relu", "h", "i"),
        node("Gemm", "i w2", "y"),
    ]
    weights = [weight("k", 6, 3, 3, 3), weight("w1", 24, 16), weight("w2", 16, 5, seed=1)]
    boxes = [value("boxes", ["r", 4]), value("which", ["r"], TensorProto.INT64)]
    return model(nodes, weights, [value("x", [2, 3, 8, 8]), *boxes], [value("y", ["r", 5])])

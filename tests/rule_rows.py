"""One table row, or several, for every rule: a node, and which of its factors must come out free.

A row becomes a network in which every axis of every input carries channels of its own: activations are a
parameter times an input of one element, outputs are multiplied with parameters and summed up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

PROBES = 8  # sums of every output with different weights


@dataclass(frozen=True)
class Act:
    """An activation: values in [low, high], cast to `kind`."""

    shape: tuple[int, ...]
    low: float = -2.0
    high: float = 2.0
    kind: int = TensorProto.FLOAT


@dataclass(frozen=True)
class Weight:
    """A floating-point initializer with values in [low, high]."""

    shape: tuple[int, ...]
    low: float = -1.0
    high: float = 1.0


Constant = NDArray[Any]
Input = Act | Weight | Constant | None


@dataclass(frozen=True)
class Row:
    """A node of one op.

    ``free`` are the factors of its rule that must be free to go, in the rule's own names. ``zero`` is False
    where the op has no finite value at 0, so that there is no zero-masked original to compare with: there the
    channels are left alone and only not read any more.
    """

    op: str
    inputs: tuple[Input, ...]
    free: str
    attributes: Mapping[str, Any] = field(default_factory=dict)
    opset: int = 17
    outputs: int = 1
    note: str = ""
    zero: bool = True
    batch: int | str = 1

    def __str__(self) -> str:
        return f"{self.op}-{self.opset}" + (f"-{self.note}" if self.note else "")

    def network(self, rng: np.random.Generator) -> onnx.ModelProto:
        """Inputs x0 x1 …, activations a0 a1 …, the node's outputs y0 y1 …, graph outputs z0 z1 …."""
        nodes, initializers, inputs, names = [], [], [], []

        def initializer(name: str, array: NDArray[Any]) -> str:
            initializers.append(numpy_helper.from_array(array, name))
            return name

        for i, given in enumerate(self.inputs):
            if isinstance(given, Act):
                first = [self.batch] if given.shape else []
                shape = [*first, *[1] * (len(given.shape) - 1)]
                inputs.append(helper.make_tensor_value_info(f"x{i}", TensorProto.FLOAT, shape))
                values = rng.uniform(given.low, given.high, given.shape).astype(np.float32)
                name = f"a{i}" if given.kind == TensorProto.FLOAT else f"f{i}"
                nodes.append(helper.make_node("Mul", [f"x{i}", initializer(f"p{i}", values)], [name]))
                if given.kind != TensorProto.FLOAT:
                    nodes.append(helper.make_node("Cast", [name], [f"a{i}"], to=given.kind))
                names.append(f"a{i}")
            elif isinstance(given, Weight):
                values = rng.uniform(given.low, given.high, given.shape).astype(np.float32)
                names.append(initializer(f"w{i}", values))
            else:
                names.append("" if given is None else initializer(f"c{i}", given))
        outputs = [f"y{j}" for j in range(self.outputs)]
        nodes.append(helper.make_node(self.op, names, outputs, name="subject", **self.attributes))
        graph = helper.make_graph(nodes, "row", inputs, [], initializers)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
        like = ["a0"] if self.op == "GroupNormalization" else outputs  # for which onnx infers nothing
        for j, (kind, shape) in enumerate(_types(model, like)):
            self._probe(model.graph, rng, j, kind, shape)
        return model

    def _probe(self, graph: onnx.GraphProto, rng: np.random.Generator, j: int, kind: int, shape: list[int]) -> None:
        name = f"y{j}"
        if self.op in ("Shape", "Size"):  # sizes have no channels to weigh; they stay the original's
            graph.node.append(helper.make_node("Identity", [name], [f"z{j}"]))
            graph.output.append(helper.make_tensor_value_info(f"z{j}", kind, shape))
            return
        if kind != TensorProto.FLOAT:
            graph.node.append(helper.make_node("Cast", [name], [f"g{j}"], to=TensorProto.FLOAT))
            name = f"g{j}"
        probe = rng.uniform(-1, 1, (PROBES, *shape)).astype(np.float32)
        graph.initializer.append(numpy_helper.from_array(probe, f"q{j}"))
        graph.node.append(helper.make_node("Mul", [name, f"q{j}"], [f"m{j}"]))
        axes = np.arange(1, len(shape) + 1)
        if self.opset >= 13:
            graph.initializer.append(numpy_helper.from_array(axes, f"axes{j}"))
            sums = helper.make_node("ReduceSum", [f"m{j}", f"axes{j}"], [f"z{j}"], keepdims=0)
        else:
            sums = helper.make_node("ReduceSum", [f"m{j}"], [f"z{j}"], keepdims=0, axes=axes.tolist())
        graph.node.append(sums if shape else helper.make_node("Identity", [f"m{j}"], [f"z{j}"]))
        graph.output.append(helper.make_tensor_value_info(f"z{j}", TensorProto.FLOAT, [PROBES]))


def _types(model: onnx.ModelProto, names: list[str]) -> list[tuple[int, list[int]]]:
    """Element type and shape of tensors; a dynamic size counts 1."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True)
    found = {v.name: v.type.tensor_type for v in inferred.graph.value_info}
    return [(found[n].elem_type, [d.dim_value or 1 for d in found[n].shape.dim]) for n in names]


# ---------------------------------------------------------------- the table

IMAGE = Act((2, 6, 5, 4))
MATRIX = Act((4, 6))
POSITIVE = Act((4, 6), 1, 3)
BOOL = Act((4, 6), kind=TensorProto.BOOL)
BYTES = Act((4, 6), 0, 7, TensorProto.UINT8)
INTS = Act((4, 6), -9, 9, TensorProto.INT64)


def ints(*values: int) -> Constant:
    return np.array(values, np.int64)


def floats(*values: float) -> Constant:
    return np.array(values, np.float32)


def rows(ops: str, *inputs: Input, free: str, **options: Any) -> list[Row]:
    return [Row(op, inputs, free, **options) for op in ops.split()]


CONV = [
    Row("Conv", (IMAGE, Weight((4, 6, 3, 3)), Weight((4,))), "n i o", {"pads": [1, 1, 1, 1]}),
    Row("Conv", (Act((2, 4, 9)), Weight((6, 4, 3))), "n i o", {"strides": [2]}, note="1d"),
    Row("Conv", (Act((2, 4, 4, 5, 3)), Weight((6, 4, 2, 3, 1)), Weight((6,))), "n i o", note="3d"),
    Row("Conv", (Act((2, 12, 5, 5)), Weight((8, 3, 3, 3))), "n g i o", {"group": 4}, note="groups"),
    Row("Conv", (IMAGE, Weight((6, 1, 3, 3)), Weight((6,))), "n g", {"group": 6}, note="depthwise"),
    Row("Conv", (IMAGE, Weight((18, 1, 3, 3)), Weight((18,))), "n g o", {"group": 6}, note="multiplier"),
    Row(
        "Conv",
        (IMAGE, Weight((4, 6, 3, 3))),
        "n i o",
        {"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        note="auto_pad",
    ),
    Row("Conv", (IMAGE, Weight((4, 6, 2, 2))), "n i o", {"dilations": [2, 2]}, 11, note="dilated"),
    Row("ConvTranspose", (IMAGE, Weight((6, 4, 2, 2)), Weight((4,))), "n i o", {"strides": [2, 2]}),
    Row("ConvTranspose", (Act((2, 6, 5)), Weight((6, 4, 3))), "n i o", note="1d"),
    Row(
        "ConvTranspose",
        (Act((2, 8, 4, 4)), Weight((8, 3, 4, 4)), Weight((12,))),
        "n g i o",
        {"group": 4, "strides": [2, 2], "pads": [1, 1, 1, 1]},
        note="groups",
    ),
    Row(
        "ConvTranspose",
        (Act((2, 6, 4, 4)), Weight((6, 1, 4, 4))),
        "n g o",
        {"group": 6, "strides": [2, 2], "output_padding": [1, 1]},
        note="depthwise",
    ),
]

GEMM = [
    Row("Gemm", (MATRIX, Weight((6, 5))), "k m n"),
    Row("Gemm", (MATRIX, Weight((5, 6)), Weight((5,))), "k m n", {"transB": 1}, note="transB"),
    Row("Gemm", (Act((6, 4)), Weight((6, 5)), Weight((4, 5))), "k m n", {"transA": 1}, note="transA"),
    Row("Gemm", (MATRIX, Weight((6, 5)), Weight((1, 5))), "k m n", note="bias-row"),
    Row("Gemm", (MATRIX, Weight((6, 5)), Weight((4, 1))), "k m n", {"beta": 0.5}, note="bias-column"),
    Row("Gemm", (MATRIX, Weight((6, 5)), Weight(())), "k m n", {"alpha": 0.5}, note="bias-scalar"),
    Row("Gemm", (MATRIX, Weight((6, 5)), Weight((5,))), "k m n", opset=9),
    Row("MatMul", (MATRIX, Weight((6, 5))), "k m n"),
    Row("MatMul", (Act((2, 4, 6)), Weight((6, 5))), "b~0 k m n", note="shared-matrix"),
    Row("MatMul", (Act((2, 3, 4, 6)), Act((2, 3, 6, 5))), "b~0 b~1 k m n", note="batched"),
    Row("MatMul", (Act((3, 4, 6)), Act((2, 1, 6, 5))), "b~0 b~1 k m n", note="broadcast"),
    Row("MatMul", (Act((6,)), Weight((6, 5))), "k n", note="vector-left"),
    Row("MatMul", (Act((2, 4, 6)), Weight((6,))), "b~0 k m", note="vector-right"),
    Row("MatMul", (Act((6,)), Weight((6,))), "k", note="dot"),
]

AFFINE = (Weight((6,), 0.5, 1.5), Weight((6,)))
NORMS = [
    Row("BatchNormalization", (IMAGE, *AFFINE, Weight((6,)), Weight((6,), 0.5, 1.5)), "c n y~0 y~1"),
    Row("BatchNormalization", (MATRIX, *AFFINE, Weight((6,)), Weight((6,), 0.5, 1.5)), "c n", note="2d"),
    Row(
        "BatchNormalization",
        (IMAGE, *AFFINE, Weight((6,)), Weight((6,), 0.5, 1.5)),
        "c n y~0 y~1",
        {"training_mode": 1},
        outputs=3,
        note="training",
    ),
    Row("LayerNormalization", (Act((2, 4, 6)), *AFFINE), "a0 a1 a2"),
    Row("LayerNormalization", (Act((2, 4, 6)), AFFINE[0]), "a0 a1 a2", note="no-shift"),
    Row(
        "LayerNormalization",
        (Act((2, 4, 6)), Weight((4, 6)), Weight((4, 6))),
        "a0 a1 a2",
        {"axis": 1},
        note="axis-1",
    ),
    Row(
        "LayerNormalization",
        (Act((2, 4, 6)), *AFFINE),
        "a0 a1 a2",
        {"axis": 2},
        outputs=3,
        note="statistics",
    ),
    Row("RMSNormalization", (Act((2, 4, 6)), AFFINE[0]), "a0 a1 a2", opset=23),
    Row(
        "GroupNormalization",
        (Act((2, 12, 5, 5)), Weight((3,)), Weight((3,))),
        "c g n y~0 y~1",
        {"num_groups": 3},
        18,
    ),
    Row(
        "GroupNormalization",
        (Act((2, 12, 5, 5)), Weight((12,)), Weight((12,))),
        "c g n y~0 y~1",
        {"num_groups": 3},
        21,
    ),
    Row("InstanceNormalization", (IMAGE, *AFFINE), "c n y~0 y~1"),
    Row("InstanceNormalization", (Act((2, 6, 9)), *AFFINE), "c n y~0", note="1d"),
    Row("LRN", (IMAGE,), "n y~0 y~1", {"size": 3}),
    Row("LpNormalization", (MATRIX,), "", {"axis": 1, "p": 2}),
    *rows("Softmax LogSoftmax", Act((2, 4, 6)), free="a0 a1 a2", opset=13),
    *rows(
        "Softmax LogSoftmax",
        Act((2, 4, 6)),
        free="a0 a1 a2",
        opset=13,
        attributes={"axis": 1},
        note="axis-1",
    ),
    *rows("Softmax LogSoftmax", Act((2, 4, 6)), free="a0 a1 a2", opset=11, note="flattens"),
]

POINTWISE = [
    *rows(
        "Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish LeakyRelu Mish Neg Relu Round "
        "Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu Identity",
        MATRIX,
        free="a~0 a~1",
        opset=18,
    ),
    *rows("Acos Asin Atanh", Act((4, 6), -0.9, 0.9), free="a~0 a~1"),
    *rows("Sqrt", POSITIVE, free="a~0 a~1"),
    *rows("Acosh Log Reciprocal", Act((4, 6), 2, 3), free="a~0 a~1", zero=False),
    *rows("IsInf IsNaN", MATRIX, free="a~0 a~1"),
    *rows("Gelu", MATRIX, free="a~0 a~1", opset=20),
    *rows("Gelu", MATRIX, free="a~0 a~1", opset=20, attributes={"approximate": "tanh"}, note="tanh"),
    *rows("Swish", MATRIX, free="a~0 a~1", opset=24),
    *rows("Not", BOOL, free="a~0 a~1"),
    *rows("BitwiseNot", INTS, free="a~0 a~1", opset=18),
    *rows("And Or Xor", BOOL, BOOL, free="a~0 a~1"),
    *rows("BitwiseAnd BitwiseOr BitwiseXor", INTS, INTS, free="a~0 a~1", opset=18),
    *rows("BitShift", BYTES, BYTES, free="a~0 a~1", attributes={"direction": "LEFT"}),
    *rows("Add Sub Mul Equal Greater GreaterOrEqual Less LessOrEqual", MATRIX, MATRIX, free="a~0 a~1"),
    *rows("Add Sub Mul", Act((2, 4, 6)), Weight((6,)), free="a~0 a~1 a~2", note="vector"),
    *rows("Add Mul", Act((4, 1, 6)), Weight((5, 1)), free="a~0 a~1 a~2", note="both-broadcast"),
    *rows("Add Mul", MATRIX, floats(0.5), free="a~0 a~1", note="scalar"),
    *rows("Div", POSITIVE, POSITIVE, free="a~0 a~1", zero=False),
    Row("Mod", (POSITIVE, POSITIVE), "a~0 a~1", {"fmod": 1}, zero=False),
    Row("Pow", (POSITIVE, MATRIX), "a~0 a~1"),
    Row("PRelu", (IMAGE, Weight((6, 1, 1))), "a~0 a~1 a~2 a~3", note="per-channel"),
    Row("PRelu", (IMAGE, Weight((1,))), "a~0 a~1 a~2 a~3", note="one-slope"),
    Row("Clip", (MATRIX, floats(-1).reshape(()), floats(1).reshape(())), "a~0 a~1"),
    Row("Clip", (MATRIX, None, floats(1).reshape(())), "a~0 a~1", note="upper"),
    Row("Clip", (MATRIX,), "a~0 a~1", {"min": 0.0, "max": 1.0}, 7, note="attributes"),
    Row("Where", (BOOL, MATRIX, MATRIX), "a~0 a~1"),
    Row("Where", (Act((6,), kind=TensorProto.BOOL), Act((4, 1)), Weight((6,))), "a~0 a~1", note="broadcast"),
    *rows("Max Mean Min Sum", MATRIX, Act((6,)), MATRIX, free="a~0 a~1"),
    Row("Cast", (MATRIX,), "a~0 a~1", {"to": TensorProto.DOUBLE}),
    Row("CastLike", (MATRIX, np.zeros(1)), "a~0 a~1"),
    Row("Dropout", (MATRIX,), "a~0 a~1"),
    Row("Dropout", (MATRIX, floats(0.5).reshape(())), "a~0 a~1", outputs=2, note="mask"),
    Row("Dropout", (MATRIX,), "a~0 a~1", {"ratio": 0.5}, 7, note="attribute"),
    Row("Shape", (Act((1, 4, 6)),), "a~0 a~1", batch="batch"),
    Row("Shape", (Act((1, 4, 6)),), "a~0 a~1", {"start": -3, "end": 2}, 15, batch="batch", note="window"),
    Row("Size", (Act((1, 4, 6)),), "a~0 a~1", batch="batch"),
]

SUMS = "ReduceSum ReduceL1 ReduceL2 ReduceSumSquare"
MEANS = "ReduceMean ReduceMax ReduceMin ReduceProd ReduceLogSum ReduceLogSumExp"
CUBE = Act((3, 4, 6), 0.5, 1.5)
REDUCTIONS = [
    *rows(f"{SUMS} {MEANS}", CUBE, ints(1), free="a0 a1 a2", opset=18, note="axes-input"),
    *rows(
        f"{SUMS} {MEANS}",
        CUBE,
        ints(-1, 0),
        free="a0 a1 a2",
        opset=18,
        attributes={"keepdims": 0},
        note="axes-input-drop",
    ),
    *rows(
        f"{SUMS} {MEANS}",
        CUBE,
        free="a0 a1 a2",
        opset=11,
        attributes={"axes": [1], "keepdims": 0},
        note="axes-attribute",
    ),
    *rows(SUMS[10:], CUBE, free="a0 a1 a2", opset=13, attributes={"axes": [-1]}, note="axes-attribute"),
    *rows(MEANS, CUBE, free="a0 a1 a2", opset=13, attributes={"axes": [-1]}, note="axes-attribute"),
    Row("ReduceSum", (CUBE, ints(-2)), "a0 a1 a2", {"keepdims": 0}, 13, note="axes-input"),
    *rows(f"{SUMS} {MEANS}", CUBE, free="a0 a1 a2", opset=18, note="all-axes"),
    Row("ReduceMean", (CUBE,), "a0 a1 a2", {"noop_with_empty_axes": 1}, 18, note="no-op"),
    *rows("ArgMax ArgMin", CUBE, free="a0 a2", opset=13, attributes={"axis": 1, "keepdims": 0}),
    *rows("ArgMax ArgMin", CUBE, free="a0 a1", opset=13, attributes={"axis": -1}, note="keep"),
    Row("MaxPool", (IMAGE,), "c n", {"kernel_shape": [2, 2], "strides": [2, 2]}),
    Row(
        "MaxPool",
        (IMAGE,),
        "c n",
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1},
        note="padded",
    ),
    Row("MaxPool", (Act((2, 6, 9)),), "c n", {"kernel_shape": [3]}, 11, note="1d"),
    Row(
        "AveragePool",
        (IMAGE,),
        "c n",
        {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "count_include_pad": 1},
    ),
    Row("AveragePool", (Act((2, 6, 4, 4, 4)),), "c n", {"kernel_shape": [2, 2, 2]}, note="3d"),
    Row("AveragePool", (IMAGE,), "c n", {"kernel_shape": [2, 2], "auto_pad": "SAME_UPPER"}, note="auto_pad"),
    Row("LpPool", (IMAGE,), "c n", {"kernel_shape": [2, 2]}),
    *rows("GlobalAveragePool GlobalMaxPool", IMAGE, free="c n y~0 y~1"),
    *rows("GlobalAveragePool GlobalMaxPool", Act((2, 6, 9)), free="c n y~0", note="1d"),
    Row("GlobalLpPool", (IMAGE,), "c n y~0 y~1"),
]

CUT = Act((3, 8, 4))
MOVEMENT = [
    Row("Concat", (MATRIX, Act((4, 3)), Act((4, 2))), "a0 s0 s1 s2", {"axis": 1}),
    Row("Concat", (CUT, Act((5, 8, 4))), "a1 a2 s0 s1", {"axis": 0}, note="first"),
    Row("Concat", (CUT, CUT), "a0 a1 s0 s1", {"axis": -1}, note="last"),
    Row("Concat", (CUT,), "a0 a1 s0", {"axis": -1}, note="single"),
    Row("Split", (CUT,), "a0 a2 s0 s1", {"axis": 1}, outputs=2, note="equal"),
    Row("Split", (CUT,), "a0 a2 s0 s1", {"axis": 1, "split": [3, 5]}, 11, outputs=2, note="attribute"),
    Row("Split", (CUT, ints(2, 5, 1)), "a0 a2 s0 s1 s2", {"axis": 1}, 13, outputs=3, note="input"),
    Row("Split", (CUT,), "a0 a2 s0 s1 s2", {"axis": -2, "num_outputs": 3}, 18, outputs=3, note="num_outputs"),
    Row("Split", (CUT,), "a1 a2 s0 s1 s2", {}, 13, outputs=3, note="first"),
    Row("Slice", (CUT, ints(2), ints(6), ints(1)), "a0 a1 a2 p1 q1", note="middle"),
    Row("Slice", (CUT, ints(0), ints(6), ints(1)), "a0 a1 a2 q1", note="start"),
    Row("Slice", (CUT, ints(-3), ints(2**62), ints(-2)), "a0 a1 a2 p1", note="negative-bounds"),
    Row("Slice", (CUT, ints(1, 1), ints(3, 7), ints(0, 1)), "a0 a1 a2 p0 p1 q1", note="two-axes"),
    Row("Slice", (CUT, ints(1), ints(3)), "a0 a1 a2 p0", note="no-axes"),
    Row("Slice", (CUT, ints(0), ints(2**62), ints(1), ints(2)), "a0 a1 a2", note="stride"),
    Row("Slice", (CUT, ints(1), ints(2**62), ints(1), ints(2)), "a0 a1 a2", note="stride-offset"),
    Row("Slice", (CUT, ints(0), ints(7), ints(1), ints(3)), "a0 a2", note="stride-uneven"),
    Row("Slice", (CUT, ints(-1), ints(-(2**62)), ints(1), ints(-1)), "a0 a2", note="reversed"),
    Row("Slice", (CUT,), "a0 a1 a2 p1 q1", {"starts": [2], "ends": [-1], "axes": [1]}, 9, note="attributes"),
    Row("Gather", (CUT, ints(6, 1, 1, 4, 0)), "a0 a1 a2 t", {"axis": 1}, note="vector"),
    Row("Gather", (CUT, ints(-1, -2, 3)), "a0 a1 a2 t", {"axis": 1}, note="negative"),
    Row("Gather", (CUT, np.array(-3)), "a0 a2", {"axis": 1}, note="scalar"),
    Row("Gather", (CUT, np.array([[1, 2], [3, 0]])), "a0 a2", {"axis": 1}, note="matrix"),
    Row("Gather", (Weight((7, 6)), Act((4, 5), 0, 6, TensorProto.INT64)), "a1 i0 i1", note="embedding"),
    Row("Pad", (CUT, ints(0, 1, 0, 0, 2, 0)), "a0 a1 a2 p1 q1", note="channels"),
    Row("Pad", (IMAGE, ints(0, 0, 1, 1, 0, 0, 1, 1)), "a0 a1 a2 a3 p2 p3 q2 q3", note="spatial"),
    Row("Pad", (IMAGE, ints(0, 0, 1, 1, 0, 0, 1, 1)), "a0 a1", {"mode": "reflect"}, note="reflect"),
    Row("Pad", (IMAGE, ints(0, 0, 1, 1, 0, 0, 1, 1)), "a0 a1", {"mode": "edge"}, note="edge"),
    Row("Pad", (CUT, ints(0, -1, 0, 0, -2, 0)), "a0 a2", note="crop"),
    Row("Pad", (CUT, ints(1, 2), None, ints(1)), "a0 a1 a2 p1 q1", {}, 18, note="axes"),
    Row("Pad", (CUT,), "a0 a1 a2 p1 q1", {"pads": [0, 1, 0, 0, 2, 0]}, 10, note="attribute"),
    Row("Resize", (IMAGE, None, floats(1, 1, 2, 2)), "c0 c1", {"mode": "nearest"}, note="scales"),
    Row("Resize", (IMAGE, None, None, ints(2, 6, 9, 7)), "c0 c1", {"mode": "linear"}, note="sizes"),
    Row("Resize", (IMAGE, None, None, ints(9, 7)), "c0 c1", {"axes": [2, 3]}, 18, note="axes"),
    Row("Resize", (IMAGE, floats(1, 1, 2, 2)), "c0 c1", {"mode": "nearest"}, 10, note="scales"),
    Row("Upsample", (IMAGE, floats(1, 1, 2, 2)), "c0 c1", {"mode": "nearest"}, 9),
    Row("Expand", (Act((4, 1, 6)), ints(4, 5, 6)), "a0 a2", note="middle"),
    Row("Expand", (Act((4, 6)), ints(2, 4, 6)), "a0 a1", note="new-axis"),
    Row("Expand", (Act((4, 6)), ints(1, 6)), "a0 a1", note="shorter"),
    Row("Expand", (Act((4, 6)), ints(1)), "a0 a1", note="one"),
]

RESHAPE = [
    Row("Reshape", (Act((3, 4, 6)), ints(3, 24)), "f0 f1 f2", note="merge"),
    Row("Reshape", (Act((3, 4, 6)), ints(0, -1)), "f0 f1 f2", note="merge-0-and--1"),
    Row("Reshape", (Act((3, 24)), ints(3, 4, 6)), "f0 f1 f2", note="split"),
    Row("Reshape", (Act((3, 24)), ints(0, 4, -1)), "f0 f1 f2", note="split-0-and--1"),
    Row("Reshape", (Act((3, 24)), ints(3, -1, 2, 3)), "f0 f1 f2 f3", note="split-three"),
    Row("Reshape", (Act((4, 6, 5)), ints(2, 2, 30)), "f0 f1 f2 f3", note="both"),
    Row("Reshape", (Act((4, 6)), ints(1, 4, 1, 6)), "f0 f1", note="ones"),
    Row("Reshape", (Act((4, 6)), ints(8, 3)), "f0 f1 f2", note="across"),
    Row("Reshape", (Act((4, 6)), ints(3, 8)), "", note="no-common-factors"),
    Row("Flatten", (Act((3, 4, 6)),), "f0 f1 f2"),
    Row("Flatten", (Act((3, 4, 6)),), "f0 f1 f2", {"axis": -1}, note="axis--1"),
    Row("Flatten", (Act((3, 4, 6)),), "f0 f1 f2", {"axis": 0}, note="axis-0"),
    Row("Transpose", (Act((3, 4, 6)),), "a0 a1 a2", {"perm": [2, 0, 1]}),
    Row("Transpose", (Act((3, 4, 6)),), "a0 a1 a2", note="reverse"),
    Row("Squeeze", (Act((4, 1, 6)), ints(1)), "a0 a2", note="input"),
    Row("Squeeze", (Act((4, 1, 6)),), "a0 a2", {"axes": [-2]}, 11, note="attribute"),
    Row("Squeeze", (Act((4, 1, 6)),), "a0 a2", note="all"),
    Row("Unsqueeze", (MATRIX, ints(0, -1)), "a0 a1", note="input"),
    Row("Unsqueeze", (MATRIX,), "a0 a1", {"axes": [1]}, 11, note="attribute"),
    Row("DepthToSpace", (Act((2, 12, 3, 4)),), "c h n w", {"blocksize": 2}, note="DCR"),
    Row("DepthToSpace", (Act((2, 12, 3, 4)),), "c h n w", {"blocksize": 2, "mode": "CRD"}, note="CRD"),
    Row("SpaceToDepth", (Act((2, 3, 4, 6)),), "c h n w", {"blocksize": 2}),
]

ROWS = [*CONV, *GEMM, *NORMS, *POINTWISE, *REDUCTIONS, *MOVEMENT, *RESHAPE]

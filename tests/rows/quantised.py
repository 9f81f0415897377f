"""Quantised tensors: scales and zero points for all of a tensor, along an axis, and per block."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from rows.row import MATRIX, Act, Row, Weight, floats

U8, I8, I32, I4, U4 = TensorProto.UINT8, TensorProto.INT8, TensorProto.INT32, TensorProto.INT4, TensorProto.UINT4

SCALE = floats(0.02).reshape(())
ZERO = np.array(7, np.uint8)
CUBE = Act((2, 8, 4))


def scales(*shape: int) -> Weight:
    return Weight(shape, 0.01, 0.05)


def zeros(*shape: int, kind: int = U8) -> Weight:
    return Weight(shape, *((-2, 2) if kind in (I8, I4) else (3, 9)), kind)


def bytes_(*shape: int) -> Act:
    return Act(shape, 0, 200, U8)


IMAGE_U8 = bytes_(2, 6, 5, 4)
KERNEL = Weight((4, 6, 3, 3), -60, 60, I8)
GROUPED = Weight((8, 3, 3, 3), -60, 60, I8)
MATRIX_I8 = Weight((6, 5), -60, 60, I8)

ROWS = [
    Row("QuantizeLinear", (MATRIX, SCALE, ZERO), "a0 a1", note="tensor"),
    Row("QuantizeLinear", (MATRIX, SCALE), "a0 a1", note="no-zero"),
    Row("QuantizeLinear", (CUBE, scales(8), zeros(8)), "a0 a1 a2", note="axis"),
    Row("QuantizeLinear", (CUBE, scales(4), zeros(4, kind=I8)), "a0 a1 a2", {"axis": -1}, note="last"),
    Row("QuantizeLinear", (CUBE, scales(2, 2, 4), zeros(2, 2, 4)), "a0 a1 a2", {"block_size": 4}, 21, note="blocks"),
    Row("QuantizeLinear", (CUBE, scales(2, 3, 4), zeros(2, 3, 4)), "a0 a2", {"block_size": 3}, 21, note="part-block"),
    Row("DequantizeLinear", (bytes_(4, 6), SCALE, ZERO), "a0 a1", note="tensor"),
    Row("DequantizeLinear", (Weight((4, 6), -90, 90, I8), scales(6), zeros(6, kind=I8)), "a0 a1", note="axis"),
    Row("DequantizeLinear", (Weight((4, 6), -90, 90, I8), scales(6)), "a0 a1", note="no-zero"),
    Row("DequantizeLinear", (Weight((6,), -9000, 9000, I32), scales(6)), "a0", {"axis": 0}, note="bias"),
    Row("DequantizeLinear", (Weight((6, 5), -8, 7, I4), scales(6), zeros(6, kind=I4)), "a0 a1", {"axis": 0}, 21),
    Row(
        "DequantizeLinear",
        (Weight((6, 8), 0, 15, U4), scales(6, 2), zeros(6, 2, kind=U4)),
        "a0 a1",
        {"block_size": 4},
        21,
        note="blocks",
    ),
    Row("DequantizeLinear", (Weight((6, 8), 0, 15, U4), scales(6, 3)), "a0", {"block_size": 3}, 21, note="part-block"),
    Row("DynamicQuantizeLinear", (MATRIX,), "a~0 a~1", outputs=3),
    Row(
        "QLinearConv",
        (IMAGE_U8, SCALE, ZERO, KERNEL, SCALE, np.array(0, np.int8), floats(2).reshape(()), ZERO),
        "n i o",
    ),
    Row(
        "QLinearConv",
        (IMAGE_U8, SCALE, ZERO, KERNEL, scales(4), zeros(4, kind=I8), SCALE, ZERO, Weight((4,), -900, 900, I32)),
        "n i o",
        {"pads": [1, 1, 1, 1]},
        note="axis",
    ),
    Row(
        "QLinearConv",
        (bytes_(2, 12, 5, 5), SCALE, ZERO, GROUPED, scales(8), np.zeros(8, np.int8), SCALE, ZERO),
        "n g i o",
        {"group": 4},
        note="groups",
    ),
    Row("ConvInteger", (IMAGE_U8, Weight((4, 6, 3, 3), 0, 90, U8), ZERO, ZERO), "n i o"),
    Row("ConvInteger", (IMAGE_U8, Weight((6, 1, 3, 3), 0, 90, U8)), "n g", {"group": 6}, note="depthwise"),
    Row("QLinearMatMul", (bytes_(4, 6), SCALE, ZERO, MATRIX_I8, SCALE, np.array(3, np.int8), SCALE, ZERO), "k m n"),
    Row(
        "QLinearMatMul",
        (bytes_(2, 4, 6), SCALE, ZERO, MATRIX_I8, scales(5), zeros(5, kind=I8), SCALE, ZERO),
        "b~0 k m n",
        note="columns",
    ),
    Row(
        "QLinearMatMul",
        (bytes_(2, 4, 6), SCALE, ZERO, bytes_(2, 6, 5), SCALE, np.array(30, np.uint8), SCALE, ZERO),
        "b~0 k m n",
        note="activations",
    ),
    Row("MatMulInteger", (bytes_(4, 6), MATRIX_I8, ZERO, zeros(5, kind=I8)), "k m n"),
    Row(
        "MatMulInteger",
        (bytes_(2, 4, 6), bytes_(2, 6, 5), ZERO, np.array(30, np.uint8)),
        "b~0 k m n",
        note="activations",
    ),
    Row("MatMulInteger", (bytes_(4, 6), MATRIX_I8), "k m n", note="no-zeros"),
]

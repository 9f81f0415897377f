"""Quantised ops of ONNX Runtime, and products with packed weights."""

from __future__ import annotations

import numpy as np

from rows.contrib import HEADS, row
from rows.quantised import I8, I32, IMAGE_U8, KERNEL, MATRIX_I8, SCALE, U8, ZERO, bytes_, scales, zeros
from rows.row import MATRIX, Act, Weight, floats, rows

MATRIX_16 = Act((4, 16))
COARSE = floats(2).reshape(())
TENSOR = (SCALE, ZERO)
SUM = (bytes_(4, 6), *TENSOR, bytes_(4, 6), SCALE, np.array(3, np.uint8), SCALE, ZERO)

ROWS = [
    row("QuantizeLinear", MATRIX, *TENSOR, free="a0 a1"),
    row("DequantizeLinear", Weight((4, 6), -90, 90, I8), scales(6), zeros(6, kind=I8), free="a0 a1"),
    row(
        "QLinearConv",
        bytes_(2, 5, 4, 6),
        *TENSOR,
        KERNEL,
        scales(4),
        zeros(4, kind=I8),
        COARSE,
        ZERO,
        Weight((4,), -900, 900, I32),
        free="n i o",
        attributes={"channels_last": 1},
        note="last",
    ),
    row(
        "QLinearConv",
        IMAGE_U8,
        *TENSOR,
        KERNEL,
        SCALE,
        np.array(0, np.int8),
        COARSE,
        ZERO,
        free="n i o",
        note="microsoft",
    ),
    *rows("QLinearAdd QLinearMul", *SUM, free="a~0 a~1", domain="com.microsoft"),
    *rows("QLinearLeakyRelu QLinearSigmoid", bytes_(4, 6), *TENSOR, *TENSOR, free="a~0 a~1", domain="com.microsoft"),
    row(
        "QLinearConcat", *TENSOR, bytes_(4, 6), *TENSOR, bytes_(4, 3), *TENSOR, free="a0 s0 s1", attributes={"axis": 1}
    ),
    row("QLinearAveragePool", IMAGE_U8, *TENSOR, *TENSOR, free="c n", attributes={"kernel_shape": [2, 2]}),
    row(
        "QLinearAveragePool",
        bytes_(2, 5, 4, 6),
        *TENSOR,
        *TENSOR,
        free="c n",
        attributes={
            "kernel_shape": [3, 3],
            "pads": [1, 1, 1, 1],
            "strides": [2, 2],
            "ceil_mode": 1,
            "channels_last": 1,
        },
        note="last",
    ),
    row("QLinearGlobalAveragePool", IMAGE_U8, *TENSOR, *TENSOR, free="c n y~0 y~1"),
    row(
        "QLinearGlobalAveragePool",
        IMAGE_U8,
        *TENSOR,
        *TENSOR,
        free="c n y~0 y~1",
        attributes={"channels_last": 1},
        note="last",
    ),
    row("NhwcMaxPool", bytes_(2, 5, 4, 6), free="c n", attributes={"kernel_shape": [2, 2], "strides": [2, 2]}),
    row(
        "QLinearSoftmax",
        bytes_(4, 6),
        *TENSOR,
        floats(1 / 256).reshape(()),
        np.array(0, np.uint8),
        free="a0 a1",
        attributes={"opset": 13},
    ),
    row(
        "QGemm",
        bytes_(4, 6),
        *TENSOR,
        MATRIX_I8,
        scales(5),
        zeros(5, kind=I8),
        Weight((5,), -900, 900, I32),
        SCALE,
        ZERO,
        free="k m n",
    ),
    row(
        "QGemm",
        bytes_(4, 6),
        *TENSOR,
        Weight((5, 6), -60, 60, I8),
        SCALE,
        np.array(3, np.int8),
        free="k m n",
        attributes={"transB": 1},
        note="float",
    ),
    row("DynamicQuantizeMatMul", MATRIX, MATRIX_I8, scales(5), zeros(5, kind=I8), Weight((5,)), free="k m n"),
    row(
        "MatMulIntegerToFloat",
        bytes_(4, 6),
        MATRIX_I8,
        SCALE,
        scales(5),
        ZERO,
        zeros(5, kind=I8),
        Weight((5,)),
        free="k m n",
    ),
    row(
        "QAttention",
        bytes_(2, 4, 6),
        Weight((6, 36), 0, 200, U8),
        Weight((36,)),
        SCALE,
        SCALE,
        None,
        ZERO,
        np.array(90, np.uint8),
        free="d h i",
        attributes=HEADS,
    ),
    row(
        "MatMulNBits",
        MATRIX_16,
        Weight((5, 1, 8), 0, 255, U8),
        Weight((5,), 0.1, 0.2),
        free="a~0",
        attributes={"K": 16, "N": 5, "block_size": 16},
    ),
    row(
        "MatMulBnb4",
        MATRIX_16,
        Weight((40,), 0, 255, U8),
        Weight((5,), 0.1, 0.2),
        free="a~0",
        attributes={"K": 16, "N": 5, "block_size": 16, "quant_type": 0},
    ),
]

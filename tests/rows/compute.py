"""Convolutions and matrix products."""

from __future__ import annotations

from rows.row import IMAGE, MATRIX, Act, Row, Weight

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

ROWS = [*CONV, *GEMM]

"""Losses."""

from __future__ import annotations

from onnx import TensorProto

from rows.row import Act, Row, Weight

SCORES = Act((4, 5, 6))
TARGET = Act((4, 6), 0, 5, TensorProto.INT64)
CLASSES = Weight((5,), 0.5, 1.5)

ROWS = [
    Row(op, inputs, free, {"reduction": reduction}, outputs=outputs, note=f"{reduction}-{len(inputs)}-{outputs}")
    for op, most in (("NegativeLogLikelihoodLoss", 1), ("SoftmaxCrossEntropyLoss", 2))
    for outputs in range(1, most + 1)
    for reduction, free in (("none", "n d~0"), ("mean", "n d~0"), ("sum", "n d~0"))
    for inputs in ((SCORES, TARGET), (SCORES, TARGET, CLASSES))
] + [
    Row("NegativeLogLikelihoodLoss", (Act((4, 5)), Act((4,), 0, 5, TensorProto.INT64)), "n", opset=13, note="matrix"),
    Row("SoftmaxCrossEntropyLoss", (Act((4, 5)), Act((4,), 0, 5, TensorProto.INT64)), "n", opset=13, note="matrix"),
]

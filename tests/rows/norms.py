"""Normalisations."""

from __future__ import annotations

from rows.row import IMAGE, MATRIX, Act, Row, Weight, rows

AFFINE = (Weight((6,), 0.5, 1.5), Weight((6,)))

ROWS = [
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
    Row("LpNormalization", (MATRIX,), "a0 a1", {"axis": 1, "p": 2}),
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

"""Reductions and pooling."""

from __future__ import annotations

from rows.row import IMAGE, Act, Row, ints, rows

SUMS = "ReduceSum ReduceL1 ReduceL2 ReduceSumSquare"

MEANS = "ReduceMean ReduceMax ReduceMin ReduceProd ReduceLogSum ReduceLogSumExp"

CUBE = Act((3, 4, 6), 0.5, 1.5)

ROWS = [
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
    *rows(f"{SUMS} {MEANS}", CUBE, ints(), free="a0 a1 a2", opset=18, note="empty-axes"),
    *rows(
        "ReduceSum ReduceMax ReduceMean",
        CUBE,
        ints(),
        free="a0 a1 a2",
        opset=18,
        attributes={"noop_with_empty_axes": 1},
        note="empty-axes-no-op",
    ),
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
    Row("MaxPool", (IMAGE,), "", {"kernel_shape": [2, 2]}, outputs=2, note="indices"),
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

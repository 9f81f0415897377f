"""Ops that order, number and address positions."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from rows.row import Act, Row, floats, ints, rows

CUT = Act((3, 8, 4))


def index(*shape: int, most: int) -> Act:
    return Act(shape, 0, most, TensorProto.INT64)


GATHER = [
    Row("GatherElements", (CUT, index(3, 5, 4, most=7)), "a0 a2 i", {"axis": 1}),
    Row("GatherElements", (CUT, index(3, 8, 6, most=3)), "a0 a1 i", {"axis": -1}, 11, note="last"),
    Row("GatherElements", (CUT, index(2, 5, 4, most=7)), "a0 a2 i q0", {"axis": 1}, note="fewer"),
    Row("GatherElements", (CUT, np.full((3, 5, 4), 6)), "", {"axis": 1}, note="constant"),
    Row("GatherND", (CUT, index(5, 2, most=2)), "i0 r0"),
    Row("GatherND", (CUT, index(5, 6, 1, most=2)), "i0 i1 r0 r1", opset=11, note="one-index"),
    Row("GatherND", (CUT, index(5, 3, most=2)), "i0", note="all-axes"),
    Row("GatherND", (CUT, index(3, 5, 1, most=7)), "b0 i0 r0", {"batch_dims": 1}, 12, note="batch"),
    Row("GatherND", (CUT, np.array([[1, 2], [0, 7]])), "r0", note="constant"),
    Row("GatherND", (CUT, ints(2)), "r0 r1", note="vector"),
]

SCATTER = [
    Row("ScatterElements", (CUT, index(3, 5, 4, most=7), Act((3, 5, 4))), "a0 a2", {"axis": 1, "reduction": "add"}),
    Row(
        "ScatterElements",
        (CUT, index(3, 5, 2, most=7), Act((3, 5, 2))),
        "a0 a2 q2",
        {"axis": -2, "reduction": "max"},
        18,
        note="fewer",
    ),
    Row("ScatterElements", (CUT, np.array([[[1]]]), Act((1, 1, 1))), "q0 q2", {"axis": 1}, note="constant"),
    *rows(
        "Scatter",
        CUT,
        np.tile(np.array([5, 1])[:, None], (3, 1, 4)),
        Act((3, 2, 4)),
        free="",
        opset=9,
        attributes={"axis": 1},
    ),
    Row("ScatterElements", (CUT, np.tile(np.array([5, 1])[:, None], (3, 1, 4)), Act((3, 2, 4))), "", {"axis": 1}, 11),
    Row("ScatterND", (CUT, index(5, 2, most=2), Act((5, 4))), "r0", {"reduction": "add"}),
    Row("ScatterND", (CUT, index(5, 1, most=2), Act((5, 8, 4))), "r0 r1", {"reduction": "mul"}, note="one-index"),
    Row("ScatterND", (CUT, np.array([[1, 2], [0, 7]]), Act((2, 4))), "r0", opset=11, note="constant"),
    Row("ScatterND", (CUT, np.array([[2], [0]]), Act((2, 8, 4))), "r0 r1", opset=13, note="constant-rows"),
    Row("ScatterND", (CUT, index(2, 2, 3, most=2), Act((2, 2))), "", {"reduction": "add"}, note="all-axes"),
]

ORDER = [
    Row("TopK", (CUT, ints(3)), "a0 a2", {"axis": 1}, outputs=2),
    Row("TopK", (CUT, ints(2)), "a0 a1", {"largest": 0}, 11, outputs=2, note="smallest"),
    Row("TopK", (CUT, ints(2)), "a0 a2", {"axis": -2}, 10, outputs=2, note="opset-10"),
    Row("TopK", (CUT,), "a0 a1", {"k": 2}, 9, outputs=2, note="attribute"),
    *rows("CumSum", CUT, np.array(1), free="a0 a2"),
    *rows("CumSum", CUT, np.array(-1, np.int32), free="a0 a1", opset=11, attributes={"exclusive": 1, "reverse": 1}),
    Row("CumProd", (CUT, np.array(1)), "a0 a2", opset=26),
    Row("Trilu", (CUT,), "b~0", {"upper": 0}),
    Row("Trilu", (Act((5, 6)), np.array(1)), "", note="matrix"),
    Row("ReverseSequence", (CUT, index(8, most=3)), "a~0 n"),
    Row("ReverseSequence", (CUT, index(3, most=8)), "a~0 n", {"batch_axis": 0, "time_axis": 1}, note="batch-first"),
    Row("Compress", (CUT, np.arange(8) % 3 > 0), "a0 a2", {"axis": 1}),
    Row("Compress", (CUT, np.arange(3) < 2), "a0 a1", {"axis": -1}, 11, note="shorter"),
    Row("Compress", (CUT, np.arange(96) % 5 > 0), "", note="flattens"),
    Row("OneHot", (index(4, 6, most=5), ints(5), floats(-1, 2)), "a0 a1"),
    Row("OneHot", (index(4, 6, most=5), np.array(5), floats(0, 1)), "a0 a1", {"axis": 1}, 9, note="axis"),
    Row("OneHot", (index(4, 6, most=5), np.array(5), np.array([0, 1])), "a0 a1", {"axis": -3}, note="negative"),
]

ROWS = [*GATHER, *SCATTER, *ORDER]

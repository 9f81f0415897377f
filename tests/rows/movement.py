"""Ops that move positions."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from rows.row import IMAGE, MATRIX, Act, Row, Weight, floats, ints

CUT = Act((3, 8, 4))

ROWS = [
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
    Row("Slice", (CUT, ints(-8), ints(-7), ints(1)), "a0 a1 a2 q1", note="negative-and-from-the-start"),
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

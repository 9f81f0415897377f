"""Ops that regroup axes."""

from __future__ import annotations

from rows.row import MATRIX, Act, Row, ints

ROWS = [
    Row("Reshape", (Act((3, 4, 6)), ints(3, 24)), "f0 f1 f2", note="merge"),
    Row("Reshape", (Act((3, 4, 6)), ints(0, -1)), "f0 f1 f2", note="merge-0-and--1"),
    Row("Reshape", (Act((3, 24)), ints(3, 4, 6)), "f0 f1 f2", note="split"),
    Row("Reshape", (Act((3, 24)), ints(0, 4, -1)), "f0 f1 f2", note="split-0-and--1"),
    Row("Reshape", (Act((3, 24)), ints(3, -1, 2, 3)), "f0 f1 f2 f3", note="split-three"),
    Row("Reshape", (Act((4, 6, 5)), ints(2, 2, 30)), "f0 f1 f2 f3", note="both"),
    Row("Reshape", (Act((4, 6)), ints(1, 4, 1, 6)), "f0 f1", note="ones"),
    Row("Reshape", (Act((4, 6)), ints(8, 3)), "f0 f1 f2", note="across"),
    Row("Reshape", (Act((4, 6)), ints(3, 8)), "", note="no-common-factors"),
    Row("Reshape", (Act((2, 2, 4, 3)), ints(4, 0, 2, 0)), "f0 f1 f2 f3 f4", note="0-of-another-factor"),
    Row("Reshape", (Act((3, 24)), ints(3, 4, 6)), "f0 f1 f2", {"allowzero": 1}, note="allowzero"),
    Row("Flatten", (Act((3, 4, 6)),), "f0 f1 f2"),
    Row("Flatten", (Act((3, 4, 6)),), "f0 f1 f2", {"axis": -1}, note="axis--1"),
    Row("Flatten", (Act((3, 4, 6)),), "f0 f1 f2", {"axis": 0}, note="axis-0"),
    Row("Transpose", (Act((3, 4, 6)),), "a0 a1 a2", {"perm": [2, 0, 1]}),
    Row("Transpose", (Act((3, 4, 6)),), "a0 a1 a2", note="reverse"),
    Row("Squeeze", (Act((4, 1, 6)), ints(1)), "a0 a2", note="input"),
    Row("Squeeze", (Act((4, 1, 6)),), "a0 a2", {"axes": [-2]}, 11, note="attribute"),
    Row("Squeeze", (Act((4, 1, 6)),), "a0 a2", note="all"),
    Row("Squeeze", (Act((3, 1, 2)),), "a0 a2", note="all-but-what-a-cut-leaves"),
    Row("Squeeze", (Act((3, 1, 2)),), "a0 a2", opset=11, note="all-but-what-a-cut-leaves"),
    Row("Unsqueeze", (MATRIX, ints(0, -1)), "a0 a1", note="input"),
    Row("Unsqueeze", (MATRIX,), "a0 a1", {"axes": [1]}, 11, note="attribute"),
    Row("DepthToSpace", (Act((2, 12, 3, 4)),), "c h n w", {"blocksize": 2}, note="DCR"),
    Row("DepthToSpace", (Act((2, 12, 3, 4)),), "c h n w", {"blocksize": 2, "mode": "CRD"}, note="CRD"),
    Row("SpaceToDepth", (Act((2, 3, 4, 6)),), "c h n w", {"blocksize": 2}),
]

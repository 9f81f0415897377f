"""Ops on images: sampling, unpooling, regions."""

from __future__ import annotations

from onnx import TensorProto

from rows.row import IMAGE, Act, Row, Weight, ints

BOXES = Act((7, 4), 0, 4)
OFFSET = Act((2, 18, 3, 2))
WHICH = Act((7,), 0, 1, TensorProto.INT64)

ROWS = [
    Row("MaxUnpool", (IMAGE, Act((2, 6, 5, 4), 0, 9, TensorProto.INT64)), "", {"kernel_shape": [2, 2]}),
    Row("MaxRoiPool", (IMAGE, Act((7, 5), 0, 1)), "c r", {"pooled_shape": [2, 2]}),
    Row("RoiAlign", (IMAGE, BOXES, WHICH), "c r", {"output_height": 2, "output_width": 3, "sampling_ratio": 2}),
    Row("RoiAlign", (IMAGE, BOXES, WHICH), "c r", {"mode": "max"}, 10, note="max"),
    Row("GridSample", (IMAGE, Act((2, 3, 7, 2), -1, 1)), "c n z~0 z~1", opset=20),
    Row("GridSample", (IMAGE, Act((2, 3, 7, 2), -1, 1)), "c n z~0 z~1", {"mode": "nearest"}, 16, note="nearest"),
    Row("GridSample", (Act((2, 6, 3, 4, 5)), Act((2, 3, 2, 7, 3), -1, 1)), "c n z~0 z~1 z~2", opset=20, note="3d"),
    Row("AffineGrid", (Act((3, 2, 3)), ints(3, 1, 4, 5)), "n", opset=20),
    Row("AffineGrid", (Act((3, 3, 4)), ints(3, 1, 4, 5, 2)), "n", {"align_corners": 1}, 20, note="3d"),
    Row("Col2Im", (Act((2, 12, 20)), ints(5, 6), ints(2, 2)), "c n", opset=18),
    Row("Col2Im", (Act((2, 12, 9)), ints(10), ints(2)), "c n", opset=18, note="1d"),
    Row("CenterCropPad", (IMAGE, ints(2, 6, 3, 8)), "c0 c1", opset=18),
    Row("CenterCropPad", (IMAGE, ints(6, 8)), "c0 c1 c2", {"axes": [1, -1]}, 18, note="axes"),
    Row("Det", (Act((3, 4, 5, 5)),), "b~0 b~1"),
    Row("Det", (Act((5, 5)),), "", opset=22, note="single"),
    Row("DeformConv", (IMAGE, Weight((4, 6, 3, 3)), OFFSET, Weight((4,)), Act((2, 9, 3, 2))), "i n o", opset=19),
    Row("DeformConv", (IMAGE, Weight((4, 6, 3, 3)), OFFSET), "i n o", opset=22, note="no-mask"),
    Row("DeformConv", (IMAGE, Weight((6, 2, 3, 3)), OFFSET), "g i n o", {"group": 3}, 19, note="groups"),
    Row(
        "DeformConv",
        (IMAGE, Weight((4, 6, 3, 3)), Act((2, 36, 3, 2))),
        "i n o",
        {"offset_group": 2},
        19,
        note="offset-groups",
    ),
    Row(
        "DeformConv",
        (IMAGE, Weight((4, 3, 3, 3)), Act((2, 36, 3, 2))),
        "i n o",
        {"group": 2, "offset_group": 2},
        19,
        note="both-groups",
    ),
    Row(
        "DeformConv",
        (Act((2, 12, 5, 4)), Weight((8, 3, 3, 3)), Act((2, 36, 3, 2))),
        "n o",
        {"group": 4, "offset_group": 2},
        19,
        note="other-groups",
    ),
]

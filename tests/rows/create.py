"""Ops that make a tensor."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from rows.row import Row, ints

HALF = numpy_helper.from_array(np.array([0.5], np.float32))

ROWS = [
    Row("ConstantOfShape", (ints(3, 8),), "a0 a1"),
    Row("ConstantOfShape", (ints(3, 1, 8),), "a0 a1 a2", {"value": HALF}, 9, note="value"),
]

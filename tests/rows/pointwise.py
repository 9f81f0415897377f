"""Functions of single positions."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from rows.row import BOOL, BYTES, IMAGE, INTS, MATRIX, POSITIVE, Act, Row, Weight, floats, rows

ROWS = [
    *rows(
        "Abs Asinh Atan Ceil Celu Cos Cosh Elu Erf Exp Floor HardSigmoid HardSwish LeakyRelu Mish Neg Relu Round "
        "Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign Tan Tanh ThresholdedRelu Identity",
        MATRIX,
        free="a~0 a~1",
        opset=18,
    ),
    *rows("Acos Asin Atanh", Act((4, 6), -0.9, 0.9), free="a~0 a~1"),
    *rows("Sqrt", POSITIVE, free="a~0 a~1"),
    *rows("Acosh Log Reciprocal", Act((4, 6), 2, 3), free="a~0 a~1"),
    *rows("IsInf IsNaN", MATRIX, free="a~0 a~1"),
    *rows("Gelu", MATRIX, free="a~0 a~1", opset=20),
    *rows("Gelu", MATRIX, free="a~0 a~1", opset=20, attributes={"approximate": "tanh"}, note="tanh"),
    *rows("Swish", MATRIX, free="a~0 a~1", opset=24),
    *rows("Not", BOOL, free="a~0 a~1"),
    *rows("BitwiseNot", INTS, free="a~0 a~1", opset=18),
    *rows("And Or Xor", BOOL, BOOL, free="a~0 a~1"),
    *rows("BitwiseAnd BitwiseOr BitwiseXor", INTS, INTS, free="a~0 a~1", opset=18),
    *rows("BitShift", BYTES, BYTES, free="a~0 a~1", attributes={"direction": "LEFT"}),
    *rows("Add Sub Mul Equal Greater GreaterOrEqual Less LessOrEqual", MATRIX, MATRIX, free="a~0 a~1"),
    *rows("Add Sub Mul", Act((2, 4, 6)), Weight((6,)), free="a~0 a~1 a~2", note="vector"),
    *rows("Add Mul", Act((4, 1, 6)), Weight((5, 1)), free="a~0 a~1 a~2", note="both-broadcast"),
    *rows("Add Mul", MATRIX, floats(0.5), free="a~0 a~1", note="scalar"),
    *rows("Div", POSITIVE, POSITIVE, free="a~0 a~1"),
    Row("Mod", (POSITIVE, POSITIVE), "a~0 a~1", {"fmod": 1}),
    Row("Pow", (POSITIVE, MATRIX), "a~0 a~1"),
    Row("PRelu", (IMAGE, Weight((6, 1, 1))), "a~0 a~1 a~2 a~3", note="per-channel"),
    Row("PRelu", (IMAGE, Weight((1,))), "a~0 a~1 a~2 a~3", note="one-slope"),
    Row("Clip", (MATRIX, floats(-1).reshape(()), floats(1).reshape(())), "a~0 a~1"),
    Row("Clip", (MATRIX, None, floats(1).reshape(())), "a~0 a~1", note="upper"),
    Row("Clip", (MATRIX,), "a~0 a~1", {"min": 0.0, "max": 1.0}, 7, note="attributes"),
    Row("Where", (BOOL, MATRIX, MATRIX), "a~0 a~1"),
    Row("Where", (Act((6,), kind=TensorProto.BOOL), Act((4, 1)), Weight((6,))), "a~0 a~1", note="broadcast"),
    *rows("Max Mean Min Sum", MATRIX, Act((6,)), MATRIX, free="a~0 a~1"),
    *rows("Max Mean Min Sum", *[MATRIX] * 9, free="a~0 a~1", note="nine"),
    *rows("Max Mean Min Sum", MATRIX, free="a~0 a~1", note="single"),
    Row("BitCast", (MATRIX,), "a~0 a~1", {"to": TensorProto.INT32}, 26),
    Row("Cast", (MATRIX,), "a~0 a~1", {"to": TensorProto.DOUBLE}),
    Row("CastLike", (MATRIX, np.zeros(1)), "a~0 a~1"),
    Row("CastLike", (MATRIX, Act((3,))), "a~0 a~1", note="activation"),
    Row("Dropout", (MATRIX,), "a~0 a~1"),
    Row("Dropout", (MATRIX, floats(0.5).reshape(())), "a~0 a~1", outputs=2, note="mask"),
    Row("Dropout", (MATRIX,), "a~0 a~1", {"ratio": 0.5}, 7, note="attribute"),
    Row("Shape", (Act((1, 4, 6)),), "a~0 a~1", batch="batch"),
    Row("Shape", (Act((1, 4, 6)),), "a~0 a~1", {"start": -3, "end": 2}, 15, batch="batch", note="window"),
    Row("Size", (Act((1, 4, 6)),), "a~0 a~1", batch="batch"),
]

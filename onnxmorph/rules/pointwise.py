"""Functions of single positions. Each counts one operation per output element, whatever the function."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, rule

EACH = Cost("a")


def variadic(node: Node) -> Spec:
    """``a..., a..., ... -> a...``, with as many operands as the node has."""
    return Spec(f"{', '.join('a...' for _ in node.inputs)} -> a...")


rule(
    "Abs Acos Acosh Asin Asinh Atan Atanh BitwiseNot Ceil Celu Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish "
    "IsInf IsNaN LeakyRelu Log Mish Neg Not Reciprocal Relu Round Selu Shrink Sigmoid Sign Sin Sinh Softplus Softsign "
    "Sqrt Swish Tan Tanh ThresholdedRelu",
    "a... -> a...",
    EACH,
    elementwise=True,
)
rule(
    "And BitShift BitwiseAnd BitwiseOr BitwiseXor Equal Greater GreaterOrEqual Less LessOrEqual Mod Or PRelu Xor",
    "a..., a... -> a...",
    EACH,
    elementwise=True,
)
rule("Add", "a..., a... -> a...", EACH, elementwise=True, additive=True, neutral={0: 0, 1: 0})
rule("Sub", "a..., a... -> a...", EACH, elementwise=True, neutral={1: 0})
rule("Mul", "a..., a... -> a...", EACH, elementwise=True, neutral={0: 1, 1: 1})
rule("Div Pow", "a..., a... -> a...", EACH, elementwise=True, neutral={1: 1})
rule("Clip", "a..., _, _ -> a...", EACH, elementwise=True)
rule("Where", "a..., a..., a... -> a...", EACH, elementwise=True)
rule("Max Mean Min Sum", variadic, EACH, elementwise=True)
rule("BitCast", "a... -> a...", view=True)
rule("Cast Identity", "a... -> a...", view=True, elementwise=True)
rule("CastLike", "a..., _ -> a...", view=True, elementwise=True, unread=[1])
rule("Dropout", "a..., _, _ -> a..., a...", view=True, elementwise=True)
rule("Shape Size", "a... -> _", view=True, reads_shape=True)

"""Ops of com.microsoft on quantised tensors, and products with packed weights."""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from onnxmorph.graph import Node
from onnxmorph.rules.contrib import CONV_DEFAULTS, DOMAIN, contrib, windows
from onnxmorph.rules.norms import softmax
from onnxmorph.rules.quantised import WEIGHT, along, linear
from onnxmorph.rules.table import Cost, Quantised, Spec, Write, axis_of, fixed, letters, refuse

UNARY = "X X_scale X_zero_point Y_scale Y_zero_point"
BINARY = "A A_scale A_zero_point B B_scale B_zero_point C_scale C_zero_point"
ONE = [Quantised(0, 1, 2)]


def conv(node: Node) -> Spec:
    """``n (g i) [y...], _, _, (g o) i [k...], (g o), (g o), _, _, (g o) -> n (g o) z...``, or with channels last."""
    x, w = node.in_shapes[0], node.in_shapes[3]
    if x is None or w is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    last = node.attributes["channels_last"]
    before, after = ("n [y...] (g i)", "n z... (g o)") if last else ("n (g i) [y...]", "n (g o) z...")
    steps = ", ".join(along(node, i, "(g o)") for i in (4, 5))
    sizes = {"g": int(node.attributes["group"]), **windows(node, x[1:-1] if last else x[2:], w[2:])}
    equation = f"{before}, _, _, (g o) i [k...], {steps}, _, _, (g o) -> {after}"
    return Spec(equation, sizes, (Write("group", ("g",)),))


def pool(node: Node) -> Spec:
    """``n c [y...] -> n c z...``, or with channels last."""
    x, window = node.in_shapes[0], tuple(int(k) for k in node.attributes["kernel_shape"])
    if x is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    last = node.attributes.get("channels_last", 1)
    sizes = {f"k~{len(window) - 1 - t}": k for t, k in enumerate(window)}
    sizes |= windows(node, x[1:-1] if last else x[2:], window, ceil=bool(node.attributes["ceil_mode"]))
    return Spec("n [y...] c -> n z... c" if last else "n c [y...] -> n c z...", sizes)


def global_pool(node: Node) -> Spec:
    """``n c {y...} -> n c z...``, or with channels last."""
    x = node.in_shapes[0]
    if x is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    sizes = {f"z~{t}": 1 for t in range(len(x) - 2)}
    last = node.attributes["channels_last"]
    return Spec("n {y...} c -> n z... c" if last else "n c {y...} -> n c z...", sizes)


def concat(node: Node) -> Spec:
    """``_, _, a0 s0, _, _, a0 s1, _, _ -> a0 (s0 + s1)``: every input with its scale and zero point."""
    shapes = node.in_shapes[2::3]
    if any(s is None for s in shapes) or shapes[0] is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    names = letters(len(shapes[0]))
    axis, parts = axis_of(int(node.attributes["axis"]), len(names)), letters(len(shapes), "s")
    whole = parts[0] if len(parts) == 1 else f"({' + '.join(parts)})"
    terms = [" ".join(part if t == axis else n for t, n in enumerate(names)) for part in (*parts, whole)]
    return Spec(f"_, _, {', _, _, '.join(terms[:-1])} -> {terms[-1]}")


def quantised_softmax(node: Node) -> Spec:
    """``a0 {a1} -> a0 a1``, as Softmax of the opset that it names."""
    return softmax(replace(node, version=int(node.attributes["opset"])))


def quantised_gemm(node: Node) -> Spec:
    """``m k, _, _, k n, n, n, m n -> m n``, each operand transposed where it says so."""
    a = "k m" if node.attributes["transA"] else "m k"
    b = "n k" if node.attributes["transB"] else "k n"
    bias = node.in_shapes[6] if len(node.inputs) > 6 else None
    c = " ".join(["m", "n"][2 - len(bias or ()) :])
    return Spec(f"{a}, _, _, {b}, {along(node, 4, 'n')}, {along(node, 5, 'n')}, {c} -> m n")


def dynamic_matmul(node: Node) -> Spec:
    """``{b...} {m} {k}, k n, n, n, n -> b... m n``: its scale is taken over the live positions."""
    if node.in_shapes[0] is None or node.in_shapes[1] is None or len(node.in_shapes[1]) != 2:
        return refuse("unknown-shape", "its weight is no matrix")
    steps = ", ".join(along(node, i, "n") for i in (2, 3))
    return Spec(f"{{b...}} {{m}} {{k}}, k n, {steps}, n -> b... m n")


def matmul_to_float(node: Node) -> Spec:
    """``b... m k, b... k n, _, n, _, n, n -> b... m n``"""
    steps = [along(node, i, "m" if i in (2, 4) else "n") for i in (2, 3, 4, 5)]
    return Spec(f"b... m k, b... k n, {', '.join(steps)}, n -> b... m n")


def packed_matmul(node: Node) -> Spec:
    """``a... [k], _ -> a... [n]``: a weight packed in blocks keeps its layout, and both of its axes."""
    sizes = {"k": int(node.attributes["K"]), "n": int(node.attributes["N"])}
    return Spec("a... [k], [w...], [s...], [t...] -> a... n", sizes)


contrib(
    "QuantizeLinear",
    "x y_scale y_zero_point",
    linear,
    view=True,
    like=((2, ir.DataType.UINT8),),
    quantised=[Quantised(None, 1, 2)],
)
contrib("DequantizeLinear", "x x_scale x_zero_point", linear, view=True, like=((1,),), quantised=ONE)
contrib(
    "QLinearConv",
    "x x_scale x_zero_point w w_scale w_zero_point y_scale y_zero_point B",
    conv,
    Cost("n g o i k z", 2, macs=True),
    defaults={**CONV_DEFAULTS, "channels_last": 0},
    like=((7,),),
    weights=[3],
    bias=8,
    quantised=[*WEIGHT, Quantised(8, 1, None, 4), Quantised(None, 6, 7)],
)
contrib("QLinearAdd QLinearMul", BINARY, "a..., _, _, a... -> a...", Cost("a"), quantised=WEIGHT)
contrib("QLinearLeakyRelu", UNARY, "a... -> a...", Cost("a"), defaults={"alpha": 0.01}, quantised=ONE)
contrib("QLinearSigmoid", UNARY, "a... -> a...", Cost("a"), quantised=ONE)
contrib("QLinearConcat", "Y_scale Y_zero_point inputs", concat, like=((2,),))
contrib(
    "QLinearAveragePool",
    "X x_scale x_zero_point y_scale y_zero_point",
    pool,
    Cost("n c z k"),
    defaults={"ceil_mode": 0, "auto_pad": "NOTSET", "channels_last": 0, "count_include_pad": 0},
    quantised=ONE,
)
contrib(
    "QLinearGlobalAveragePool",
    "X x_scale x_zero_point y_scale y_zero_point",
    global_pool,
    Cost("n c y"),
    defaults={"channels_last": 0},
    quantised=ONE,
)
contrib("NhwcMaxPool", "x", pool, Cost("n c z k"), defaults={"ceil_mode": 0, "auto_pad": "NOTSET"}, keeps=True)
contrib(
    "QLinearSoftmax",
    "X X_scale x_zero_point y_scale y_zero_point",
    quantised_softmax,
    Cost("a", 5),
    defaults={"axis": -1},
    quantised=ONE,
)
contrib(
    "QGemm",
    "A a_scale a_zero_point B b_scale b_zero_point C y_scale y_zero_point",
    quantised_gemm,
    Cost("m n k", 2, macs=True),
    defaults={"transA": 0, "transB": 0, "alpha": 1.0},
    like=((8, ir.DataType.FLOAT),),
    weights=[3],
    bias=6,
    quantised=[*WEIGHT, Quantised(6, 1, None, 4)],
)
contrib(
    "DynamicQuantizeMatMul",
    "A B b_scale b_zero_point bias",
    dynamic_matmul,
    Cost("b m n k", 2, macs=True),
    weights=[1],
    bias=4,
    quantised=[Quantised(1, 2, 3)],
)
contrib(
    "MatMulIntegerToFloat",
    "A B a_scale b_scale a_zero_point b_zero_point bias",
    matmul_to_float,
    Cost("b m n k", 2, macs=True),
    like=((2,),),
    weights=[0, 1],
    bias=6,
    quantised=[Quantised(0, 2, 4), Quantised(1, 3, 5)],
)
contrib(
    "MatMulNBits",
    "A B scales zero_points g_idx bias",
    packed_matmul,
    Cost("a n k", 2, macs=True),
    defaults={"bits": 4, "accuracy_level": 0, "weight_prepacked": 0},
    weights=[1],
    quantised=[Quantised(1, 2, 3)],
)
contrib(
    "MatMulBnb4",
    "A B absmax",
    packed_matmul,
    Cost("a n k", 2, macs=True),
    defaults={"transB": 1, "training_mode": 0},
    weights=[1],
    quantised=[Quantised(1, 2)],
)
fixed(
    "GatherBlockQuantized",
    "packed",
    "keeps its table in packed blocks, whose layout depends on every position",
    domain=DOMAIN,
)

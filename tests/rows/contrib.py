"""Ops of ONNX Runtime: fused products, norms and activations, and attention."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from rows.row import IMAGE, MATRIX, Act, Input, Row, Weight, rows

DOMAIN = "com.microsoft"
IDS = Act((2, 3), 0, 4, TensorProto.INT32)
AFFINE = (Weight((6,), 0.5, 1.5), Weight((6,)))
ROW = Act((2, 4, 6))


def row(op: str, *inputs: Input, free: str, **options: Any) -> Row:
    return Row(op, inputs, free, domain=DOMAIN, **options)


PRODUCTS = [
    row("FusedConv", IMAGE, Weight((4, 6, 3, 3)), Weight((4,)), free="n i o", attributes={"activation": "Relu"}),
    row(
        "FusedConv",
        IMAGE,
        Weight((6, 1, 3, 3)),
        Weight((6,)),
        Act((2, 6, 5, 4)),
        free="n g",
        attributes={"activation": "Relu", "group": 6, "pads": [1, 1, 1, 1]},
        note="residual",
    ),
    row(
        "FusedConv",
        IMAGE,
        Weight((4, 6, 3, 3)),
        free="n i o",
        attributes={"auto_pad": "SAME_UPPER", "strides": [2, 2]},
        note="same",
    ),
    row("FusedMatMul", MATRIX, Weight((6, 5)), free="k m n", attributes={"alpha": 0.5}),
    row(
        "FusedMatMul",
        Act((2, 6, 4)),
        Act((2, 5, 6)),
        free="b~0 k m n",
        attributes={"transA": 1, "transB": 1},
        note="both",
    ),
    row("FusedMatMul", Act((4, 2, 6)), Act((2, 6, 5)), free="b~0 k m n", attributes={"transBatchA": 1}, note="batch"),
    row(
        "FusedMatMul",
        Act((6, 2, 4)),
        Act((5, 2, 6)),
        free="b~0 k m n",
        attributes={"transA": 1, "transBatchA": 1, "transB": 1, "transBatchB": 1},
        note="all",
    ),
    row("TransposeMatMul", Act((6, 4)), Weight((6, 5)), free="k m n", attributes={"transA": 1}),
    row(
        "FusedGemm", MATRIX, Weight((5, 6)), Weight((5,)), free="k m n", attributes={"transB": 1, "activation": "Relu"}
    ),
]

ACTIVATIONS = [
    *rows("Gelu QuickGelu", MATRIX, free="a~0 a~1", domain=DOMAIN),
    row("FastGelu", ROW, free="a~0 a~1 c"),
    row("FastGelu", ROW, Weight((6,)), free="a~0 a~1 c", note="bias"),
    row("BiasGelu", ROW, Weight((6,)), free="a~0 a~1 c"),
]

NORMS = [
    Row("LayerNormalization", (ROW, *AFFINE), "a0 a1 a2", opset=16),
    Row("SimplifiedLayerNormalization", (ROW, AFFINE[0]), "a0 a1 a2"),
    row("SkipLayerNormalization", ROW, ROW, *AFFINE, free="a~0 a~1 c"),
    row(
        "SkipLayerNormalization",
        ROW,
        ROW,
        *AFFINE,
        Weight((6,)),
        free="a~0 a~1 c",
        outputs=4,
        absent=(1, 2),
        note="sum",
    ),
    row("SkipSimplifiedLayerNormalization", ROW, ROW, AFFINE[0], free="a~0 a~1 c", outputs=4, absent=(1, 2)),
    row("EmbedLayerNormalization", IDS, None, Weight((5, 6)), Weight((4, 6)), None, *AFFINE, free="c", outputs=3),
    row(
        "EmbedLayerNormalization",
        IDS,
        IDS,
        Weight((5, 6)),
        Weight((4, 6)),
        Weight((4, 6)),
        *AFFINE,
        free="c",
        outputs=2,
        note="segments",
    ),
]

HEADS = {"num_heads": 3}
QUERY, KEY = Act((2, 4, 12)), Act((2, 5, 12))
ATTENTION = [
    row("Attention", ROW, Weight((6, 36)), Weight((36,)), free="d h i v", attributes=HEADS),
    row(
        "Attention",
        ROW,
        Weight((6, 36)),
        Weight((36,)),
        free="d h i v",
        attributes={**HEADS, "scale": 0.3, "unidirectional": 1},
        note="causal",
    ),
    row(
        "Attention",
        ROW,
        Weight((6, 30)),
        Weight((30,)),
        free="d h i v",
        attributes={**HEADS, "qkv_hidden_sizes": [12, 12, 6]},
        note="sizes",
    ),
    row(
        "Attention",
        ROW,
        Weight((6, 36)),
        Weight((36,)),
        None,
        Act((2, 2, 3, 5, 4)),
        free="d h i",
        attributes=HEADS,
        outputs=2,
        note="past",
    ),
    row("MultiHeadAttention", QUERY, KEY, Act((2, 5, 9)), free="d h v", attributes=HEADS),
    row("MultiHeadAttention", QUERY, KEY, KEY, Weight((36,)), free="d h v", attributes=HEADS, note="bias"),
    row(
        "MultiHeadAttention",
        QUERY,
        KEY,
        KEY,
        None,
        None,
        Act((1, 3, 4, 5)),
        free="d h v",
        attributes={**HEADS, "scale": 0.2},
        note="mask",
    ),
    row("MultiHeadAttention", QUERY, Act((2, 3, 5, 4)), Act((2, 3, 5, 4)), free="d h", attributes=HEADS, note="cross"),
    row(
        "MultiHeadAttention",
        QUERY,
        QUERY,
        QUERY,
        None,
        None,
        None,
        Act((2, 3, 5, 4)),
        Act((2, 3, 5, 4)),
        free="d h",
        attributes=HEADS,
        outputs=3,
        note="past",
    ),
    row(
        "GroupQueryAttention",
        Act((2, 4, 48)),
        Act((2, 4, 16)),
        Act((2, 4, 16)),
        None,
        None,
        np.full(2, 3, np.int32),
        np.array(4, np.int32),
        free="g r",
        attributes={"num_heads": 6, "kv_num_heads": 2},
    ),
    row(
        "GroupQueryAttention",
        Act((2, 4, 80)),
        None,
        None,
        None,
        None,
        np.full(2, 3, np.int32),
        np.array(4, np.int32),
        free="g r",
        attributes={"num_heads": 6, "kv_num_heads": 2},
        note="packed",
    ),
    row("RotaryEmbedding", QUERY, np.arange(8).reshape(2, 4), Weight((9, 2)), Weight((9, 2)), free="e h"),
    row(
        "RotaryEmbedding",
        Act((2, 3, 4, 8)),
        np.arange(8).reshape(2, 4),
        Weight((9, 4)),
        Weight((9, 4)),
        free="e h",
        attributes={"interleaved": 1},
        note="heads",
    ),
    row(
        "RotaryEmbedding",
        QUERY,
        np.arange(8).reshape(2, 4),
        Weight((9, 1)),
        Weight((9, 1)),
        free="h",
        attributes={"num_heads": 3, "rotary_embedding_dim": 2},
        note="part",
    ),
]

ROWS = [*PRODUCTS, *ACTIVATIONS, *NORMS, *ATTENTION]

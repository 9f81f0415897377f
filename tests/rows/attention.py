"""Attention and what stands around it. ONNX Runtime knows opsets up to 26, and no sliding windows yet."""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto, helper

from rows.row import Act, Input, Row, Weight, ints

B, Q, K, P, E, V = 2, 3, 5, 2, 4, 3


def attention(heads: int, groups: int, *rest: Input, packed: bool = False, **options: Any) -> Row:
    """A node with separate sizes of query, key and value."""
    attributes = options.pop("attributes", {})
    if packed:
        inputs = (Act((B, Q, heads * E)), Act((B, K, groups * E)), Act((B, K, groups * V)), *rest)
        attributes = {**attributes, "q_num_heads": heads, "kv_num_heads": groups}
    else:
        inputs = (Act((B, heads, Q, E)), Act((B, groups, K, E)), Act((B, groups, K, V)), *rest)
    free = options.pop("free", "b g e v q k") + (" r" if heads > groups else "")
    return Row("Attention", inputs, free, attributes, options.pop("opset", 23), **options)


PAST = (Act((B, 4, P, E)), Act((B, 4, P, V)))
FEW = (Act((B, 2, P, E)), Act((B, 2, P, V)))
CAUSAL = {"is_causal": 1}
AFTER = {"qk_matmul_output_mode": 3}

SOFTMAX = [
    attention(4, 4),
    attention(4, 4, packed=True, note="packed"),
    attention(6, 2, note="groups"),
    attention(6, 2, packed=True, note="packed-groups"),
    attention(4, 1, packed=True, free="b e v q k", note="one-key-head"),
    attention(4, 4, attributes={"scale": 0.3, "softcap": 2.0}, note="scale"),
    attention(4, 4, attributes=CAUSAL, free="b g e v", note="causal"),
    attention(4, 4, Act((Q, K)), note="mask"),
    attention(6, 2, Weight((1, 6, Q, K)), note="bias-table"),
    attention(4, 4, np.tri(Q, K, 1, dtype=bool), free="b g e v", note="constant-mask"),
    attention(4, 4, Act((B, 1, Q, K)), note="mask-of-samples"),
    attention(4, 4, Act((B, 1, 1, K)), reference=True, note="mask-of-keys"),
    attention(4, 4, Act((Q, K - 1)), free="b g e v q", opset=24, reference=True, note="short-mask"),
    attention(4, 4, None, *PAST, free="b g e v q k p", outputs=4, note="past"),
    attention(4, 4, Act((Q, P + K)), *PAST, free="b g e v q k p", outputs=3, note="past-mask"),
    attention(6, 2, None, *FEW, attributes=CAUSAL, free="b g e v", outputs=3, note="past-groups"),
    attention(4, 4, None, *PAST, free="b g e v q k p", outputs=4, attributes=AFTER, opset=24, note="probabilities"),
    attention(4, 4, None, None, None, ints(3, 4), free="g e v q", opset=24, note="lengths"),
    attention(4, 4, attributes={"left_window_size": 1}, free="b g e v", opset=25, reference=True, note="window"),
]


def body() -> Any:
    """Scores plus something that depends on the key's position."""
    scores = helper.make_tensor_value_info("s", TensorProto.FLOAT, [B, 4, Q, K])
    biased = helper.make_tensor_value_info("t", TensorProto.FLOAT, [B, 4, Q, K])
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [K], np.arange(K) / K)
    nodes = [helper.make_node("Constant", [], ["c"], value=bias), helper.make_node("Add", ["s", "c"], ["t"])]
    return helper.make_graph(nodes, "score_mod", [scores], [biased])


def flex(groups: int, **options: Any) -> Row:
    inputs = (Act((B, 4, Q, E)), Act((B, groups, K, E)), Act((B, groups, K, V)))
    return Row("FlexAttention", inputs, opset=23, domain="ai.onnx.preview", reference=True, **options)


FLEX = [
    flex(4, free="b g q k e v"),
    flex(2, free="b g r q k e v", note="groups"),
    flex(4, free="e v", attributes={"score_mod": body()}, note="body"),
]


def linear(groups: int, *rest: Input, rule: str, note: str, past: bool = True) -> Row:
    inputs = (Act((B, Q, 4 * E)), Act((B, Q, groups * E), -0.5, 0.5), Act((B, Q, groups * V)))
    inputs = (*inputs, Act((B, groups, E, V)) if past else None, *rest)
    free = "b g k v" + (" r" if groups < 4 else "")
    attributes = {"q_num_heads": 4, "kv_num_heads": groups, "update_rule": rule}
    return Row("LinearAttention", inputs, free, attributes, 27, outputs=2, reference=True, note=note)


LINEAR = [
    linear(4, rule="linear", note="linear"),
    linear(2, rule="linear", past=False, note="groups"),
    linear(2, Act((B, Q, 2 * E), -1, 0), rule="gated", note="gated"),
    linear(2, None, Act((B, Q, 1), 0, 1), rule="delta", note="delta"),
    linear(2, Act((B, Q, 2), -1, 0), Act((B, Q, 2), 0, 1), rule="gated_delta", note="gated-delta"),
]


def rotary(shape: tuple[int, ...], *caches: Input, free: str, note: str, **attributes: int) -> Row:
    return Row("RotaryEmbedding", (Act(shape), *caches), free, attributes, 23, note=note)


BOTH = (Weight((9, 4)), Weight((9, 4)))
PART = (Act((B, Q, 2)), Act((B, Q, 2)))
AT = Act((B, Q), 0, 8.9, TensorProto.INT64)

ROTARY = [
    rotary((B, 2, Q, 8), *BOTH, AT, free="b n s x", note="positions"),
    rotary((B, Q, 16), *BOTH, AT, free="b n s x", num_heads=2, note="packed"),
    rotary((B, 2, Q, 8), *BOTH, AT, free="b n s x", interleaved=1, note="interleaved"),
    rotary((B, 2, Q, 10), *PART, free="b n s x y", rotary_embedding_dim=4, note="partial"),
    rotary((B, Q, 20), *PART, free="b n s x y", num_heads=2, rotary_embedding_dim=4, note="packed-partial"),
]

CACHE = Act((B, 4, 9, E))

OTHERS = [
    Row("CausalConvWithState", (Act((B, 6, 5)), Weight((6, 1, 3))), "n c", {}, 27, outputs=2, reference=True),
    Row(
        "CausalConvWithState",
        (Act((B, 6, 5)), Weight((6, 1, 3)), Weight((6,)), Act((B, 6, 2))),
        "n c",
        {"activation": "silu"},
        27,
        outputs=2,
        reference=True,
        note="state",
    ),
    Row("SwiGLU", (Act((B, 4, 6)), Act((B, 4, 6))), "a~0 a~1 a~2", {}, 28, reference=True),
    Row("TensorScatter", (CACHE, Act((B, 4, 3, E))), "a0 a1 a3", opset=24),
    Row("TensorScatter", (CACHE, Act((B, 4, 3, E)), ints(8, 2)), "a1 a3", {"mode": "circular"}, 24, note="circular"),
]

ROWS = [*SOFTMAX, *FLEX, *LINEAR, *ROTARY, *OTHERS]

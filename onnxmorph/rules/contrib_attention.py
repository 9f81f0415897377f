"""Attention of com.microsoft: heads and head dimensions are factors; the scale keeps the value that it had.

Batch and sequence are fixed: masks, lengths and caches are read by position.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import prod, sqrt

from onnxmorph.graph import Node, Shape
from onnxmorph.rules.contrib import DOMAIN, contrib
from onnxmorph.rules.table import Cost, Pin, Quantised, Spec, Write, fixed, refuse

HEADS = Write("num_heads", ("h",))
CACHE = "[c] [n] h [p] d"  # of keys and values
MACS = Cost("", 2, macs=True)  # the factors stand in the Spec: they depend on the node


def _cost(scores: str, values: str, projections: str = "") -> Cost:
    """Products of queries and keys, and of scores and values; the scale and the softmax."""
    products = f"({' + '.join(filter(None, (projections, scores, values)))})"
    return Cost(products, 2, macs=True, plus=Cost(scores.rpartition(" ")[0], 6))


def _pin(node: Node, size: int) -> tuple[Pin, ...]:
    """The scale of the scores, where the size of a head decides it."""
    return () if node.attributes.get("scale") else (Pin("scale", 1 / sqrt(size), "d"),)


def _shape(node: Node, index: int) -> Shape | None:
    return node.in_shapes[index] if index < len(node.inputs) else None


def _bias(node: Node, index: int, heads: str, length: str) -> str:
    """What is added to the scores: per sample and per head, or one for all."""
    shape = _shape(node, index)
    if shape is None or len(shape) != 4:
        return "_"
    return f"{'1' if shape[0] == 1 else '[n]'} {'1' if shape[1] == 1 else heads} [s] [{length}]"


def _listed(inputs: Mapping[int, str]) -> str:
    return ", ".join(inputs.get(i, "_") for i in range(max(inputs) + 1))


def _projected(node: Node, past: Shape | None, v: str, more: Mapping[int, str]) -> Spec:
    """Attention over one input and one weight for queries, keys and values; `v` is the factor of a head's values."""
    x, weight = node.in_shapes[:2]
    if x is None or weight is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    h = int(node.attributes["num_heads"])
    given = node.attributes.get("qkv_hidden_sizes") if v == "v" else None
    wide, _, deep = (int(s) for s in given or [weight[1] // 3] * 3)
    head = "[d]" if node.attributes.get("do_rotary") else "d"
    joint = f"((h {head}) + (h d) + (h {v}))"
    longer = past is not None and not node.attributes.get("past_present_share_buffer")
    length = x[1] + (past[3] if past is not None and longer else 0)
    inputs = {0: "[n] [s] i", 1: f"i {joint}", 2: joint, **{i: term.format(joint) for i, term in more.items()}}
    writes = (HEADS, Write("qkv_hidden_sizes", ("(h d)", "(h d)", "(h v)"))) if v == "v" else (HEADS,)
    return Spec(
        f"{_listed(inputs)} -> n s (h {v}), c n h l d",
        {"h": h, "d": wide // h, v: deep // h, "l": length, "c": 2},
        writes,
        pins=_pin(node, wide // h),
        cost=_cost("n h s l d", f"n h s l {v}", f"n s i h d + n s i h d + n s i h {v}"),
    )


def attention(node: Node) -> Spec:
    """``[n] [s] i, i (h d + h d + h v), (h d + h d + h v) -> n s (h v)``, with q, k and v in one projection.

    Keys and values share their head dimension where they are cached together; with rotary embeddings it is fixed.
    """
    past = _shape(node, 4)
    cached = past is not None or any(node.outputs[1:])
    more = {5: _bias(node, 5, "h", "l")} | ({4: CACHE} if past is not None else {})
    return _projected(node, past, "d" if cached else "v", more)


def quantised_attention(node: Node) -> Spec:
    """``[n] [s] i, i (h d + h d + h d), (h d + h d + h d), _, (h d + h d + h d) -> n s (h d)``"""
    steps = {i: "{}" for i in (4, 7) if (shape := _shape(node, i)) is not None and prod(shape) > 1}
    past = _shape(node, 8)
    return _projected(node, past, "d", steps | ({8: CACHE} if past is not None else {}))


def multi_head_attention(node: Node) -> Spec:
    """``[n] [s] (h d), [n] [l] (h d), [n] [l] (h v), (h d + h d + h v) -> n s (h v)``

    Where keys and values come or go as a cache they share their head dimension.
    """
    query, key, value = (_shape(node, i) for i in range(3))
    past = _shape(node, 6)
    if query is None or len(query) == 5 or (key is not None and len(key) == 5):
        return refuse("gpu-only", "takes packed keys and values on GPUs only, where its rule could not be checked")
    if key is None or value is None:
        return refuse("unknown-shape", "the shape of the keys or values cannot be inferred")
    h, apart = int(node.attributes["num_heads"]), len(key) == 3
    v = "v" if apart and past is None and not any(node.outputs[1:]) else "d"
    head = "[n] [m] (h {})" if apart else "[n] h [m] {}"
    inputs = {0: "[n] [s] (h d)", 1: head.format("d"), 2: head.format(v), 5: _bias(node, 5, "h", "l")}
    if _shape(node, 3) is not None:
        inputs[3] = f"((h d) + (h d) + (h {v}))"
    if past is not None:
        inputs |= {6: "[n] h [p] d", 7: "[n] h [p] d"}
    longer = past is not None and _shape(node, 8) is None
    return Spec(
        f"{_listed(inputs)} -> n s (h {v}), n h l d, n h l {v}, n h s l",
        {"h": h, "l": key[1 if apart else 2] + (past[2] if past is not None and longer else 0)},
        (HEADS,),
        pins=_pin(node, query[2] // h),
        cost=_cost("n h s l d", f"n h s l {v}"),
    )


def group_query_attention(node: Node) -> Spec:
    """``[n] [s] (g r [d]), [n] [m] (g [d]), [n] [m] (g [d]) -> n s (g r d)``: r heads of queries for each of keys.

    The head dimension is fixed: ONNX Runtime takes multiples of 8 only, and rotary embeddings pair its positions.
    """
    query, key, past = _shape(node, 0), _shape(node, 1), _shape(node, 3)
    if query is None:
        return refuse("unknown-shape", "the shape of the query cannot be inferred")
    heads, groups = int(node.attributes["num_heads"]), int(node.attributes["kv_num_heads"])
    given = node.partial[6] if len(node.partial) > 6 else None
    total = None if given is None else max(int(given.reshape(-1)[0]), past[2] if past is not None else 0)
    g = "[g]" if total is None and any(node.outputs[1:]) else "g"  # a cache of unknown length keeps its heads
    inputs = {0: f"[n] [s] ({g} r [d])", 1: f"[n] [m] ({g} [d])", 2: f"[n] [m] ({g} [d])"}
    if key is None:
        inputs = {0: f"[n] [s] (({g} r [d]) + ({g} [d]) + ({g} [d]))"}
    if past is not None:
        inputs |= {3: f"[n] {g} [p] [d]", 4: f"[n] {g} [p] [d]"}
    if _shape(node, 11) is not None:
        inputs[11] = f"({g} r)"
    inputs[10] = _bias(node, 10, f"({g} r)", "t")
    present = "_" if total is None else "n g l d"
    sizes = {"g": groups, "r": heads // groups, "d": query[2] // (heads if key is not None else heads + 2 * groups)}
    return Spec(
        f"{_listed(inputs)} -> n s (g r d), {present}, {present}",
        {**sizes, "l": query[1] if total is None else total},
        (Write("num_heads", ("(g r)",)), Write("kv_num_heads", ("g",))),
        cost=_cost("n s l g r d", "n s l g r d"),
    )


def rotary(node: Node) -> Spec:
    """``b s (h [c] e), _, [m] e, [m] e -> b s (h c e)``: halves are rotated against each other, pairs of positions go.

    Where only a part of a head is rotated the whole head dimension is fixed.
    """
    x, cache = _shape(node, 0), _shape(node, 2)
    if x is None or cache is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    heads = int(node.attributes.get("num_heads") or 0)
    size = x[3] if len(x) == 4 else x[2] // heads if heads else 2 * cache[1]
    whole = size == 2 * cache[1] and not node.attributes.get("rotary_embedding_dim")
    sizes = {"c": 2, "e": cache[1]} if whole else {"d": size}
    head = "[d]" if not whole else "e [c]" if node.attributes.get("interleaved") else "[c] e"
    wide = f"[b] h [s] ({head})" if len(x) == 4 else f"[b] [s] (h {head})"
    caches = ", _, [m] e, [m] e" if whole else ""
    writes = (Write("num_heads", ("h",)),) if heads else ()
    return Spec(f"{wide}{caches} -> {wide.replace('[', '').replace(']', '')}", sizes, writes)


contrib(
    "Attention",
    "input weights bias mask_index past attention_bias past_sequence_length",
    attention,
    MACS,
    defaults={"unidirectional": 0},
    weights=[1],
)
contrib(
    "QAttention",
    "input weight bias input_scale weight_scale mask_index input_zero_point weight_zero_point past",
    quantised_attention,
    MACS,
    defaults={"unidirectional": 0},
    like=((2,),),
    weights=[1],
    quantised=[Quantised(0, 3, 6), Quantised(1, 4, 7)],
)
contrib(
    "MultiHeadAttention",
    "query key value bias key_padding_mask attention_bias past_key past_value past_sequence_length cache_indirection",
    multi_head_attention,
    MACS,
    defaults={"unidirectional": 0},
)
contrib(
    "GroupQueryAttention",
    "query key value past_key past_value seqlens_k total_sequence_length cos_cache sin_cache position_ids "
    "attention_bias head_sink k_scale v_scale q_norm_weight k_norm_weight",
    group_query_attention,
    MACS,
    defaults={
        "causal": 1,
        "local_window_size": -1,
        "smooth_softmax": -1,
        "sliding_window_cache": 0,
        "qk_output": 0,
        "qk_norm_epsilon": 1e-6,
        "k_quant_type": "NONE",
        "v_quant_type": "NONE",
    },
)
contrib("RotaryEmbedding", "input position_ids cos_cache sin_cache", rotary, Cost("b s h e", 6))

fixed(
    "PackedAttention PackedMultiHeadAttention DecoderMaskedSelfAttention",
    "gpu-only",
    "runs on GPUs only, where its rule could not be checked",
    Cost("", 1),
    domain=DOMAIN,
)
fixed(
    "DecoderMaskedMultiHeadAttention SparseAttention",
    "decoding",
    "shares a cache whose layout depends on every head and position",
    Cost("", 1),
    domain=DOMAIN,
)

"""Attention and what stands around it. Key heads are g, the query heads of each r, so query heads are (g r)."""

from __future__ import annotations

from math import sqrt

from onnxmorph.graph import Node, Shape
from onnxmorph.rules.table import Cost, Pin, Spec, Write, axis_of, letters, refuse, rule

NO_HEADS = refuse("no-heads", "it has no heads, or does not say how many")


def attention(node: Node) -> Spec:
    """``b (g r) q e, b g {k} e, b g k v, ..., b g {p} e, b g p v, b -> b (g r) q v, b g (p + k) e, b g (p + k) v, ...``

    In three dimensions Q, K, V and Y have their heads inside, e.g. `b q (g r e)`. The sequences q, k and p are fixed
    where a causal mask, a window or a count of keys depends on their positions.
    """
    query, key, value = node.in_shapes[:3]
    mask, past, counted = ([*node.in_shapes, None, None, None, None][i] for i in (3, 4, 6))
    if query is None or key is None or value is None or len(mask or ()) > 4 or len(past or [1] * 4) != 4:
        return refuse("unknown-shape", "the shape of an input cannot be inferred, or has too many or too few axes")
    packed = len(query) == 3
    heads, groups = _heads(node) if packed else (query[1], key[1])
    if heads < 1 or groups < 1:
        return NO_HEADS
    size = query[2] // heads if packed else query[3]
    sizes = {"g": groups, "r": heads // groups, "e": size, "v": value[2] // groups if packed else value[3]}
    sizes |= {"b": query[0], "q": query[-2], "k": key[-2], "p": past[2] if past else 0}
    names, total = "g r" if heads > groups else "g", "(p + k)" if past else "k"
    of_query = f"({names})" if heads > groups else names
    masked = _mask(mask, {"b": query[0], of_query: heads, "q": query[-2], total: sizes["p"] + sizes["k"]})
    windows = (node.attributes.get(f"{side}_window_size", -1) for side in ("left", "right"))
    ordered = bool(node.attributes["is_causal"]) or max(windows) >= 0
    q = "[q]" if ordered else "q"
    k, p = ("[k]", "[p]") if ordered or counted is not None or "[" in masked else ("{k}", "{p}")
    inputs = (
        [f"b {q} ({names} e)", f"b {k} (g e)", "b k (g v)"]
        if packed
        else [f"b {of_query} {q} e", f"b g {k} e", "b g k v"]
    )
    outputs = [f"b q ({names} v)" if packed else f"b {of_query} q v", f"b g {total} e", f"b g {total} v"]
    return Spec(
        f"{', '.join([*inputs, masked, f'b g {p} e', 'b g p v', 'b'])} -> "
        f"{', '.join([*outputs, f'b {of_query} q {total}'])}",
        sizes,
        (Write("q_num_heads", (of_query,)), Write("kv_num_heads", ("g",))) if packed else (),
        pins=_scale(node, "e", size),
    )


def _heads(node: Node) -> tuple[int, int]:
    """The heads of the query, and of key and value; 0 where the node does not say."""
    return int(node.attributes.get("q_num_heads", 0)), int(node.attributes.get("kv_num_heads", 0))


def _mask(shape: Shape | None, whole: dict[str, int]) -> str:
    """The axes of a mask that is broadcast to the `whole` axes of the scores; `[m]` are the first keys only."""
    if not shape:
        return "_"
    terms = [
        "1" if has == 1 != wants else "[m]" if last and has < wants else term
        for (term, wants), has, last in zip(
            list(whole.items())[-len(shape) :], shape, [False] * (len(shape) - 1) + [True], strict=True
        )
    ]
    return " ".join(terms)


def _scale(node: Node, factor: str, size: int) -> tuple[Pin, ...]:
    """Scores keep the scale that the original head size gave them."""
    return () if node.attributes.get("scale") else (Pin("scale", 1 / sqrt(size), factor),)


def flex_attention(node: Node) -> Spec:
    """``b (g r) q e, b g {k} e, b g k v -> b (g r) q v``

    All but the head sizes e and v is fixed where a body changes scores or probabilities: it may depend on positions.
    """
    query, key = node.in_shapes[:2]
    if query is None or key is None:
        return refuse("unknown-shape", "the shape of Q or K cannot be inferred")
    if not query[1] or not key[1]:
        return NO_HEADS
    inputs = "b (g r) q e, b g {k} e, b g k v"
    if {"score_mod", "prob_mod"} & node.attributes.keys():
        inputs = "[b] ([g] [r]) [q] e, b g [k] e, b g k v"
    sizes = {"g": key[1], "r": query[1] // key[1]}
    return Spec(f"{inputs} -> b (g r) q v", sizes, pins=_scale(node, "e", query[3]))


def linear_attention(node: Node) -> Spec:
    """``b [t] (g r k), b [t] (g k), b [t] (g v), b g k v, b [t] (g k), b [t] g -> b t (g r v), b g k v``

    Time t is fixed: a step depends on the one before.
    """
    query, key, value = node.in_shapes[:3]
    if query is None or key is None or value is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    heads, groups = _heads(node)
    if heads < 1 or groups < 1:
        return NO_HEADS
    rates = [node.in_shapes[i] if len(node.in_shapes) > i else None for i in (4, 5)]
    decay = "(g k)" if rates[0] and rates[0][2] == key[2] else "g"
    beta = "g" if rates[1] and rates[1][2] == groups else "1"
    sizes = {"g": groups, "r": heads // groups, "k": key[2] // groups, "v": value[2] // groups}
    gated, delta = ("gated" in node.attributes["update_rule"]), ("delta" in node.attributes["update_rule"])
    return Spec(
        f"b [t] (g r k), b t (g k), b t (g v), b g k v, b t {decay}, b t {beta} -> b t (g r v), b g k v",
        sizes | {"u": 2 if delta else 1, "w": int(gated)},
        (Write("q_num_heads", ("(g r)",)), Write("kv_num_heads", ("g",))),
        pins=_scale(node, "k", sizes["k"]),
    )


def rotary_embedding(node: Node) -> Spec:
    """``b n s ([u] x + y), [m] x, [m] x, b s -> b n s (u x + y)``

    A pair of positions is rotated together and goes together, with its column x of the caches; y is not rotated. The
    rows m of the caches are fixed where positions pick them; without picking the caches are `b s x`. Pairs are halves,
    or neighbours `(x [u])`; in three dimensions heads stand inside, `b s (n …)`.
    """
    shape, cache = node.in_shapes[:2]
    if shape is None or cache is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    packed, heads = len(shape) == 3, int(node.attributes.get("num_heads", 0))
    if packed and heads < 1:
        return NO_HEADS
    size = shape[2] // heads if packed else shape[3]
    rotated = int(node.attributes["rotary_embedding_dim"]) or size
    pairs = "x [u]" if node.attributes["interleaved"] else "[u] x"
    sizes = {"u": 2, "x": rotated // 2} | ({"n": heads} if packed else {})
    writes = (Write("num_heads", ("n",)),) if packed else ()
    if rotated < size:
        pairs, sizes, writes = f"{pairs} + y", {**sizes, "y": size - rotated}, (*writes, ROTATED)
    tensor = (f"b s (n ({pairs}))" if "+" in pairs else f"b s (n {pairs})") if packed else f"b n s ({pairs})"
    caches = "b s x, b s x" if len(cache) == 3 else "[m] x, [m] x"
    return Spec(f"{tensor}, {caches}, b s -> {tensor}", sizes, writes)


ROTATED = Write("rotary_embedding_dim", ("(u x)",))


def causal_conv(node: Node) -> Spec:
    """``n c [l], c 1 [k], c, n c [s] -> n c l, n c s``

    Time l and the kept state s are fixed: a position depends on those before it.
    """
    return Spec("n c [l], c 1 [k], c, n c [s] -> n c l, n c s")


def tensor_scatter(node: Node) -> Spec:
    """``a0 ... [m] ..., a0 ... [u] ..., a0 -> a0 ... m ...``

    The sequence that is written into is fixed, in the cache and in the update.
    """
    shape: Shape | None = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the cache cannot be inferred")
    names, axis = letters(len(shape)), axis_of(node.attributes["axis"], len(shape))
    cache, update = (" ".join(f"[{new}]" if t == axis else n for t, n in enumerate(names)) for new in ("m", "u"))
    return Spec(f"{cache}, {update}, {names[0]} -> {cache}")


SOFTMAX = Cost("b g r q (p + k)", 5)

rule("Attention", attention, Cost("b g r q (p + k) (e + v)", 2, macs=True, plus=SOFTMAX))
rule(
    "FlexAttention",
    flex_attention,
    Cost("b g r q k (e + v)", 2, macs=True, plus=Cost("b g r q k", 5)),
    domain="ai.onnx.preview",
)
rule("LinearAttention", linear_attention, Cost("b t g k v (u + r)", 2, macs=True, plus=Cost("b t g k v w")))
rule("RotaryEmbedding", rotary_embedding, Cost("b s n u x", 3))
rule("CausalConvWithState", causal_conv, Cost("n c l k", 2, macs=True), weights=[1])
rule("SwiGLU", "a..., a... -> a...", Cost("a", 2), elementwise=True)
rule("TensorScatter", tensor_scatter)

"""Ops of com.microsoft that ONNX Runtime's optimiser writes: fused products, norms and activations.

onnx knows none of them, so that each entry carries its schema. Those that run on GPUs only are fixed: their rule could
not be checked.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import onnx_ir as ir

from onnxmorph.graph import Node, Shape
from onnxmorph.rules.compute import gemm, matmul
from onnxmorph.rules.table import Cost, Quantised, Schema, Spec, Write, fixed, refuse, rule

DOMAIN = "com.microsoft"
Like = tuple[tuple[int | ir.DataType, ...], ...]


def contrib(
    ops: str,
    inputs: str,
    equation: str | Callable[[Node], Spec],
    cost: Cost | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
    like: Like = ((0,),),
    roles: Mapping[int, str] | None = None,
    weights: Sequence[int] = (),
    view: bool = False,
    keeps: bool = False,
    bias: int | None = None,
    quantised: Sequence[Quantised] = (),
) -> None:
    """Enter a rule with its schema: the names of the inputs, the attributes that have defaults, the outputs' types."""
    rule(
        ops,
        equation,
        cost,
        roles=roles,
        weights=weights,
        view=view,
        keeps=keeps,
        bias=bias,
        domain=DOMAIN,
        quantised=quantised,
        schema=Schema(tuple(inputs.split()), defaults or {}, like),
    )


def windows(node: Node, sizes: Shape, kernel: Shape, *, ceil: bool = False) -> dict[str, int]:
    """The sizes of the axes ``z...`` that a sliding window leaves of spatial axes."""
    rank = len(sizes)
    strides, dilations = (node.attributes.get(name) or [1] * rank for name in ("strides", "dilations"))
    pads = node.attributes.get("pads") or [0] * 2 * rank
    found = {}
    for t, (size, k, step, spread) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        if str(node.attributes.get("auto_pad", "NOTSET")).startswith("SAME"):
            left = -(-size // step)
        else:
            low, high = (pads[t], pads[t + rank]) if node.attributes.get("auto_pad", "NOTSET") == "NOTSET" else (0, 0)
            room = size + low + high - spread * (k - 1) - 1
            left = room // step + 1
            if ceil and room % step and left * step < size + low:
                left += 1
        found[f"z~{rank - 1 - t}"] = int(left)
    return found


def fused_conv(node: Node) -> Spec:
    """``n (g i) [y...], (g o) i [k...], (g o), n (g o) z... -> n (g o) z...``"""
    x, w = node.in_shapes[:2]
    if x is None or w is None:
        return refuse("unknown-shape", "the shape of an input cannot be inferred")
    sizes = {"g": int(node.attributes["group"]), **windows(node, x[2:], w[2:])}
    equation = "n (g i) [y...], (g o) i [k...], (g o), n (g o) [z...] -> n (g o) z..."
    return Spec(equation, sizes, (Write("group", ("g",)),))


def fused_matmul(node: Node) -> Spec:
    """``b... m k, b... k n -> b... m n``, operands transposed or with rows before the batch where it says so."""
    ranks = [-1 if s is None else len(s) for s in node.in_shapes[:2]]
    if min(ranks) < 2:
        return matmul(node)
    a, b = (
        ("k", "m") if node.attributes["transA"] else ("m", "k"),
        ("n", "k") if node.attributes["transB"] else ("k", "n"),
    )
    batched = [node.attributes.get(f"transBatch{which}") for which in "AB"]
    terms = [
        f"{rows} b... {cols}" if early else f"b... {rows} {cols}"
        for (rows, cols), early in zip((a, b), batched, strict=True)
    ]
    return Spec(f"{', '.join(terms)} -> b... m n")


CONV = "X W B Z"
CONV_DEFAULTS = {"group": 1, "auto_pad": "NOTSET"}
contrib(
    "FusedConv",
    CONV,
    fused_conv,
    Cost("n g o i k z", 2, macs=True),
    defaults=CONV_DEFAULTS,
    weights=[1],
    bias=2,
)
contrib(
    "FusedMatMul",
    "A B",
    fused_matmul,
    Cost("b m n k", 2, macs=True),
    defaults={"transA": 0, "transB": 0, "transBatchA": 0, "transBatchB": 0, "alpha": 1.0},
    weights=[0, 1],
)
contrib(
    "TransposeMatMul",
    "A B",
    fused_matmul,
    Cost("b m n k", 2, macs=True),
    defaults={"transA": 0, "transB": 0, "alpha": 1.0},
    weights=[0, 1],
)
contrib(
    "FusedGemm",
    "A B C",
    gemm,
    Cost("m n k", 2, macs=True),
    defaults={"transA": 0, "transB": 0, "alpha": 1.0, "beta": 1.0},
    weights=[1],
    bias=2,
)

# Constants are not followed through these: onnx's reference does not know them.
contrib("Gelu", "X", "a... -> a...", Cost("a"))
contrib("QuickGelu", "X", "a... -> a...", Cost("a"), defaults={"alpha": 1.702})
contrib("FastGelu", "X bias", "a... c, c -> a... c", Cost("a c"))
contrib("BiasGelu", "A B", "a... c, c -> a... c", Cost("a c", 2))

SKIP = {"epsilon": 1e-12}
contrib(
    "SkipLayerNormalization",
    "input skip gamma beta bias",
    "a... {c}, a... {c}, c, c, c -> a... c, _, _, a... c",
    Cost("a c", 9),
    defaults=SKIP,
    roles={2: "scale", 3: "shift"},
)
contrib(
    "SkipSimplifiedLayerNormalization",
    "input skip gamma bias",
    "a... {c}, a... {c}, c, c -> a... c, _, _, a... c",
    Cost("a c", 7),
    defaults=SKIP,
    roles={2: "scale"},
)
contrib(
    "EmbedLayerNormalization",
    "input_ids segment_ids word_embedding position_embedding segment_embedding gamma beta mask position_ids",
    "[b] [s], [b] [s], [v] {c}, [p] {c}, [t] {c}, c, c, _, _ -> b s c, _, b s c",
    Cost("b s c", 9),
    defaults=SKIP,
    like=((2,), (ir.DataType.INT32,), (2,)),
    roles={5: "scale", 6: "shift"},
)

fixed(
    "BiasAdd BiasDropout BiasSoftmax BiasSplitGelu GroupNorm NhwcConv NhwcFusedConv SkipGroupNorm",
    "gpu-only",
    "runs on GPUs only, where its rule could not be checked",
    Cost("", 1),
    domain=DOMAIN,
)
fixed(
    "BeamSearch GreedySearch NGramRepeatBlock Sampling WhisperBeamSearch",
    "decoding",
    "reads tokens, and bodies that keep their shapes",
    domain=DOMAIN,
)
fixed("MoE QMoE", "routing", "keeps its experts in tensors whose layout depends on its attributes", domain=DOMAIN)

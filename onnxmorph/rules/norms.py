"""Normalisations. ``{c}`` says that statistics are taken over c: over the live positions, after a cut."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, Write, axis_of, letters, refuse, rule

AFFINE = {1: "scale", 2: "shift"}


def batch_norm(node: Node) -> Spec:
    if node.attributes.get("training_mode"):
        return Spec("{n} c {y...}, c, c, c, c -> n c y..., c, c")
    return Spec("n c y..., c, c, c, c -> n c y...")


def _trailing(node: Node) -> tuple[list[str], int] | None:
    shape = node.in_shapes[0]
    return None if shape is None else (letters(len(shape)), axis_of(node.attributes.get("axis", -1), len(shape)))


def layer_norm(node: Node) -> Spec:
    found = _trailing(node)
    if found is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    names, axis = found
    outer, inner = " ".join(names[:axis]), names[axis:]
    over, plain = " ".join(f"{{{n}}}" for n in inner), " ".join(inner)
    statistic = f"{outer} {' '.join('1' for _ in inner)}"
    return Spec(f"{outer} {over}, {plain}, {plain} -> {outer} {plain}, {statistic}, {statistic}")


def group_norm(node: Node) -> Spec:
    if node.version < 21:  # scale and bias per group until opset 21
        return Spec(
            "n (g {c}) {y...}, g, g -> n (g c) y...",
            {"g": int(node.attributes["num_groups"])},
            (Write("num_groups", ("g",)),),
        )
    return Spec(
        "n (g {c}) {y...}, (g c), (g c) -> n (g c) y...",
        {"g": int(node.attributes["num_groups"])},
        (Write("num_groups", ("g",)),),
    )


def softmax(node: Node) -> Spec:
    shape = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    names = letters(len(shape))
    axis = axis_of(node.attributes["axis"], len(shape))
    over = range(axis, len(shape)) if node.version < 13 else [axis]  # before 13 the trailing axes are flattened
    marked = [f"{{{n}}}" if t in over else n for t, n in enumerate(names)]
    return Spec(f"{' '.join(marked)} -> {' '.join(names)}")


def lp_norm(node: Node) -> Spec:
    shape = node.in_shapes[0]
    if shape is None:
        return refuse("unknown-shape", "the shape of the input cannot be inferred")
    names, axis = letters(len(shape)), axis_of(node.attributes["axis"], len(shape))
    return Spec(f"{' '.join(f'{{{n}}}' if t == axis else n for t, n in enumerate(names))} -> {' '.join(names)}")


rule("BatchNormalization", batch_norm, Cost("n c y", 2), roles={**AFFINE, 3: "state", 4: "state"})
rule("LayerNormalization", layer_norm, Cost("a", 7), roles=AFFINE)
rule("RMSNormalization", layer_norm, Cost("a", 5), roles={1: "scale"})
rule("GroupNormalization", group_norm, Cost("n g c y", 7), roles=AFFINE)
rule("InstanceNormalization", "n c {y...}, c, c -> n c y...", Cost("n c y", 7), roles=AFFINE)
rule("Softmax LogSoftmax", softmax, Cost("a", 5))
rule("LRN", "n [c] y... -> n c y...", Cost("n c y", 5))
rule("LpNormalization", lp_norm, Cost("a", 3))

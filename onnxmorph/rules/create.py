"""Ops that make a tensor from a shape or from numbers. Where all its positions are alike they may go."""

from __future__ import annotations

from onnxmorph.graph import Node
from onnxmorph.rules.table import Cost, Spec, Write, fixed, letters, refuse, rule


def constant_of_shape(node: Node) -> Spec:
    """``_ -> a0 a1 a2``: the op makes these positions itself; all of them may go."""
    out = node.out_shapes[0]
    if out is None or node.partial[0] is None:
        return refuse("dynamic", "the shape that it is given is not known before running")
    names = tuple(letters(len(out)))
    return Spec(f"_ -> {' '.join(names)}", writes=(Write("input", names),), fresh=names)


rule("ConstantOfShape", constant_of_shape)
fixed("EyeLike", "positions", "writes ones where two axes have the same position")
fixed("Range", "positions", "writes numbers that say where they stand", Cost("a"))
fixed(
    "HannWindow HammingWindow BlackmanWindow MelWeightMatrix",
    "positions",
    "writes numbers that depend on the position",
    Cost("a", 3),
)
fixed(
    "RandomNormal RandomNormalLike RandomUniform RandomUniformLike Bernoulli Multinomial",
    "random",
    "draws other numbers for another shape",
    Cost("a"),
)
fixed("Constant", "constant", "holds a sparse tensor or text, which is not cut")

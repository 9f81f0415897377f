"""The rule table: what each ONNX op says about its axes. Importing it enters every rule."""

from onnxmorph.rules import (
    compute,
    create,
    einsum,
    indexing,
    losses,
    movement,
    norms,
    pointwise,
    reductions,
    reshape,
    signal,
    vision,
    whole,
)
from onnxmorph.rules.table import TABLE, Cost, Rule, Spec, Take, Write

__all__ = ["TABLE", "Cost", "Rule", "Spec", "Take", "Write"]

_ENTERED = (
    *(compute, einsum, movement, norms, pointwise, reductions, reshape),
    *(create, indexing, losses, signal, vision, whole),
)

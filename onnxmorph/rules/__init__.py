"""The rule table: what each ONNX op says about its axes. Importing it enters every rule."""

from onnxmorph.rules import (
    attention,
    compute,
    contrib,
    contrib_attention,
    contrib_quantised,
    control,
    create,
    einsum,
    indexing,
    losses,
    movement,
    norms,
    pointwise,
    quantised,
    recurrent,
    reductions,
    reshape,
    signal,
    vision,
    whole,
)
from onnxmorph.rules.table import TABLE, Cost, Pin, Quantised, Rule, Schema, Spec, Take, Write

__all__ = ["TABLE", "Cost", "Pin", "Quantised", "Rule", "Schema", "Spec", "Take", "Write"]

_ENTERED = (
    *(compute, einsum, movement, norms, pointwise, reductions, reshape, recurrent, attention),
    *(control, create, indexing, losses, signal, vision, whole),
    *(quantised, contrib, contrib_attention, contrib_quantised),
)

"""The rule table: what each ONNX op says about its axes. Importing it enters every rule."""

from onnxmorph.rules import (
    compute,
    contrib,
    contrib_attention,
    contrib_quantised,
    movement,
    norms,
    pointwise,
    quantised,
    reductions,
    reshape,
)
from onnxmorph.rules.table import TABLE, Cost, Pin, Quantised, Rule, Schema, Spec, Take, Write

__all__ = ["TABLE", "Cost", "Pin", "Quantised", "Rule", "Schema", "Spec", "Take", "Write"]

_ENTERED = (
    compute,
    contrib,
    contrib_attention,
    contrib_quantised,
    movement,
    norms,
    pointwise,
    quantised,
    reductions,
    reshape,
)

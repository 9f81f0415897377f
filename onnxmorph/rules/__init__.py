"""The rule table: what each ONNX op says about its axes. Importing it enters every rule."""

from onnxmorph.rules import compute, control, movement, norms, pointwise, reductions, reshape
from onnxmorph.rules.table import TABLE, Cost, Rule, Spec, Take, Write

__all__ = ["TABLE", "Cost", "Rule", "Spec", "Take", "Write"]

_ENTERED = (compute, control, movement, norms, pointwise, reductions, reshape)

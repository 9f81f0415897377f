"""The rule table: what each ONNX op says about its axes. Importing it enters every rule."""

from onnxmorph.rules import attention, compute, movement, norms, pointwise, recurrent, reductions, reshape
from onnxmorph.rules.table import TABLE, Cost, Pin, Rule, Spec, Take, Write

__all__ = ["TABLE", "Cost", "Pin", "Rule", "Spec", "Take", "Write"]

_ENTERED = (attention, compute, movement, norms, pointwise, recurrent, reductions, reshape)

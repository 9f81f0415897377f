"""Rewriting networks: ``shrink``, ``scale``, ``expand``, and ``verify``, which checks the first."""

from onnxmorph.surgery.morph import Morphed, expand, scale, shrink
from onnxmorph.surgery.verify import Verification, verify

__all__ = ["Morphed", "Verification", "expand", "scale", "shrink", "verify"]

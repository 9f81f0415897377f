"""MorphNet on ONNX: analyse, train with a price on every channel, shrink, expand.

    >>> import onnxmorph
    >>> analysis = onnxmorph.analyze("model.onnx")  # doctest: +SKIP

Names are loaded when they are first used; importing the package loads no deep-learning framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from onnxmorph.algorithm import Run, morph
    from onnxmorph.analysis import Analysis, analyze
    from onnxmorph.bounds import Bounds
    from onnxmorph.budget import Budget
    from onnxmorph.differences import Difference, diff
    from onnxmorph.errors import OnnxMorphError
    from onnxmorph.rounds import Plan, Round, Trained
    from onnxmorph.structure import Structure
    from onnxmorph.surgery import Morphed, Verification, expand, scale, shrink, verify

__version__ = "0.1.0"

_HOME = {
    "Analysis": "analysis",
    "Bounds": "bounds",
    "Budget": "budget",
    "Difference": "differences",
    "Morphed": "surgery",
    "OnnxMorphError": "errors",
    "Plan": "rounds",
    "Round": "rounds",
    "Run": "algorithm",
    "Structure": "structure",
    "Trained": "rounds",
    "Verification": "surgery",
    "analyze": "analysis",
    "diff": "differences",
    "expand": "surgery",
    "morph": "algorithm",
    "scale": "surgery",
    "shrink": "surgery",
    "verify": "surgery",
}

__all__ = [  # noqa: RUF022 - the order of the main job
    "analyze",
    "Analysis",
    "Structure",
    "Budget",
    "Bounds",
    "shrink",
    "expand",
    "scale",
    "verify",
    "Morphed",
    "Verification",
    "diff",
    "Difference",
    "morph",
    "Plan",
    "Round",
    "Trained",
    "Run",
    "OnnxMorphError",
]


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"onnxmorph.{_HOME[name]}"), name)
    raise AttributeError(f"module 'onnxmorph' has no attribute {name!r}")

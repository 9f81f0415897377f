"""Does the small model compute what the zero-masked original does? Both run in ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnxmorph.analysis import Analysis, analyze
from onnxmorph.errors import StructureError
from onnxmorph.graph import Graph
from onnxmorph.model import Source, load
from onnxmorph.structure import Structure
from onnxmorph.surgery.fold import fold
from onnxmorph.surgery.reference import masked
from onnxmorph.surgery.run import TOLERANCE, run_alike, run_session

__all__ = ["TOLERANCE", "Verification", "random_inputs", "relative", "run_session", "verify"]


@dataclass(frozen=True)
class Verification:
    """``difference`` is the largest |small - original| of any output, relative to the output's largest value.

    ``tolerance`` is 1e-4, and 1e-2 where the models compute in float16.

    ``folded`` says how much folding constants into biases moved the output, on the same scale; 0 where
    nothing was folded.
    """

    difference: float
    folded: float
    outputs: Mapping[str, float]
    samples: int
    tolerance: float = TOLERANCE

    @property
    def ok(self) -> bool:
        """Within the tolerance."""
        return self.difference <= self.tolerance


def verify(
    source: Source | Analysis, small: Source, structure: Structure, *, samples: int = 2, seed: int = 0
) -> Verification:
    """Compare a shrunk model with the original in which every removed channel is zero.

    Ops that take statistics over a cut axis take them over the live positions in both. Constants that
    `shrink` folded into biases stand in the biases of both. Models run in their own types; where ONNX Runtime has no
    kernels for these on the CPU (all of bfloat16, some ops in float64), both run in float32.

    Args:
        source: the original model, or its analysis.
        small: the shrunk model.
        structure: which channels live.
        samples: random inputs to run.
        seed: of these inputs.

    Raises:
        StructureError: the structure or the small model does not belong to the original.
    """
    analysis = source if isinstance(source, Analysis) else analyze(source)
    copies = np.minimum(structure.copies(analysis), 1)
    if structure.provenance.get("init") == "fresh" and (structure.copies(analysis) > 1).any():
        message = "the structure was expanded with fresh weights, which compute something new; verify the shrunk model"
        raise StructureError(message, code="verify-fresh")
    weights, _ = fold(analysis, copies, full=True)
    little = load(small)
    if little.outputs != analysis.graph.outputs or little.inputs != analysis.graph.inputs:
        message = "the small model has other inputs or outputs than the original; give the model that `shrink` wrote"
        raise StructureError(message, code="verify-model")
    models = [masked(analysis, copies), little.model, *([masked(analysis, copies, weights)] if weights else [])]
    feeds = [random_inputs(analysis.graph, np.random.default_rng((seed, n))) for n in range(samples)]
    (plain, result, *more), tolerance = run_alike(models, feeds, set(analysis.graph.dtypes.values()))
    worst = dict.fromkeys(analysis.graph.outputs, 0.0)
    moved = 0.0
    for wanted, found, bare in zip(more[0] if more else plain, result, plain, strict=True):
        for name, a, b, c in zip(analysis.graph.outputs, wanted, found, bare, strict=True):
            worst[name] = max(worst[name], relative(a, b))
            moved = max(moved, relative(a, c))
    return Verification(max(worst.values(), default=0.0), moved, worst, samples, tolerance)


def relative(a: Any, b: Any) -> float:
    """Max |a - b| / max |a|; infinite where shapes differ, values are not finite or texts not the same.

    Of sequences the largest.
    """
    if isinstance(a, list):
        return max(map(relative, a, b), default=0.0) if len(a) == len(b) else float("inf")
    if a.dtype.kind in "OSU":
        return 0.0 if np.array_equal(a, b) else float("inf")
    if a.shape != b.shape:
        return float("inf")
    if not a.size:
        return 0.0
    a, b = a.astype(np.float64), b.astype(np.float64)
    difference = float(np.abs(a - b).max())
    scale = float(np.abs(a).max())
    result = 0.0 if difference == 0 else difference / scale if scale else float("inf")
    return result if np.isfinite(result) else float("inf")


def random_inputs(graph: Graph, rng: np.random.Generator) -> dict[str, NDArray[Any]]:
    """Standard normal floats; integers and booleans are 0 or 1. Dynamic axes have the size analysis gave them."""
    feeds = {}
    for value in graph.model.graph.inputs:
        name, shape = value.name or "", graph.shapes.get(value.name or "")
        if name in graph.model.graph.initializers or value.dtype is None or shape is None:
            continue
        kind = value.dtype.numpy()
        whole = not value.dtype.is_floating_point()
        feeds[name] = (rng.integers(0, 2, shape) if whole else rng.normal(size=shape)).astype(kind)
    return feeds

"""The user's own module widened again, with weights by which it computes what it did."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch import Tensor, nn

from onnxmorph.adapters.torch_probe import Probe, followed, told
from onnxmorph.adapters.torch_resize import Hook, load_weights, resize, unwrapped
from onnxmorph.analysis import analyze
from onnxmorph.axes import Array
from onnxmorph.budget import Budget
from onnxmorph.converters.torch import export
from onnxmorph.structure import Structure
from onnxmorph.surgery.morph import Morphed, expand


def grow(
    module: nn.Module,
    example_inputs: Tensor | Sequence[Tensor],
    budget: str | Budget,
    structure: Structure | None = None,
    *,
    exact: bool = True,
    on_resize: Hook | None = None,
    **options: Any,
) -> tuple[nn.Module, Morphed]:
    """Widen the live channels of a module until the budget is full; what it does not follow keeps its width.

    Args:
        module: as trained.
        example_inputs: ``forward``'s positional tensors.
        budget: what the result may cost; shares are of the module as it stands, e.g. ``"flops=200%"``.
        structure: the channels of it that live, from `Morph`. None: all of them, as in a module that was resized and
            trained since; what it follows is tried out then.
        exact: keep the width of groups, too, that cannot grow without changing what the module computes: those that
            a LayerNorm averages over, and the width of an attention's heads.
        on_resize: see `resize`.
        options: ``round_to``, ``init`` and ``seed``, as for `onnxmorph.expand`.

    Returns:
        the wide module, and what `expand` gave: the model, its structure, and notes on where the wide one does not
        compute what the narrow one did.

    Raises:
        BudgetError: the budget is malformed or out of reach.
        ConversionError: the module cannot be exported.
        StructureError: the structure is for another module.
    """
    inputs = (example_inputs,) if isinstance(example_inputs, Tensor) else tuple(example_inputs)
    module = unwrapped(module)
    model = export(module, inputs)
    if structure is None:
        analysis = analyze(model)
        locked, sizes = followed(Probe.of(module, inputs, analysis, on_resize))
        whole: Array = np.ones(analysis.channels + 1, np.int64)
        structure = Structure.of(analysis, whole, **told(analysis, locked, sizes))
    wide = expand(model, structure, budget, exact=exact, **options)
    wider = resize(module, wide.structure, on_resize)
    load_weights(wider, wide.model)
    return wider, wide

"""What adapters share beyond `Training`: how it is set up from an exported model, and how it stands."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnxmorph import latency
from onnxmorph.analysis import Analysis, analyze
from onnxmorph.bounds import Bounds
from onnxmorph.budget import Budget
from onnxmorph.channel_map import ChannelMap
from onnxmorph.errors import BoundsError, StructureError
from onnxmorph.magnitudes import Dead, Slices
from onnxmorph.structure import Structure
from onnxmorph.training import Training

OFTEN = 10  # steps between two zeroings of weights that get no gradient
METHODS = {"proximal": "rms", "loss": "max"}  # and how several scales of one channel combine there
ORDERS = ("auto", "taylor", "magnitude")


def analysed(model: ir.Model, bounds: Bounds | None, device: str | os.PathLike[str] | None) -> Analysis:
    """The analysis of an exported model that trains; arguments and errors are those of every adapter's `Morph`."""
    if bounds is not None and bounds.round_to:
        raise BoundsError("round_to is for expand(), not for training; leave it out here", code="bounds-training")
    analysis = analyze(model, bounds=bounds)
    return analysis if device is None else analysis.with_costs(**latency.costs(analysis, latency.load(device)))


def begin(
    analysis: Analysis,
    inputs: Sequence[NDArray[Any]],
    names: Collection[str],
    trained: Collection[str],
    budget: str | Budget,
    *,
    steps: int,
    method: str,
    magnitudes: str | Mapping[str, str],
    combine: str | Mapping[str, str] | None,
    by: str = "magnitude",
    **further: Any,
) -> Training:
    """The training of a network, with every channel alive.

    Args:
        analysis: of it.
        inputs: of the analysed model, in its order.
        names: the parameters that the network has, by the names of the initializers.
        trained: those that the optimizer holds; running statistics may be among them.
        budget: and the following, as for every adapter's `Morph`, and so the errors.
        steps: planned.
        method: ``proximal`` or ``loss``.
        magnitudes: what they are made of.
        combine: how several sources of one channel combine.
        by: what says which channels go: ``taylor``, ``magnitude``, or ``auto``: taylor, but not for the published form
            nor where there are gates, whose magnitudes are made for that.
        further: as `ChannelMap.of` takes it.
    """
    if method not in METHODS:
        message = f"there is no method {method!r}; it is one of {', '.join(METHODS)}"
        raise StructureError(message, code="method")
    if by not in ORDERS:
        raise StructureError(f"channels cannot go by {by!r}; by is one of {', '.join(ORDERS)}", code="method")
    found = ChannelMap.of(
        analysis,
        [name for name in names if name in analysis.parameters],
        [name for name in trained if name in analysis.parameters and analysis.roles.get(name) != "state"],
        dict(zip(analysis.graph.inputs, inputs, strict=True)),
        magnitudes=magnitudes,
        combine={"norm": METHODS[method]} if combine is None else combine,
        **further,
    )
    shrinks = method == "proximal"
    listens = by == "taylor" or (by == "auto" and shrinks and "gate" not in found.kinds.values())
    return Training(found, Budget.parse(budget), steps, shrinks=shrinks, listens=listens)


def ungated(training: Training) -> Training:
    """The same; for adapters that have no gates. Raises StructureError where they are asked for."""
    if "gate" in training.map.kinds.values():
        raise StructureError("gates are for PyTorch; ask for 'auto', 'norm' or 'lasso'", code="magnitudes")
    return training


def mask(slices: Slices, dead: Dead) -> NDArray[np.float32]:
    """Factors that zero what is dead, ``[positions]``."""
    starts = dict(zip(slices.places, np.cumsum([0, *slices.sizes]).tolist(), strict=False))
    factors = np.ones(slices.positions, np.float32)
    for name, axis, positions in dead:
        if (name, axis) in starts:
            factors[starts[name, axis] + positions] = 0
    return factors


class Standing:
    """How a training stands.

    Attributes:
        analysis: of the exported network.
        magnitudes: group id to ``norm`` (scales of normalisation layers) ``lasso`` (all coupled slices) or ``gate``.
        reasons: group id to why that was chosen.
        locked: group id to the reason why it keeps all its channels.
        by: what says which channels go: ``taylor`` or ``magnitude``.
    """

    def __init__(self, training: Training, method: str) -> None:
        self._training, self.method, self._calls = training, method, 0
        self.analysis: Analysis = training.analysis
        self.magnitudes, self.reasons = training.map.kinds, training.map.reasons
        self.locked = training.map.locked
        self.by = "magnitude" if training.saliency is None else "taylor"

    @property
    def done(self) -> bool:
        """Whether the budget is met and all that went is silent; from then on the structure is frozen."""
        return self._training.done

    @property
    def over(self) -> bool:
        """Whether all planned steps were taken."""
        return self._training.over

    @property
    def strength(self) -> float:
        """λ: a channel loses learning rate · λ · price per step; 0 once the budget is met."""
        return self._training.control.strength

    @property
    def cost(self) -> Mapping[str, float]:
        """The costs at the live widths."""
        return self._training.cost

    @property
    def limits(self) -> Mapping[str, float]:
        """What the budget allows, by cost."""
        return self._training.control.limits

    @property
    def widths(self) -> dict[str, int]:
        """Group id to live width."""
        return self._training.widths

    def scalars(self) -> dict[str, float]:
        """What to log: step, strength, ``cost/NAME`` and ``width/GROUP``, each a number."""
        return self._training.scalars()

    def structure(self) -> Structure:
        """The live channels."""
        return self._training.structure(f"morph by {self.method}")

    def state_dict(self) -> dict[str, Any]:
        """Numbers and lists for a checkpoint, beside those of the network and the optimizer."""
        return {**self._training.state(), "calls": self._calls}

    def restored(self, state: Mapping[str, Any]) -> Dead:
        """Continue from `state_dict`; gives what has to be zeroed."""
        dead = self._training.restore(state)
        self._calls = state["calls"]
        return dead

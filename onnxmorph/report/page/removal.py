"""What a network loses as a whole: groups, the nodes that only they kept alive, and parameters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from onnxmorph.analysis import Analysis
from onnxmorph.errors import TopologyError
from onnxmorph.polynomial import Widths
from onnxmorph.surgery.topology import survey
from onnxmorph.widths import slices

WHY = {
    "empty": "none of its channels is left",
    "constant": "it says the same whatever comes in",
    "unneeded": "no output needs it any more",
}


@dataclass(frozen=True)
class Removed:
    """A node that goes, by the number of its plan: ``why`` is a key of `WHY`; the groups that made it so."""

    number: int
    why: str
    groups: tuple[str, ...]


def removed(analysis: Analysis, widths: Widths) -> list[Removed]:
    """The nodes that go where groups have the width 0; none where no group does."""
    copies = np.ones(analysis.channels + 1, np.int64)
    for own, width in zip(slices(analysis), widths, strict=True):
        copies[own] = min(width, 1)
    try:
        topology = survey(analysis, copies)
        needed = {} if topology is None else topology.needs(topology.constant)
    except TopologyError:  # a structure that nobody could apply: its groups are shown, and no node
        return []
    if topology is None:
        return []
    full = _needed(analysis)
    found = []
    for number, plan in enumerate(analysis.plans):
        outputs = [name for name in plan.node.outputs if name]
        stays = any(name in needed and name not in topology.constant for name in outputs)
        if stays or not any(name in full for name in outputs):
            continue
        for why, of in (("empty", topology.empty), ("constant", topology.constant)):
            causes = [of[name] for name in outputs if name in of]
            if causes:
                found.append(Removed(number, why, tuple(sorted(frozenset[str]().union(*causes)))))
                break
        else:
            found.append(Removed(number, "unneeded", ()))
    return found


def _needed(analysis: Analysis) -> set[str]:
    """The tensors that the outputs of the full network depend on."""
    needed = set(analysis.graph.outputs)
    for plan in reversed(analysis.plans):
        if not needed.isdisjoint(plan.node.outputs):
            needed.update(n for n in (*plan.node.inputs, *plan.node.captured) if n)
    return needed
